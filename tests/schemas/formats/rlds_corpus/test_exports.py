"""Rewards of hand-drawn labels in RLDS: every byte but those of steps/reward and of checksums is as it was."""

import numpy as np
import pytest
from labelled_corpora import holds, write_labels_of
from rlds_files import episode_features, group, image, serialized, tensor, write_data_set
from small_corpora import frame

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.rlds_corpus import tfrecord
from vlm_rewards.schemas.formats.rlds_corpus.examples import parse_example
from vlm_rewards.schemas.formats.rlds_corpus.tfrecord import walk_records
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import encode_png

GOALS = (Goal("cup", "the cup is up"), Goal("drawer", "the drawer is open"))
STEPS = {
    "observation": group({"image": image(8, 8, 3)}),
    "action": tensor("float32", 2),
    "reward": tensor("float32"),
    "is_last": tensor("bool"),
}


def record(seed, count, *, filler=False, **changes):
    last = np.arange(count) == count - 1
    found = {
        "steps/observation/image": [encode_png(frame(10 * seed + t)) for t in range(count)],
        "steps/action": np.ones((count, 2), np.float32) * (~last[:, None] if filler else 1),
        "steps/reward": np.full(count, 7.0, np.float32) * (~last if filler else 1),
        "steps/is_last": last,
    }
    return serialized(found | {f"steps/{name}": value for name, value in changes.items()})


def write(folder, shards, steps=STEPS):
    return write_data_set(folder / "1.0.0", episode_features(steps), {"train": shards}).parent


def rewards_in(folder):
    """The values of steps/reward by file and record, and all other bytes but checksums of data."""
    rewards, rest = [], []
    for path in sorted(folder.rglob("*.tfrecord-*")):
        data = bytearray(path.read_bytes())
        with path.open("rb") as file:
            for found in walk_records(file):
                example = parse_example(file, found.data_start, found.num_bytes)
                rewards.append(example.numbers("steps/reward").tolist())
                for offset, size in example.features["steps/reward"]:
                    data[offset : offset + size] = bytes(size)
                data[found.stop - 4 : found.stop] = bytes(4)
        rest.append(bytes(data))
    return rewards, rest


@pytest.mark.parametrize("buffered", [2**25, 0])
def test_rewards_are_spliced_into_a_copy(tmp_path, monkeypatch, buffered):
    monkeypatch.setattr(tfrecord, "_BUFFERED_BYTES", buffered)
    corpus = write(tmp_path / "corpus", [[record(0, 4), record(1, 1)], [record(2, 3)]])
    (corpus / "1.0.0" / "notes.txt").write_text("mine")
    marks = {
        "train-00000-00000": holds(".X.X", "...."),
        "train-00000-00001": holds("X", "."),
        "train-00001-00000": holds("..X", "XXX"),
    }
    labels = write_labels_of(tmp_path / "labels", corpus, marks, goals=GOALS)
    before = {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    summary = export(corpus, labels, to="rlds", goal="cup", output=tmp_path / "copy")
    assert summary.lines == ("3 records in 2 files have new rewards; all else is as it was",)
    assert {path: path.read_bytes() for path in before} == before
    rewards, rest = rewards_in(tmp_path / "copy")
    # r_t looks at frame t + 1; the last action has no frame after it, and the reward of the one before it, or 0.
    assert rewards == [[1, 0, 1, 1], [0], [0, 1, 1]]
    assert rest == rewards_in(corpus)[1]
    for name in ("features.json", "dataset_info.json", "notes.txt"):
        assert (tmp_path / "copy" / "1.0.0" / name).read_bytes() == (corpus / "1.0.0" / name).read_bytes()
    read = list(open_corpus(tmp_path / "copy"))  # with its checksums
    assert [episode.rewards.tolist() for episode in read] == rewards


def test_in_place_and_with_final_frames(tmp_path):
    corpus = write(tmp_path / "corpus", [[record(0, 4, filler=True)]])
    labels = write_labels_of(tmp_path / "labels", corpus, {"train-00000-00000": holds(".X.X", "....")}, goals=GOALS)
    export(corpus, labels, to="rlds", goal="cup", in_place=True)
    assert rewards_in(corpus)[0] == [[1, 0, 1, 0]]  # three steps, and a filler for the final frame
    (episode,) = open_corpus(corpus, {"last-action": "invalid"})
    assert episode.rewards.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("steps", "changes", "message"),
    [
        (STEPS | {"reward": tensor("int32")}, {"reward": [1, 2, 3]}, r"holds floats: got values of another kind"),
        (
            {k: v for k, v in STEPS.items() if k != "reward"},
            {"reward": []},
            r"steps/reward must have 3 values, .* got 0",
        ),
        (STEPS, {"reward": np.zeros(2, np.float32)}, r"steps/reward must have 3 values, one per step: got 2"),
    ],
)
def test_rewards_that_cannot_be_replaced_are_refused(tmp_path, steps, changes, message):
    corpus = write(tmp_path / "corpus", [[record(0, 3, **changes)]], steps)
    labels = write_labels_of(tmp_path / "labels", corpus, {"train-00000-00000": holds("..X", "...")}, goals=GOALS)
    with pytest.raises(ValueError, match=message) as error:
        export(corpus, labels, to="rlds", goal="cup", output=tmp_path / "copy")
    assert any("record 0 at byte 0 of " in note for note in error.value.__notes__)
    assert not (tmp_path / "copy").exists()


def test_scores_are_no_rewards(tmp_path):
    corpus = write(tmp_path / "corpus", [[record(0, 3)]])
    labels = write_labels_of(tmp_path / "labels", corpus, {"train-00000-00000": holds("..X", "...")}, goals=GOALS)
    with pytest.raises(ValueError, match="the export 'rlds' has no use for all_scores: got True"):
        export(corpus, labels, to="rlds", goal="cup", all_scores=True, output=tmp_path / "copy")
