"""Hindsight on live episodes: an episode that has ended is stored again, under goals that the model saw achieved and others.

    frame       o_0   o_1   o_2   ...   o_T
    scores       ?    s_1   s_2   ...   s_T        the step that leads to o_{t+1} brings its scores s_{t+1}, for all goals
    action        a_0   a_1   ...  a_{T-1}

    add a step ──► the last step of an episode: successes of o_1 .. o_T ──► segments, as `rewards.hindsight` cuts a corpus
                                                                            └──► FinishedEpisode ──► OnlineBuffer.add_episode

The scores of the first frame are not known here. A goal that holds in o_1 (the first of `min_frames` frames) is therefore taken to
hold from the start, which is no achievement of the agent. The reward "difference" of step 0 is unknown, and no segment has step 0.

Shape letters: N environments, T steps of an episode, G goals, K goals that an episode is stored under.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.rewards.hindsight import HindsightSettings, achievements, choose_goals, goal_groups
from vlm_rewards.labelers.rewards.rewards import rewards_of_scores, successes
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer
from vlm_rewards.schemas.rules import RewardRule


class FinishedEpisode(NamedTuple):
    """An episode under the goals that hindsight chose.

    Attributes:
        numbers: [T] int64, its transitions in the buffer.
        goals: [K] int64, rows of the labeler's goals.
        rewards: [K, T] float32.
        start: [K] int64, the first step of each goal's segment.
        stop: [K] int64, the step after the last one.
        terminated: [K] bool, whether the last step achieves the goal.
    """

    numbers: np.ndarray
    goals: np.ndarray
    rewards: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    terminated: np.ndarray

    def store(self, buffer: OnlineBuffer) -> int:
        """Stores the episode under these goals; returns the number of transitions stored."""
        if not len(self.goals):
            return 0
        return buffer.add_episode(
            self.numbers, self.goals, self.rewards, start=self.start, stop=self.stop, terminated=self.terminated
        )


class LiveHindsight:
    """Gathers the episodes of N environments and relabels each when it ends.

    Args:
        labeler: Labeler that scored the frames.
        num_envs: N.
        settings: Choice of goals. Its share of original goals has no effect: the buffer has the episode under that goal already.
        excluded: Ids of goals that an episode is never stored under, such as held-out goals.
        rule: Rule of the scores; None for the labeler's.
    """

    def __init__(
        self,
        labeler: Labeler,
        num_envs: int,
        settings: HindsightSettings,
        *,
        excluded: Sequence[str] = (),
        rule: RewardRule | None = None,
    ) -> None:
        used = [index for index, goal in enumerate(labeler.goals) if goal.id not in set(excluded)]
        self._columns = np.array(used, np.int64)
        self._rule = (labeler.rule if rule is None else rule).select(used)
        self._groups = goal_groups([labeler.goals[index] for index in used])
        self._settings = settings
        self._counts = np.zeros(len(used), np.int64)
        self._num_episodes = 0
        self._open: list[dict[str, list]] = [_episode() for _ in range(num_envs)]

    def add(
        self, numbers: np.ndarray, goals: np.ndarray, scores: np.ndarray, ended: np.ndarray
    ) -> list[FinishedEpisode]:
        """Takes in a step of all environments.

        Args:
            numbers: [N] int64, from `OnlineBuffer.add`; -1 where there was no transition.
            goals: [N] int64, the goals under which the step was taken.
            scores: [N, G] float32 of the frames after the action.
            ended: [N] bool, whether the episode ended there.

        Returns:
            The episodes that ended there, relabelled.
        """
        finished = []
        for index, (number, goal, row) in enumerate(
            zip(numbers.tolist(), goals.tolist(), scores[:, self._columns], strict=True)
        ):
            episode = self._open[index]
            if number >= 0:
                episode["numbers"].append(number)
                episode["scores"].append(row)
                episode["goal"] = [goal]
            if ended[index]:
                finished.append(self._relabel(episode))
                self._open[index] = _episode()
        return finished

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to resume."""
        return {
            "open": [{name: list(values) for name, values in episode.items()} for episode in self._open],
            "counts": self._counts.copy(),
            "num_episodes": self._num_episodes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._open = [{name: list(values) for name, values in episode.items()} for episode in state["open"]]
        self._counts[:] = state["counts"]
        self._num_episodes = state["num_episodes"]

    def _relabel(self, episode: dict[str, list]) -> FinishedEpisode:
        scores = np.stack(episode["scores"])
        # Successes of o_0 .. o_T. A goal that holds in the first frames that have scores is taken to hold in o_0 too.
        unknown = np.full_like(scores[:1], -np.inf)
        achieved = successes(np.concatenate([unknown, scores]), self._rule)
        first = scores[: self._rule.min_frames] > self._rule.threshold_array
        if len(first) == self._rule.min_frames:
            achieved[: len(first), first.all(axis=0)] = True
        rewards = self._rewards(unknown, scores)
        begin = int(self._rule.reward == "difference")  # r_0 is not known
        # How often each goal was achieved so far decides how often it is drawn.
        self._counts += np.any(achievements(achieved), axis=0)
        self._num_episodes += 1
        # The buffer has the episode under its own goal, which is the same as under any goal of its group: draw none of them.
        own = np.flatnonzero(self._columns == episode["goal"][0])
        excluded = achieved.copy()
        if len(own):
            excluded[:, self._groups == self._groups[own[0]]] = True
        chosen = choose_goals(
            excluded,
            original=None,
            groups=self._groups,
            counts=self._counts,
            settings=self._settings,
            episode_id=f"live {self._num_episodes}",
        )
        chosen = [item for item in chosen if item.stop > begin]
        goals = [item.goal for item in chosen]
        return FinishedEpisode(
            numbers=np.array(episode["numbers"], np.int64),
            goals=self._columns[goals],
            rewards=rewards[:, goals].T.copy(),
            start=np.array([max(item.start, begin) for item in chosen], np.int64),
            stop=np.array([item.stop for item in chosen], np.int64),
            terminated=np.array([item.terminated for item in chosen], np.bool_),
        )

    def _rewards(self, unknown: np.ndarray, scores: np.ndarray) -> np.ndarray:
        needs_scores = self._rule.reward in ("score", "difference")
        return rewards_of_scores(np.concatenate([scores[:1] if needs_scores else unknown, scores]), self._rule)


def _episode() -> dict[str, list]:
    return {"numbers": [], "scores": [], "goal": []}
