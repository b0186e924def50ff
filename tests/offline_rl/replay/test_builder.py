import dataclasses
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from labelled_corpora import picture
from relabelled_folders import GOALS, LABELS, one_camera, write_embeddings, write_relabelled
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.scoring.prompts import DEFAULT_TEMPLATES, fill_templates
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.replay.builder import build_replay, embed_goals
from vlm_rewards.offline_rl.replay.replay import ReplayData
from vlm_rewards.pipelines.hindsight.relabelling import hindsight
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal

VECTORS = np.eye(6, dtype=np.float32)[:, :4] + np.float32(0.5)
"""Embeddings of the six frames of an episode; those of the last two are equal."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_relabelled(tmp_path / "relabelled", [[one_camera("a")], [one_camera("b")]])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_same(left: ReplayData, right: ReplayData) -> None:
    assert len(left) == len(right)
    every = np.arange(len(left))
    for one, other in zip(left.gather(every), right.gather(every), strict=True):
        assert one is other is None or (one is not None and other is not None and np.array_equal(one, other))


def test_a_replay_is_built_once(source: Path, tmp_path: Path) -> None:
    first = build_replay(source, tmp_path / "made" / "replay", goals=GOALS)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "made" / "replay").iterdir()}
    assert_same(first, build_replay(source, tmp_path / "made" / "replay", goals=GOALS))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "made" / "replay").iterdir()} == files
    assert names(tmp_path / "made") == {"replay"}


def test_processes_that_need_the_same_replay_build_one(source: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        replays = list(pool.map(lambda _: build_replay(source, tmp_path / "made" / "replay", goals=GOALS), range(4)))
    for replay in replays[1:]:
        assert_same(replays[0], replay)
    assert names(tmp_path / "made") == {"replay"}


def test_what_a_killed_build_left_is_removed(source: Path, tmp_path: Path) -> None:
    (tmp_path / ".replay.building").mkdir()
    (tmp_path / ".replay.building" / "observations.npy").write_bytes(b"half")
    assert len(build_replay(source, tmp_path / "replay", goals=GOALS)) == 16
    assert not (tmp_path / ".replay.building").exists()


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    bad = write_relabelled(tmp_path / "relabelled", [[one_camera("a")], [one_camera("b", actions=None)]])
    with pytest.raises(ValueError, match="an episode must have actions to learn from, got none in 'b'") as caught:
        build_replay(bad, tmp_path / "replay", goals=GOALS)
    assert "in episode 'b' of" in caught.value.__notes__[0]
    assert names(tmp_path) == {"relabelled"}


def test_a_replay_of_another_making_is_refused(source: Path, tmp_path: Path) -> None:
    build_replay(source, tmp_path / "replay", goals=GOALS)
    other = write_relabelled(tmp_path / "other", [[one_camera("a")]], labels={**LABELS, "threshold": 0.7})
    with pytest.raises(
        ValueError, match=r"the replay .* got other relabelled, relabelled_digest .*remove this one to build"
    ):
        build_replay(other, tmp_path / "replay", goals=GOALS)
    swapped = dataclasses.replace(GOALS, texts=("at a box", "at the ball"))
    with pytest.raises(ValueError, match="got other goals "):
        build_replay(source, tmp_path / "replay", goals=swapped)


def test_a_folder_with_other_files_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    build_replay(source, tmp_path / "mine", goals=GOALS)  # it was empty
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("mine")
    with pytest.raises(
        ValueError, match="the folder of a replay must be empty or hold a finished replay, got .*thesis"
    ):
        build_replay(source, tmp_path / "thesis", goals=GOALS)
    assert names(tmp_path / "thesis") == {"draft.txt"}


def test_both_containers_give_the_same_replay(source: Path, tmp_path: Path) -> None:
    tars = write_relabelled(tmp_path / "tars", [[one_camera("a")], [one_camera("b")]], "webdataset")
    one = build_replay(source, tmp_path / "one", goals=GOALS)
    other = build_replay(tars, tmp_path / "other", goals=GOALS)
    assert_same(one, other)
    for path in (tmp_path / "one").glob("*.npy"):
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_goals_that_are_missing_are_refused(source: Path, tmp_path: Path) -> None:
    one = dataclasses.replace(GOALS, ids=("box",), texts=("at the box",), embeddings=GOALS.embeddings[:1])
    with pytest.raises(
        ValueError, match="goals must hold every goal .* got None for goal 'ball', which is 'at the ball' there"
    ):
        build_replay(source, tmp_path / "replay", goals=one)


def test_a_source_without_episodes_is_refused(tmp_path: Path) -> None:
    empty = write_relabelled(tmp_path / "relabelled", [[]])
    with pytest.raises(ValueError, match="relabelled trajectories must hold an episode, got none"):
        build_replay(empty, tmp_path / "replay", goals=GOALS)


def test_kept_embeddings_take_the_place_of_frames(source: Path, tmp_path: Path) -> None:
    # "left-out" was labelled, and no goal was found for it
    kept = write_embeddings(tmp_path / "kept", [[("left-out", VECTORS), ("a", VECTORS)], [("b", VECTORS)]])
    replay = build_replay(source, tmp_path / "replay", goals=GOALS, embeddings=kept)
    assert (replay.spaces.observation, replay.spaces.observation_shape) == ("embeddings", (4,))
    batch = replay.gather(np.array([0, 1, 2]))  # steps 1, 2, 3 of "a"
    assert np.array_equal(batch.observations, VECTORS[1:4])
    assert np.array_equal(batch.next_observations, VECTORS[2:5])
    assert replay.statistics["distinct_observations"] == 5
    assert replay.fingerprint.parts["camera"] == replay.camera == "main"
    assert replay.frame_shape == (8, 8, 3)  # of the pictures that the embeddings are of


def test_states_can_be_left_out(tmp_path: Path) -> None:
    states = np.arange(12, dtype=np.float32).reshape(6, 2)
    source = write_relabelled(tmp_path / "relabelled", [[one_camera("a", states=states)]])
    given = build_replay(source, tmp_path / "replay", goals=GOALS)
    left_out = pickle.loads(pickle.dumps(build_replay(source, tmp_path / "replay", goals=GOALS, use_states=False)))
    assert (given.spaces.state_size, left_out.spaces.state_size) == (2, None)
    assert given.gather(np.array([0])).states.tolist() == [[2, 3]]  # the segment begins with step 1
    assert left_out.gather(np.array([0])).states is left_out.gather(np.array([0])).next_states is None
    assert left_out.segment(0).states is None


def test_a_replay_of_before_camera_and_shape_were_recorded_still_opens(source: Path, tmp_path: Path) -> None:
    kept = write_embeddings(tmp_path / "kept", [[("a", VECTORS)], [("b", VECTORS)]])
    for name, embeddings, shape in (("seen", None, (8, 8, 3)), ("embedded", kept, None)):
        folder = tmp_path / name
        build_replay(source, folder, goals=GOALS, embeddings=embeddings)
        meta = json.loads((folder / "meta.json").read_text())
        del meta["written"]["camera"], meta["written"]["frame_shape"], meta["files"], meta["digest"]
        (folder / "meta.json").write_text(json.dumps(meta))
        replay = build_replay(source, folder, goals=GOALS, embeddings=embeddings)
        assert (replay.camera, replay.frame_shape) == (None, shape)  # frames tell their shape, embeddings do not


def test_embeddings_that_do_not_fit_are_refused(source: Path, tmp_path: Path) -> None:
    def build(*parts: list, camera: str | None = None, weights: str = "sha256:1") -> None:
        folder = tmp_path / f"kept-{len(names(tmp_path))}"
        kept = write_embeddings(folder, parts, {"weights": weights, "camera": "main"})
        build_replay(source, tmp_path / "replay", goals=GOALS, embeddings=kept, camera=camera)

    a, b = [("a", VECTORS)], [("b", VECTORS)]
    with pytest.raises(
        ValueError, match=r"the kept embeddings .* got other weights .*sha256:2.*; give the embeddings that these"
    ):
        build(a, b, weights="sha256:2")
    with pytest.raises(ValueError, match="the camera must be that of the kept embeddings, 'main', got 'wrist'"):
        build(a, b, camera="wrist")
    with pytest.raises(ValueError, match="must have a part for every part .* got none named 'shard-1'"):
        build(a)
    with pytest.raises(
        ValueError, match="must have every relabelled episode, in the order of the corpus, got none of 'b'"
    ):
        build(a, [("c", VECTORS)])
    with pytest.raises(ValueError, match="must have a row for every frame, got 5 for 6 frames"):
        build(a, [("b", VECTORS[:5])])
    with pytest.raises(ValueError, match=r"every embedding must be \[4\] float32 as the first, got \[3\] float32"):
        build(a, [("b", VECTORS[:, :3])])
    with pytest.raises(
        ValueError, match="embeddings must be a folder that vlm-rewards wrote, got .*nothing, which is not there"
    ):
        build_replay(source, tmp_path / "replay", goals=GOALS, embeddings=tmp_path / "nothing")


def test_from_a_corpus_to_a_replay(tmp_path: Path) -> None:
    """record -> label (a real CLIP, embeddings kept) -> hindsight -> replay; the replay's rewards are the labeler's."""
    rng = np.random.default_rng(0)
    shards = [
        [
            Episode(
                episode_id=f"episode-{shard}-{number}",
                images={"main": [picture(int(value)) for value in rng.integers(0, 256, 7)]},
                actions=rng.integers(0, 7, 6),
            )
            for number in range(3)
        ]
        for shard in range(2)
    ]
    (tmp_path / "corpus").mkdir()
    for number, episodes in enumerate(shards):
        features = CorpusFeatures(cameras=("main",), has_rewards=False, has_instruction=False)
        write_episodes(tmp_path / "corpus" / f"shard-{number}.parquet", features, episodes, "parquet")
    goals = tuple(Goal(id=colour, text=f"a {colour} ball") for colour in ("red", "green", "blue", "grey"))
    settings = LabelerSettings(
        model=str(save_tiny_clip(tmp_path / "clip")), goals=goals, temperature=0.01, threshold=0.3, precision="float32"
    )
    label(tmp_path / "corpus", settings, output=tmp_path / "labels", embeddings=tmp_path / "kept", workers=1)
    labeler = Labeler.build(settings)
    for container in ("parquet", "webdataset"):
        hindsight(tmp_path / "corpus", tmp_path / "labels", output=tmp_path / container, format=container, workers=1)
        frames = build_replay(tmp_path / container, tmp_path / f"{container}-frames", goals=labeler.encoder)
        vectors = build_replay(
            tmp_path / container, tmp_path / f"{container}-kept", goals=labeler.encoder, embeddings=tmp_path / "kept"
        )
        assert len(frames) == len(vectors) > 20
        every = np.arange(len(frames))
        seen, kept = frames.gather(every), vectors.gather(every)
        for one, other in ((seen.actions, kept.actions), (seen.rewards, kept.rewards), (seen.masks, kept.masks)):
            assert np.array_equal(one, other)
        numbers = np.repeat(np.arange(len(frames.segments)), frames.segments["length"])
        columns = [[goal.id for goal in goals].index(frames.goals.ids[g]) for g in frames.segments["goal"][numbers]]
        for scores in (labeler(seen.next_observations.numpy()), labeler.score(kept.next_observations.numpy())):
            expected = scores[every, columns] > labeler.rule.thresholds[0]
            assert np.array_equal(seen.rewards.numpy(), expected)
        assert frames.labels_fingerprint.subset(tuple(labeler.fingerprint.parts)) == labeler.fingerprint
        prompts = [prompt for text in frames.goals.texts for prompt in fill_templates(DEFAULT_TEMPLATES, text)]
        assert np.array_equal(frames.goals.embeddings, labeler.encoder.embed_texts(prompts))  # one template: no mean
        assert frames.spaces.goal_size == labeler.dim
    assert embed_goals(labeler.encoder, ["x"], ["a key"]).embeddings.shape == (1, labeler.dim)
