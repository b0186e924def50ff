"""Chooses the temperature and one threshold per goal, and writes them to the file that `label --calibration` takes.

    [kept embeddings ──► log losses of a subsample at many temperatures ──► the best one]
                                                                               │
    Create(units) ──► Reshuffle ──► count scores against truth ──► merge ──► thresholds ──► calibration.json
                                    (labels, or embeddings scored again)

Nothing that is written depends on the sharding: units yield whole numbers that add up, and figures are made of the sums.
"""

import dataclasses
import functools
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from vlm_rewards.labelers.calibration.counts import NEVER, CalibrationCounts, merge_counts, outcomes_at
from vlm_rewards.labelers.calibration.risk_bounds import num_episodes_needed
from vlm_rewards.labelers.calibration.settings import CalibrationSettings
from vlm_rewards.labelers.calibration.thresholds import (
    ChosenThresholds,
    GoalThreshold,
    OperatingPoint,
    choose_thresholds,
)
from vlm_rewards.labelers.calibration.worth import (
    calibration_quality,
    held_out_outcomes,
    is_no_worse,
)
from vlm_rewards.labelers.provenance import Provenance
from vlm_rewards.labelers.quality.agreement import UNDEFINED
from vlm_rewards.labelers.settings import LabelerSettings, settings_from_json
from vlm_rewards.pipelines.calibrate.evidence import (
    EPISODES_BY_REWARDS,
    REWARDED_EPISODES,
    CorpusTruth,
    CountUnit,
    EmbeddingScores,
    Evidence,
    LabelScores,
    NoTruth,
    merge_evidence,
)
from vlm_rewards.pipelines.calibrate.settings import CalibrateKeywords, CalibrateRun
from vlm_rewards.pipelines.calibrate.temperature import choose_temperature, temperature_of
from vlm_rewards.pipelines.engine.gathering import gather_evidence
from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.pipelines.engine.packed import raise_refusals
from vlm_rewards.pipelines.evaluate.evaluation import check_parts
from vlm_rewards.pipelines.evaluate.known_pairs import nothing_known, number_of_goal
from vlm_rewards.pipelines.evaluate.known_truth import TruthSource, marked_truth
from vlm_rewards.pipelines.evaluate.recorded_success import RecordedTruth
from vlm_rewards.pipelines.evaluate.settings import SUCCESS
from vlm_rewards.pipelines.label.shared_labelers import one_run, shared_labeler
from vlm_rewards.schemas.calibrations import Calibration, compared_parts, read_calibration
from vlm_rewards.schemas.files.remote_paths import Location, local_path, location_of
from vlm_rewards.schemas.files.unit_files import read_all_markers
from vlm_rewards.schemas.fingerprints import READING_PARTS, Fingerprint
from vlm_rewards.schemas.folders import read_manifest, read_settings, write_atomically
from vlm_rewards.schemas.formats.label_parts.reader import Labels, open_labels
from vlm_rewards.schemas.formats.marks import Mark, check_marks, read_marks
from vlm_rewards.schemas.formats.passed_over import passed_over_beside
from vlm_rewards.schemas.formats.truth import truth_goals
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Unit
from vlm_rewards.schemas.options import build_settings, shows_settings


@shows_settings(CalibrationSettings, CalibrateRun)
def calibrate(labels: str | Path, *, output: str | Path, **settings: Unpack[CalibrateKeywords]) -> Calibration:
    """Chooses the temperature and one threshold per goal from labels and what is known to be true.

    Thresholds judge each frame by its score alone, whatever hysteresis and minimum duration the labels' rule has.

    The temperature is chosen where embeddings are given: it is the one with the lowest balanced log loss, see
    `labelers.calibration.worth`, on a subsample of episodes drawn by their ids. For "fpr" these are at most half of the episodes,
    and the others choose the thresholds: the bound needs scores that do not depend on them.

    Args:
        labels: Finished, dense folder of labels (sparse with `embeddings`).
        output: File to write; absent, or an earlier calibration for the same objective.
        settings: Fields of `CalibrationSettings`, what thresholds are chosen for, and of `CalibrateRun`, what from.

    Returns:
        The calibration that the file holds.

    Raises:
        ValueError: Labels, truth, embeddings and settings do not go together, a score is not finite, or no goal could ever fire.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.calibrate("labels/", corpus="corpus/", output="calibration.json")
        Calibration(342 goals, thresholds ... to ..., temperature ...)
    """
    what, given = build_settings(settings, CalibrationSettings, CalibrateRun)
    with one_run():
        return _calibrate(labels, local_path(output, "a calibration"), what, given)


def _calibrate(labels: str | Path, output: Path, what: CalibrationSettings, given: CalibrateRun) -> Calibration:
    marks, embeddings = given.marks, given.embeddings
    opened = open_labels(labels)
    _check_output(output, what)
    goals = opened.metadata.goals
    units, truth, listed = _truth(opened, what, given)
    run = functools.partial(_gather, output=output, beam_options=given.beam_options, workers=given.workers)
    rescored = None if embeddings is None else _rescored(opened, location_of(embeddings), units)
    if opened.metadata.sparse and rescored is None:
        raise ValueError(
            f"labels to calibrate with must be dense, got sparse ones in {opened.folder}; label again without --sparse, or give "
            f"--embeddings"
        )
    # A bound holds for scores that were fixed before its episodes were drawn: those that chose the temperature are left out.
    share = min(0.5 if what.objective == "fpr" else 1.0, given.max_temperature_frames / max(_num_rows(opened), 1))
    temperature, search = choose_temperature(opened, what, rescored, truth, units, share, run)
    held_back = share if what.objective == "fpr" and "tried" in search else 0.0

    def counted(scores: LabelScores | EmbeddingScores) -> Evidence:
        return run(units, CountUnit(scores=scores, truth=truth, num_goals=len(goals), held_back=held_back))

    own: LabelScores | EmbeddingScores = LabelScores(labels=opened)
    if opened.metadata.sparse and rescored is not None:
        own = rescored
    before = evidence = counted(own)
    if rescored is not None and search.get("before", temperature) != temperature:
        at_temperature = dataclasses.replace(rescored.labeler, temperature=temperature)
        evidence = counted(dataclasses.replace(rescored, labeler=at_temperature))
    if marks is not None:
        check_marks(listed, marks, set(evidence.found_episodes), set(evidence.found_lines))
    if isinstance(truth, RecordedTruth):
        _check_recorded(opened, evidence)
    if not evidence.counts.get("frames"):
        raise ValueError(
            f"labels to calibrate with must hold at least one frame, got none in {opened.folder}; label again"
        )
    assert evidence.folds is not None
    data: dict[str, object] = {"truth": _source(given), **evidence.counts}
    if isinstance(truth, RecordedTruth):
        data["unknown_episodes"] = dict(evidence.unknown)
    if isinstance(truth, CorpusTruth):
        data["goals_without_ground_truth"] = [goal.id for goal in goals if goal.id not in truth.columns]
        used = [output, opened.folder, *([] if rescored is None else [rescored.folder.path])]
        data["passed_over"] = passed_over_beside(truth.corpus.passed_over, truth.corpus.folder, used)
    calibration = _calibration(opened, what, evidence, before, temperature, search, data)
    write_atomically(output, json.dumps(calibration.to_json(), indent=1, allow_nan=False) + "\n")
    return calibration


def _num_rows(labels: Labels) -> int:
    return int(read_manifest(labels.folder, "labels")["rows"])


def _source(given: CalibrateRun) -> str:
    if given.corpus is None:
        return "marks" if given.marks is not None else "none"
    return "success by the recording" if given.truth == SUCCESS else "ground truth of the corpus"


def _check_recorded(labels: Labels, evidence: Evidence) -> None:
    """Refuses a recording that says nothing: rewards that are 0 in every step of the corpus were not filled in.

    Raises:
        ValueError: It does.
    """
    told = evidence.counts.get(EPISODES_BY_REWARDS, 0)
    if told and not evidence.counts[REWARDED_EPISODES]:
        raise ValueError(
            f"rewards that tell success must be over 0 in some step: got 0 in every step of {told} episodes. Mark some frames and "
            "give --marks"
        )
    if not evidence.counts.get("frames"):
        raise nothing_known(labels, evidence.unknown, "calibrate with")


def _check_output(output: Path, settings: CalibrationSettings) -> None:
    if not output.exists():
        return
    try:
        there = read_calibration(output).objective
    except ValueError as error:
        raise ValueError(
            f"the output must be a new file or an earlier calibration, got {output}, which is neither; give another path"
        ) from error
    own = settings.to_json()
    for name in ("objective", "precision", "level", "confidence", "quantile"):
        if there.get(name) != own.get(name):
            raise ValueError(
                f"the output must be a new file or an earlier calibration for the same objective, got {output} with {name} "
                f"{there.get(name)!r}, not {own.get(name)!r}. Give another path, or remove the file"
            )


def _truth(
    labels: Labels, settings: CalibrationSettings, told: CalibrateRun
) -> tuple[list[Unit], TruthSource, list[Mark]]:
    """Returns the units of the labels, the source of truth, and the marks."""
    corpus, marks = told.corpus, told.marks
    goals = labels.metadata.goals
    if told.truth == SUCCESS and corpus is None:
        raise ValueError(f"the truth {SUCCESS!r} is that of a corpus: got none. Give --input")
    if corpus is not None and marks is not None:
        raise ValueError(
            f"truth must come from a corpus or from marks, got both, {corpus} and {marks}; leave one of them out"
        )
    given = corpus is not None or marks is not None
    if settings.objective == "quantile" and given:
        raise ValueError(
            f"truth must be left out for the objective 'quantile', got {corpus or marks}; choose another objective, or leave it out"
        )
    if settings.objective != "quantile" and not given:
        raise ValueError(
            f"truth must be given for the objective {settings.objective!r}, got none; give --input or --marks, or choose quantile"
        )
    if corpus is None:
        units = [marker.unit for marker in read_all_markers(labels.folder)]
        if marks is None:
            return units, NoTruth(num_goals=len(goals)), []
        listed = read_marks(marks, [goal.id for goal in goals])
        return units, marked_truth(listed, len(goals)), listed
    source, units = labels.open_corpus(corpus)
    check_parts(labels, source, units)
    camera = labels.metadata.fingerprint.parts.get("camera")
    camera_name = None if camera is None else str(camera)
    if told.truth == SUCCESS:
        number = None if told.goal is None else number_of_goal(told.goal, labels)
        return units, RecordedTruth(corpus=source, goals=tuple(goals), goal=number, camera=camera_name), []
    if not source.features.has_achieved_goals:
        raise ValueError(
            f"a corpus to calibrate with must have ground truth (the column achieved_goals), got {corpus} without; give --truth "
            f"{SUCCESS} where the recording tells success or rewards, or mark some frames and give --marks instead"
        )
    covered = truth_goals(source)
    columns = {goal.id: number for number, goal in enumerate(goals) if goal.id in covered.ids}
    if not columns:
        raise ValueError(
            f"labels must be of at least one goal that the ground truth covers, got none of {len(goals)} goals in "
            f"{covered.where}; label with goals that it lists, by their ids"
        )
    truth = CorpusTruth(
        corpus=source,
        columns=columns,
        covered=covered,
        num_goals=len(goals),
        camera=camera_name,
    )
    return units, truth, []


def labeler_of(labels: str | Location) -> LabelerSettings:
    """Returns the labeler settings that labels were made with.

    Raises:
        ValueError: The labels do not say.
    """
    folder = location_of(labels)
    record = read_settings(folder)["settings"].get("labeler")
    if record is None:
        raise ValueError(
            f"labels must say what made them, got {folder / 'settings.json'} without the entry labeler; label again"
        )
    return settings_from_json(record)


def _rescored(labels: Labels, folder: Location, units: Sequence[Unit]) -> EmbeddingScores:
    """Returns the kept embeddings of the labels, with their labeler."""
    manifest = read_manifest(folder, "embeddings")
    parts = labels.metadata.fingerprint.parts
    own = Fingerprint(manifest["fingerprint"])
    # How the labels' corpus was read must be how that of the embeddings was; embeddings are never sparse.
    read_as = {name: parts[name] for name in READING_PARTS if name in parts}
    of_images = {name: parts.get(name) for name in own.parts}
    expected = Fingerprint({**of_images, **{name: read_as[name] for name in read_as if name != "sparse"}})
    remedy = "give the embeddings that were kept when these labels were made"
    own.check_equal(expected, f"the embeddings {folder}", remedy)
    kept = OutputFolder(folder, kind="embeddings", fingerprint=expected, settings={}, extension="parquet")
    missing = [unit.name for unit in kept.to_do(units)]
    if missing:
        raise ValueError(
            f"embeddings must hold every unit of the labels, got {folder} without {len(missing)} of {len(units)}, the first being "
            f"{missing[0]!r}; {remedy}"
        )
    settings = labeler_of(labels.folder)
    labeler = shared_labeler(settings).labeler
    Fingerprint(dict(parts)).check_equal(
        Fingerprint({**labeler.fingerprint.parts, **read_as}),
        f"the labels {labels.folder}",
        "label again: the model or this program has changed since",
    )
    return EmbeddingScores(folder=kept, labeler=labeler.settings, provenance=Provenance.of(labeler))


def _gather(
    units: Sequence[Unit],
    work: Callable[[Unit], Evidence],
    *,
    output: Path,
    beam_options: Sequence[str],
    workers: int | None,
) -> Evidence:
    """Runs the work on every unit and returns the merged evidence."""
    output.parent.mkdir(parents=True, exist_ok=True)
    outcome = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    evidence = gather_evidence(
        units, work, Evidence, merge_evidence, outcome, beam_options=beam_options, workers=workers
    )
    raise_refusals(evidence.refusals)
    return evidence


def _calibration(
    labels: Labels,
    settings: CalibrationSettings,
    evidence: Evidence,
    before: Evidence,
    temperature: float | None,
    search: dict[str, object],
    data: dict[str, object],
) -> Calibration:
    goals, folds = labels.metadata.goals, evidence.folds
    assert folds is not None
    counts = merge_counts(folds)
    if settings.objective in ("f1", "precision") and not counts.positives.any():
        raise ValueError(
            f"{UNDEFINED}: some goal must hold in some frame to calibrate for {settings.objective}, got none in "
            f"{evidence.counts['frames']} frames; give frames that show goals achieved, or choose fpr or quantile"
        )
    assert before.folds is not None
    labels_point = OperatingPoint(before.folds, labels.metadata.rule.thresholds)
    chosen = choose_thresholds(folds, goals, settings, labels_point)
    if all(goal.threshold == NEVER for goal in chosen.goals):
        raise ValueError(
            f"some goal must be able to fire after calibration, got none of {len(goals)}, {goals[0].id!r} because "
            f"{chosen.goals[0].reason}; {_remedy(settings, search)}"
        )
    if settings.objective == "f1" and not is_no_worse(
        held_out_outcomes(folds, goals, settings, labels_point), labels_point.outcomes()
    ):
        chosen, folds, temperature = _as_labelled(labels_point), before.folds, temperature_of(labels)
        counts = merge_counts(folds)
        if "tried" in search:
            search = {**search, "outcome": "kept: the thresholds chosen with another were no better held out"}
    has_truth = settings.objective != "quantile"
    rates = outcomes_at(counts, chosen.thresholds).false_positive_rates
    return Calibration(
        goals=tuple(goal.id for goal in goals),
        labeler=compared_parts(labels.metadata.fingerprint),
        thresholds=tuple(chosen.thresholds),
        temperature=temperature,
        fire_rates=tuple(None if math.isnan(rate) or not has_truth else float(rate) for rate in rates),
        objective=_objective(settings, chosen),
        data=data,
        temperature_search=search,
        quality=calibration_quality(folds, goals, settings, chosen, labels_point) if has_truth else {},
        details=_details(counts, goals, chosen, has_truth),
    )


def _as_labelled(before: OperatingPoint) -> ChosenThresholds:
    """Returns the thresholds of the labels, for use where the chosen ones did worse on held-out episodes."""
    reason = "those chosen were worse on episodes that had not chosen them"
    return ChosenThresholds([GoalThreshold(threshold, "labels", reason) for threshold in before.thresholds], None)


def _objective(settings: CalibrationSettings, chosen: ChosenThresholds) -> dict[str, object]:
    record = settings.to_json()
    if chosen.strength is not None:
        record["family_strength"] = "family alone" if chosen.strength == math.inf else chosen.strength
    if settings.objective == "fpr":
        assert settings.level is not None
        assert settings.confidence is not None
        record["episodes_needed"] = num_episodes_needed(settings.level, settings.confidence)
        record["holds"] = (
            f"for each goal by itself, with probability {settings.confidence:g} over the draw of the calibration episodes: a frame "
            f"drawn by drawing an episode, then one of its frames in which the goal does not hold, fires with probability at most "
            f"{settings.level:g}"
        )
    if settings.objective == "precision":
        record["holds"] = "on the calibration data: an estimate, not a bound"
    return record


def _remedy(settings: CalibrationSettings, search: Mapping[str, object]) -> str:
    if settings.objective == "fpr" and "tried" in search:
        return (
            f"{search['episodes']} other episodes chose the temperature: leave --embeddings out to count them, too, give more "
            f"episodes, raise --level, or lower --confidence"
        )
    if settings.objective == "fpr":
        return "give more episodes, raise --level, or lower --confidence"
    return "look at the labels' scores, or choose another objective"


def _details(
    counts: CalibrationCounts, goals: Sequence[Goal], chosen: ChosenThresholds, has_truth: bool
) -> list[dict[str, object]]:
    outcomes = outcomes_at(counts, chosen.thresholds)

    def number(value: float | np.floating) -> float | None:
        return None if math.isnan(value) else float(value)

    details = []
    for index, (goal, threshold) in enumerate(zip(goals, chosen.goals, strict=True)):
        detail: dict[str, object] = {
            "id": goal.id,
            "family": goal.family,
            "threshold": "never fires" if threshold.threshold == NEVER else threshold.threshold,
            "chosen_from": threshold.chosen_from,
            "reason": threshold.reason,
        }
        if has_truth:
            hits, false = int(outcomes.true_positives[index]), int(outcomes.false_positives[index])
            positives = int(outcomes.positives[index])
            detail |= {
                "positives": positives,
                "negatives": int(outcomes.negatives[index]),
                "positive_episodes": int(counts.positive_episodes[index]),
                "negative_episodes": int(counts.negative_episodes[index]),
                "precision": hits / (hits + false) if hits + false else None,
                "recall": hits / positives if positives else UNDEFINED,
                "f1": float(outcomes.f1[index]) if positives else UNDEFINED,
                "false_positive_rate": number(outcomes.false_positive_rates[index]),
                "false_positive_rate_by_episode": number(outcomes.mean_losses[index]),
            }
        details.append(detail)
    return details
