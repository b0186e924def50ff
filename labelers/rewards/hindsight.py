"""Chooses hindsight goals: the goals that an episode achieved by its labels, and which of them to train on.

Shapes: F frames of an episode, T = F-1 steps between them, G goals, E achievements of one goal.

    frame         o_0   o_1   o_2   o_3   o_4   o_5   o_6
    action          a_0   a_1   a_2   a_3   a_4   a_5
    achieved[:,g]  .     .     X     X     .     X     X          score of the frame > threshold
    reward          0     1     1     0     1     1               of step t: achieved[t+1]
                |<-- 1st --->|               |2nd|           segments: steps 0, 1 and step 4

An *achievement* of g is a frame t >= 1 in which g holds and in frame t-1 does not. Its segment is the steps start..t-1
where start is the frame after the last one before t in which g holds, or 0. So the rewards of a segment are 0, ..., 0,
1: the success ends it, terminated, and a goal that holds from frame 0 on is no achievement of the agent.

Without a recorded final frame the last action has no successor: T is F-1 all the same, and that action is left out.

Source: Andrychowicz et al. 2017, "Hindsight Experience Replay", whose strategies "final" and "future" choose a goal for
each transition among the states reached later. Here a language goal is chosen for a whole prefix, and never for a step
after the success; the strategy chooses which achievement of the goal ends the prefix. The negatives, the same episode
under goals it did not achieve, are not in that paper: with successes alone the value of every goal rises to 1.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_rewards.schemas.goals import DEFAULT_SHARES, Goal, normalize_instruction, read_goal_shares
from vlm_rewards.schemas.options import as_declared, option

STRATEGIES = ("first", "final", "future")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HindsightSettings:
    """Settings of the choice of goals for relabelling.

    Args:
        strategy: Achievement of a goal that ends its segment: "first" the first one; "future" one drawn at random;
            "final" only goals that hold in the last frame, from when they began to hold.
        goals_per_episode: K, the largest number of goals an episode is relabelled with.
        ratio: Shares of original, hindsight and negative goals among the K. The quotas are the shares of K rounded by
            largest remainder; an episode has at most one original goal. A quota that an episode cannot fill stays
            unfilled.
        balance: From 0, goals are drawn as often as they are achieved, to 1, as equally often as the episodes allow: a
            hindsight goal's weight is 1 / (episodes that achieve it) ** balance.
        seed: Seed of all draws.

    Raises:
        ValueError: A setting is out of its range.
    """

    strategy: str = dataclasses.field(
        default="future",
        metadata=option(
            "",
            "which achievement of a goal ends the episode: the first, one that still holds at the end, or one drawn at random",
            choices=STRATEGIES,
        ),
    )
    goals_per_episode: int = dataclasses.field(default=4, metadata=option("K", "largest number of goals per episode"))
    ratio: tuple[float, float, float] = dataclasses.field(
        default=DEFAULT_SHARES,
        metadata=option("O:H:N", "shares of original, hindsight and negative goals among them", read=read_goal_shares),
    )
    balance: float = dataclasses.field(
        default=1.0,
        metadata=option("X", "a goal is drawn with weight 1/(episodes that achieved it)^X; 0: no balance"),
    )
    seed: int = dataclasses.field(default=0, metadata=option("N", "seed of the draws"))

    def __post_init__(self) -> None:
        as_declared(self)
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy!r}; choose one")
        if self.goals_per_episode < 1:
            raise ValueError(f"goals_per_episode must be at least 1, got {self.goals_per_episode}; raise it")
        shares = np.asarray(self.ratio, dtype=np.float64)
        if shares.shape != (3,) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() == 0:
            raise ValueError(
                "ratio must be three shares of original, hindsight and negative goals, none below 0 and not all 0, got "
                f"{self.ratio}; give such as 0.2, 0.5, 0.3"
            )
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance must be between 0 and 1, got {self.balance}; 1 balances goals most")


class Segment(NamedTuple):
    """Steps start <= t < stop that belong to one goal."""

    start: int
    stop: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelabelledGoal:
    """A goal to train an episode on.

    Args:
        goal: Index among the G goals.
        kind: "original", "hindsight" or "negative".
        start: First step of the segment.
        stop: End of the segment, exclusive.
        terminated: Whether the segment's last step achieves the goal.
    """

    goal: int
    kind: str
    start: int
    stop: int
    terminated: bool


def achievements(achieved: np.ndarray) -> np.ndarray:
    """Finds the frames in which a goal begins to hold.

    Args:
        achieved: [F, G] bool, whether a goal holds in a frame.

    Returns:
        [F, G] bool, true in frame t >= 1 where the goal holds and in frame t-1 does not.
    """
    begins = np.zeros_like(achieved)
    begins[1:] = achieved[1:] & ~achieved[:-1]
    return begins


def segments(achieved: np.ndarray) -> list[Segment]:
    """Returns the segments of one goal, one per achievement, as drawn above.

    Args:
        achieved: [F] bool, whether the goal holds in a frame.

    Returns:
        E segments in order of time; they do not overlap.
    """
    result = []
    for stop in np.flatnonzero(achievements(achieved[:, None])[:, 0]):
        before = np.flatnonzero(achieved[:stop])
        result.append(Segment(int(before[-1]) + 1 if len(before) else 0, int(stop)))
    return result


def quotas(goals_per_episode: int, ratio: Sequence[float]) -> tuple[int, int, int]:
    """Returns the largest numbers of original, hindsight and negative goals of an episode.

    Args:
        goals_per_episode: K.
        ratio: Shares of original, hindsight and negative goals.

    Returns:
        Three numbers, the first at most 1. They add up to K, unless all of the ratio is on the original goal.
    """
    original, hindsight, negative = _largest_remainder(goals_per_episode, ratio)
    if original > 1:
        original, (hindsight, negative) = 1, _largest_remainder(goals_per_episode - 1, ratio[1:])
    return original, hindsight, negative


def original_goals(goals: Sequence[Goal]) -> dict[str, int]:
    """Returns the goal that an instruction asks for.

    Returns:
        By normalized instruction or text (`schemas.goals.normalize_instruction`), the index of the first such goal.
    """
    by_wording: dict[str, int] = {}
    for index, goal in enumerate(goals):
        for wording in (*goal.instructions, goal.text):
            by_wording.setdefault(normalize_instruction(wording), index)
    return by_wording


def goal_groups(goals: Sequence[Goal]) -> np.ndarray:
    """Numbers the groups: goals of one group hold in the same states and share a number.

    Returns:
        [G] int64, the index of the first goal of the group; a goal without a group is alone.
    """
    first: dict[str, int] = {}
    return np.array(
        [index if goal.group is None else first.setdefault(goal.group, index) for index, goal in enumerate(goals)]
    )


def choose_goals(
    achieved: np.ndarray,
    *,
    original: int | None,
    groups: np.ndarray,
    counts: np.ndarray,
    settings: HindsightSettings,
    episode_id: str,
) -> list[RelabelledGoal]:
    """Chooses the goals of one episode.

    - original: the goal of the instruction, ended by its first achievement; the whole episode if it holds in no frame;
      not used if it holds from frame 0 on and is never achieved again.
    - hindsight: goals with an achievement that the strategy admits, one per group, not of the original's group; drawn
      without replacement with weights 1 / counts ** balance.
    - negative: the whole episode under goals that hold in no frame, one per group, not of the group of a goal that holds
      in some frame, nor of the original's; drawn without replacement with weights counts ** (1 - balance). That is
      about how often hindsight draws use a goal, so the goal alone does not tell success from failure; a goal that no
      episode achieves is never used.

    Every draw is a function of the seed and the episode's id alone: shards, order and workers change nothing.

    Args:
        achieved: [F, G] bool, whether a goal holds in a frame, by the labels.
        original: Index of the goal the instruction asks for; None if there is none.
        groups: [G], from `goal_groups`.
        counts: [G], the episodes of the corpus that achieve each goal (with an achievement, not merely holding).
        settings: The settings.
        episode_id: The episode's key.

    Returns:
        At most K goals, each group once: the original first, then hindsight and negative goals in the order drawn.
    """
    num_steps = len(achieved) - 1
    if num_steps < 1:
        return []
    num_original, num_hindsight, num_negative = quotas(settings.goals_per_episode, settings.ratio)
    holds = np.any(achieved, axis=0)
    chosen = []
    if original is not None and num_original:
        found = segments(achieved[:, original])
        if found:
            chosen.append(_success(original, "original", found[0]))
        elif not holds[original]:
            chosen.append(_failure(original, "original", num_steps))

    reachable = np.any(achievements(achieved), axis=0)
    if settings.strategy == "final":
        reachable &= achieved[-1]
    for goal in _draw(
        np.flatnonzero(reachable & ~np.isin(groups, [groups[item.goal] for item in chosen])),
        num_hindsight,
        weights=np.maximum(counts, 1.0) ** -settings.balance,
        groups=groups,
        uniforms=_uniforms(settings.seed, episode_id, "hindsight", (2, len(groups))),
    ):
        chosen.append(_success(goal, "hindsight", _pick(segments(achieved[:, goal]), goal, settings, episode_id)))

    excluded = groups[holds] if original is None else np.append(groups[holds], groups[original])
    for goal in _draw(
        np.flatnonzero((counts > 0) & ~np.isin(groups, excluded)),
        num_negative,
        weights=np.maximum(counts, 1.0) ** (1 - settings.balance),
        groups=groups,
        uniforms=_uniforms(settings.seed, episode_id, "negative", (2, len(groups))),
    ):
        chosen.append(_failure(goal, "negative", num_steps))
    return chosen


def _success(goal: int, kind: str, segment: Segment) -> RelabelledGoal:
    return RelabelledGoal(goal=goal, kind=kind, start=segment.start, stop=segment.stop, terminated=True)


def _failure(goal: int, kind: str, num_steps: int) -> RelabelledGoal:
    return RelabelledGoal(goal=goal, kind=kind, start=0, stop=num_steps, terminated=False)


def _pick(found: list[Segment], goal: int, settings: HindsightSettings, episode_id: str) -> Segment:
    if settings.strategy == "first":
        return found[0]
    if settings.strategy == "final":
        return found[-1]
    return found[int(_uniforms(settings.seed, episode_id, f"future {goal}", (1,))[0] * len(found))]


def _draw(
    candidates: np.ndarray, number: int, *, weights: np.ndarray, groups: np.ndarray, uniforms: np.ndarray
) -> list[int]:
    one_a_group: dict[int, int] = {}
    for goal in sorted(candidates.tolist(), key=lambda goal: uniforms[0, goal]):
        one_a_group.setdefault(int(groups[goal]), goal)
    # The smallest of exponential variables with rates w draw without replacement (Efraimidis and Spirakis 2006).
    arrival = -np.log1p(-uniforms[1]) / weights
    return sorted(one_a_group.values(), key=lambda goal: arrival[goal])[:number]


def _uniforms(seed: int, episode_id: str, purpose: str, shape: tuple[int, ...]) -> np.ndarray:
    key = hashlib.sha256(json.dumps([seed, episode_id, purpose]).encode()).digest()
    return np.random.default_rng(int.from_bytes(key, "big")).random(shape)


def _largest_remainder(number: int, shares: Sequence[float]) -> list[int]:
    total = sum(shares)
    if total == 0:
        return [0] * len(shares)
    exact = [number * share / total for share in shares]
    result = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (result[i] - exact[i], i))
    for index in by_remainder[: number - sum(result)]:
        result[index] += 1
    return result
