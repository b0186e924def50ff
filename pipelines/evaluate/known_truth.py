"""Truth that is known of some pairs of a frame and a goal; what is unknown of the others never counts as false."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from vlm_rewards.schemas.formats.marks import Mark
from vlm_rewards.schemas.manifests import Unit


class Verdict(NamedTuple):
    """Whether an episode of `num_frames` frames achieved goal number `goal`."""

    goal: int
    achieved: bool
    num_frames: int


class KnownTruth(NamedTuple):
    """Truth of an episode's labelled frames.

    Attributes:
        truth: [F, G] bool, whether the goal holds.
        known: [F, G] bool, whether that is known; elsewhere `truth` says nothing.
        lines: Lines of the marks behind it, where marks are the source.
        verdict: Known success of the whole episode; None if unknown.
        source: Source of the truth; "" if it is the same for all episodes.
        unknown_because: Why nothing is known of the episode; "" where something is.
    """

    truth: np.ndarray
    known: np.ndarray
    lines: frozenset[int] | None = None
    verdict: Verdict | None = None
    source: str = ""
    unknown_because: str = ""


class TruthSource(Protocol):
    """Source of truth; picklable, since workers get a copy."""

    def of_unit(self, unit: Unit) -> "UnitTruth":
        """Returns the truth of a unit's episodes."""


class UnitTruth(Protocol):
    """Truth of a unit's episodes."""

    def of_episode(self, episode_id: str, frame_indices: np.ndarray) -> KnownTruth | None:
        """Returns the truth of these frames; None where nothing is known of the episode."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkedTruth:
    """Truth from the marks of a person.

    Args:
        num_goals: G.
        marks: Marks per episode id.
    """

    num_goals: int
    marks: Mapping[str, Sequence[Mark]]

    def of_unit(self, unit: Unit) -> "MarkedTruth":
        """Returns itself."""
        return self

    def of_episode(self, episode_id: str, frame_indices: np.ndarray) -> KnownTruth | None:
        """Returns the truth of the marked frames; all others are unknown."""
        if episode_id not in self.marks:
            return None
        truth, known = np.zeros((2, len(frame_indices), self.num_goals), dtype=bool)
        rows = {frame: row for row, frame in enumerate(frame_indices.tolist())}
        marks = [mark for mark in self.marks[episode_id] if mark.frame_index in rows]
        for mark in marks:
            known[rows[mark.frame_index], mark.goal] = True
            truth[rows[mark.frame_index], mark.goal] = mark.achieved
        return KnownTruth(truth, known, frozenset(mark.line for mark in marks))


def marked_truth(marks: Sequence[Mark], num_goals: int) -> MarkedTruth:
    """Sorts marks of G goals by their episodes."""
    by_episode: dict[str, list[Mark]] = {}
    for mark in marks:
        by_episode.setdefault(mark.episode_id, []).append(mark)
    return MarkedTruth(num_goals=num_goals, marks=by_episode)
