"""LeRobot judges: 0.3.3 for version 2.1, 0.4.4 for version 3.0. Its writer makes the corpora, its reader reads the exports."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from judging import judge
from labelled_corpora import label_metadata, label_table

from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.lerobot_corpus.exports import CHUNK, SIDECAR
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import decoded_frame

JUDGES = {"v2.1": "lerobot-0.3.3", "v3.0": "lerobot-0.4.4"}
LENGTHS = (12, 1, 7)
GOALS = (Goal("cup", "the cup is up", instructions=("lift the cup",)), Goal("drawer", "open the drawer"))


@pytest.fixture(
    scope="module", params=[(version, kind) for version in JUDGES for kind in ("image", "video")], ids="-".join
)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A corpus of LeRobot's writer, and which judge wrote it."""
    version, kind = request.param
    folder = tmp_path_factory.mktemp("judged") / "corpus"
    judge(JUDGES[version], "lerobot_write", folder, kind)
    assert json.loads((folder / "meta" / "info.json").read_text())["codebase_version"] == version
    return JUDGES[version], folder


def write_labels(corpus: Path, folder: Path, scores: np.ndarray | None = None) -> np.ndarray:
    """Writes labels of every frame, drawn at random where none are given; returns the scores [F, G] of the corpus's F frames."""
    metadata = label_metadata(GOALS)
    opened = open_corpus(corpus)
    units = opened.units()
    if scores is None:
        scores = np.random.default_rng(0).random((sum(LENGTHS), len(GOALS)), np.float32)
    starts = dict(zip([f"episode_{k:06d}" for k in range(len(LENGTHS))], np.cumsum([0, *LENGTHS]), strict=False))
    output = OutputFolder(
        folder,
        kind="labels",
        fingerprint=metadata.fingerprint,
        settings={"max_unit_bytes": 2**28, "model": "judged/model"},
        extension="parquet",
    )
    with output.claim(units):
        for unit in units:
            rows = [
                (item.episode_id, frame, scores[starts[item.episode_id] + frame])
                for item in opened.episodes(unit, frames=False, fields=())
                if isinstance(item, Episode)
                for frame in range(item.num_frames)
            ]
            with output.writing(unit) as part:
                pq.write_table(label_table(rows, metadata), part.path)
                part.rows, part.episodes = len(rows), len({row[0] for row in rows})
        output.finish(units, max_failure_share=1.0)
    return scores


def test_our_frames_are_those_that_lerobot_gives(written: tuple[str, Path], tmp_path: Path) -> None:
    name, corpus = written
    judge(name, "lerobot_read", corpus, tmp_path / "read.npz")
    theirs = np.load(tmp_path / "read.npz")
    episodes = [item for item in open_corpus(corpus) if isinstance(item, Episode)]
    assert [item.num_frames for item in episodes] == list(LENGTHS)
    assert {*episodes[0].images} == {"front", "wrist cam"}
    ours = [decoded_frame(frame) for episode in episodes for frame in episode.images["front"]]
    assert np.array_equal(np.stack(ours), theirs["frames"])
    tasks = [episode.instruction for episode in episodes for _ in range(episode.num_frames)]
    assert tasks == theirs["tasks"].tolist()


def test_lerobot_reads_our_columns(written: tuple[str, Path], tmp_path: Path) -> None:
    name, corpus = written
    scores = write_labels(corpus, tmp_path / "labels")
    export(corpus, tmp_path / "labels", to="lerobot", goal="cup", all_scores=True, output=tmp_path / "copy")
    judge(name, "lerobot_read", tmp_path / "copy", tmp_path / "copy.npz")
    judge(name, "lerobot_read", corpus, tmp_path / "corpus.npz")
    theirs, before = np.load(tmp_path / "copy.npz"), np.load(tmp_path / "corpus.npz")
    assert np.array_equal(theirs["frames"], before["frames"])
    assert np.array_equal(theirs["vlm.scores"], scores)
    last = np.cumsum(LENGTHS) - 1
    following = np.arange(sum(LENGTHS)) + 1
    following[last] = last  # of the last row of an episode, LeRobot's writers repeat the value
    expected = (scores[following, 0] > 0.5).astype(np.float32)
    for end, length in zip(last, LENGTHS, strict=True):
        expected[end] = expected[end - 1] if length > 1 else 0
    assert np.array_equal(theirs["next.reward"].ravel(), expected)
    assert np.flatnonzero(theirs["next.done"].ravel()).tolist() == last.tolist()


def test_lerobot_reads_our_hindsight_tasks(written: tuple[str, Path], tmp_path: Path) -> None:
    name, corpus = written
    scores = np.zeros((sum(LENGTHS), len(GOALS)), np.float32)
    scores[5:, 1][:3] = 1  # episode 0 opens the drawer in frame 5, which is a task that there is
    scores[13 + 2 :, 0] = 1  # episode 2 lifts the cup in frame 2
    write_labels(corpus, tmp_path / "labels", scores)
    export(corpus, tmp_path / "labels", to="lerobot-hindsight", output=tmp_path / "copy")
    judge(name, "lerobot_read", tmp_path / "copy", tmp_path / "copy.npz")
    judge(name, "lerobot_read", corpus, tmp_path / "corpus.npz")
    theirs, before = np.load(tmp_path / "copy.npz"), np.load(tmp_path / "corpus.npz")
    assert np.array_equal(theirs["frames"], before["frames"])
    expected = ["open the drawer"] * 6 + ["lift the cup"] * 7 + ["the cup is up"] * 3 + ["open the drawer"] * 4
    assert theirs["tasks"].tolist() == expected


def test_lerobot_filters_by_our_verdicts(written: tuple[str, Path], tmp_path: Path) -> None:
    name, corpus = written
    write_labels(corpus, tmp_path / "labels")
    export(corpus, tmp_path / "labels", to="verdicts", output=tmp_path / "verdicts")
    successful = json.loads((tmp_path / "verdicts" / "successful.json").read_text())
    assert successful  # or it would filter nothing
    judge(name, "lerobot_read", corpus, tmp_path / "read.npz", tmp_path / "verdicts" / "successful.json")
    assert sorted({*np.load(tmp_path / "read.npz")["episode_index"].ravel().tolist()}) == successful


@pytest.mark.parametrize("written", [("v3.0", "image")], ids="-".join, indirect=True)  # RA-BC came with LeRobot 0.4
def test_ra_bc_weighs_by_our_sidecar(written: tuple[str, Path], tmp_path: Path) -> None:
    name, corpus = written
    scores = write_labels(corpus, tmp_path / "labels")
    summary = export(corpus, tmp_path / "labels", to="ra-bc", goal="cup", output=tmp_path / "out")
    found = json.loads(judge(name, "lerobot_weights", tmp_path / "out" / SIDECAR, len(scores), CHUNK))
    assert found["known"] == len(scores)
    ones, zeros = found["num_full_weight"] / len(scores), found["num_zero_weight"] / len(scores)
    assert f"weight 1 to {ones:.0%} of the rows and weight 0 to {zeros:.0%}" in summary.lines[1]
