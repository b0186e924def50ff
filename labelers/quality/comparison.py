"""Compares two labelings of the same frames by integer counts per goal, which add up in any order.

    scores and successes of A and B, one episode ──► ScoreChanges ──merge──► ScoreChanges of all ──► change_table, one row per goal
                  [F, G]

All sums are of integers, so a table depends neither on how frames are grouped nor on the order in which groups are added.

Shape letters: F frames of one episode that both label, G goals that both label, B occupied cells of a joint histogram.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from vlm_rewards.labelers.quality.agreement import CONSTANT
from vlm_rewards.labelers.quality.rankings import score_bins
from vlm_rewards.schemas.goals import Goal

COUNTS = (
    "compared",
    "changed",
    "only_in_a",
    "only_in_b",
    "in_neither",
    "gained_frames",
    "lost_frames",
    "gained_episodes",
    "lost_episodes",
    "flipped_episodes",
)
"""Counts of every goal: frames whose score both hold, and of these those that changed; frames whose score only A, only B
or neither holds (sparse labels); frames, and episodes, in which the goal is achieved in B and not in A, and the reverse; episodes
in which any frame flipped."""

MAX_SCORE = 1024.0
"""Scores beyond this are refused: so sums of changes stay whole numbers."""

NO_SCORES = "undefined: no score that both hold"

_UNIT = 2.0**-30  # of summed changes: finer than float32 tells scores of 0.01 or more apart
_BIN_SHIFT = 8  # of `score_bins`: 256 bins between 2^-8 and 1 - 2^-8, four per octave nearer to 0 and 1
_BIN_BITS = 13
_BIN_OFFSET = 1 << (_BIN_BITS - 1)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoreChanges:
    """The changes between the labels of A and B; they add up over episodes.

    Args:
        counts: `[G, 10]` int64, one column per name of `COUNTS`.
        total: `[G]` Python integers: the summed absolute changes of compared scores, in units of 2^-30.
        largest: `[G]` float32: the largest absolute change.
        cells: `[B]` int64, rising: goal, bin of A's and bin of B's score, of the compared frames.
        frames: `[B]` int64: frames in each cell.
    """

    counts: np.ndarray
    total: np.ndarray
    largest: np.ndarray
    cells: np.ndarray
    frames: np.ndarray


def compare_scores(
    scores: tuple[np.ndarray, np.ndarray], achieved: tuple[np.ndarray, np.ndarray], tolerance: float
) -> ScoreChanges:
    """Compares the labels of one episode.

    Args:
        scores: Scores of A and of B, `[F, G]` float32; -inf where sparse labels hold none.
        achieved: Successes of A and of B, `[F, G]` bool: successes, each by its own rule and all of its own frames.
        tolerance: Largest |B - A| that counts as unchanged, in units of the score.

    Raises:
        ValueError: A score is not a number of at most `MAX_SCORE`.
    """
    for name, values in zip("AB", scores, strict=True):
        wrong = ~((np.abs(values) <= MAX_SCORE) | np.isneginf(values))
        if wrong.any():
            frame, goal = np.argwhere(wrong)[0]
            raise ValueError(
                f"scores to compare must lie between -{MAX_SCORE:g} and {MAX_SCORE:g}, got {values[frame, goal]} for goal {goal} "
                f"in row {frame} of {name}; label the frames again, or rescale the formula"
            )
    a, b = scores
    was, now = achieved
    in_a, in_b = ~np.isneginf(a), ~np.isneginf(b)
    both = in_a & in_b
    change = np.zeros(a.shape)
    np.subtract(b, a, out=change, where=both, dtype=np.float64)
    np.abs(change, out=change)
    gained, lost = now & ~was, was & ~now
    counts = [
        both.sum(axis=0),
        (change > tolerance).sum(axis=0),
        (in_a & ~in_b).sum(axis=0),
        (in_b & ~in_a).sum(axis=0),
        (~in_a & ~in_b).sum(axis=0),
        gained.sum(axis=0),
        lost.sum(axis=0),
        now.any(axis=0) & ~was.any(axis=0),
        was.any(axis=0) & ~now.any(axis=0),
        (gained | lost).any(axis=0),
    ]
    _, goals = np.nonzero(both)
    cells, frames = np.unique(
        (goals << 2 * _BIN_BITS) + (_bins(a[both]) << _BIN_BITS) + _bins(b[both]), return_counts=True
    )
    return ScoreChanges(
        counts=np.stack(counts, axis=1).astype(np.int64),
        total=np.rint(change / _UNIT).astype(np.int64).sum(axis=0).astype(object),
        largest=change.max(axis=0, initial=0.0).astype(np.float32),
        cells=cells,
        frames=frames,
    )


def _bins(scores: np.ndarray) -> np.ndarray:
    return (score_bins(scores) >> _BIN_SHIFT) + _BIN_OFFSET


def merge_changes(changes: Iterable[ScoreChanges]) -> ScoreChanges:
    """Adds the changes of at least one group of frames; the result does not depend on their order or grouping."""
    parts = list(changes)
    assert parts, "there must be something to add"
    cells, entry = np.unique(np.concatenate([part.cells for part in parts]), return_inverse=True)
    frames = np.zeros(len(cells), dtype=np.int64)
    np.add.at(frames, entry, np.concatenate([part.frames for part in parts]))
    return ScoreChanges(
        counts=np.sum([part.counts for part in parts], axis=0),
        total=np.sum([part.total for part in parts], axis=0),
        largest=np.max([part.largest for part in parts], axis=0),
        cells=cells,
        frames=frames,
    )


def rank_correlation(cells: np.ndarray, frames: np.ndarray) -> float | str:
    """Returns Spearman's correlation of A's and B's scores of one goal; frames of one bin share the mean of their ranks.

    It is 1 where B only rescales A: then the scores changed and what they say of the order of frames did not.

    Args:
        cells: `[B]` int64, cells of `ScoreChanges` of one goal.
        frames: `[B]` int64.

    Returns:
        -1..1, or why it is undefined: all scores of A, or of B, lie in one bin.

    Source: Spearman 1904; equal to scipy.stats.spearmanr of the binned scores.
    """
    columns = (cells >> _BIN_BITS) % (1 << _BIN_BITS), cells % (1 << _BIN_BITS)
    centred = []
    for column in columns:
        _, entry = np.unique(column, return_inverse=True)
        sizes = np.bincount(entry, frames)
        ranks = np.cumsum(sizes) - (sizes - 1) / 2
        centred.append(ranks[entry] - (frames.sum() + 1) / 2)
    one, other = centred
    spread = float((frames * one**2).sum() * (frames * other**2).sum())
    return float((frames * one * other).sum()) / spread**0.5 if spread > 0 else CONSTANT


def change_table(changes: ScoreChanges, goals: Sequence[Goal]) -> list[dict[str, object]]:
    """Returns one row per goal, in the order of the goals.

    Args:
        changes: Changes of these goals.
        goals: G goals.

    Returns:
        `id`, `text`, `family`, the counts of `COUNTS`, `mean_change` and `largest_change` (absolute, in units of the score) and
        `rank_correlation`; these three are texts that begin with "undefined" where no score can be compared, the last also where
        one side is constant.
    """
    assert len(goals) == len(changes.counts), (len(goals), len(changes.counts))
    bounds = np.searchsorted(changes.cells, np.arange(len(goals) + 1) << 2 * _BIN_BITS)
    rows: list[dict[str, object]] = []
    for index, goal in enumerate(goals):
        counts = dict(zip(COUNTS, changes.counts[index].tolist(), strict=True))
        own = slice(bounds[index], bounds[index + 1])
        compared = counts["compared"]
        rows.append(
            {
                "id": goal.id,
                "text": goal.text,
                "family": goal.family,
                **counts,
                "mean_change": changes.total[index] * _UNIT / compared if compared else NO_SCORES,
                "largest_change": float(changes.largest[index]) if compared else NO_SCORES,
                "rank_correlation": rank_correlation(changes.cells[own], changes.frames[own])
                if compared
                else NO_SCORES,
            }
        )
    return rows
