"""The goal of each running episode: the one that its environment names, or one drawn of those that it can be asked for.

    infos["goal_id"] of a reset  ──► that goal, if it is one of those that may be asked for; else the run is refused
    infos["goal_ids"] of a reset ──► uniform among these, those that may be asked for; the run is refused if none may
    neither                      ──► uniform among those that may be asked for, a stream of draws per environment

Shape letters: N environments, G goals of the labeler.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlm_rewards.schemas.goals import Goal

_STREAM = 1  # a stream apart from the environment's own, which has the same seed


class EpisodeGoals:
    """Goals of the running episodes of N environments; see the module's picture.

    Args:
        goals: The G goals of the labeler.
        num_envs: N.
        allowed: Ids of the goals that an episode may ask for; None for all.

    Attributes:
        indices: [N] int64, the goals now, as indices of `goals`; -1 before the first episode.

    Raises:
        ValueError: An allowed goal is not a goal of the labeler, or none is allowed.
    """

    def __init__(self, goals: Sequence[Goal], num_envs: int, allowed: Sequence[str] | None = None) -> None:
        known = {goal.id: index for index, goal in enumerate(goals)}
        unknown = [goal_id for goal_id in allowed or () if goal_id not in known]
        if unknown or (allowed is not None and not len(allowed)):
            raise ValueError(
                f"goals must be ids of the {len(known)} goals of the labeler, at least one, got {(unknown or ['none'])[0]!r}. Give "
                f"ids such as {next(iter(known))!r}, or leave it out for all goals."
            )
        self.indices = np.full(num_envs, -1, np.int64)
        self._index_of = known if allowed is None else {goal_id: known[goal_id] for goal_id in allowed}
        self._choices = np.array(list(self._index_of.values()), np.int64)
        self._draws: list[np.random.Generator | None] = [None] * num_envs  # begun by a seed, or by the first draw

    def seed(self, seed: int | Sequence[int | None] | None, envs: np.ndarray) -> None:
        """Begins new streams of draws, with seeds as `reset` of a vector environment takes them.

        Args:
            seed: One int s for the seeds s, s + 1, ..., or one seed per environment; None leaves a stream as it is.
            envs: [K] int64, the environments that are reset.
        """
        num_envs = len(self.indices)
        seeds = list(range(seed, seed + num_envs)) if isinstance(seed, int) else seed or [None] * num_envs
        for index in envs.tolist():
            if seeds[index] is not None:
                self._draws[index] = np.random.default_rng((seeds[index], _STREAM))

    def begin(self, envs: np.ndarray, infos: Mapping[str, Any]) -> None:
        """Gives goals to the episodes that begin.

        Args:
            envs: [K] int64, the environments that begin an episode.
            infos: Infos of the reset, as a vector environment gives them.

        Raises:
            ValueError: An environment names a goal that may not be asked for.
        """
        told, says = self._named(infos, "goal_id")
        possible, limits = self._named(infos, "goal_ids")
        for index in envs.tolist():
            if not says[index]:
                choices = self._choices_among(possible[index], index) if limits[index] else self._choices
                draws = self._draws[index] or np.random.default_rng()
                self._draws[index] = draws
                self.indices[index] = draws.choice(choices)
            elif told[index] in self._index_of:
                self.indices[index] = self._index_of[told[index]]
            else:
                allowed = ", ".join(list(self._index_of)[:3])
                raise ValueError(
                    f"goal_id in the infos of a reset must be one of the {len(self._index_of)} goals that may be asked for "
                    f"({allowed}, ...), got {told[index]!r} in environment {index}. Make the environments with these goals, or "
                    f"label with that goal."
                )

    def _named(self, infos: Mapping[str, Any], name: str) -> tuple[Any, Any]:
        """Returns the environments' infos under a name, and which of them have one."""
        none = np.full(len(self.indices), None)
        told = infos.get(name, none)
        return told, infos.get(f"_{name}", [value is not None for value in told])

    def _choices_among(self, goal_ids: Sequence[str], index: int) -> list[int]:
        found = [self._index_of[goal_id] for goal_id in goal_ids if goal_id in self._index_of]
        if not found:
            raise ValueError(
                f"environment {index} can be asked for none of the {len(self._index_of)} goals that may be asked for: got the "
                f"goal_ids {list(goal_ids)[:3]}. Allow one of them, or label with one."
            )
        return found

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to resume."""
        states = [None if draws is None else draws.bit_generator.state for draws in self._draws]
        return {"indices": self.indices.copy(), "draws": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.indices[:] = state["indices"]
        assert len(state["draws"]) == len(self._draws), (len(state["draws"]), len(self._draws))
        for index, saved in enumerate(state["draws"]):
            self._draws[index] = None if saved is None else _generator(saved)


def _generator(state: Mapping[str, Any]) -> np.random.Generator:
    generator = np.random.default_rng()
    generator.bit_generator.state = state
    return generator
