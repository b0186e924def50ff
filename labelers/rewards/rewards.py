"""From the scores of frames to successes and rewards: pure functions of scores and a `RewardRule`.

    frame     o_0   o_1   o_2   ...   o_T         scores, successes  [F, G], F = T + 1: one row per frame
    action      a_0   a_1   ...  a_{T-1}
    reward      r_0   r_1   ...  r_{T-1}          rewards [T, G]: r_t looks at o_{t+1}, the frame after the action

With min_frames = 2 and a hysteresis, a flicker neither begins a success nor ends one:

    score      .2   .9   .3   .9   .9   .45   .9   .2        threshold .5, hysteresis .1
    over        .    X    .    X    X    .     X    .
    success     .    .    .    .    X    X     X    .        begins at the second frame over .5, ends at or under .4

Whole episodes and live environments, which give one frame at a time, share `advance` and `step_rewards`: the same bits.

Shape letters: F = T + 1 frames of one episode in order, G goals, N episodes that run at once.
"""

from typing import NamedTuple

import numpy as np

from vlm_rewards.schemas.rules import RewardRule

_NEVER = np.int32(-(1 << 30))


class RuleProgress(NamedTuple):
    """State of the rule after the frames so far.

    Attributes:
        run: [..., G] int32, successive frames over the threshold up to the last one.
        success: [..., G] bool, whether the goal counts as achieved in the last frame.
    """

    run: np.ndarray
    success: np.ndarray

    @classmethod
    def start(cls, shape: tuple[int, ...]) -> "RuleProgress":
        """Returns the progress before the first frame."""
        return cls(np.zeros(shape, np.int32), np.zeros(shape, np.bool_))


def advance(scores: np.ndarray, rule: RewardRule, progress: RuleProgress) -> tuple[np.ndarray, RuleProgress]:
    """Follows the rule through the next frames.

    A success begins in the `min_frames`-th successive frame whose score is over the threshold, and lasts until the first frame
    whose score is at or under threshold - hysteresis.

    Args:
        scores: [F, ..., G] float32 of the next F frames in order, F at least 1.
        rule: Rule of these G goals.
        progress: Progress before them, of shape [..., G].

    Returns:
        Successes [F, ..., G] bool, and the progress after the last frame.
    """
    frame = np.arange(len(scores), dtype=np.int32).reshape(-1, *[1] * (scores.ndim - 1))
    last_under = _latest(np.where(scores > rule.threshold_array, _NEVER, frame), -1 - progress.run)
    begun = _latest(np.where(frame - last_under >= rule.min_frames, frame, _NEVER), progress.success - np.int32(2))
    released = _latest(np.where(scores > rule.release_array, _NEVER, frame), np.int32(-2))
    success = begun > released
    return success, RuleProgress(len(scores) - 1 - last_under[-1], success[-1])


def _latest(frames: np.ndarray, before: np.ndarray | np.int32) -> np.ndarray:
    """Returns the latest of the frames [F, ..., G] so far; `before`, which is [..., G] or one number, where there was none."""
    frames[0] = np.maximum(frames[0], before)
    return np.maximum.accumulate(frames, axis=0, out=frames)


def step_rewards(before: np.ndarray, after: np.ndarray, achieved: np.ndarray, rule: RewardRule) -> np.ndarray:
    """Returns rewards of steps, by `rule.reward`; see `rewards_of_scores`.

    Args:
        before: [..., G] float32 scores of the frames before the steps.
        after: [..., G] float32 scores of the frames after them.
        achieved: [..., G] bool, whether the goals count as achieved after them.
        rule: Rule of these G goals.

    Returns:
        [..., G] float32.
    """
    if rule.reward == "score":
        return after.copy()
    if rule.reward == "difference":
        return after - before
    if rule.reward == "success":
        return achieved.astype(np.float32)
    cost = rule.discount * np.array(rule.fire_rates)
    return np.maximum(0.0, achieved.astype(np.float32) - cost).astype(np.float32)


def successes(scores: np.ndarray, rule: RewardRule) -> np.ndarray:
    """Says in which frames each goal counts as achieved: `advance` over a whole episode.

    The default rule, one frame and no hysteresis, is score > threshold.

    Args:
        scores: `[F, G]` float32 of one episode's frames in order; -inf where sparse labels hold none.
        rule: Rule of these G goals.

    Returns:
        `[F, G]` bool.

    Raises:
        ValueError: A score is NaN.
    """
    assert scores.ndim == 2, scores.shape
    assert scores.shape[1] == len(rule.thresholds), (scores.shape, len(rule.thresholds))
    _check_numbers(scores)
    if rule.is_framewise or not len(scores):
        return scores > rule.threshold_array
    return advance(scores, rule, RuleProgress.start(scores.shape[1:]))[0]


def rewards_of_scores(scores: np.ndarray, rule: RewardRule) -> np.ndarray:
    """Returns rewards of an episode's steps, by `rule.reward`:

        success      r_t = 1[success in o_{t+1}]                                   Baumli et al. 2023, equation (2)
        score        r_t = V(o_{t+1})                                              VLM-RM; MineCLIP "direct"
        difference   r_t = V(o_{t+1}) - V(o_t)                                     LIV, VIP; MineCLIP "delta"
        discounted   r_t = max(0, 1[success in o_{t+1}] - c p_fire)                BiMI

    V is the score of whatever formula the scores are of: the difference of "shifted-softmax" scores is MineCLIP's delta
    reward, the difference of cosines LIV's and VIP's potential difference.

    Args:
        scores: `[F, G]` float32 of one episode's frames in order.
        rule: Rule of these G goals.

    Returns:
        `[F - 1, G]` float32. Row t looks at frame t + 1; the first frame gives no reward.

    Raises:
        ValueError: A score is NaN, or the reward needs every score and one is missing, as in sparse labels.

    Sources: Baumli et al. 2023 (they do not give the threshold); Rocamonde et al. 2024 (VLM-RM); Fan et al. 2022 (MineCLIP); Ma et
    al. 2023 (LIV, VIP: there V is the similarity or a negative distance, here any formula, and there is no discount factor in the
    difference); "The Dark Side of Rich Rewards" 2024 (BiMI: there the reward is for one goal with a conformal threshold, here
    for all goals with any threshold).
    """
    assert len(scores) >= 1, scores.shape
    if rule.reward in ("score", "difference"):
        _check_numbers(scores)
        if np.isneginf(scores).any():
            raise ValueError(
                f"scores must all be known for the reward {rule.reward!r}, got sparse labels; label again without --sparse"
            )
    return step_rewards(scores[:-1], scores[1:], successes(scores, rule)[1:], rule)


def _check_numbers(scores: np.ndarray) -> None:
    undefined = np.isnan(scores)
    if undefined.any():
        frame, goal = np.argwhere(undefined)[0]
        raise ValueError(f"scores must be numbers, got NaN in frame {frame} for goal {goal}; label these frames again")
