"""Hindsight on live episodes: an episode that has ended is stored again under goals that the model saw achieved in it, and others.

    step t of an episode: its number in the buffer, its ticket, the scores of frame o_{t+1} when they come
    ended, all scored ──► successes of o_1 .. o_T ──► segments, as `rewards.hindsight` cuts a corpus ──► OnlineBuffer.add_episode

The first frame has no scores here, so a goal that holds in o_1 (of which o_1 is the first of `min_frames`) is taken to have held
from the start: no achievement of the agent's.
The reward "difference" of step 0 is then unknown, and the step in no segment.

Shape letters: T steps of an episode, G goals, K goals that an episode is stored under.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.rewards.hindsight import HindsightSettings, achievements, choose_goals, goal_groups
from vlm_rewards.labelers.rewards.rewards import rewards_of_scores, successes
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer


class FinishedEpisode(NamedTuple):
    """An episode under the goals that hindsight chose.

    Attributes:
        numbers: [T] int64, its transitions in the buffer.
        goals: [K] int64, rows of the labeler's goals.
        rewards: [K, T] float32.
        start, stop: [K] int64, the steps that belong to each goal.
        terminated: [K] bool, whether the last of them achieves it.
    """

    numbers: np.ndarray
    goals: np.ndarray
    rewards: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    terminated: np.ndarray

    def store(self, buffer: OnlineBuffer) -> int:
        """Stores the episode under these goals; how many transitions were stored."""
        if not len(self.goals):
            return 0
        return buffer.add_episode(
            self.numbers, self.goals, self.rewards, start=self.start, stop=self.stop, terminated=self.terminated
        )


class LiveHindsight:
    """Gathers the episodes of N environments and relabels those that have ended.

    Args:
        labeler: Whose scores these are.
        num_envs: N.
        settings: Which goals; shares of original goals are of no use here, the buffer has the original already.
        excluded: Ids of goals that are never used.
    """

    def __init__(
        self, labeler: Labeler, num_envs: int, settings: HindsightSettings, *, excluded: Sequence[str] = ()
    ) -> None:
        used = [index for index, goal in enumerate(labeler.goals) if goal.id not in set(excluded)]
        self._columns = np.array(used, np.int64)
        self._rule = labeler.rule.select(used)
        self._groups = goal_groups([labeler.goals[index] for index in used])
        self._settings = settings
        self._counts = np.zeros(len(used), np.int64)
        self._num_episodes = 0
        self._open: list[dict[str, list]] = [_episode() for _ in range(num_envs)]
        self._waiting: list[dict[str, list]] = []
        self._places: dict[int, tuple[dict[str, list], int]] = {}  # by ticket: its episode and step

    def add(self, numbers: np.ndarray, tickets: np.ndarray, goals: np.ndarray, ended: np.ndarray) -> None:
        """Takes in a step of all environments.

        Args:
            numbers: [N] int64, from `OnlineBuffer.add`; -1 where there was no transition.
            tickets: [N] int64, from `LiveRewards.step`.
            goals: [N] int64, the goals under which the step was taken.
            ended: [N] bool.
        """
        for index, (number, ticket, goal) in enumerate(
            zip(numbers.tolist(), tickets.tolist(), goals.tolist(), strict=True)
        ):
            episode = self._open[index]
            if number >= 0:
                self._places[ticket] = (episode, len(episode["numbers"]))
                episode["numbers"].append(number)
                episode["scores"].append(None)
                episode["goal"] = [goal]
            if ended[index]:
                self._waiting.append(episode)
                self._open[index] = _episode()

    def numbers_of(self, tickets: np.ndarray) -> np.ndarray:
        """[M] tickets of `add` to the numbers of their transitions, before `score` has taken them."""
        return np.array(
            [episode["numbers"][step] for episode, step in (self._places[ticket] for ticket in tickets.tolist())],
            np.int64,
        )

    def score(self, tickets: np.ndarray, scores: np.ndarray) -> None:
        """Takes in [M] tickets, -1 where there is none, and the [M, G] scores of their frames."""
        for ticket, row in zip(tickets.tolist(), scores[:, self._columns], strict=True):
            if ticket >= 0:
                episode, step = self._places.pop(ticket)
                episode["scores"][step] = row

    def finished(self) -> Iterator[FinishedEpisode]:
        """The episodes that have ended and have all their scores, relabelled, each once."""
        still = []
        for episode in self._waiting:
            if any(row is None for row in episode["scores"]):
                still.append(episode)
            else:
                yield self._relabel(episode)
        self._waiting = still

    def state_dict(self) -> dict[str, Any]:
        """What a run goes on from; with every score collected, as `LiveRewards.state_dict` asks for too."""
        assert not self._waiting, "episodes wait for scores"
        return {
            "open": [{**episode, "scores": list(episode["scores"])} for episode in self._open],
            "counts": self._counts.copy(),
            "num_episodes": self._num_episodes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self._open = [{name: list(values) for name, values in episode.items()} for episode in state["open"]]
        self._counts[:] = state["counts"]
        self._num_episodes = state["num_episodes"]

    def _relabel(self, episode: dict[str, list]) -> FinishedEpisode:
        scores = np.stack(episode["scores"])
        unknown = np.full_like(scores[:1], -np.inf)
        achieved = successes(np.concatenate([unknown, scores]), self._rule)
        first = scores[: self._rule.min_frames] > self._rule.threshold_array
        if len(first) == self._rule.min_frames:
            achieved[: len(first), first.all(axis=0)] = True
        rewards = self._rewards(unknown, scores)
        begin = int(self._rule.reward == "difference")  # r_0 is not known
        self._counts += np.any(achievements(achieved), axis=0)
        self._num_episodes += 1
        own = np.flatnonzero(self._columns == episode["goal"][0])
        excluded = achieved.copy()
        if len(own):  # the buffer holds the episode under its own goal, and under all of its group the same
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
