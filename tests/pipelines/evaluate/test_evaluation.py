import dataclasses
import errno
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled_corpus import GOALS, THRESHOLD, Labelled, draw_episodes, write_corpus, write_labels
from sklearn.metrics import average_precision_score
from tampered_folders import fit_records

from vlm_rewards.labelers.quality.confusion import GoalRelations
from vlm_rewards.labelers.quality.figures import quality_table
from vlm_rewards.labelers.quality.rankings import average_precision_of_counts, count_scores
from vlm_rewards.labelers.rewards.rewards import successes
from vlm_rewards.pipelines.evaluate.evaluation import evaluate, run_statistics
from vlm_rewards.pipelines.evaluate.evidence import EXAMPLES_PER_GOAL, UnitEvidence, merge_evidence
from vlm_rewards.pipelines.evaluate.summary import summary_lines
from vlm_rewards.schemas import folders
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.formats.truth import truth_goals
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.rules import RewardRule

ONE_WORKER = ("--runner=FnApiRunner", "--direct_num_workers=1")


def _run(folder: Path, episodes: list[Labelled], *, sparse: bool = False, **corpus_settings) -> dict:
    corpus = write_corpus(folder / "corpus", episodes, **corpus_settings)
    labels = write_labels(folder / "labels", corpus, episodes, sparse=sparse)
    return evaluate(corpus, labels, output=folder / "report", beam_options=ONE_WORKER)


def _without_places(quality: dict) -> dict:
    """What must not depend on the sharding: all but paths, unit names and the run's statistics."""
    kept = {key: value for key, value in quality.items() if key not in ("corpus", "labels", "run")}
    return json.loads(json.dumps(kept), object_hook=lambda record: {k: v for k, v in record.items() if k != "unit"})


def test_figures_equal_scikit_learn_on_the_joined_frames(tmp_path: Path) -> None:
    episodes = draw_episodes(20)
    truth = np.concatenate([episode.truth for episode in episodes])
    scores = np.concatenate([episode.scores for episode in episodes])
    quality = _run(tmp_path, episodes)
    exact = [average_precision_score(truth[:, goal], scores[:, goal]) for goal in range(4)]
    assert [goal["average_precision"] for goal in quality["goals"]] == pytest.approx(exact, abs=1e-3)
    assert quality["families"]["see"]["mean_average_precision"] == pytest.approx(np.mean(exact[:2]), abs=1e-3)
    pooled = average_precision_score(truth[:, 2:].ravel(), scores[:, 2:].ravel())
    assert quality["families"]["hold & carry"]["pooled"]["average_precision"] == pytest.approx(pooled, abs=1e-3)
    assert quality["counts"] == {"episodes": 20, "frames": len(truth), "unlabelled_frames": 0}
    over = scores > THRESHOLD
    assert quality["overall"]["pooled"]["at_threshold"]["precision"] == (over & truth).sum() / over.sum()
    assert json.loads((tmp_path / "report" / "quality.json").read_text()) == quality
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "precision_recall.png",
        "precision_recall_goals.png",
        "quality.json",
        "report.html",
    ]


def test_quality_does_not_depend_on_shards_or_format(tmp_path: Path) -> None:
    episodes = draw_episodes(12)
    one = _run(tmp_path / "one", episodes, num_shards=1)
    seven = _run(tmp_path / "seven", episodes[::-1], num_shards=7)
    tar = _run(tmp_path / "tar", episodes, num_shards=3, format_name="webdataset")
    assert _without_places(one) == _without_places(seven) == _without_places(tar)
    labels = write_labels(tmp_path / "ranges", tmp_path / "tar" / "corpus", episodes, max_unit_bytes=20_000)
    ranges = evaluate(tmp_path / "tar" / "corpus", labels, output=tmp_path / "report", beam_options=ONE_WORKER)
    assert ranges["run"]["units"] > 3
    assert _without_places(ranges) == _without_places(one)


def test_examples_are_the_extreme_frames_one_a_goal_and_episode(tmp_path: Path) -> None:
    truth = np.zeros((4, 4), bool)
    truth[:2, 0] = truth[:2, 1] = True
    scores = np.zeros((4, 4), np.float32)
    scores[:, 0] = [0.8, 0.9, 0.7, 0.6]  # see-ball: true positives 0.8 and 0.9, false positives 0.7 and 0.6
    scores[:, 1] = [0.2, 0.3, 0.1, 0.1]  # see-box: false negatives 0.2 and 0.3
    episodes = [Labelled(name, truth, scores, range(4)) for name in ("first", "second")]
    examples = _run(tmp_path, episodes)["examples"]

    def short(kind: str) -> list[tuple]:
        return [(e["goal"], e["episode_id"], e["frame_index"], round(e["score"], 3)) for e in examples[kind]["see"]]

    # Equal scores go by episode; the second episode could only repeat the goal.
    assert short("true_positives") == [("see-ball", "first", 1, 0.9)]
    assert short("false_positives") == [("see-ball", "first", 2, 0.7)]
    assert short("false_negatives") == [("see-box", "first", 0, 0.2)]
    assert examples["true_positives"]["hold & carry"] == []


def test_the_worst_goals_come_with_their_false_positives_and_their_causes(tmp_path: Path) -> None:
    episodes = draw_episodes(30)
    for episode in episodes:
        episode.scores[:, 2] = 1 - episode.scores[:, 2]  # hold-ball says the reverse
    quality = _run(tmp_path, episodes)
    worst = quality["worst_goals"]
    assert worst["rule"].startswith("lowest average precision first")
    precisions = {row["id"]: row["average_precision"] for row in quality["goals"]}
    assert [entry["goal"] for entry in worst["goals"]] == sorted(precisions, key=lambda name: precisions[name])
    first = worst["goals"][0]
    assert first["goal"] == "hold-ball"
    assert len(first["false_positives"]) == EXAMPLES_PER_GOAL["false_positives"] == 6
    assert len(first["false_negatives"]) == 3
    by_id = {episode.episode_id: episode for episode in episodes}
    assert len({example["episode_id"] for example in first["false_positives"]}) == 6
    for example in first["false_positives"]:
        episode, frame = by_id[example["episode_id"]], example["frame_index"]
        assert not episode.truth[frame, 2]
        assert example["score"] == episode.scores[~episode.truth[:, 2], 2].max()
        is_near = episode.truth[max(frame - 3, 0) : frame + 4, 2].any()
        expected = (
            "near in time" if is_near else "another goal of the family" if episode.truth[frame, 3] else "none of these"
        )
        assert example["cause"] == expected
    # The best of each episode, and of these the six highest.
    best = sorted((episode.scores[~episode.truth[:, 2], 2].max() for episode in episodes), reverse=True)
    assert [example["score"] for example in first["false_positives"]] == best[:6]
    assert "cause" not in first["false_negatives"][0]


def test_the_instruction_chooses_the_goal_whose_order_in_time_is_measured(tmp_path: Path) -> None:
    episodes = draw_episodes(12)
    for number, episode in enumerate(episodes):
        episode.truth[:] = False
        if number % 2:
            episode.truth[-1, 1] = True  # a success of see-box in the last frame
        episode.scores[:] = np.linspace(0, 0.9, len(episode.truth))[:, None]
    instructions = ["  A box is SEEN. "] * 10 + ["do as you like"] * 2
    corpus = write_corpus(tmp_path / "corpus", episodes, instructions=instructions)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    quality = evaluate(corpus, labels, output=tmp_path / "report", beam_options=ONE_WORKER)
    row = quality["goals"][1]["value_order"]
    # Episode 11 has no goal of its own, so what it achieves counts; episode 10 achieves nothing. All scores only rise.
    assert (row["successes"]["episodes"], row["failures"]["episodes"]) == (6, 5)
    assert (row["successes"]["mean"], row["failures"]["mean"], row["difference"]) == (1, 1, 0)
    assert quality["goals"][0]["value_order"]["difference"] == "undefined: no successes"


def test_thresholds_of_goals_are_those_of_the_rule(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    rule = RewardRule(thresholds=(0.25, 0.5, 0.75, 0.9), min_frames=2, hysteresis=0.1)
    goals = [Goal("fly", "the agent flies"), *GOALS[1:]]  # the ground truth does not cover the first
    labels = write_labels(tmp_path / "labels", corpus, episodes, goals=goals, rule=rule)
    quality = evaluate(corpus, labels, output=tmp_path / "report", beam_options=ONE_WORKER)
    assert [row["threshold"] for row in quality["goals"]] == [0.5, 0.75, 0.9]
    expected = sum(int(successes(episode.scores, rule)[:, 1:].sum()) for episode in episodes)
    at_threshold = quality["overall"]["pooled"]["at_threshold"]
    assert at_threshold["true_positives"] + at_threshold["false_positives"] == expected
    assert quality["threshold"] is None


def test_constant_scores_are_stated(tmp_path: Path) -> None:
    episodes = draw_episodes(5)
    for episode in episodes:
        episode.scores[:] = 0.25
    quality = _run(tmp_path, episodes)
    assert quality["overall"]["pooled"]["epic_distance"] == {
        "score": "undefined: constant scores",
        "success": "undefined: nothing over the threshold",
    }
    figures = json.dumps([quality[name] for name in ("overall", "families", "goals", "confusion")])
    assert "NaN" not in figures
    assert "null" not in figures


def test_film_strips_show_the_episodes_with_most_goals_that_change(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    for number, goals in enumerate([(0,), (0, 1), (), (1,)]):  # goals of the family "see" that hold in some frames
        episodes[number].truth[:] = False
        episodes[number].truth[1:3, list(goals)] = True
    strips = _run(tmp_path, episodes)["film_strips"]
    assert [(strip["family"], strip["episode_id"]) for strip in strips] == [
        ("see", "episode-001"),
        ("see", "episode-000"),
    ]


def test_sparse_labels_give_the_average_precision_over_the_threshold(tmp_path: Path) -> None:
    episodes = draw_episodes(12)
    truth = np.concatenate([episode.truth for episode in episodes])
    scores = np.concatenate([episode.scores for episode in episodes])
    quality = _run(tmp_path, episodes, sparse=True)
    known = np.where(scores > THRESHOLD, scores, -np.inf)
    for goal, row in enumerate(quality["goals"]):
        counts = count_scores(known[:, goal], truth[:, goal])
        assert row["average_precision"] == pytest.approx(average_precision_of_counts(counts), abs=1e-3)
        low, high = row["average_precision_bounds"]
        assert low <= average_precision_score(truth[:, goal], scores[:, goal]) <= high
    assert quality["average_precision_covers"] == "scores over the threshold only: a lower bound"
    assert any(e["score"] is None for family in quality["examples"]["false_negatives"].values() for e in family)


def test_frames_without_a_label_are_counted(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    num_frames = sum(len(episode.truth) for episode in episodes)
    episodes[2] = dataclasses.replace(episodes[2], frames=range(1, len(episodes[2].truth)))
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = write_labels(tmp_path / "labels", corpus, [e for e in episodes if e.episode_id != "episode-004"])
    quality = evaluate(corpus, labels, output=tmp_path / "report", beam_options=ONE_WORKER)
    missing = 1 + len(episodes[4].truth)
    assert quality["counts"] == {"episodes": 5, "frames": num_frames - missing, "unlabelled_frames": missing}


@pytest.mark.parametrize("truth", ["achieved", "marks"])
def test_what_is_passed_over_is_named_but_not_the_folders_of_the_run(tmp_path: Path, truth: str) -> None:
    episodes = draw_episodes(6)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = write_labels(corpus / "labels", corpus, episodes)
    (corpus / "notes.doc").write_text("x")
    given: dict = {}
    if truth == "marks":
        marked = f"{episodes[0].episode_id},0,{GOALS[0].id},1"
        (tmp_path / "marks.csv").write_text(f"episode_id,frame_index,goal,achieved\n{marked}\n")
        given = {"marks": tmp_path / "marks.csv"}
    for _ in range(2):  # the report of the first run is not named by the second
        quality = evaluate(corpus, labels, output=corpus / "report", beam_options=ONE_WORKER, **given)
        assert [name for names in quality["passed_over"].values() for name in names] == ["notes.doc"]
    assert json.loads((corpus / "report" / "quality.json").read_text())["passed_over"] == quality["passed_over"]
    assert "  passed over (ends with .doc, which the format parquet does not read): notes.doc" in summary_lines(quality)


def test_goals_without_ground_truth_are_listed_and_left_out(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    goals = (Goal("fly", "the agent flies", "move"), GOALS[2], GOALS[0], GOALS[1])
    labels = write_labels(tmp_path / "labels", corpus, episodes, goals=goals)
    quality = evaluate(corpus, labels, output=tmp_path / "report", beam_options=ONE_WORKER)
    assert quality["goals_without_ground_truth"] == ["fly"]
    assert quality["goals_without_labels"] == ["hold-box"]
    assert "  1 labelled goals without ground truth are left out: fly" in summary_lines(quality)
    assert "  1 goals of the ground truth are not labelled: hold-box" in summary_lines(quality)
    assert [goal["id"] for goal in quality["goals"]] == ["hold-ball", "see-ball", "see-box"]
    # The scores of column 1 are those of hold-ball here, its truth that of the bank's column 2.
    truth = np.concatenate([episode.truth[:, 2] for episode in episodes])
    scores = np.concatenate([episode.scores[:, 1] for episode in episodes])
    assert quality["goals"][0]["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-3)


def test_a_second_evaluation_replaces_the_first(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    first = _run(tmp_path, episodes)
    again = evaluate(tmp_path / "corpus", tmp_path / "labels", output=tmp_path / "report", beam_options=ONE_WORKER)
    assert first == again


def test_memory_of_evidence_does_not_depend_on_the_order_of_merging(tmp_path: Path) -> None:
    episodes = draw_episodes(9)
    corpus = write_corpus(tmp_path / "corpus", episodes, num_shards=3)
    labels = open_labels(write_labels(tmp_path / "labels", corpus, episodes))
    covered = truth_goals(open_corpus(corpus))
    parts = [UnitEvidence(open_corpus(corpus), labels, GOALS, covered)(unit) for unit in open_corpus(corpus).units()]
    one, other = merge_evidence(parts), merge_evidence([parts[2], merge_evidence([parts[1], parts[0]])])
    assert (one.counts, one.examples, one.strips) == (other.counts, other.examples, other.strips)
    assert one.quality is not None
    assert other.quality is not None
    relations = GoalRelations(GOALS)
    tables = [
        quality_table(found.quality, relations, thresholds=[THRESHOLD] * len(GOALS), formula="softmax")
        for found in (one, other)
    ]
    assert tables[0] == tables[1]


def test_workers_get_the_path_of_the_labels_not_their_goals(tmp_path: Path) -> None:
    episodes = draw_episodes(3)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = open_labels(write_labels(tmp_path / "labels", corpus, episodes))
    work = UnitEvidence(open_corpus(corpus), labels, GOALS[2:], truth_goals(open_corpus(corpus)))
    packed = pickle.dumps(work)
    assert GOALS[2].text.encode() not in packed
    unit = open_corpus(corpus).units()[0]
    here, there = work(unit), pickle.loads(packed)(unit)
    assert (there.counts, there.examples, there.strips) == (here.counts, here.examples, here.strips)
    assert here.quality is not None
    assert there.quality is not None
    np.testing.assert_array_equal(there.quality.frames.keys, here.quality.frames.keys)


def test_run_statistics_add_up_the_markers(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    episodes[0] = dataclasses.replace(episodes[0], frames=range(1, len(episodes[0].truth)))
    corpus = write_corpus(tmp_path / "corpus", episodes, num_shards=3)
    run = run_statistics(write_labels(tmp_path / "labels", corpus, episodes))
    frames = sum(len(episode.frames) for episode in episodes)
    assert (run["units"], run["rows"], run["episodes"], run["failed_frames"]) == (3, frames, 6, 1)
    assert run["seconds"]["encode"] == pytest.approx(4.5)
    assert run["counts"]["cached_frames"] == 9
    assert run["failures"] == {"undecodable image": 1}
    assert run["first_failures"][0].startswith("shard-00.parquet, episode episode-000, frame 0: undecodable image")


def test_a_corpus_without_ground_truth_is_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    corpus = write_corpus(tmp_path / "corpus", episodes, with_truth=False)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    (corpus / "goals.jsonl").unlink()  # without ground truth there are no goals of it: this is the lesser trouble
    with pytest.raises(
        ValueError, match=r"must have ground truth .*, got .*/corpus without; give --truth success .* give --marks"
    ):
        evaluate(corpus, labels, output=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_shards_without_ground_truth_are_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    corpus = write_corpus(tmp_path / "corpus", episodes, num_shards=3)
    bare = write_corpus(tmp_path / "bare", episodes, num_shards=3, with_truth=False)
    for name in ("shard-01.parquet", "shard-02.parquet"):
        (bare / name).replace(corpus / name)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    with pytest.raises(
        ValueError, match=r"must have ground truth .*'episode-002'.* without; record one .*and 1 more units"
    ):
        evaluate(corpus, labels, output=tmp_path / "report", beam_options=ONE_WORKER)
    assert list((tmp_path / "report").iterdir()) == []


@pytest.mark.parametrize(
    ("shards", "goals"),
    [("parts", "parts"), ("parts", "."), ("parts/shard-00.parquet", "parts"), ("parts/shard-00.parquet", ".")],
)
def test_goals_are_found_beside_the_shards_or_their_parts(tmp_path: Path, shards: str, goals: str) -> None:
    episodes = draw_episodes(4)
    root = tmp_path / "corpus"
    root.mkdir()
    write_corpus(root / "parts", episodes, num_shards=1)
    (root / "parts" / "goals.jsonl").replace(root / goals / "goals.jsonl")
    labels = write_labels(tmp_path / "labels", root / shards, episodes)
    quality = evaluate(root / shards, labels, output=tmp_path / "report", beam_options=ONE_WORKER)
    assert [goal["id"] for goal in quality["goals"]] == [goal.id for goal in GOALS]


def test_goals_of_the_folder_above_are_not_those_of_a_corpus(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    (corpus / "goals.jsonl").replace(tmp_path / "goals.jsonl")
    with pytest.raises(FileNotFoundError, match=r"a goals file must exist, got .*/corpus/goals\.jsonl"):
        evaluate(corpus, labels, output=tmp_path / "report")


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    _run(tmp_path, draw_episodes(4))
    (tmp_path / "report" / "precision_recall.png").unlink()
    (tmp_path / "report" / "precision_recall.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        evaluate(tmp_path / "corpus", tmp_path / "labels", output=tmp_path / "report", beam_options=ONE_WORKER)
    (note,) = caught.value.__notes__
    assert note.startswith(
        f"cannot use {tmp_path / 'report'}: the disk is full. Free some space and run the same command again"
    )


@pytest.mark.parametrize("name", [".outcome.json", "quality.json", "report.html"])
def test_a_disk_that_is_full_early_or_late_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    episodes = draw_episodes(4)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    sync = folders.sync_file

    def fill(path: Path) -> tuple[str, int]:
        if path.name.startswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        return sync(path)

    monkeypatch.setattr(folders, "sync_file", fill)
    with pytest.raises((OSError, RuntimeError)) as caught:  # a runner makes a RuntimeError of what a worker raised
        evaluate(corpus, labels, output=tmp_path / "report", beam_options=ONE_WORKER)
    told = "; ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    remedy = "the disk is full. Free some space and run the same command again"
    assert told.count(f"cannot use {tmp_path / 'report' / name}: {remedy}") == 1
    assert not [path for path in (tmp_path / "report").iterdir() if path.name.startswith(name)]


def test_a_corpus_without_goals_is_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    (corpus / "goals.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"a goals file must exist, got .*goals\.jsonl"):
        evaluate(corpus, labels, output=tmp_path / "report")


def test_labels_of_other_goals_are_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(4, num_goals=1)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = write_labels(tmp_path / "labels", corpus, episodes, goals=[Goal("fly", "the agent flies")])
    with pytest.raises(ValueError, match="at least one goal that the ground truth covers, got none of 1 goals"):
        evaluate(corpus, labels, output=tmp_path / "report")


@pytest.mark.parametrize("unknown", ["episode", "frame"])
def test_labels_of_unknown_frames_are_refused(tmp_path: Path, unknown: str) -> None:
    episodes = draw_episodes(4)
    corpus = write_corpus(tmp_path / "corpus", episodes, num_shards=1)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    shorter = dataclasses.replace(episodes[1], truth=episodes[1].truth[:-1])
    others = [episodes[0], shorter, *episodes[2:]] if unknown == "frame" else [episodes[0], *episodes[2:]]
    other = write_corpus(tmp_path / "other", others, num_shards=1)
    unit, other_unit = open_corpus(corpus).units()[0], open_corpus(other).units()[0]
    frame = len(episodes[1].truth) - 1 if unknown == "frame" else 0
    with pytest.raises(
        ValueError, match=f"must be of frames that the corpus holds, got frame {frame} of episode 'episode-001'"
    ):
        UnitEvidence(open_corpus(other), open_labels(labels), GOALS, truth_goals(open_corpus(other)))(other_unit)
    assert unit.name == other_unit.name
    with pytest.raises(ValueError, match="must be of the shard they are used with"):
        evaluate(other, labels, output=tmp_path / "report")


def test_labels_of_a_larger_corpus_are_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    corpus = write_corpus(tmp_path / "corpus", episodes, num_shards=3)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    (corpus / "shard-01.parquet").unlink()
    with pytest.raises(ValueError, match=r"must be of this corpus only, got 1 parts .* the first being 'shard-01'"):
        evaluate(corpus, labels, output=tmp_path / "report")


def test_labels_without_a_single_frame_are_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = write_labels(tmp_path / "labels", corpus, episodes)
    for part in (labels / "parts").iterdir():  # empty each
        pq.write_table(pq.read_table(part).slice(0, 0), part)
    fit_records(labels)
    with pytest.raises(ValueError, match="must hold at least one frame of the corpus, got none"):
        evaluate(corpus, labels, output=tmp_path / "report", beam_options=ONE_WORKER)


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"kind": "labels"}'])
def test_an_output_that_holds_something_else_is_refused(tmp_path: Path, content: str | None) -> None:
    output = tmp_path / "report"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    if content is not None:
        (output / "quality.json").write_text(content)
    with pytest.raises(ValueError, match=r"must be empty or hold an earlier evaluation, got .* with 'notes\.txt'"):
        evaluate(tmp_path / "corpus", tmp_path / "labels", output=output)
    assert (output / "notes.txt").read_text() == "mine"


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(ValueError, match="the output must be a folder, got the file"):
        evaluate(tmp_path / "corpus", tmp_path / "labels", output=tmp_path / "report")
