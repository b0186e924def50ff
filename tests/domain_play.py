"""Episodes of a domain's levels, to be compared: as digests across levels and processes, and beside Gymnasium's environment."""

import hashlib

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env


def make_level(domain, env, size=None, cameras=None):
    """Makes a level at the domain's default size, with all its cameras."""
    return domain.make(env, frame_size=size or domain.frame_sizes[0], cameras=cameras or domain.cameras)


def digest_of(level, look) -> str:
    """Digest of all that can be seen of a level at one time."""
    frames = [frame.tobytes() for _, frame in sorted(look.frames.items())]
    told = repr((sorted(level.facts(look)), level.mission, level.goals()))
    return hashlib.sha256(b"".join([*frames, told.encode()])).hexdigest()


def play(domain, env, seed: int, steps: int = 30) -> list[str]:
    """Digests of an episode whose actions depend on the seed alone."""
    level, random = make_level(domain, env), np.random.default_rng(seed)
    found = [digest_of(level, level.reset(seed))]
    for _ in range(steps):
        look, *rest = level.step(int(random.integers(level.num_actions)))
        found.append(digest_of(level, look) + repr(rest))
    level.close()
    return found


def last_infos_beside_gymnasium(domain, name, size) -> tuple[dict, str]:
    """Checks an environment of Gymnasium by its checker, and by the level through an episode of the expert.

    Returns:
        Infos of the last step, and the mission.
    """
    env = gymnasium.make(name, render_mode="rgb_array", frame_size=size)
    check_env(env.unwrapped)
    level = make_level(domain, name, size)
    camera = domain.cameras[0]
    frame, infos = env.reset(seed=9)
    assert np.array_equal(frame, level.reset(9).frames[camera])
    assert infos["mission"] == level.mission
    expert, ended = level.expert(), False
    while not ended:
        action = expert.act(None)
        look, *expected = level.step(action)
        frame, reward, terminated, truncated, infos = env.step(action)
        assert np.array_equal(frame, look.frames[camera])
        assert np.array_equal(frame, env.render())
        assert [reward, terminated, truncated] == expected
        ended = terminated
    assert env.reset()[1]["goal_id"]  # another episode, of the stream of the last seed
    env.close()
    level.close()
    return infos, level.mission
