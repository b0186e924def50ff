"""Measures labels against the ground truth of their corpus, and writes quality.json, pictures and a report.

    Create(units) ──► Reshuffle ──► join labels and truth of a unit ──► merge ──► outcome ──► quality.json, report.html
                                    by (episode_id, frame_index)        sums

What a unit yields is `Evidence`: histograms of scores that add up, counts, and the few frames and episodes worth looking
at. Merging does not depend on order or grouping, so neither does quality.json on the sharding.
"""

import dataclasses
import json
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np

from labelers.quality import ScoreHistogram, merge_histograms, quality_table, score_histogram
from labelers.rewards import successes
from pipelines.corpora import corpus_features, read_episodes
from pipelines.driver import beam_options_of
from pipelines.label_parts import Labels, open_labels, read_labels
from pipelines.outputs import explain_full_disk, write_atomically
from pipelines.report import write_report
from schemas.goals import Goal, read_goals
from schemas.manifests import Failure, PartStatistics, Unit

EXAMPLE_KINDS = ("true_positives", "false_positives", "false_negatives")
_EXAMPLES_PER_GOAL = 3
_EXAMPLES_PER_FAMILY = 8
_STRIPS_PER_FAMILY = 2
_BLOCK_SCORES = 1 << 20
_MAX_LISTED = 20
_GOALS = "goals.jsonl"
_OUTCOME = ".outcome.json"


class Example(NamedTuple):
    """A frame worth looking at for one goal."""

    score: float
    episode_id: str
    frame_index: int
    unit: str


class StripCandidate(NamedTuple):
    """An episode in which `num_goals` goals of a family become true or cease to be."""

    num_goals: int
    episode_id: str
    unit: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What a unit, or several, say about the labels; evidence of units adds up.

    Args:
        histogram: Of the scores of the evaluated goals; None where no frame was joined.
        counts: frames and episodes joined, and unlabelled_frames of the corpus.
        failures: What of the corpus could not be read, by reason.
        examples: By kind and goal column, at most three frames: highest scores, or lowest of false negatives, one an
            episode.
        strips: By family, the episodes with most goals that change.
        refusals: Why units cannot be evaluated.
    """

    histogram: ScoreHistogram | None = None
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)
    examples: Mapping[tuple[str, int], Sequence[Example]] = dataclasses.field(default_factory=dict)
    strips: Mapping[str, Sequence[StripCandidate]] = dataclasses.field(default_factory=dict)
    refusals: Sequence[str] = ()


class _EpisodeTruth(NamedTuple):
    num_frames: int
    frames: np.ndarray  # [K] frame and column of every goal that holds
    columns: np.ndarray


class UnitEvidence:
    """Joins a unit's labels with its ground truth; picklable, since workers get a copy.

    Args:
        labels: The labels.
        goals: Those of their goals that the ground truth covers.
    """

    def __init__(self, labels: Labels, goals: Sequence[Goal]) -> None:
        self._labels = labels
        self._goals = tuple(goals)
        self._column = {goal.id: column for column, goal in enumerate(self._goals)}
        labelled = {goal.id: index for index, goal in enumerate(labels.metadata.goals)}
        self._selected = np.array([labelled[goal.id] for goal in self._goals])
        families = sorted({goal.family for goal in self._goals})
        self._rule = labels.metadata.rule.select(self._selected.tolist())
        self._members = {
            family: np.array([goal.family == family for goal in self._goals], dtype=bool) for family in families
        }

    def __call__(self, unit: Unit) -> Evidence:
        """The unit's evidence; memory is bounded by its ground truth and one episode's scores.

        Raises:
            ValueError: The corpus has no ground truth, or labels are of frames that it does not hold.
        """
        truths, failures = self._read_truths(unit)
        counts: Counter[str] = Counter(unlabelled_frames=sum(truth.num_frames for truth in truths.values()))
        histograms: list[ScoreHistogram] = []
        examples: dict[tuple[str, int], list[Example]] = {}
        strips: dict[str, list[StripCandidate]] = {}
        block: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for episode in read_labels(self._labels.part(unit)):
            known = truths.get(episode.episode_id)
            if known is None or episode.frame_indices[-1] >= known.num_frames:
                frame = episode.frame_indices[0 if known is None else -1]
                raise ValueError(
                    f"labels must be of frames that the corpus holds, got frame {frame} of episode {episode.episode_id!r} in "
                    f"{self._labels.part(unit)}, which is not in {unit.shard}; give the corpus that was labelled, or label "
                    f"it again"
                )
            truth = np.zeros((known.num_frames, len(self._goals)), dtype=bool)
            truth[known.frames, known.columns] = True
            truth, scores = truth[episode.frame_indices], episode.scores[:, self._selected]
            counts.update(frames=len(scores), episodes=1, unlabelled_frames=-len(scores))
            over = successes(scores, self._rule)
            self._add_examples(examples, scores, truth, over, episode.episode_id, episode.frame_indices, unit.name)
            changing = truth.any(axis=0) & ~truth.all(axis=0)
            for family, members in self._members.items():
                if num_goals := int((changing & members).sum()):
                    strips.setdefault(family, []).append(StripCandidate(num_goals, episode.episode_id, unit.name))
            block.append((scores, truth, over))
            if sum(scores.size for scores, _, _ in block) >= _BLOCK_SCORES:
                histograms.append(_block_histogram(block))
                block = []
        if block:
            histograms.append(_block_histogram(block))
        return merge_evidence(
            [
                Evidence(
                    histogram=merge_histograms(histograms) if histograms else None,
                    counts=counts,
                    failures=failures,
                    examples=examples,
                    strips=strips,
                )
            ]
        )

    def _read_truths(self, unit: Unit) -> tuple[dict[str, _EpisodeTruth], Counter[str]]:
        truths: dict[str, _EpisodeTruth] = {}
        failures: Counter[str] = Counter()
        camera = self._labels.metadata.fingerprint.parts.get("camera")
        for episode in read_episodes(unit, images=False, cameras=None if camera is None else [str(camera)]):
            if isinstance(episode, Failure):
                failures[episode.reason] += 1
                continue
            if episode.achieved_goals is None:
                raise ValueError(
                    f"a corpus to evaluate with must have ground truth (the column achieved_goals), got episode "
                    f"{episode.episode_id!r} of {unit.shard} without; record one with vlm-rewards record, or add the column"
                )
            pairs = [
                (frame, self._column[goal])
                for frame, achieved in enumerate(episode.achieved_goals)
                for goal in achieved
                if goal in self._column
            ]
            frames, columns = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
            truths[episode.episode_id] = _EpisodeTruth(episode.num_frames, frames, columns)
        return truths, failures

    def _add_examples(
        self,
        examples: dict[tuple[str, int], list[Example]],
        scores: np.ndarray,
        truth: np.ndarray,
        over: np.ndarray,
        episode_id: str,
        frame_indices: np.ndarray,
        unit_name: str,
    ) -> None:
        for kind, mask in zip(EXAMPLE_KINDS, (over & truth, over & ~truth, ~over & truth), strict=True):
            masked = np.where(mask, -scores if kind == "false_negatives" else scores, -np.inf)
            # Sparse labels have no score for a false negative: -(-inf), still above the -inf of what is masked.
            best = masked.argmax(axis=0)
            for column in np.flatnonzero(mask.any(axis=0)):
                frame = best[column]
                example = Example(float(scores[frame, column]), episode_id, int(frame_indices[frame]), unit_name)
                found = examples.setdefault((kind, int(column)), [])
                found.append(example)
                if len(found) > 8 * _EXAMPLES_PER_GOAL:
                    found[:] = _best_examples(kind, found)


def _block_histogram(block: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> ScoreHistogram:
    scores, truth, over = (np.concatenate(parts) for parts in zip(*block, strict=True))
    return score_histogram(scores, truth, over)


def _best_examples(kind: str, examples: Iterable[Example]) -> list[Example]:
    sign = 1 if kind == "false_negatives" else -1
    ranked = sorted(examples, key=lambda example: (sign * example.score, example.episode_id, example.frame_index))
    return ranked[:_EXAMPLES_PER_GOAL]


def merge_evidence(evidence: Iterable[Evidence]) -> Evidence:
    """Adds evidence; the result does not depend on its order or grouping."""
    histogram: ScoreHistogram | None = None
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    examples: dict[tuple[str, int], list[Example]] = {}
    strips: dict[str, list[StripCandidate]] = {}
    refusals: list[str] = []
    for part in evidence:
        if part.histogram is not None:
            histogram = part.histogram if histogram is None else merge_histograms([histogram, part.histogram])
        refusals.extend(part.refusals)
        counts.update(part.counts)
        failures.update(part.failures)
        for key, found in part.examples.items():
            examples.setdefault(key, []).extend(found)
        for family, candidates in part.strips.items():
            strips.setdefault(family, []).extend(candidates)
    return Evidence(
        histogram=histogram,
        counts=dict(sorted(counts.items())),
        failures=dict(sorted(failures.items())),
        examples={key: _best_examples(key[0], examples[key]) for key in sorted(examples)},
        strips={
            family: sorted(strips[family], key=lambda strip: (-strip.num_goals, strip.episode_id))[:_STRIPS_PER_FAMILY]
            for family in sorted(strips)
        },
        refusals=sorted(refusals)[:_MAX_LISTED],
    )


def evaluate(corpus: str | Path, labels: str | Path, output: str | Path, *, beam_options: Sequence[str] = ()) -> dict:
    """Measures labels against the ground truth of their corpus.

    Writes quality.json, report.html (one file that opens offline), precision_recall.png and precision_recall_goals.png.

    Args:
        corpus: The corpus that was labelled, with its goals.jsonl: the goals that its ground truth covers. It is in the
            folder, or beside it where the folder is called parts; of a single shard, beside it or in the folder above.
        labels: A folder that `label` has finished.
        output: Folder to write; absent, empty or of an earlier evaluation.
        beam_options: Options for Beam, as given after a bare `--`.

    Returns:
        What quality.json holds: `overall`, `families` and `goals` with their figures, see `labelers.quality`; counts
        of frames, episodes and unlabelled_frames; examples, film_strips and run.

    Raises:
        FileNotFoundError: The corpus has no goals.jsonl.
        OSError: A file cannot be written; the note says what to do where the disk is full.
        ValueError: There are no finished labels; the output folder holds something else; the corpus has no ground truth,
            or none for any labelled goal; or the labels are not of this corpus.
    """
    corpus, output = Path(corpus), Path(output)
    _check_output(output)
    opened = open_labels(labels)
    units = opened.plan(corpus)
    _check_parts(opened, units)
    if not corpus_features(units).has_achieved_goals:
        raise ValueError(
            f"a corpus to evaluate with must have ground truth (the column achieved_goals), got {corpus} without; record one "
            f"with vlm-rewards record, or add the column"
        )
    goals_path = _find_goals(corpus)
    bank = {goal.id for goal in read_goals(goals_path)}
    goals = [goal for goal in opened.metadata.goals if goal.id in bank]
    if not goals:
        raise ValueError(
            f"labels must be of at least one goal that the ground truth covers, got none of {len(opened.metadata.goals)} goals "
            f"in {goals_path}; label with goals of that file, by their ids"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        outcome = _measure(opened, units, goals, output / _OUTCOME, beam_options)
        quality = {**_description(corpus, opened, bank, goals), **outcome, "run": run_statistics(opened.folder)}
        write_atomically(output / "quality.json", json.dumps(quality, indent=1, allow_nan=False) + "\n")
        write_report(quality, units, opened, output)
    except OSError as error:
        if not getattr(error, "__notes__", []):
            explain_full_disk(error, output)
        raise
    return quality


def _measure(
    labels: Labels, units: Sequence[Unit], goals: Sequence[Goal], outcome_path: Path, beam_options: Sequence[str]
) -> dict:
    """What all units say: counts, unreadable, figures, examples and film strips."""
    pipeline = beam.Pipeline(options=beam_options_of(beam_options))
    _ = (
        pipeline
        | "Units" >> beam.Create([unit.to_json() for unit in units])
        | "Spread" >> beam.Reshuffle()
        | "Join" >> beam.Map(_evidence_or_refusal, UnitEvidence(labels, goals))
        | "Merge" >> beam.CombineGlobally(_merge_packed).without_defaults()
        | "Write" >> beam.Map(_write_outcome, str(outcome_path), goals)
    )
    pipeline.run().wait_until_finish()
    outcome = json.loads(outcome_path.read_text(encoding="utf-8"))
    outcome_path.unlink()
    if refusals := outcome.pop("refusals"):
        others = len(refusals) - 1
        raise ValueError(refusals[0] + (f" (and {others} more units like it)" if others else ""))
    if not outcome["counts"].get("frames"):
        raise ValueError(
            f"labels must hold at least one frame of the corpus, got none in {labels.folder}; see its failures, mend the corpus "
            f"and label it again"
        )
    return outcome


def _find_goals(corpus: Path) -> Path:
    """goals.jsonl as `record` leaves it: beside the shards or, where they are in parts/, beside that folder."""
    folder = corpus if corpus.is_dir() else corpus.parent
    above = folder.absolute().parent
    if not (folder / _GOALS).is_file() and (folder.absolute().name == "parts" or not corpus.is_dir()):
        return above / _GOALS if (above / _GOALS).is_file() else folder / _GOALS
    return folder / _GOALS


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


def _check_parts(labels: Labels, units: Sequence[Unit]) -> None:
    labels.check_units(units)
    others = sorted({path.stem for path in (labels.folder / "parts").glob("*.parquet")} - {unit.name for unit in units})
    if others:
        raise ValueError(
            f"labels must be of this corpus only, got {len(others)} parts of {labels.folder} that go with no unit of it, the "
            f"first being {others[0]!r}; give the corpus that was labelled"
        )


def _evidence_or_refusal(unit: dict, work: UnitEvidence) -> bytes:
    # A refusal is carried to the driver as data: what a runner makes of an exception differs, and hides its type.
    try:
        evidence = work(Unit(**unit))
    except ValueError as error:
        evidence = Evidence(refusals=["; ".join([str(error), *getattr(error, "__notes__", [])])])
    return pickle.dumps(evidence)


def _merge_packed(packed: Iterable[bytes]) -> bytes:
    # Bytes, because Beam 2.77's workers flush their output once a second from another thread, and that cuts an element
    # whose coder is just running Python, as the pickling of an object does, in two; bytes are written in one go.
    return pickle.dumps(merge_evidence(pickle.loads(part) for part in packed))


def _write_outcome(packed: bytes, path: str, goals: Sequence[Goal]) -> None:
    evidence: Evidence = pickle.loads(packed)
    outcome: dict[str, object] = {"refusals": list(evidence.refusals), "counts": evidence.counts}
    if evidence.histogram is not None and not evidence.refusals:
        outcome |= {
            "unreadable": evidence.failures,
            **quality_table(evidence.histogram, goals),
            "examples": {
                kind: {family: list(_chosen(evidence, goals, kind, family)) for family in _families(goals)}
                for kind in EXAMPLE_KINDS
            },
            "film_strips": [
                {"family": family, "episode_id": strip.episode_id, "unit": strip.unit}
                for family in _families(goals)
                for strip in evidence.strips.get(family, ())
            ],
        }
    write_atomically(Path(path), json.dumps(outcome, allow_nan=False))


def _families(goals: Sequence[Goal]) -> list[str]:
    return list(dict.fromkeys(goal.family for goal in goals))


def _chosen(evidence: Evidence, goals: Sequence[Goal], kind: str, family: str) -> Iterator[dict[str, object]]:
    """The family's most telling frames: one a goal (or group of goals) and one an episode."""
    sign = 1 if kind == "false_negatives" else -1
    found = sorted(
        (sign * example.score, example.episode_id, example.frame_index, column, example)
        for column, goal in enumerate(goals)
        if goal.family == family
        for example in evidence.examples.get((kind, column), ())
    )
    seen: set[str] = set()
    num_chosen = 0
    for *_, column, example in found:
        keys = {f"goal {goals[column].group or goals[column].id}", f"episode {example.episode_id}"}
        if num_chosen < _EXAMPLES_PER_FAMILY and not keys & seen:
            seen |= keys
            num_chosen += 1
            score = example.score if np.isfinite(example.score) else None
            yield {"goal": goals[column].id, **example._asdict(), "score": score}


def _description(corpus: Path, labels: Labels, bank: set[str], goals: Sequence[Goal]) -> dict[str, object]:
    metadata = labels.metadata
    labelled = {goal.id for goal in metadata.goals}
    return {
        "kind": "evaluation",
        "version": 1,
        "corpus": str(corpus),
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
        "num_goals": len(goals),
        "goals_without_ground_truth": [goal.id for goal in metadata.goals if goal.id not in bank],
        "goals_without_labels": sorted(bank - labelled),
    }


def run_statistics(labels: Path) -> dict[str, object]:
    """What the markers of a folder of labels say of the run, summed over its units.

    Returns:
        units, rows, episodes, failed_frames, num_bytes; seconds by stage and other counts; failures by reason, and the
        first few of them in words.
    """
    sums: Counter[str] = Counter()
    groups: dict[str, Counter[str]] = {"seconds": Counter(), "counts": Counter(), "failures": Counter()}
    for path in sorted((labels / "markers").glob("*.json")):
        marker = PartStatistics.from_json(path.read_text(encoding="utf-8"))
        sums.update(units=1, rows=marker.rows, episodes=marker.episodes, num_bytes=marker.num_bytes)
        sums.update(failed_frames=marker.failed_frames)
        for name, group in groups.items():
            group.update(getattr(marker, name))
    listed: list[str] = []
    for path in sorted((labels / "failures").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if len(listed) < _MAX_LISTED:
                listed.append(str(Failure(**json.loads(line))))
    return {**sums, **{name: dict(sorted(group.items())) for name, group in groups.items()}, "first_failures": listed}
