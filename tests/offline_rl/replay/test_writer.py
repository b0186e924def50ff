from pathlib import Path

import numpy as np
import pytest
from labelled_corpora import picture, relabelled
from relabelled_folders import one_camera, write_relabelled

from vlm_rewards.offline_rl.replay import writer
from vlm_rewards.offline_rl.replay.writer import SEGMENT, ArrayFile, WrittenReplay, write_arrays
from vlm_rewards.schemas.folders import open_finished
from vlm_rewards.schemas.relabelled import RelabelledEpisode


def write(tmp_path: Path, *parts: list[RelabelledEpisode]) -> WrittenReplay:
    source = open_finished(write_relabelled(tmp_path / "relabelled", parts), "relabelled")
    (tmp_path / "arrays").mkdir()
    return write_arrays(source, tmp_path / "arrays", camera=None, embeddings=None)


def test_an_array_grows_and_numpy_reads_it(tmp_path: Path) -> None:
    array = ArrayFile(tmp_path / "a.npy", "frame")
    array.append(np.arange(6, dtype=np.int64).reshape(2, 3))
    array.append(np.zeros((0, 3), np.int64))
    array.append(np.full((1, 3), 9))
    with pytest.raises(ValueError, match=r"every frame must be \[3\] int64 as the first, got \[4\] int64"):
        array.append(np.zeros((1, 4), np.int64))
    with pytest.raises(ValueError, match=r"every frame must be \[3\] int64 as the first, got \[3\] float32"):
        array.append(np.zeros((1, 3), np.float32))
    array.close()
    assert np.load(tmp_path / "a.npy", mmap_mode="r").tolist() == [[0, 1, 2], [3, 4, 5], [9, 9, 9]]


def test_arrays_by_hand(tmp_path: Path) -> None:
    pictures = {"main": [picture(value) for value in (7, 7, 1, 7, 2, 2)]}
    second = relabelled("b", images=pictures)
    written = write(tmp_path, [one_camera("a")], [second])

    def load(name: str) -> np.ndarray:
        return np.load(tmp_path / "arrays" / f"{name}.npy")

    assert load("observations")[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 7]  # of "b" only 7 is new
    assert load("rows").tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 1, 6, 2, 2]
    assert load("actions").tolist() == [0, 10, 20, 30, 40, 0] * 2
    assert load("rewards").tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0] * 2
    # episode, goal, kind (1 hindsight, 2 negative), start, length, first frame, first reward, terminated, rewards above 0
    rows = [(0, 0, 1, 1, 3, 1, 1, True, 1), (0, 1, 2, 0, 5, 0, 5, False, 0)]
    rows += [(1, 0, 1, 1, 3, 7, 11, True, 1), (1, 1, 2, 0, 5, 6, 15, False, 0)]
    assert load("segments").tolist() == np.array(rows, SEGMENT).tolist()
    assert not (tmp_path / "arrays" / "states.npy").exists()
    assert written == WrittenReplay(
        goal_ids=("ball", "box"),
        goal_texts=("at the ball", "at the box"),
        num_episodes=2,
        num_frames=12,
        num_observations=7,
        max_action=40,
        camera="main",
        frame_shape=(8, 8, 3),
    )


def test_memory_is_bounded_by_forgetting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_DIGESTS", 4)
    written = write(tmp_path, [one_camera("a"), one_camera("b")])
    assert written.num_observations == 12  # of 6 frames the oldest are forgotten, so they are stored again
    rows = np.load(tmp_path / "arrays" / "rows.npy")
    observations = np.load(tmp_path / "arrays" / "observations.npy")
    assert observations[rows][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5] * 2  # and are what they were


STATES = np.zeros((6, 2), np.float32)


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([[one_camera(actions=None)]], "an episode must have actions to learn from, got none in 'a'"),
        ([[one_camera(actions=np.array([0, 1, -2, 0, 0]))]], "discrete actions must be numbers from 0, got -2"),
        ([[relabelled()]], "a camera must be chosen where there are several, got main, wrist; name one"),
        (
            [[one_camera()], [relabelled("b", images={"top": [picture(0)] * 6})]],
            "every episode must have the camera of the first, 'main', got 'top'",
        ),
        ([[one_camera()], [one_camera("b", states=STATES)]], "must have a state or none must, got both"),
        ([[one_camera(states=STATES)], [one_camera("b")]], "must have a state or none must, got both"),
        (
            [[one_camera(states=STATES)], [one_camera("b", states=STATES[:, :1])]],
            r"every state must be \[2\] float32 as the first, got \[1\] float32",
        ),
        (
            [[one_camera()], [one_camera("b", actions=np.zeros((5, 2), np.float32))]],
            r"every action must be \[\] int64 as the first, got \[2\] float32",
        ),
        (
            [[one_camera(goal_texts=["at the ball", "  "])]],
            "a goal must have a text to be embedded, got '  ' for goal 'box'",
        ),
        (
            [[one_camera()], [one_camera("b", goal_texts=["at a ball", "at the box"])]],
            "a goal must have one text, got 'at the ball' and 'at a ball' for goal 'ball'",
        ),
        ([[relabelled(images={"main": [picture(0)[:40]] * 6})]], "a picture must decode in full, got 40 bytes"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_learned_from_is_refused(tmp_path: Path, episodes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        write(tmp_path, *episodes)
    assert any("relabelled" in note for note in caught.value.__notes__)  # which episode, of which part


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    from vlm_rewards.schemas.pictures import encode_png

    large = relabelled("b", images={"main": [encode_png(np.zeros((9, 8, 3), np.uint8))] * 6})
    with pytest.raises(ValueError, match=r"every frame must be \[8, 8, 3\] uint8 as the first, got \[9, 8, 3\] uint8"):
        write(tmp_path, [one_camera(), large])
