"""Episodes of an evaluation, and the figures that they amount to: success by truth and by the model, with intervals.

Shape letters: H and W sides of a frame, F = T + 1 frames of an episode.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A share or mean with its confidence interval.

    Attributes:
        mean: The share or mean; NaN if there are no values.
        low: Lower end of the interval.
        high: Upper end of the interval.
        num: Number of values.
    """

    mean: float
    low: float
    high: float
    num: int


def interval_of(outcomes: Sequence[bool] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Returns the share of successes with Wilson's score interval, which is valid for few trials and for shares of 0 and 1:

        (p + z^2/2n ± z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    Args:
        outcomes: n outcomes of independent episodes.
        confidence: Confidence of the interval, between 0 and 1.

    Returns:
        The interval; NaN from 0 to 1 if there are no outcomes.

    Raises:
        ValueError: The confidence is out of its range.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}. 0.95 is usual.")
    n = len(outcomes)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    p = float(np.mean(outcomes))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = (centre - half) / scale if p > 0 else 0.0  # exactly, without rounding
    high = (centre + half) / scale if p < 1 else 1.0
    return Interval(p, low, high, n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One episode of an evaluation.

    Args:
        episode: Number of the episode.
        env: Name of the environment.
        level_seed: Seed of the level.
        goal_id: Id of the goal.
        family: Family of the goal.
        num_steps: T.
        success: Whether the goal held in truth in a frame after an action; None if the environment does not know.
        mission_done: Whether the level itself rewarded its mission; None if it has none.
        vlm_success: Whether the model saw the goal achieved in a frame after an action.
        vlm_step: Number of actions up to the first such frame; None if there is none.
        vlm_true: Whether the goal held in truth in that frame; None without such a frame or without ground truth.
        vlm_return: Undiscounted sum of the model's rewards up to that frame.
        vlm_false_frames: Number of frames after actions in which the model saw the goal achieved and it did not hold.
        false_frames: Number of frames after actions in which the goal did not hold.
    """

    episode: int
    env: str
    level_seed: int
    goal_id: str
    family: str
    num_steps: int
    success: bool | None
    mission_done: bool | None
    vlm_success: bool
    vlm_step: int | None
    vlm_true: bool | None
    vlm_return: float
    vlm_false_frames: int
    false_frames: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Episodes and their figures.

    Args:
        episodes: Records in the order of their numbers.
        frames: [F, H, W, 3] uint8 of each of the first episodes, as many as were asked for.
    """

    episodes: tuple[EpisodeRecord, ...]
    frames: tuple[np.ndarray, ...] = ()

    @property
    def success(self) -> Interval:
        """Share of episodes whose goal held in truth."""
        return interval_of([record.success for record in self.episodes if record.success is not None])

    @property
    def mission_done(self) -> Interval:
        """Share of episodes in which the level itself had rewarded its mission, which may ask for more than a frame shows, by the
        time the goal held in truth or the time was over."""
        return interval_of([record.mission_done for record in self.episodes if record.mission_done is not None])

    @property
    def vlm_success(self) -> Interval:
        """Share of episodes in which the model saw the goal achieved."""
        return interval_of([record.vlm_success for record in self.episodes])

    def __repr__(self) -> str:
        success, rewarded = self.success, self.vlm_success
        truth = (
            f"success {success.mean:.2f} ({success.low:.2f} to {success.high:.2f})" if success.num else "no truth known"
        )
        return (
            f"Evaluation({len(self.episodes):,} episodes: {truth}, "
            f"rewarded {rewarded.mean:.2f} ({rewarded.low:.2f} to {rewarded.high:.2f}))"
        )

    @property
    def vlm_return(self) -> float:
        """Mean return by the model's rewards."""
        return float(np.mean([record.vlm_return for record in self.episodes]))

    @property
    def false_positive_share(self) -> Interval:
        """Share of the rewarded episodes whose goal did not hold in the rewarded frame."""
        return interval_of([not record.vlm_true for record in self.episodes if record.vlm_true is not None])

    @property
    def false_positive_rate(self) -> float:
        """Share of the frames without the goal in which the model saw it achieved; NaN if there are no such frames."""
        false = sum(record.false_frames for record in self.episodes)
        return sum(record.vlm_false_frames for record in self.episodes) / false if false else math.nan

    def summary(self) -> dict[str, Any]:
        """Returns the figures as JSON, overall and by family; None where there is nothing to measure."""
        families = sorted({record.family for record in self.episodes})
        parts = {
            family: Evaluation(episodes=tuple(record for record in self.episodes if record.family == family))
            for family in families
        }
        return {**self._figures(), "families": {family: part._figures() for family, part in parts.items()}}

    def _figures(self) -> dict[str, Any]:
        intervals = {
            "success": self.success,
            "mission_done": self.mission_done,
            "vlm_success": self.vlm_success,
            "false_positive_share": self.false_positive_share,
        }
        return {
            "episodes": len(self.episodes),
            **{name: interval._asdict() if interval.num else None for name, interval in intervals.items()},
            "vlm_return": self.vlm_return,
            "false_positive_rate": None if math.isnan(self.false_positive_rate) else self.false_positive_rate,
        }


def flatten_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of an evaluation with one name each: intervals as name, name_low, name_high; families as family/name."""
    flat: dict[str, Any] = {}
    for name, value in summary.items():
        if name == "families":
            flat |= {
                f"{family}/{key}": figure
                for family, part in value.items()
                for key, figure in flatten_summary(part).items()
            }
        elif isinstance(value, Mapping):
            flat |= {name: value["mean"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        else:
            flat[name] = value
    return flat
