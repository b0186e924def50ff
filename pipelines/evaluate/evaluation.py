"""Measures labels against the ground truth of their corpus, and writes quality.json, pictures and a report.

    Create(units) ──► Reshuffle ──► join labels and truth of a unit ──► merge ──► outcome ──► quality.json, report.html
                                    by (episode_id, frame_index)        sums

What a unit yields is `pipelines.evaluate.evidence.Evidence`: counts that add up, and the few frames and episodes worth looking at.
Merging does not depend on order or grouping, so neither does quality.json on the sharding.
"""

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from vlm_rewards.labelers.quality.figures import WORST_RULE, quality_table, worst_goals
from vlm_rewards.pipelines.engine.gathering import write_merged
from vlm_rewards.pipelines.engine.packed import raise_refusals
from vlm_rewards.pipelines.engine.settings import RunSettings
from vlm_rewards.pipelines.evaluate.evidence import EXAMPLES_PER_GOAL, Evidence, Example, UnitEvidence, merge_evidence
from vlm_rewards.pipelines.evaluate.known_pairs import measure_known
from vlm_rewards.pipelines.evaluate.settings import SUCCESS, EvaluateKeywords, EvaluateRun
from vlm_rewards.pipelines.evaluate.summary import Quality
from vlm_rewards.pipelines.report.charts import CURVES
from vlm_rewards.pipelines.report.known_pairs import write_known_report
from vlm_rewards.pipelines.report.page import write_report
from vlm_rewards.schemas.files.errors import explain_os_error
from vlm_rewards.schemas.files.remote_paths import Location, local_path
from vlm_rewards.schemas.files.unit_files import read_all_markers, read_failures, unit_names
from vlm_rewards.schemas.folders import replacing, write_atomically
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.label_parts.reader import Labels, check_units, open_labels
from vlm_rewards.schemas.formats.passed_over import passed_over_beside
from vlm_rewards.schemas.formats.truth import truth_goals
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.options import build_settings, shows_settings

_EXAMPLES_PER_FAMILY = 8
_MAX_LISTED = 20
_OUTCOME = ".outcome.json"


@shows_settings(EvaluateRun)
def evaluate(
    corpus: str | Path, labels: str | Path, *, output: str | Path, **settings: Unpack[EvaluateKeywords]
) -> Quality:
    """Measures labels against the ground truth of their corpus, against marks, or against the recording's own success.

    Writes quality.json, report.html (one file that opens offline) and, with ground truth of every frame, precision_recall.png and
    precision_recall_goals.png.

    Args:
        corpus: The corpus that was labelled. Where it does not say which goals its ground truth covers, its goals.jsonl does:
            in the folder, or beside it where the folder is called parts; of a single shard, beside it or in the folder above.
        labels: A folder that `label` has finished.
        output: Folder to write; absent, empty or of an earlier evaluation.
        settings: Fields of `EvaluateRun`.

    Returns:
        What quality.json holds: `overall`, `families`, `goals`, `confusion` and `definitions`, see
        `labelers.quality.figures.quality_table`; counts of frames, episodes and unlabelled_frames; examples, worst_goals with
        examples of theirs, film_strips, run, and passed_over (by reason, names below the corpus's folder that are not read). A
        figure is a number, or a text that begins with "undefined" and says why. With marks or recorded success: `truth`,
        `counts`, `unknown_episodes`, `pooled`, `goals`, `definitions` and run, see `labelers.quality.known_pairs`.

    Raises:
        FileNotFoundError: The corpus does not say which goals its truth covers, and has no goals.jsonl.
        OSError: A file cannot be written; the note says what to do where the disk is full.
        ValueError: There are no finished labels; the output folder holds something else; the corpus has no ground truth,
            none for any labelled goal, or names goals that it does not cover; marks are wrong; nothing is known of any labelled
            frame; or the labels are not of this corpus.

    Example:
        >>> import vlm_rewards as vr
        >>> quality = vr.evaluate("corpus/", "labels/", output="report/")
        >>> quality
        evaluated ... frames of 12 episodes
          average precision, ...
        >>> 0 < quality["overall"]["mean_average_precision"] <= 1
        True
    """
    (run,) = build_settings(settings, EvaluateRun)
    output = local_path(output, "an evaluation")
    _check_output(output)
    opened = open_labels(labels)
    source, units = opened.open_corpus(corpus)
    check_parts(opened, source, units)
    if run.marks is not None or run.truth == SUCCESS:
        return _evaluate_known(str(corpus), source, units, opened, run, output)
    if not source.features.has_achieved_goals:
        raise ValueError(
            f"a corpus to evaluate with must have ground truth (the column achieved_goals), got {corpus} without; give --truth "
            f"{SUCCESS} where the recording tells success or rewards, or mark some frames and give --marks"
        )
    covered = truth_goals(source)
    goals = [goal for goal in opened.metadata.goals if goal.id in covered.ids]
    if not goals:
        raise ValueError(
            f"labels must be of at least one goal that the ground truth covers, got none of {len(opened.metadata.goals)} goals "
            f"in {covered.where}; label with goals that it lists, by their ids"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        outcome = _measure(UnitEvidence(source, opened, goals, covered), units, output / _OUTCOME, run)
        described = _description(str(corpus), opened, covered.ids, goals)
        passed_over = _passed_over(source, output, opened)
        quality = Quality({**described, **outcome, "run": run_statistics(opened.folder), "passed_over": passed_over})
        _write_json(output / "quality.json", quality)
        write_report(quality, source, units, opened, output)
    except OSError as error:
        explain_os_error(error, output)
        raise
    return quality


def _evaluate_known(
    corpus: str, source: Corpus, units: Sequence[Unit], labels: Labels, run: EvaluateRun, output: Path
) -> Quality:
    """Evaluates by marks or by the recording's own success."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        outcome = measure_known(source, units, labels, run, output / _OUTCOME)
        passed_over = _passed_over(source, output, labels)
        quality = Quality(
            {
                **_run_description(corpus, labels),
                **outcome,
                "run": run_statistics(labels.folder),
                "passed_over": passed_over,
            }
        )
        for name in CURVES:  # of an earlier evaluation
            (output / name).unlink(missing_ok=True)
        _write_json(output / "quality.json", quality)
        write_known_report(quality, output)
    except OSError as error:
        explain_os_error(error, output)
        raise
    return quality


def _passed_over(source: Corpus, output: Path, labels: Labels) -> dict[str, list[str]]:
    """Returns what is passed over below the corpus's folder, by reason; the folders of the command itself are not."""
    return passed_over_beside(source.passed_over, source.folder, [output, labels.folder])


def _write_json(path: Path, record: dict) -> None:
    """Writes a record piece by piece: the text of thousands of goals is never in memory as a whole."""
    with replacing(path) as temporary, temporary.open("x", encoding="utf-8") as file:
        file.writelines(json.JSONEncoder(indent=1, allow_nan=False).iterencode(record))
        file.write("\n")


def _measure(work: UnitEvidence, units: Sequence[Unit], outcome_path: Path, run: RunSettings) -> dict:
    """Returns the merged evidence of all units: counts, unreadable, figures, examples and film strips."""
    write_merged(
        units,
        work,
        Evidence,
        merge_evidence,
        _write_outcome,
        str(outcome_path),
        work,
        beam_options=run.beam_options,
        workers=run.workers,
    )
    outcome = json.loads(outcome_path.read_text(encoding="utf-8"))
    outcome_path.unlink()
    raise_refusals(outcome.pop("refusals"))
    if not outcome["counts"].get("frames"):
        raise ValueError(
            f"labels must hold at least one frame of the corpus, got none in {work.labels.folder}. See its failures, fix the "
            f"corpus and label it again"
        )
    return outcome


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ValueError(f"the output must be a folder, got the file {output}; give another path")
    entries = {entry.name for entry in output.iterdir()} - {_OUTCOME} if output.is_dir() else set()
    quality = output / "quality.json"
    try:
        ours = not entries or json.loads(quality.read_text(encoding="utf-8")).get("kind") == "evaluation"
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise ValueError(
            f"the output folder must be empty or hold an earlier evaluation, got {output} with {min(entries)!r}; give another "
            f"folder"
        )


def check_parts(labels: Labels, corpus: Corpus, units: Sequence[Unit]) -> None:
    """Refuses labels that are not of these units, or of others besides.

    Raises:
        ValueError: See `schemas.formats.label_parts.reader.check_units`; or a part goes with no unit.
    """
    check_units(labels, corpus, units)
    others = sorted(unit_names(labels.folder, "parts", "parquet") - {unit.name for unit in units})
    if others:
        raise ValueError(
            f"labels must be of this corpus only, got {len(others)} parts of {labels.folder} that go with no unit of it, the "
            f"first being {others[0]!r}; give the corpus that was labelled"
        )


def _write_outcome(packed: bytes, path: str, work: UnitEvidence) -> None:
    evidence: Evidence = pickle.loads(packed)
    outcome: dict[str, object] = {"refusals": list(evidence.refusals), "counts": evidence.counts}
    if evidence.quality is not None and not evidence.refusals:
        relations, goals = work.relations, work.relations.goals
        table = quality_table(
            evidence.quality, relations, thresholds=work.rule.thresholds, formula=work.labels.metadata.formula
        )
        members: dict[str, list[int]] = {}
        for column, goal in enumerate(goals):
            members.setdefault(goal.family, []).append(column)
        outcome |= {
            "unreadable": evidence.failures,
            **table,
            "examples": {
                kind: {family: list(_chosen(evidence, goals, kind, members[family])) for family in relations.families}
                for kind in EXAMPLES_PER_GOAL
            },
            "worst_goals": {
                "rule": WORST_RULE,
                "goals": [
                    {
                        "goal": goals[column].id,
                        **{
                            kind: [
                                _example(found, goals[column]) for found in evidence.examples.get((kind, column), ())
                            ]
                            for kind in ("false_positives", "false_negatives")
                        },
                    }
                    for column in worst_goals(table["goals"], relations)
                ],
            },
            "film_strips": [
                {"family": family, "episode_id": strip.episode_id, "unit": strip.unit}
                for family in relations.families
                for strip in evidence.strips.get(family, ())
            ],
        }
    write_atomically(Path(path), json.dumps(outcome, allow_nan=False))


def _example(example: Example, goal: Goal) -> dict[str, object]:
    record = {"goal": goal.id, **example._asdict(), "score": example.score if np.isfinite(example.score) else None}
    if example.cause is None:
        del record["cause"]
    return record


def _chosen(
    evidence: Evidence, goals: Sequence[Goal], kind: str, columns: Sequence[int]
) -> Iterator[dict[str, object]]:
    """Yields the most telling frames of the goals in these columns: one per goal (or group of goals) and one per episode."""
    sign = 1 if kind == "false_negatives" else -1
    found = sorted(
        (sign * example.score, example.episode_id, example.frame_index, column, example)
        for column in columns
        for example in evidence.examples.get((kind, column), ())
    )
    seen: set[str] = set()
    num_chosen = 0
    for *_, column, example in found:
        keys = {f"goal {goals[column].group or goals[column].id}", f"episode {example.episode_id}"}
        if num_chosen < _EXAMPLES_PER_FAMILY and not keys & seen:
            seen |= keys
            num_chosen += 1
            yield _example(example, goals[column])


def _description(corpus: str, labels: Labels, bank: frozenset[str], goals: Sequence[Goal]) -> dict[str, object]:
    labelled = {goal.id for goal in labels.metadata.goals}
    return {
        **_run_description(corpus, labels),
        "num_goals": len(goals),
        "goals_without_ground_truth": [goal.id for goal in labels.metadata.goals if goal.id not in bank],
        "goals_without_labels": sorted(bank - labelled),
    }


def _run_description(corpus: str, labels: Labels) -> dict[str, object]:
    metadata = labels.metadata
    return {
        "kind": "evaluation",
        "version": 2,
        "corpus": corpus,
        "labels": str(labels.folder),
        "formula": metadata.formula,
        "threshold": metadata.rule.common_threshold,
        "rule": metadata.rule.to_json(),
        "sparse": metadata.sparse,
        "average_precision_covers": "scores over the threshold only: a lower bound"
        if metadata.sparse
        else "all scores",
        "fingerprint": dict(metadata.fingerprint.parts),
        "fingerprint_digest": metadata.fingerprint.digest,
    }


def run_statistics(labels: Location) -> dict[str, object]:
    """Returns what the markers of a folder of labels record of the run, summed over its units.

    Returns:
        units, rows, episodes, failed_frames, num_bytes; seconds by stage and other counts; failures by reason, and the
        first few of them in words.
    """
    sums: Counter[str] = Counter()
    groups: dict[str, Counter[str]] = {"seconds": Counter(), "counts": Counter(), "failures": Counter()}
    for marker in read_all_markers(labels):
        sums.update(units=1, rows=marker.rows, episodes=marker.episodes, num_bytes=marker.num_bytes)
        sums.update(failed_frames=marker.failed_frames)
        for name, group in groups.items():
            group.update(getattr(marker, name))
    first = itertools.islice(read_failures(labels), _MAX_LISTED)
    listed = [str(Failure(**json.loads(line))) for line in first]
    return {**sums, **{name: dict(sorted(group.items())) for name, group in groups.items()}, "first_failures": listed}
