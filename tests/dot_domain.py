"""A toy domain, numpy only: a coloured dot on 4 x 4 cells that moves to a corner, seen by two cameras."""

import numpy as np

from vlm_rewards.labelers.domains.domain import ExpertGaveUpError, Look, SeedRanges
from vlm_rewards.schemas.goals import Goal

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 60, 230)}
CORNERS = {"top left": (0, 0), "top right": (0, 3), "bottom left": (3, 0), "bottom right": (3, 3)}
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # rows and columns of left, right, up, down


def _goal(colour, corner):
    return Goal(
        id=f"{colour}-{corner.replace(' ', '-')}",
        text=f"the {colour} dot is in the {corner} corner",
        family=corner.split()[0],
        instructions=(f"move the {colour} dot to the {corner} corner",),
        negatives=("a dot",),
        attributes={"colour": colour, "corner": corner},
    )


GOALS = {(colour, corner): _goal(colour, corner) for colour in COLOURS for corner in CORNERS}


class DotLevel:
    """A dot of a colour that may be asked for any corner; the state of a look is its colour and cell."""

    num_actions = len(MOVES)

    def __init__(self, frame_size, cameras):
        self._pixels, self._cameras = frame_size[0] // 4, cameras

    def reset(self, seed):
        rng = np.random.default_rng(seed)
        self.colour = str(rng.choice(list(COLOURS)))
        self.cell, self._steps = (int(rng.integers(1, 3)), int(rng.integers(1, 3))), 0
        self.ask(GOALS[self.colour, str(rng.choice(list(CORNERS)))].id)
        return self._look()

    def goals(self):
        possible = [GOALS[self.colour, corner].id for corner in CORNERS]
        return tuple(sorted(possible, key=lambda goal_id: goal_id != self.asked.id))

    def ask(self, goal_id):
        found = [goal for (colour, _), goal in GOALS.items() if (colour, goal.id) == (self.colour, goal_id)]
        if not found:
            raise ValueError(f"the dot is {self.colour}: got the goal {goal_id!r}. Ask for another")
        self.asked, self.mission = found[0], found[0].instructions[0]

    def step(self, action):
        row, column = (int(np.clip(at + by, 0, 3)) for at, by in zip(self.cell, MOVES[action], strict=True))
        self.cell, self._steps = (row, column), self._steps + 1
        done = self.cell == CORNERS[self.asked.attributes["corner"]]
        return self._look(), float(done), done, self._steps >= 20

    def facts(self, look):
        colour, cell = look.state
        return frozenset(GOALS[colour, corner].id for corner, at in CORNERS.items() if at == cell)

    def expert(self):
        return self

    def act(self, taken):
        aim = CORNERS[self.asked.attributes["corner"]]
        if self.cell == aim:
            raise ExpertGaveUpError("the dot is there")
        return next(a for a, move in enumerate(MOVES) if np.dot(np.subtract(aim, self.cell), move) > 0)

    def close(self):
        pass

    def _look(self):
        cells = np.full((4, 4, 3), 20, np.uint8)
        cells[self.cell] = COLOURS[self.colour]
        seen = {"top": cells, "mirror": cells[:, ::-1]}
        frames = {camera: seen[camera].repeat(self._pixels, 0).repeat(self._pixels, 1) for camera in self._cameras}
        return Look(frames, (self.colour, self.cell))


class DotDomain:
    name = "dot"
    cameras = ("top", "mirror")
    frame_sizes = ((32, 32), (64, 64))
    seeds = SeedRanges()
    banks = ("default", "red")
    policies = ("bot", "noisy-bot", "random")
    default_model = None

    def goals(self, bank):
        return tuple(goal for (colour, _), goal in GOALS.items() if bank in ("default", colour))

    def environments(self):
        return ("Dot-v0",)

    def make(self, env, *, frame_size, cameras):
        return DotLevel(frame_size, cameras)

    def pretraining(self):
        from dot_pretraining import DOT_PRETRAINING

        return DOT_PRETRAINING

    def kinds(self, goal):
        return frozenset(goal.attributes.get(name) for name in ("colour", "corner")) - {None}


DOT = DotDomain()
