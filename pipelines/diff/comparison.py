"""Compares two finished folders of labels: what made them, which goals and episodes changed, and what it does to quality.

    parts of A ─┐
    parts of B ─┼─► where each episode is ──► group by episode ──► group by (part of A, part of B, unit of the corpus)
    corpus ─────┘      (id, rows)                                        │
                                                                         ▼
                         diff.json ◄── merge sums ◄── read the episodes' labels and truth, compare frame by frame

A and B may be sharded differently: what is shuffled is where episodes are, never their scores. A worker holds one row group of
each side, and the ground truth of one unit. All statistics are whole numbers that add up, so the result does not depend on the
sharding of either.
"""

import contextlib
import json
import math
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import apache_beam as beam

from vlm_rewards.labelers.quality.comparison import change_table
from vlm_rewards.pipelines.diff.evidence import Difference, GroupComparison, Location, Side, merge_differences
from vlm_rewards.pipelines.diff.quality import quality_change
from vlm_rewards.pipelines.diff.settings import DiffKeywords, DiffRun
from vlm_rewards.pipelines.diff.summary import LabelDiff
from vlm_rewards.pipelines.engine.driver import make_pipeline
from vlm_rewards.pipelines.engine.packed import merge_packed, raise_refusals, refusal_of
from vlm_rewards.schemas.files.errors import explain_os_error
from vlm_rewards.schemas.files.remote_paths import local_path
from vlm_rewards.schemas.folders import read_manifest, write_atomically
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus
from vlm_rewards.schemas.formats.label_parts.reader import Labels, open_labels
from vlm_rewards.schemas.formats.label_parts.rows import EpisodeRows, locate_episodes
from vlm_rewards.schemas.formats.passed_over import passed_over_beside
from vlm_rewards.schemas.formats.truth import TruthGoals, truth_goals
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.options import build_settings, shows_settings

DIFF_NAME = "diff.json"
_OUTCOME = ".outcome.json"
_REFUSAL = ""  # the key of what is wrong; no episode's id is empty


@shows_settings(DiffRun)
def diff(labels_a: str | Path, labels_b: str | Path, **settings: Unpack[DiffKeywords]) -> LabelDiff:
    """Compares two folders of labels of the same corpus, or of corpora that share episodes; writes diff.json.

    Goals are joined by id, frames by episode_id and frame_index. A success is each side's own: its thresholds, hysteresis and
    minimum duration, over all frames that the side labels.

    Args:
        labels_a: A folder that `label` has finished.
        labels_b: Another.
        settings: Fields of `DiffRun`.

    Returns:
        What diff.json holds: `identical`; `fingerprint` (the parts that differ, with both values), `goals`, `thresholds`,
        `fire_rates` and `rule`; `counts`; `changes`, one row per common goal, see `labelers.quality.comparison.change_table`;
        `episodes`, those that changed most; `quality`, None without a corpus.

    Raises:
        FileNotFoundError: The corpus does not say which goals its truth covers, and has no goals.jsonl.
        OSError: A file cannot be written; the note says what to do where the disk is full.
        ValueError: A folder does not hold finished labels; no goal or no frame is in both; the output folder holds something
            else; an episode is in two parts of one folder; or the corpus has no ground truth for what was labelled,
            or it names goals that it does not cover.

    Example:
        >>> import vlm_rewards as vr
        >>> labeler = vr.load_labeler("reference-s", vr.read_goals("corpus/goals.jsonl"), temperature=0.1)
        >>> summary = vr.label("corpus/", labeler.settings, output="warm/")
        >>> vr.diff("labels/", "warm/", output="diff/")
        compared ... frames of 12 episodes for 342 goals: A labels, B warm
          fingerprint, temperature: ... in A, 0.1 in B
    """
    (run,) = build_settings(settings, DiffRun)
    output, corpus, tolerance = local_path(run.output, "a diff"), run.corpus, run.tolerance
    if not 0 <= tolerance < math.inf:
        raise ValueError(
            f"the tolerance must be 0 or more and finite, got {tolerance}; it is a difference between two scores"
        )
    _check_output(output)
    a, b = open_labels(labels_a), open_labels(labels_b)
    goals = _common_goals(a, b)
    opened = None if corpus is None else open_corpus(corpus, a.corpus_options)
    covered = None if opened is None else _covered_goals(opened, goals)
    units = [] if opened is None else opened.units()
    comparison = GroupComparison(
        a=_side(a, goals),
        b=_side(b, goals),
        goals=tuple(goal.id for goal in goals),
        truth_goals=() if covered is None else tuple(goal.id for goal in goals if goal.id in covered.ids),
        covered=covered,
        corpus=opened,
        units={unit.name: unit for unit in units},
        tolerance=tolerance,
    )
    try:
        output.mkdir(parents=True, exist_ok=True)
        found = _measure(comparison, output / _OUTCOME, goals, make_pipeline(run.beam_options, run.workers))
        result = LabelDiff({**_description(a, b, goals, tolerance), **found})
        result["identical"] = _is_identical(result)
        if opened is None:
            result["quality"] = None
        else:
            left_out = passed_over_beside(opened.passed_over, opened.folder, [output, a.folder, b.folder])
            result["quality"] |= {"corpus": str(corpus), "passed_over": left_out}
        write_atomically(output / DIFF_NAME, json.dumps(result, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        explain_os_error(error, output)
        raise
    return result


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ValueError(f"the output must be a folder, got the file {output}; give another path")
    entries = {entry.name for entry in output.iterdir()} - {_OUTCOME} if output.is_dir() else set()
    ours = not entries
    if entries == {DIFF_NAME}:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            ours = json.loads((output / DIFF_NAME).read_text(encoding="utf-8")).get("kind") == "diff"
    if not ours:
        raise ValueError(
            f"the output folder must be empty or hold an earlier diff, got {output} with {min(entries)!r}; give another folder"
        )


def _common_goals(a: Labels, b: Labels) -> list[Goal]:
    in_b = {goal.id for goal in b.metadata.goals}
    goals = [goal for goal in a.metadata.goals if goal.id in in_b]
    if not goals:
        raise ValueError(
            f"labels to compare must have a goal in common, got none of {len(a.metadata.goals)} goals of {a.folder} (such as "
            f"{a.metadata.goals[0].id!r}) among the {len(in_b)} of {b.folder}; goals are joined by their ids"
        )
    return goals


def _covered_goals(opened: Corpus, goals: Sequence[Goal]) -> TruthGoals:
    if not opened.features.has_achieved_goals:
        raise ValueError(
            f"a corpus to compare quality with must have ground truth (the column achieved_goals), got {opened.folder} without; "
            f"record one with vlm-rewards record, or leave --input out"
        )
    covered = truth_goals(opened)
    if not covered.ids.intersection(goal.id for goal in goals):
        raise ValueError(
            f"the ground truth must cover a goal that both label, got none of {len(goals)} in {covered.where}; give the "
            f"corpus that was labelled, or leave --input out"
        )
    return covered


def _side(labels: Labels, goals: Sequence[Goal]) -> Side:
    column = {goal.id: index for index, goal in enumerate(labels.metadata.goals)}
    parts = read_manifest(labels.folder, "labels")["parts"]
    return Side(
        folder=labels.folder,
        metadata=labels.metadata,
        columns=tuple(column[goal.id] for goal in goals),
        parts=tuple(part["path"] for part in parts),
    )


def _measure(
    comparison: GroupComparison, outcome_path: Path, goals: Sequence[Goal], pipeline: beam.Pipeline
) -> dict[str, Any]:
    sources = [(side, part) for side in ("a", "b") for part in getattr(comparison, side).parts]
    sources += [("truth", name) for name in comparison.units]
    _ = (
        pipeline
        | "Parts" >> beam.Create(sources)
        | "Spread" >> beam.Reshuffle()
        | "Locate" >> beam.FlatMap(_locate, comparison).with_output_types(tuple[str, str])
        | "By episode" >> beam.GroupByKey()
        | "Join" >> beam.FlatMap(_join).with_output_types(tuple[str, str])
        | "By parts" >> beam.GroupByKey()
        | "Compare" >> beam.Map(_compare, comparison)
        | "Merge" >> beam.CombineGlobally(merge_packed, merge_differences).without_defaults()
        | "Write" >> beam.Map(_write_outcome, str(outcome_path), goals, comparison)
    )
    pipeline.run().wait_until_finish()
    outcome = json.loads(outcome_path.read_text(encoding="utf-8"))
    outcome_path.unlink()
    raise_refusals(outcome.pop("refusals"), "more like it")
    if not outcome["counts"]["frames"]:
        raise ValueError(
            f"labels to compare must have a frame in common, got none in {comparison.a.folder} and {comparison.b.folder}; frames "
            f"are joined by episode_id and frame_index: compare labels of one corpus"
        )
    if comparison.units and not outcome["counts"]["frames_with_truth"]:
        raise ValueError(
            "the corpus must hold an episode that both label, got none; give the corpus that was labelled, or leave --input out"
        )
    return outcome


def _locate(source: tuple[str, str], comparison: GroupComparison) -> Iterator[tuple[str, str]]:
    side, name = source
    try:
        if side == "truth":
            assert comparison.corpus is not None
            ids = comparison.corpus.episode_ids(comparison.units[name])
            located = [EpisodeRows(episode_id, 0, 0) for episode_id in ids]
        else:
            located = list(locate_episodes(getattr(comparison, side).folder / name))
    except ValueError as error:
        yield _REFUSAL, str(error)
        return
    for episode_id, start, stop in located:
        yield episode_id, json.dumps(Location(side, name, start, stop))


def _join(located: tuple[str, Iterable[str]]) -> Iterator[tuple[str, str]]:
    """Turns the places of an episode into the parts that hold it and the rows to read."""
    episode_id, texts = located
    if episode_id == _REFUSAL:
        yield from ((_REFUSAL, text) for text in texts)
        return
    places: dict[str, Location] = {}
    for text in sorted(texts):
        place = Location(*json.loads(text))
        if place.side in places:
            where = {"a": "the first labels", "b": "the second labels", "truth": "the corpus"}[place.side]
            yield (
                _REFUSAL,
                f"an episode's id must occur once, got {episode_id!r} in {places[place.side].name} and in {place.name} of {where}; "
                f"label the corpus again",
            )
            return
        places[place.side] = place
    if places.keys() & {"a", "b"}:
        names = [places[side].name if side in places else None for side in ("a", "b", "truth")]
        rows = [[places[side].start, places[side].stop] if side in places else None for side in ("a", "b")]
        yield json.dumps(names), json.dumps([episode_id, *rows])


def _compare(group: tuple[str, Iterable[str]], comparison: GroupComparison) -> bytes:
    key, entries = group
    if key == _REFUSAL:
        return pickle.dumps(Difference(refusals=sorted(entries)))
    try:
        part_a, part_b, unit = json.loads(key)
        found = comparison(part_a, part_b, unit, [json.loads(entry) for entry in entries])
    except ValueError as error:
        found = Difference(refusals=[refusal_of(error)])
    return pickle.dumps(found)


def _write_outcome(packed: bytes, path: str, goals: Sequence[Goal], comparison: GroupComparison) -> None:
    found: Difference = pickle.loads(packed)
    outcome: dict[str, object] = {
        "refusals": list(found.refusals),
        "counts": found.counts,
        "episodes_only_in": found.only_in,
    }
    if found.changes is not None and not found.refusals:
        outcome["changes"] = change_table(found.changes, goals)
        outcome["episodes"] = [episode._asdict() for episode in found.episodes]
    if found.quality is not None and not found.refusals:
        covered = set(comparison.truth_goals)
        outcome["quality"] = {
            "frames": found.counts["frames_with_truth"],
            "frames_without_truth": found.counts["frames"] - found.counts["frames_with_truth"],
            "goals_without_ground_truth": [goal.id for goal in goals if goal.id not in covered],
            "average_precision_covers": {
                side: "scores over the threshold only: a lower bound"
                if getattr(comparison, side).metadata.sparse
                else "all scores"
                for side in ("a", "b")
            },
            **quality_change(found.quality, [goal for goal in goals if goal.id in covered]),
        }
    write_atomically(Path(path), json.dumps(outcome, allow_nan=False))


def _description(a: Labels, b: Labels, goals: Sequence[Goal], tolerance: float) -> dict[str, Any]:
    sides = {"a": a, "b": b}
    fingerprints = {side: labels.metadata.fingerprint for side, labels in sides.items()}
    names = fingerprints["a"].differing_parts(fingerprints["b"])
    by_id = {side: {goal.id: goal for goal in labels.metadata.goals} for side, labels in sides.items()}
    records = {side: {id_: goal.to_json() for id_, goal in by_id[side].items()} for side in sides}
    rules = {side: labels.metadata.rule.to_json() for side, labels in sides.items()}
    thresholds = {
        side: dict(zip(by_id[side], labels.metadata.rule.thresholds, strict=True)) for side, labels in sides.items()
    }
    rates = {
        side: dict(zip(by_id[side], labels.metadata.rule.fire_rates or (None,) * len(by_id[side]), strict=True))
        for side, labels in sides.items()
    }
    ids = [goal.id for goal in goals]

    def both(values: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {name: {side: values[side].get(name) for side in sides} for name in names}

    return {
        "kind": "diff",
        "version": 1,
        "tolerance": tolerance,
        **{
            side: {
                "labels": str(labels.folder),
                "digest": labels.digest,
                "fingerprint_digest": labels.metadata.fingerprint.digest,
                "formula": labels.metadata.formula,
                "sparse": labels.metadata.sparse,
                "num_goals": len(labels.metadata.goals),
            }
            for side, labels in sides.items()
        },
        "fingerprint": both({side: fingerprints[side].parts for side in sides}, names),
        "goals": {
            "common": len(goals),
            "only_in": {
                side: [id_ for id_ in by_id[side] if id_ not in by_id[other]]
                for side, other in (("a", "b"), ("b", "a"))
            },
            "described_differently": both(records, [id_ for id_ in ids if records["a"][id_] != records["b"][id_]]),
        },
        "thresholds": both(thresholds, [id_ for id_ in ids if thresholds["a"][id_] != thresholds["b"][id_]]),
        "fire_rates": both(rates, [id_ for id_ in ids if rates["a"][id_] != rates["b"][id_]]),
        "rule": both(
            rules,
            sorted(
                name
                for name in rules["a"]
                if name not in ("thresholds", "fire_rates") and rules["a"][name] != rules["b"][name]
            ),
        ),
    }


def _is_identical(result: Mapping[str, Any]) -> bool:
    """Returns whether goals, thresholds, fire rates, rule, frames and every score are the same, bit for bit."""
    counts = Counter(result["counts"])
    held = ("changed", "only_in_a", "only_in_b", "gained_frames", "lost_frames")
    return (
        not any(result["goals"]["only_in"].values())
        and not result["thresholds"]
        and not result["rule"]
        and not result["fire_rates"]
        and not counts["frames_only_in_a"] + counts["frames_only_in_b"]
        and not any(row[name] for row in result["changes"] for name in held)
        and not any(row["largest_change"] for row in result["changes"] if row["compared"])
    )
