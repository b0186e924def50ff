"""The playroom in figures: how often its expert and random actions do what is asked, and how fast it is.

Every environment is played in the first recorded rooms by its expert and at random, with the truth of every goal in every frame.
Speed is in steps per second of processor time on one core, resets apart: the mean, and that of the fastest tenth of the episodes,
which is nearest to that of a machine with nothing else to do.

python benchmarks/playroom.py [--output FOLDER]
"""

import time
from importlib.metadata import version
from typing import Any

import numpy as np
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.domain import ExpertGaveUpError
from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM
from vlm_rewards.labelers.domains.playroom.views import Views

EPISODES = 100
LARGE_EPISODES = 10
VIEWS = 640
SMALL, LARGE = PLAYROOM.frame_sizes[:2]


def played(env: str, policy: str, size: tuple[int, int], episodes: int) -> dict[str, Any]:
    """Plays episodes until the goal holds or the time is up."""
    level = PLAYROOM.make(env, frame_size=size, cameras=PLAYROOM.cameras)
    solved, lengths, speeds, resets, gave_up = 0, [], [], [], 0
    for seed in PLAYROOM.seeds.recorded[:episodes]:
        start = time.process_time()
        level.reset(seed)
        resets.append(time.process_time() - start)
        random, expert, action = np.random.default_rng(seed), level.expert(), None
        steps, busy, done, late = 0, 0.0, False, False
        while not (done or late):
            try:
                action = expert.act(action) if policy == "expert" else int(random.integers(level.num_actions))
            except ExpertGaveUpError:
                gave_up += 1
                break
            start = time.process_time()
            _, _, done, late = level.step(action)
            busy += time.process_time() - start
            steps += 1
        solved += done
        lengths.append(steps)
        speeds.append(steps / max(busy, 1e-9))
    level.close()
    return {
        "episodes": episodes,
        "success": solved / episodes,
        "gave_up": gave_up,
        "mean_steps": float(np.mean(lengths)),
        "most_steps": int(max(lengths)),
        "steps_per_s": float(np.sum(lengths) / np.sum(np.array(lengths) / speeds)),
        "steps_per_s_fastest_tenth": float(np.quantile(speeds, 0.9)),
        "reset_ms": 1000 * float(np.median(resets)),
    }


def drawn_views() -> float:
    """Returns random views per second of processor time, with the rooms that they are drawn in, once all textures are made."""
    views, random = Views(SMALL, PLAYROOM.seeds.models), np.random.default_rng(0)
    for _ in range(VIEWS // 2):
        views.draw(random)
    start = time.process_time()
    for _ in range(VIEWS):
        views.draw(random)
    spent = time.process_time() - start
    views.close()
    return VIEWS / spent


def main() -> None:
    """Writes playroom.json."""
    output = parse_arguments(__doc__).output
    results: dict[str, Any] = {"views_per_s": drawn_views(), "environments": {}}
    for env in PLAYROOM.environments():
        results["environments"][env] = {
            "expert": played(env, "expert", SMALL, EPISODES),
            "random": played(env, "random", SMALL, EPISODES),
        }
    results["at_224"] = played(PLAYROOM.environments()[0], "random", LARGE, LARGE_EPISODES)
    write_result(output, "playroom", results | {"machine": machine() | {"panda3d": version("panda3d")}})


if __name__ == "__main__":
    main()
