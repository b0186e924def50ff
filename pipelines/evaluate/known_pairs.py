"""Measures labels where the truth is known of some pairs of a frame and a goal only: by marks, or by the recording's own success.

    units ──► labels of a unit, its known truth ──► KnownEvidence ──► merge ──► quality.json, report.html

Counts are kept apart by what says so: rewards say nothing where no step of the whole corpus has one, and that is known at the end.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm_rewards.labelers.quality.known_pairs import (
    DEFINITIONS,
    KnownCounts,
    KnownEpisode,
    count_known,
    known_figures,
    merge_known,
)
from vlm_rewards.labelers.rewards.rewards import successes
from vlm_rewards.pipelines.engine.gathering import gather_evidence
from vlm_rewards.pipelines.engine.packed import raise_refusals
from vlm_rewards.pipelines.evaluate.known_truth import TruthSource, marked_truth
from vlm_rewards.pipelines.evaluate.recorded_success import NO_GOAL, REWARDS, RecordedTruth
from vlm_rewards.pipelines.evaluate.settings import SUCCESS, EvaluateRun
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.label_parts.reader import Labels, open_labels, part_of_unit, read_labels
from vlm_rewards.schemas.formats.marks import Mark, check_marks, read_marks
from vlm_rewards.schemas.manifests import Unit

_BLOCK_SCORES = 1 << 20
_MAX_LISTED = 20
MARKS_RULE = "a person marked single frames; every other frame is unknown"
SUCCESS_RULE = (
    "success, or a reward over 0, of step i says whether the goal holds in frame i+1, the frame after the action; where the frame "
    "after the last action is not recorded, the last step speaks of the last frame; a success of the whole episode speaks of its "
    "last frame; every other frame, and every other goal, is unknown"
)
_NO_REWARD = "rewards are 0 in every step"
_NOTHING_SAID = "nothing is said of its labelled frames"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KnownEvidence:
    """Evidence of one or several units; it adds up.

    Args:
        counts: Counts of known pairs by what says so.
        frames: Frames with a known pair, by what says so.
        episodes: Episodes with a known pair, by what says so.
        not_whole: Number of episodes whose success is known, but not all of whose frames are labelled.
        unknown: Numbers of episodes of which nothing is known, by reason.
        found_episodes: Marked episodes that have labels.
        found_lines: Lines of marks whose frames have labels.
        refusals: Why units cannot be evaluated.
    """

    counts: Mapping[str, KnownCounts] = dataclasses.field(default_factory=dict)
    frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    episodes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    not_whole: int = 0
    unknown: Mapping[str, int] = dataclasses.field(default_factory=dict)
    found_episodes: frozenset[str] = frozenset()
    found_lines: frozenset[int] = frozenset()
    refusals: Sequence[str] = ()


def merge_evidence(evidence: Iterable[KnownEvidence]) -> KnownEvidence:
    """Adds evidence; the result does not depend on its order or grouping."""
    parts = list(evidence)
    sources = sorted({source for part in parts for source in part.counts})
    sums: dict[str, Counter[str]] = {name: Counter() for name in ("frames", "episodes", "unknown")}
    for part in parts:
        for name, counter in sums.items():
            counter.update(getattr(part, name))
    return KnownEvidence(
        counts={
            source: merge_known(part.counts[source] for part in parts if source in part.counts) for source in sources
        },
        **{name: dict(sorted(counter.items())) for name, counter in sums.items()},
        not_whole=sum(part.not_whole for part in parts),
        found_episodes=frozenset().union(*(part.found_episodes for part in parts)),
        found_lines=frozenset().union(*(part.found_lines for part in parts)),
        refusals=sorted(refusal for part in parts for refusal in part.refusals)[:_MAX_LISTED],
    )


class KnownUnit:
    """Joins a unit's labels with what is known; pickled as the path of the labels, which name thousands of goals."""

    def __init__(self, labels: Labels, truth: TruthSource) -> None:
        self._labels = labels
        self._truth = truth

    def __reduce__(self) -> tuple:
        return _open_unit, (self._labels.folder, self._truth)

    def __call__(self, unit: Unit) -> KnownEvidence:
        """Returns the unit's evidence; memory is bounded by its truth and a block of episodes."""
        truth, rule = self._truth.of_unit(unit), self._labels.metadata.rule
        parts = [KnownEvidence()]
        block: dict[str, list[KnownEpisode]] = {}
        size = 0
        for episode in read_labels(part_of_unit(self._labels, unit)):
            known = truth.of_episode(episode.episode_id, episode.frame_indices)
            if known is None or not known.known.any():
                reason = _NOTHING_SAID if known is None else known.unknown_because or _NOTHING_SAID
                is_marked = known is not None and known.lines is not None
                found = frozenset([episode.episode_id]) if is_marked else frozenset()
                parts.append(KnownEvidence(unknown={reason: 1}, found_episodes=found))
                continue
            achieved = successes(episode.scores, rule)
            verdict = None
            is_whole = known.verdict is not None and len(episode.frame_indices) == known.verdict.num_frames
            if known.verdict is not None and is_whole:
                goal = known.verdict.goal
                verdict = (goal, known.verdict.achieved, bool(achieved[:, goal].any()))
            block.setdefault(known.source, []).append(
                KnownEpisode(episode.scores, achieved, known.truth, known.known, verdict)
            )
            parts.append(
                KnownEvidence(
                    frames={known.source: int(known.known.any(axis=1).sum())},
                    episodes={known.source: 1},
                    not_whole=int(known.verdict is not None and not is_whole),
                    found_episodes=frozenset() if known.lines is None else frozenset([episode.episode_id]),
                    found_lines=known.lines or frozenset(),
                )
            )
            size += episode.scores.size
            if size >= _BLOCK_SCORES:
                parts = [merge_evidence([*parts, _counted(block)])]
                block, size = {}, 0
        return merge_evidence([*parts, _counted(block)])


def _open_unit(folder: Path, truth: TruthSource) -> KnownUnit:
    return KnownUnit(open_labels(folder), truth)


def _counted(block: Mapping[str, Sequence[KnownEpisode]]) -> KnownEvidence:
    return KnownEvidence(counts={source: count_known(episodes) for source, episodes in block.items()})


def measure_known(
    corpus: Corpus, units: Sequence[Unit], labels: Labels, given: EvaluateRun, scratch: Path
) -> dict[str, object]:
    """Measures labels by marks or by the recording's own success.

    Args:
        corpus: The corpus.
        units: Units of the corpus.
        labels: Labels of the corpus.
        given: Settings of the truth.
        scratch: File that the outcome passes through.

    Returns:
        What quality.json holds of it: truth, counts, unknown_episodes, pooled, goals and definitions.

    Raises:
        ValueError: The goal is none of the labels', marks are wrong, or nothing is known of any labelled frame.
    """
    goals = labels.metadata.goals
    marks: list[Mark] = []
    truth: TruthSource
    if given.marks is not None:
        marks = read_marks(given.marks, [goal.id for goal in goals])
        truth = marked_truth(marks, len(goals))
    else:
        camera = labels.metadata.fingerprint.parts.get("camera")
        number = None if given.goal is None else number_of_goal(given.goal, labels)
        camera_name = None if camera is None else str(camera)
        truth = RecordedTruth(corpus=corpus, goals=tuple(goals), goal=number, camera=camera_name)
    evidence = gather_evidence(
        units,
        KnownUnit(labels, truth),
        KnownEvidence,
        merge_evidence,
        scratch,
        beam_options=given.beam_options,
        workers=given.workers,
    )
    raise_refusals(evidence.refusals)
    if given.marks is not None:
        check_marks(marks, given.marks, set(evidence.found_episodes), set(evidence.found_lines))
    evidence = _without_empty_rewards(evidence)
    if not evidence.counts:
        raise nothing_known(labels, evidence.unknown)
    counts = merge_known(evidence.counts.values())
    known = counts.histogram.totals
    columns = np.flatnonzero(known.sum(axis=1) + counts.verdicts.sum(axis=(1, 2)))
    is_marked = given.marks is not None
    return {
        "truth": {
            "from": "marks" if is_marked else SUCCESS,
            "rule": MARKS_RULE if is_marked else SUCCESS_RULE,
            "marks": None if given.marks is None else str(given.marks),
            "goal": given.goal or ("that of each mark" if is_marked else "that of each episode's instruction"),
            "episodes_by_source": {source or "marks": number for source, number in evidence.episodes.items()},
        },
        "counts": {
            "known_pairs": int(known.sum()),
            "known_positives": int(known[:, 0].sum()),
            "known_negatives": int(known[:, 1].sum()),
            "frames": sum(evidence.frames.values()),
            "episodes": sum(evidence.episodes.values()),
            "episodes_not_whole": evidence.not_whole,
        },
        "unknown_episodes": dict(evidence.unknown),
        "pooled": known_figures(counts, columns.tolist()),
        "goals": [
            {"id": goals[column].id, "text": goals[column].text, **known_figures(counts, [column])}
            for column in columns.tolist()
        ],
        "num_goals_unknown": len(goals) - len(columns),
        "definitions": DEFINITIONS,
    }


def number_of_goal(goal: str, labels: Labels) -> int:
    """Returns the number of a goal of the labels.

    Raises:
        ValueError: They have none of this id.
    """
    ids = [known.id for known in labels.metadata.goals]
    if goal not in ids:
        shown = ", ".join(ids[:5])
        raise ValueError(
            f"the goal must be one of the {len(ids)} goals of the labels ({shown}{', ...' * (len(ids) > 5)}): got {goal!r}. "
            "Check its id"
        )
    return ids.index(goal)


def _without_empty_rewards(evidence: KnownEvidence) -> KnownEvidence:
    """Leaves out what rewards say where none is over 0: then they were not filled in, and say nothing."""
    found = evidence.counts.get(REWARDS)
    if found is None or found.histogram.totals[:, 0].any() or found.verdicts[:, 1].any():
        return evidence
    unknown = {**evidence.unknown, _NO_REWARD: evidence.episodes[REWARDS]}
    return dataclasses.replace(
        evidence,
        counts={source: counts for source, counts in evidence.counts.items() if source != REWARDS},
        frames={source: number for source, number in evidence.frames.items() if source != REWARDS},
        episodes={source: number for source, number in evidence.episodes.items() if source != REWARDS},
        unknown=dict(sorted(unknown.items())),
    )


def nothing_known(labels: Labels, unknown: Mapping[str, int], use: str = "evaluate with") -> ValueError:
    """Returns the error for labels of which nothing is known.

    Args:
        labels: The labels.
        unknown: Numbers of episodes by why nothing is known of them.
        use: What the corpus is for.
    """
    told = "; ".join(f"{reason} ({number} episodes)" for reason, number in unknown.items()) or "no labelled episode"
    remedy = (
        "Give --goal with the id of the goal that they are of"
        if NO_GOAL in unknown
        else "Mark some frames and give --marks"
    )
    return ValueError(
        f"a corpus to {use} must say of some labelled frame whether its goal holds: got {told}, of "
        f"{labels.folder}. {remedy}"
    )
