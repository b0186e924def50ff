"""Episodes whose returns are not known yet: those that go on, and those that have ended but wait for a reward.

    begin ──► add a transition, which waits ──► ... ──► add the last one ──┐
                    stop_waiting: it has its reward, or is given up        ├──► pop_settled: ended, and none waits
                    └──────────────────────────────────────────────────────┘

Shape letters as in `offline_rl.online.buffer`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass
class _Episode:
    transitions: list[int] = dataclasses.field(default_factory=list)
    waiting: int = 0
    ended: bool = False


class OpenEpisodes:
    """The episodes by number; see the module's picture.

    Attributes:
        count: Episodes ever begun, which is the number of the next one.
    """

    def __init__(self) -> None:
        self._episodes: dict[int, _Episode] = {}
        self.count = 0

    @property
    def num_waiting(self) -> int:
        """Transitions that wait for their reward."""
        return sum(episode.waiting for episode in self._episodes.values())

    def begin(self) -> int:
        """The number of a new episode."""
        number = self.count
        self._episodes[number] = _Episode()
        self.count += 1
        return number

    def add(self, episode: int, transition: int, *, ended: bool) -> None:
        """Takes in the next transition of an episode, which waits from now on.

        Args:
            episode: Number of the episode.
            transition: Number of the transition, above those that the episode has.
            ended: Whether it is the last.
        """
        record = self._episodes[episode]
        record.transitions.append(transition)
        record.waiting += 1
        record.ended = ended

    def stop_waiting(self, episodes: np.ndarray) -> None:
        """Counts transitions that waited and do no longer: they have their rewards, or are given up.

        Args:
            episodes: [B] int64, the episode of each.
        """
        for episode, count in zip(*np.unique(episodes, return_counts=True), strict=True):
            self._episodes[int(episode)].waiting -= int(count)

    def keep(self, is_alive: Callable[[np.ndarray], np.ndarray]) -> None:
        """Forgets the transitions that are given up.

        Args:
            is_alive: Of [T] int64 numbers of transitions, [T] bool, whether each is still there.
        """
        for record in self._episodes.values():
            transitions = np.array(record.transitions, np.int64)
            record.transitions = transitions[is_alive(transitions)].tolist()

    def pop_settled(self) -> Iterator[np.ndarray]:
        """Hands out, once, the episodes that have ended and of which no transition waits.

        Yields:
            [T] int64, the transitions that are still there, in order.
        """
        for number, record in list(self._episodes.items()):
            if record.ended and not record.waiting:
                del self._episodes[number]
                yield np.array(record.transitions, np.int64)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """The open episodes by number, fit for JSON; `count` goes with them."""
        return {str(number): dataclasses.asdict(record) for number, record in self._episodes.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], *, count: int) -> None:
        """The inverse."""
        self._episodes = {
            int(number): _Episode(list(record["transitions"]), record["waiting"], record["ended"])
            for number, record in state.items()
        }
        self.count = count
