"""An episode of a domain's level as digests of all that can be seen, to be compared across levels and processes."""

import hashlib

import numpy as np


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
