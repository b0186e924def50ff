"""Exports of a small corpus whose labels are drawn by hand: X is a score of 0.9, over the threshold, "." one of 0.1."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled_corpora import GOALS, episode, holds, write_corpus, write_labels

import vlm_rewards as vr
from vlm_rewards.cli import main
from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.pipelines.export.labelled import JoinedCorpus
from vlm_rewards.schemas.formats.exports.interface import ExportSettings, require_all, smoothed
from vlm_rewards.schemas.formats.exports.registry import EXPORTS, export_format
from vlm_rewards.schemas.formats.exports.summaries import SUMMARIES
from vlm_rewards.schemas.formats.label_parts.reader import open_labels

# Goals:        ball      box       near      beside
SHARDS = [
    [
        ("a", holds("..X.X", ".....", ".....", "....."), "go to the ball"),
        ("b", holds("...", "...", "XXX", "..."), "Go to the box."),
    ],
    [
        ("c", holds("X", ".", ".", "."), "go to the ball"),
        ("d", holds("XX", "..", "..", ".."), "fetch the moon"),
        ("e", holds("XX", ".X", "..", ".."), None),
    ],
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A corpus of two shards and its labels; episode b lacks the label of one frame."""
    shards = [[episode(name, len(marks), instruction=text) for name, marks, text in shard] for shard in SHARDS]
    corpus = write_corpus(tmp_path / "corpus", shards)
    labels = [[(name, marks) for name, marks, _ in shard] for shard in SHARDS]
    write_labels(tmp_path / "labels", corpus, labels, without=[("b", 1)])
    settings = tmp_path / "labels" / "settings.json"
    record = json.loads(settings.read_text())
    record["settings"]["model"] = "reference-s"
    settings.write_text(json.dumps(record))
    return tmp_path


def joined(work: Path, goal: str | None = None) -> JoinedCorpus:
    labels = open_labels(work / "labels")
    return JoinedCorpus(*labels.open_corpus(work / "corpus"), labels, goal=goal, model="m")


def test_each_episode_has_the_goal_of_its_instruction(work: Path) -> None:
    found = joined(work)
    assert [(item.episode_id, item.goal) for item in found.episodes] == [("a", 0), ("c", 0), ("d", None), ("e", None)]
    assert found.left_out == {"b": "2 labels for 3 frames"}
    assert {item.goal for item in joined(work, "box").episodes} == {1}


def test_values_are_those_of_the_labels(work: Path) -> None:
    found = joined(work)
    values = found.values(found.episodes[0])
    assert values.goal == GOALS[0]
    assert values.scores.tolist() == pytest.approx([0.1, 0.1, 0.9, 0.1, 0.9])
    assert values.successes.tolist() == [False, False, True, False, True]
    assert values.rewards.tolist() == [0, 1, 0, 1]
    assert values.rewards.dtype == np.float32
    assert values.all_scores.shape == (5, 4)
    assert values.first_success == 2
    box = joined(work, "box")
    assert box.values(box.episodes[0]).first_success is None


@pytest.mark.parametrize(
    ("final_frame", "expected"),
    [(True, [0, 1, 0, 1]), (False, [0, 1, 0, 1, 1])],
)
def test_an_action_without_a_frame_after_it_repeats_the_reward_before(
    tmp_path: Path, final_frame: bool, expected: list[int]
) -> None:
    corpus = write_corpus(
        tmp_path / "corpus", [[episode("a", 5, final_frame=final_frame, instruction="go to the ball")]]
    )
    write_labels(tmp_path / "labels", corpus, [[("a", holds("..X.X", ".....", ".....", "....."))]])
    found = joined(tmp_path)
    assert found.values(found.episodes[0]).rewards.tolist() == expected


def test_verdicts_say_what_each_episode_did(work: Path) -> None:
    summary = export(work / "corpus", work / "labels", to="verdicts", output=work / "out")
    table = pq.read_table(work / "out" / "verdicts.parquet").to_pylist()
    rows = {row.pop("episode_id"): row for row in table}
    assert list(rows) == ["a", "c", "d", "e", "b"]
    assert rows["a"] == {
        "file": "shard-000.parquet",
        "num_frames": 5,
        "instruction": "go to the ball",
        "goal_id": "ball",
        "goal_text": "at the ball",
        "success": True,
        "success_at_end": True,
        "first_success_frame": 2,
        "success_frames": 2,
        "score_max": pytest.approx(0.9),
        "score_mean": pytest.approx(0.42),
        "score_last": pytest.approx(0.9),
        "why_none": None,
    }
    assert (rows["d"]["success"], rows["d"]["why_none"]) == (None, "its instruction asks for none of the goals")
    assert (rows["b"]["success"], rows["b"]["why_none"]) == (None, "2 labels for 3 frames")
    assert json.loads((work / "out" / "successful.json").read_text()) == ["a", "c"]
    assert summary.episodes == 2
    assert summary.lines[0].startswith("2 of 2 episodes succeeded")
    assert summary.lines[1].startswith("3 episodes have no verdict")


def test_one_goal_for_all_judges_every_episode(work: Path) -> None:
    vr.export(work / "corpus", work / "labels", to="verdicts", goal="box", output=work / "out")
    assert json.loads((work / "out" / "successful.json").read_text()) == ["e"]


def test_exports_that_fill_every_row_refuse_episodes_without_values(work: Path) -> None:
    with pytest.raises(ValueError, match=r"got 1 episodes without complete labels, the first being 'b' \(2 labels"):
        require_all(joined(work), "lerobot")
    complete = joined(work)
    complete.left_out.clear()
    with pytest.raises(
        ValueError, match=r"got 2 episodes without one, the first being 'd' with .*'fetch the moon'\. Add"
    ):
        require_all(complete, "lerobot")


def test_what_cannot_be_is_refused(work: Path, tmp_path: Path) -> None:
    corpus, labels = work / "corpus", work / "labels"
    with pytest.raises(ValueError, match=r"an export must be one of verdicts.*: got 'verdict'"):
        export(corpus, labels, to="verdict", output=tmp_path / "out")
    with pytest.raises(ValueError, match="either an output folder or in_place: got neither"):
        export(corpus, labels, to="verdicts")
    with pytest.raises(ValueError, match="either an output folder or in_place: got both"):
        export(corpus, labels, to="verdicts", output=tmp_path / "out", in_place=True)
    with pytest.raises(ValueError, match="'verdicts' makes files of its own: got in_place"):
        export(corpus, labels, to="verdicts", in_place=True)
    with pytest.raises(ValueError, match="one of the 4 goals of the labels .*: got 'moon'"):
        export(corpus, labels, to="verdicts", goal="moon", output=tmp_path / "out")
    with pytest.raises(ValueError, match="smooth must be an odd number of frames: got 2"):
        export(corpus, labels, to="verdicts", smooth=2, output=tmp_path / "out")
    with pytest.raises(ValueError, match="'verdicts' has no use for all_scores: got True"):
        export(corpus, labels, to="verdicts", all_scores=True, output=tmp_path / "out")
    with pytest.raises(ValueError, match="link is for exports that copy the corpus"):
        export(corpus, labels, to="verdicts", link=True, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_verdicts_of_sparse_labels_tell_no_scores_that_are_not_known(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 3, instruction="go to the ball")]])
    write_labels(tmp_path / "labels", corpus, [[("a", holds("..X", "...", "...", "..."))]], sparse=True)
    settings = tmp_path / "labels" / "settings.json"
    settings.write_text(settings.read_text().replace('"max_unit_bytes"', '"model": "m", "max_unit_bytes"'))
    with pytest.raises(ValueError, match="verdicts with smooth writes the score of every frame: got sparse labels"):
        export(corpus, tmp_path / "labels", to="verdicts", smooth=3, output=tmp_path / "out")
    export(corpus, tmp_path / "labels", to="verdicts", output=tmp_path / "out")
    [row] = pq.read_table(tmp_path / "out" / "verdicts.parquet").to_pylist()
    assert (row["success"], row["first_success_frame"], row["score_mean"]) == (True, 2, None)
    assert (row["score_max"], row["score_last"]) == (pytest.approx(0.9), pytest.approx(0.9))


def test_smoothing_is_a_centred_mean() -> None:
    scores = np.array([0, 3, 6, 0, 0], np.float32)
    assert smoothed(scores, 1) is scores
    assert smoothed(scores, 3).tolist() == [1.5, 3, 3, 2, 0]
    assert smoothed(scores, 9).tolist() == pytest.approx([1.8] * 5)
    both = smoothed(np.stack([scores, scores[::-1]], axis=1), 3)
    assert both[:, 1].tolist() == [0, 2, 3, 3, 1.5]
    assert ExportSettings(smooth=3).smooth == 3


def test_the_command_says_what_it_made(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"export --input {work / 'corpus'} --labels {work / 'labels'} --to verdicts"
    assert main([*words.split(), "--output", str(work / "out")]) == 0
    said = capsys.readouterr().out
    assert f"exported 2 episodes: {work / 'out'}" in said
    assert "2 of 2 episodes succeeded" in said
    assert main([*words.split(), "--output", str(work / "out")]) == 2
    assert "an export goes into a folder that is empty" in capsys.readouterr().err


def test_every_export_is_found_by_its_name() -> None:
    assert [export_format(known.name) for known in EXPORTS] == list(EXPORTS)
    assert [known.name for known in EXPORTS] == list(SUMMARIES)
    assert all(known.place in ("folder", "copy", "beside") for known in EXPORTS)
