"""Cuts relabelled trajectories into the transitions that an agent learns from.

For one goal k of an episode with start[k] = 1 and stop[k] = 4, whose segment ends in success:

    frame         o_0   o_1   o_2   o_3   o_4   o_5
    action          a_0   a_1   a_2   a_3   a_4
    rewards[k]      0     0     0     1     1
                        |<-- segment k -->|

    transition    observation  action  reward  next_observation  mask  end
        0             1         a_1      0            2            1   no
        1             2         a_2      0            3            1   no
        2             3         a_3      1            4            0   yes

The mask multiplies the value of the next observation in a target, reward + discount * mask * V(next): it is 0 only where
the goal was achieved. A segment that ends because the recording does has mask 1 to its end, so its last step is
bootstrapped from: that the camera was switched off says nothing of the goal. `end` marks the last step of a segment in
either case, where returns and n-step sums must stop.

Shapes: N transitions of one goal, K goals of an episode, F frames, T = F-1 steps, A width of a continuous action.
"""

from typing import NamedTuple

import numpy as np

from vlm_rewards.schemas.relabelled import RelabelledEpisode


class Transitions(NamedTuple):
    """The transitions of an episode under one goal, in order of time.

    Attributes:
        observations: [N] int64, index of the frame in which the action was taken.
        actions: [N] int64 or [N, A] float32.
        rewards: [N] float32.
        next_observations: [N] int64, index of the frame after the action: observations + 1.
        masks: [N] float32, 0 where the step achieved the goal and ended the segment, else 1.
        ends: [N] bool, true for the last step of the segment.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    masks: np.ndarray
    ends: np.ndarray


def transitions(episode: RelabelledEpisode, k: int) -> Transitions:
    """Cuts the segment of goal k into transitions, as drawn above.

    Args:
        episode: A relabelled episode.
        k: Number of the goal among its K goals.

    Returns:
        N = stop[k] - start[k] transitions.

    Raises:
        ValueError: The episode has no actions.
    """
    if episode.actions is None:
        raise ValueError(
            f"an episode must have actions to learn from, got none in {episode.episode_id!r}; record them or leave it out"
        )
    steps = np.arange(episode.start[k], episode.stop[k], dtype=np.int64)
    ends = steps == steps[-1]
    return Transitions(
        observations=steps,
        actions=episode.actions[steps],
        rewards=episode.rewards[k, steps],
        next_observations=steps + 1,
        masks=np.where(ends & episode.terminated[k], 0.0, 1.0).astype(np.float32),
        ends=ends,
    )


def returns_to_go(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Returns the discounted return to go of every step: r_t + discount * r_(t+1) + ... to the end of the last axis.

    Args:
        rewards: [..., T], segments that end with the axis; zeros after the end of a shorter one change nothing.
        discount: Factor per step.

    Returns:
        [..., T] float32, summed in float64.
    """
    returns = np.array(rewards, dtype=np.float64)
    for t in range(returns.shape[-1] - 2, -1, -1):
        returns[..., t] += discount * returns[..., t + 1]
    return returns.astype(np.float32)
