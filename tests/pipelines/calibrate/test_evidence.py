import dataclasses
from pathlib import Path

import numpy as np
import pytest
from labelled_corpus import GOALS, Labelled, draw_episodes, write_corpus, write_labels
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.calibration.counts import rank_counts
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.calibrate.calibration import calibrate, labeler_of
from vlm_rewards.pipelines.calibrate.evidence import (
    CorpusTruth,
    CountUnit,
    LabelScores,
    NoTruth,
    merge_evidence,
)
from vlm_rewards.pipelines.evaluate.known_truth import MarkedTruth
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.formats.marks import Mark
from vlm_rewards.schemas.formats.truth import TruthGoals
from vlm_rewards.schemas.goals import Goal, write_goals

COLUMNS = {goal.id: number for number, goal in enumerate(GOALS)}
COVERED = TruthGoals(frozenset(COLUMNS), "the test")


def written(folder: Path, episodes: list[Labelled], labelled: list[Labelled] | None = None) -> tuple[Path, CountUnit]:
    corpus = write_corpus(folder / "corpus", episodes)
    labels = open_labels(write_labels(folder / "labels", corpus, labelled or episodes))
    truth = CorpusTruth(corpus=open_corpus(corpus), columns=COLUMNS, covered=COVERED, num_goals=4, camera="front")
    return corpus, CountUnit(scores=LabelScores(labels=labels), truth=truth, num_goals=4)


def test_units_add_up_to_the_corpus_in_any_order(tmp_path: Path) -> None:
    episodes = draw_episodes(9)
    corpus, work = written(tmp_path, episodes)
    parts = [work(unit) for unit in work.scores.labels.open_corpus(corpus)[1]]  # type: ignore[union-attr]
    assert len(parts) == 2
    one, other = merge_evidence(parts), merge_evidence(parts[::-1])
    assert one.counts == other.counts == {"episodes": 9, "frames": sum(len(episode.truth) for episode in episodes)}
    assert one.folds is not None
    assert other.folds is not None
    for mine, theirs in zip(one.folds, other.folds, strict=True):
        np.testing.assert_array_equal(mine.losses, theirs.losses)
        np.testing.assert_array_equal(mine.keys, theirs.keys)
    positives = sum(int(rank_counts(fold, [2]).positives.sum()) for fold in one.folds)
    assert positives == sum(int(episode.truth[:, 2].sum()) for episode in episodes)


def test_truth_by_marks_and_by_nothing() -> None:
    marks = {"a": [Mark(2, "a", 4, 1, True), Mark(3, "a", 9, 0, False)]}
    source = MarkedTruth(num_goals=2, marks=marks)
    known = source.of_episode("a", np.array([3, 4]))
    assert known is not None
    assert known.known.tolist() == [[False, False], [False, True]]
    assert known.truth.tolist() == [[False, False], [False, True]]
    assert known.lines == {2}  # frame 9 has no label
    assert source.of_episode("b", np.array([0])) is None
    nothing = NoTruth(num_goals=2).of_episode("a", np.array([0]))
    assert (nothing.truth.tolist(), nothing.known.tolist()) == ([[False, False]], [[True, True]])


def test_labels_of_other_frames_are_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    truth = np.concatenate([episodes[0].truth, episodes[0].truth])
    longer = dataclasses.replace(
        episodes[0], truth=truth, scores=np.concatenate([episodes[0].scores] * 2), frames=range(len(truth))
    )
    corpus, work = written(tmp_path, episodes, [longer, *episodes[1:]])
    unit = work.scores.labels.open_corpus(corpus)[1][0]  # type: ignore[union-attr]
    with pytest.raises(
        ValueError, match=r"labels must be of frames that the corpus holds, got frame .* of episode 'episode-000'"
    ):
        work(unit)


def test_an_episode_without_ground_truth_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", draw_episodes(2), with_truth=False)
    work = CorpusTruth(corpus=open_corpus(corpus), columns=COLUMNS, covered=COVERED, num_goals=4, camera=None)
    with pytest.raises(
        ValueError, match=r"must have ground truth .*, got episode 'episode-000' of .* without; mark some frames"
    ):
        work.of_unit(open_corpus(corpus).units()[0])


def test_labels_that_do_not_say_what_made_them_are_refused(tmp_path: Path) -> None:
    _, work = written(tmp_path, draw_episodes(4))
    assert work is not None
    with pytest.raises(
        ValueError, match=r"labels must say what made them, got .*settings.json without the entry labeler"
    ):
        labeler_of(tmp_path / "labels")


def test_a_temperature_needs_a_formula_that_has_one_and_frames_to_choose_it(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    corpus = write_corpus(tmp_path / "corpus", episodes)
    goals = tuple(
        Goal(goal.id, f"a {word}", "one") for goal, word in zip(GOALS, ("ball", "box", "key", "door"), strict=True)
    )
    write_goals(goals, corpus / "goals.jsonl")
    settings = LabelerSettings(model=str(save_tiny_clip(tmp_path / "clip")), goals=goals)
    kept = tmp_path / "embeddings"
    label(corpus, settings, output=tmp_path / "labels", embeddings=kept, workers=1)
    given = {
        "labels": tmp_path / "labels",
        "corpus": corpus,
        "output": tmp_path / "c.json",
    }
    with pytest.raises(
        ValueError, match=r"frames to choose a temperature with must be at least one, got none in the subsample"
    ):
        calibrate(**given, embeddings=kept, max_temperature_frames=0, workers=1)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"a temperature must be left out for the formula 'cosine', got 0.1; it has none"
    ):
        Labeler.build(dataclasses.replace(settings, formula="cosine", threshold=0.2)).at_temperature(0.1)
    built = Labeler.build(settings)
    hot = built.at_temperature(0.5)
    assert hot.fingerprint == Labeler.build(dataclasses.replace(settings, temperature=0.5)).fingerprint
    assert built.fingerprint != hot.fingerprint
