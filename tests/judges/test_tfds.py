"""TFDS judges RLDS: its writer makes the corpus, and we give the frames, actions and rewards that its reader gives."""

from pathlib import Path

import numpy as np
import pytest
from judging import judge
from labelled_corpora import holds, write_labels_of

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import decoded_frame

TFDS = "tfds-4.9.10"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one version, as TFDS wrote it."""
    return Path(judge(TFDS, "tfds_write", tmp_path_factory.mktemp("judged")).splitlines()[-1])


def test_we_give_what_tfds_gives(corpus: Path, tmp_path: Path) -> None:
    episodes = [item for item in open_corpus(corpus) if isinstance(item, Episode)]
    assert len(episodes) == 3
    for split, count in (("train", 2), ("val", 1)):
        judge(TFDS, "tfds_read", corpus, split, tmp_path / "read.npz")
        theirs = np.load(tmp_path / "read.npz")
        ours = [episode for episode in episodes if split in episode.episode_id]
        assert len(ours) == count
        assert [episode.num_frames for episode in ours] == theirs["lengths"].tolist()
        frames = [decoded_frame(frame) for episode in ours for frame in episode.images["image"]]
        assert np.array_equal(np.stack(frames), theirs["frames"])
        starts = np.cumsum([0, *theirs["lengths"]])
        for episode, start, stop in zip(ours, starts, starts[1:], strict=False):
            # By the specification the last step's action and reward are none: T+1 frames, T actions.
            assert episode.num_steps == episode.num_frames - 1
            assert episode.actions is not None
            assert episode.rewards is not None
            assert np.array_equal(episode.actions, theirs["actions"][start : stop - 1])
            assert np.array_equal(episode.rewards, theirs["rewards"][start : stop - 1])
            assert episode.instruction == theirs["instructions"][start]


def test_tfds_reads_our_rewards_and_the_same_frames(corpus: Path, tmp_path: Path) -> None:
    marks = {
        "train-00000-00000": holds(".X..X", "....."),
        "train-00000-00001": holds("..X", "XXX"),
        "val-00000-00000": holds("X.XX", "...."),
    }
    lengths = {
        episode.episode_id: episode.num_frames for episode in open_corpus(corpus) if isinstance(episode, Episode)
    }
    assert {name: len(goals) for name, goals in marks.items()} == lengths
    goals = (Goal("cup", "the cup is up"), Goal("drawer", "the drawer is open"))
    labels = write_labels_of(tmp_path / "labels", corpus, marks, goals=goals)
    export(corpus, labels, to="rlds", goal="cup", output=tmp_path / "copy")
    for split, expected in (("train", [1, 0, 0, 1, 0, 0, 1, 0]), ("val", [0, 1, 1, 0])):
        for name, folder in (("before", corpus), ("after", tmp_path / "copy")):
            judge(TFDS, "tfds_read", folder, split, tmp_path / f"{name}.npz")
        before, after = np.load(tmp_path / "before.npz"), np.load(tmp_path / "after.npz")
        assert after["rewards"].tolist() == expected
        for column in set(before) - {"rewards"}:
            assert np.array_equal(before[column], after[column]), column
