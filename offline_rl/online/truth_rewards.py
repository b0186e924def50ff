"""Rewards by the environment's ground truth instead of the model, to compare with: a ceiling, and rewards that are wrong as stated.

    model              the labeler scores the frame
    truth              a goal is achieved where it holds in the frame
    truth:0.01:0.2     of the frames where it does not hold, 1% count as achieved; of those where it holds, 20% do not
    shuffled-truth     a goal is achieved where another goal of its family holds, the same one all along

Errors belong to a frame and a goal: whenever the two meet, the verdict is the same, as a model's is.

Shape letters: N environments, M of them are judged, H and W sides of a frame, G goals.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlm_rewards.labelers.encoders.embedding_cache import frame_digest
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.rules import RewardRule

MODEL = "model"
_FORMS = "model, truth, truth:FALSE-POSITIVES:FALSE-NEGATIVES or shuffled-truth"


class TruthReward(NamedTuple):
    """How ground truth is turned into rewards.

    Attributes:
        false_positives: Share of the frames without the goal that count as achieved.
        false_negatives: Share of the frames with the goal that do not.
        shuffled: Whether each goal is judged by another goal of its family.
    """

    false_positives: float = 0.0
    false_negatives: float = 0.0
    shuffled: bool = False


def parse_reward(text: str) -> TruthReward | None:
    """Returns how a source of rewards uses ground truth; None for the model, which does not.

    Raises:
        ValueError: The text has none of the forms of the module's table, or a share is not from 0 to 1.
    """
    kind, *shares = text.split(":")
    if (kind, len(shares)) in ((MODEL, 0), ("shuffled-truth", 0), ("truth", 0)):
        return None if kind == MODEL else TruthReward(shuffled=kind == "shuffled-truth")
    try:
        positives, negatives = (float(share) for share in shares)
    except ValueError:
        positives = negatives = np.nan
    if kind != "truth" or not (0 <= positives <= 1 and 0 <= negatives <= 1):
        raise ValueError(
            f"reward must be {_FORMS}, with shares from 0 to 1, got {text!r}. Write, for example, truth:0.01:0.2."
        )
    return TruthReward(positives, negatives)


class TruthScores:
    """Scores of frames by ground truth: 1 where a goal counts as achieved, else 0.

    Args:
        how: How truth is turned into rewards.
        goals: The G goals.
        seed: Seed of the errors and of the shuffling.

    Attributes:
        rule: Rule of these scores: a reward of 1 where the score is 1.

    Raises:
        ValueError: The goals are to be shuffled, and a family has only one.
    """

    def __init__(self, how: TruthReward, goals: Sequence[Goal], seed: int) -> None:
        self.rule = RewardRule(thresholds=(0.5,) * len(goals))
        self._how, self._seed = how, seed
        self._ids = [goal.id for goal in goals]
        if how.shuffled:
            self._ids = [goals[other].id for other in _others_of_family(goals, seed)]

    def __call__(self, frames: np.ndarray, infos: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
        """Scores the frames of some environments.

        Args:
            frames: [N, H, W, 3] uint8.
            infos: Infos of the vector of environments, with the ids of the goals that hold as `facts`.
            rows: [M] int64, the environments.

        Returns:
            [M, G] float32.

        Raises:
            ValueError: The infos do not say which goals hold.
        """
        scores = np.zeros((len(rows), len(self._ids)), np.float32)
        for score, row in zip(scores, rows.tolist(), strict=True):
            if "facts" not in infos or not infos["_facts"][row]:
                raise ValueError(
                    f"rewards by ground truth need environments that say which goals hold, as 'facts' in their infos: got "
                    f"{', '.join(infos) or 'none'}. Take the reward 'model'."
                )
            holds = infos["facts"][row]
            score[:] = [goal_id in holds for goal_id in self._ids]
            self._err(score, frames[row])
        return scores

    def _err(self, score: np.ndarray, frame: np.ndarray) -> None:
        if self._how.false_positives or self._how.false_negatives:
            key = int.from_bytes(frame_digest(frame)[:8], "big")
            draws = np.random.default_rng([self._seed, key]).random(len(score))
            wrong = draws < np.where(score > 0, self._how.false_negatives, self._how.false_positives)
            score[wrong] = 1 - score[wrong]


def _others_of_family(goals: Sequence[Goal], seed: int) -> list[int]:
    """Returns for each goal another one of its family: a cycle through the family in random order."""
    random = np.random.default_rng(seed)
    others = list(range(len(goals)))
    for family in dict.fromkeys(goal.family for goal in goals):
        order = random.permutation([index for index, goal in enumerate(goals) if goal.family == family]).tolist()
        if len(order) == 1:
            raise ValueError(
                f"a family must have two goals to be shuffled, got one in {family!r}. Give more goals, or another reward."
            )
        for one, other in zip(order, [*order[1:], order[0]], strict=True):
            others[one] = other
    return others
