"""The reward rule, which turns the scores of an episode's frames into successes and rewards."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

NEVER = float(np.finfo(np.float32).max)
"""The threshold of a goal that is never to count as achieved."""

REWARDS = ("success", "score", "difference", "discounted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardRule:
    """Rule for when a goal counts as achieved, and for the reward of a step.

    Args:
        thresholds: G numbers, in the order of the goals: a goal is achieved where its score is greater.
        hysteresis: Margin in units of the score: a success that has begun lasts until the score is at or under
            threshold - hysteresis.
        min_frames: Successive frames over the threshold after which a success begins, at the last of them.
        reward: Kind of reward of a step: "success" (1 where the goal is achieved in the frame after the action, else 0), "score"
            (that frame's score), "difference" (how much the score rose), or "discounted" (success, less `discount` times the
            goal's `fire_rates`, never below 0).
        discount: c of BiMI; 0 except for "discounted".
        fire_rates: G numbers 0..1, how often each goal fires where it does not hold; only for "discounted".

    Raises:
        ValueError: A number is not finite or out of its range, or a field is given that the reward does not use.
    """

    thresholds: tuple[float, ...]
    hysteresis: float = 0.0
    min_frames: int = 1
    reward: str = "success"
    discount: float = 0.0
    fire_rates: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(float(threshold) for threshold in self.thresholds))
        if not self.thresholds:
            raise ValueError("the reward rule needs one threshold per goal, got none. Give one for every goal")
        for threshold in self.thresholds:
            if not math.isfinite(threshold):
                raise ValueError(f"threshold must be a finite number, got {threshold}; give one")
        if not 0 <= self.hysteresis < math.inf:
            raise ValueError(f"hysteresis must be 0 or more and finite, got {self.hysteresis}; 0 switches it off")
        if not isinstance(self.min_frames, int) or self.min_frames < 1:
            raise ValueError(
                f"min_frames must be a whole number of at least 1, got {self.min_frames}; 1 is a success at once"
            )
        if self.reward not in REWARDS:
            raise ValueError(f"reward must be one of {', '.join(REWARDS)}, got {self.reward!r}; choose one of them")
        if self.reward == "discounted":
            if self.fire_rates is None:
                raise ValueError(
                    "fire_rates must be given for the reward 'discounted', got None. Run vlm-rewards calibrate, which measures them"
                )
            object.__setattr__(self, "fire_rates", tuple(float(rate) for rate in self.fire_rates))
            if len(self.fire_rates) != len(self.thresholds):
                raise ValueError(
                    f"fire_rates must be as many as thresholds, {len(self.thresholds)}, got {len(self.fire_rates)}; give one a goal"
                )
            for rate in self.fire_rates:
                if not 0 <= rate <= 1:
                    raise ValueError(f"a fire rate must be 0 to 1, got {rate}; calibrate again")
            if not 0 <= self.discount < math.inf:
                raise ValueError(f"discount must be 0 or more and finite, got {self.discount}; 1 is a good start")
        elif self.fire_rates is not None or self.discount:
            raise ValueError(
                f"fire_rates and discount must be left out for the reward {self.reward!r}, got discount {self.discount}. Leave out "
                "both, which are for 'discounted'"
            )

    @property
    def threshold_array(self) -> np.ndarray:
        """[G] float32: scores are compared in float32."""
        return np.array(self.thresholds, dtype=np.float32)

    @property
    def release_array(self) -> np.ndarray:
        """[G] float32: a success lasts until the score is at or under this; never above the threshold."""
        return np.minimum((np.array(self.thresholds) - self.hysteresis).astype(np.float32), self.threshold_array)

    @property
    def common_threshold(self) -> float | None:
        """The threshold that all goals have, or None where they differ."""
        return self.thresholds[0] if len(set(self.thresholds)) == 1 else None

    @property
    def is_framewise(self) -> bool:
        """Whether success in a frame depends on that frame alone."""
        return self.min_frames == 1 and self.hysteresis == 0

    def select(self, goals: Sequence[int]) -> "RewardRule":
        """Returns the rule of these goals, by their indices."""
        return dataclasses.replace(
            self,
            thresholds=tuple(self.thresholds[goal] for goal in goals),
            fire_rates=None if self.fire_rates is None else tuple(self.fire_rates[goal] for goal in goals),
        )

    def to_json(self) -> dict[str, object]:
        """Returns the rule as one JSON object; a threshold that all goals share stands once."""
        record: dict[str, object] = dataclasses.asdict(self)
        if self.common_threshold is not None:
            record["thresholds"] = self.common_threshold
        return record


def rule_from_json(record: Mapping, num_goals: int) -> RewardRule:
    """Returns the inverse of `RewardRule.to_json`."""
    thresholds = record["thresholds"]
    return RewardRule(
        **{**record, "thresholds": [thresholds] * num_goals if isinstance(thresholds, float) else thresholds}
    )
