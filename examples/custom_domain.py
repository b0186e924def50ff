"""A domain of your own: a world in which it is known what every frame is worth.

Here a light moves left and right in a corridor of five cells. Install the examples, and run this; then the commands know
`--env Corridor-v0` as well:

    pip install ./examples
    python examples/custom_domain.py
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

import vlm_rewards as vr
from vlm_rewards.labelers.domains.domain import FrameSize, Look, SeedRanges

CELL = 20  # pixels
GOALS = {
    0: vr.Goal("left", "the light is at the left end", instructions=("go left",), negatives=("a light",)),
    4: vr.Goal("right", "the light is at the right end", instructions=("go right",), negatives=("a light",)),
}
"""By cell, the goal that holds while the light is there."""


class CorridorExpert:
    """Moves the light towards the goal of the episode.

    Args:
        action: The action that does so: 0 is left, 1 is right.
    """

    def __init__(self, action: int) -> None:
        self._action = action

    def act(self, taken: int | None) -> int:
        """Returns the next action."""
        return self._action


class CorridorLevel:
    """One corridor. The state of a look is the light's cell; frames and facts depend on the seed and the actions alone."""

    num_actions = 2
    mission = ""

    def reset(self, seed: int) -> Look:
        """Puts the light into one of the three inner cells, and asks for one of the ends."""
        self._cell, self._steps = 1 + seed % 3, 0
        self.ask(("left", "right")[seed // 3 % 2])
        return self._look()

    def goals(self) -> tuple[str, ...]:
        """Lists the goals that this episode can be asked for, that of the mission first."""
        return (self._asked, "right" if self._asked == "left" else "left")

    def ask(self, goal_id: str) -> None:
        """Asks for another goal."""
        self._asked = goal_id
        self.mission = f"go {goal_id}"

    def step(self, action: int) -> tuple[Look, float, bool, bool]:
        """Moves the light: look, reward, termination, truncation."""
        self._cell = min(max(self._cell + (1 if action else -1), 0), 4)
        self._steps += 1
        look = self._look()
        done = self._asked in self.facts(look)
        return look, float(done), done, self._steps >= 10

    def _look(self) -> Look:
        frame = np.full((CELL, 5 * CELL, 3), 30, np.uint8)
        frame[:, CELL * self._cell : CELL * (self._cell + 1)] = 250
        return Look({"side": frame}, self._cell)

    def facts(self, look: Look) -> frozenset[str]:
        """Lists the goals that hold in a look."""
        return frozenset({GOALS[look.state].id}) if look.state in GOALS else frozenset()

    def expert(self) -> CorridorExpert:
        """Returns a demonstrator of this episode."""
        return CorridorExpert(0 if self._asked == "left" else 1)

    def close(self) -> None:
        """Frees nothing: there is nothing."""


class Corridor:
    """The world of corridors."""

    name = "corridor"
    cameras = ("side",)
    frame_sizes = ((CELL, 5 * CELL),)
    seeds = SeedRanges()
    banks = ("default",)
    policies = ("bot", "noisy-bot", "random")
    default_model = None

    def goals(self, bank: str) -> tuple[vr.Goal, ...]:
        """Lists the goals with ground truth."""
        return tuple(GOALS.values())

    def environments(self) -> tuple[str, ...]:
        """Lists the exact names of the environments."""
        return ("Corridor-v0",)

    def make(self, env: str, *, frame_size: FrameSize, cameras: Sequence[str]) -> CorridorLevel:
        """Makes a level."""
        return CorridorLevel()

    def kinds(self, goal: vr.Goal) -> frozenset[str]:
        """Lists what `--hold-out` may name a goal by, beside its id."""
        return frozenset()

    def pretraining(self) -> None:
        """Says that no reference model is trained on corridors."""


CORRIDOR = Corridor()


def main() -> None:
    """Records demonstrations, and counts the frames in which a goal holds."""
    print(vr.record(output="corpus/", envs=["Corridor-v0"], policy="bot", episodes=20))
    held: Counter[str] = Counter()
    for episode in vr.open_corpus("corpus/"):
        held.update(goal for goals in episode.achieved_goals for goal in goals)
    print("frames in which a goal holds:", dict(sorted(held.items())))


if __name__ == "__main__":
    main()
