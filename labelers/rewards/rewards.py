"""From the scores of an episode's frames to successes and rewards: pure functions of scores and a `RewardRule`.

    frame     o_0   o_1   o_2   ...   o_T         scores, successes  [F, G], F = T + 1: one row a frame
    action      a_0   a_1   ...  a_{T-1}
    reward      r_0   r_1   ...  r_{T-1}          rewards [T, G]: r_t looks at o_{t+1}, the frame after the action

With min_frames = 2 and a hysteresis, a flicker neither begins a success nor ends one:

    score      .2   .9   .3   .9   .9   .45   .9   .2        threshold .5, hysteresis .1
    over        .    X    .    X    X    .     X    .
    success     .    .    .    .    X    X     X    .        begins at the second frame over .5, ends at or under .4

Shape letters: F = T + 1 frames of one episode in order, G goals.
"""

import numpy as np

from vlm_rewards.schemas.rules import RewardRule


def successes(scores: np.ndarray, rule: RewardRule) -> np.ndarray:
    """Where each goal counts as achieved; causal, so a live run that has seen the frames so far says the same.

    A success begins in the `min_frames`-th successive frame whose score is over the threshold, and lasts until the first frame
    whose score is at or under threshold - hysteresis. The default, one frame and no hysteresis, is score > threshold.

    Args:
        scores: `[F, G]` float32 of one episode's frames in order; -inf where sparse labels hold none.
        rule: Of these G goals.

    Returns:
        `[F, G]` bool.

    Raises:
        ValueError: A score is NaN.
    """
    assert scores.ndim == 2, scores.shape
    assert scores.shape[1] == len(rule.thresholds), (scores.shape, len(rule.thresholds))
    _check_numbers(scores)
    over = scores > rule.threshold_array
    if rule.is_framewise:
        return over
    frame = np.arange(len(scores))[:, None]
    last_under = np.maximum.accumulate(np.where(over, -1, frame), axis=0)
    begun = np.maximum.accumulate(np.where(frame - last_under >= rule.min_frames, frame, -1), axis=0)
    released = np.maximum.accumulate(np.where(scores > rule.release_array, -1, frame), axis=0)
    return begun > released


def rewards_of_scores(scores: np.ndarray, rule: RewardRule) -> np.ndarray:
    """Rewards of an episode's steps, by `rule.reward`:

        success      r_t = 1[success in o_{t+1}]                                   Baumli et al. 2023, equation (2)
        score        r_t = V(o_{t+1})                                              VLM-RM; MineCLIP "direct"
        difference   r_t = V(o_{t+1}) - V(o_t)                                     LIV, VIP; MineCLIP "delta"
        discounted   r_t = max(0, 1[success in o_{t+1}] - c p_fire)                BiMI

    V is the score of whatever formula the scores are of: the difference of "shifted-softmax" scores is MineCLIP's delta
    reward, the difference of cosines LIV's and VIP's potential difference.

    Args:
        scores: `[F, G]` float32 of one episode's frames in order.
        rule: Of these G goals.

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
        return scores[1:] - scores[:-1] if rule.reward == "difference" else scores[1:].copy()
    achieved = successes(scores, rule)[1:].astype(np.float32)
    if rule.reward == "success":
        return achieved
    cost = rule.discount * np.array(rule.fire_rates)
    return np.maximum(0.0, achieved - cost).astype(np.float32)


def _check_numbers(scores: np.ndarray) -> None:
    undefined = np.isnan(scores)
    if undefined.any():
        frame, goal = np.argwhere(undefined)[0]
        raise ValueError(f"scores must be numbers, got NaN in frame {frame} for goal {goal}; label these frames again")
