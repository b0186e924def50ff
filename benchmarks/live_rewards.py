"""What live rewards cost: their share of the wall time of stepping and of fine-tuning, and passes of the model against frames.

    python benchmarks/live_rewards.py [--output FOLDER]

Eight environments on four BabyAI levels, random actions, the goals of the missions, all 342 goals scored; one thread. "stepping"
is environments and rewards alone; "fine-tuning" adds IQL's updates, by its defaults and those of fine-tuning: one every four
environment steps, in batches of 256. "batch 64" is a labeler as it is by default; "batch 16" and "batch 8" hold fewer frames
beside those of eight environments.
"""

import hashlib
import time

import numpy as np
import torch
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments
from vlm_rewards.offline_rl.interfaces import Batch
from vlm_rewards.offline_rl.online.live_reward_settings import LiveRewardSettings
from vlm_rewards.offline_rl.online.live_rewards import LiveRewards
from vlm_rewards.offline_rl.training.finetune import FinetuneSettings

LEVELS = ("BabyAI-GoToObj-v0", "BabyAI-GoToLocal-v0", "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0")
NUM_ENVS = 8
STEPS = {"stepping": 300, "fine-tuning": 100}  # of all environments
UPDATE_BATCH = 256
CASES = {
    "reference-s, batch 64, cache": ("reference-s", 64, LiveRewardSettings(end_at_success=True)),
    "reference-s, batch 64, no cache": ("reference-s", 64, LiveRewardSettings(end_at_success=True, cache_bytes=0)),
    "reference-s, batch 8, cache": ("reference-s", 8, LiveRewardSettings(end_at_success=True)),
    "reference-s, batch 64, cache, asynchronous": (
        "reference-s",
        64,
        LiveRewardSettings(asynchronous=True),
    ),
    "reference-l, batch 64, cache": ("reference-l", 64, LiveRewardSettings(end_at_success=True)),
    "reference-l, batch 16, cache": ("reference-l", 16, LiveRewardSettings(end_at_success=True)),
    "reference-l, batch 16, no cache": ("reference-l", 16, LiveRewardSettings(end_at_success=True, cache_bytes=0)),
}


def measure(
    model: str, batch_size: int, settings: LiveRewardSettings, updates: int, num_steps: int
) -> dict[str, float]:
    """Plays so many steps with so many updates after each.

    Args:
        model: Of the labeler.
        batch_size: Of the labeler.
        settings: Of the live rewards.
        updates: Gradient steps after a step of all environments.
        num_steps: Steps of all environments.

    Returns:
        Counts and seconds; "share" is of the wall time, spent waiting for scores.
    """
    labeler = Labeler.build(LabelerSettings(model=model, goals=tuple(goal_bank()), batch_size=batch_size))
    environments = make_environments(EnvironmentSettings(envs=LEVELS, num_envs=NUM_ENVS), labeler.goals)
    live = LiveRewards(environments, labeler, **vars(settings))
    agent = build_agent("iql", None, live.spaces, seed=0)
    rng = np.random.default_rng(0)
    distinct: set[bytes] = set()
    observations, _ = live.reset()
    batch = _batch(observations, live)
    hashing = 0.0
    start = time.perf_counter()
    for _ in range(num_steps):
        hashing += _add_digests(distinct, observations)
        observations, _, terminations, truncations, _ = live.step(rng.integers(0, 7, NUM_ENVS))
        hashing += _add_digests(distinct, observations)
        ended = terminations | truncations
        if ended.any():
            observations, _ = live.reset(options={"reset_mask": ended})
        for _ in range(updates):
            agent.update(batch)
        if settings.asynchronous:
            live.collect()
    if settings.asynchronous:
        live.collect(wait=True)
    wall = time.perf_counter() - start - hashing
    hashing += _add_digests(distinct, observations)
    statistics = live.statistics()
    live.close()
    return {
        "wall_s": wall,
        "steps_per_s": num_steps * NUM_ENVS / wall,
        "waiting_s": statistics["seconds_waited"],
        "share": statistics["seconds_waited"] / wall,
        "frames": statistics["frames"],
        "distinct_frames": len(distinct),
        "encoded_frames": statistics["encoded"],
        "passes": statistics["passes"],
    }


def _add_digests(distinct: set[bytes], frames: np.ndarray) -> float:
    start = time.perf_counter()
    distinct.update(hashlib.sha256(frame.tobytes()).digest() for frame in frames)
    return time.perf_counter() - start


def _batch(observations: np.ndarray, live: LiveRewards) -> Batch:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, NUM_ENVS, UPDATE_BATCH)
    zeros = torch.zeros(UPDATE_BATCH)
    return Batch(
        observations=torch.from_numpy(observations[rows]),
        actions=torch.from_numpy(rng.integers(0, 7, UPDATE_BATCH)),
        rewards=zeros,
        next_observations=torch.from_numpy(observations[rows]),
        masks=zeros + 1,
        goals=torch.from_numpy(live.goal_embeddings[rows]),
        returns=zeros,
        successes=torch.zeros(UPDATE_BATCH, dtype=torch.bool),
    )


def main() -> None:
    """Measures every case."""
    arguments = parse_arguments(__doc__)
    torch.set_num_threads(1)
    results = {}
    updates = round(NUM_ENVS * FinetuneSettings(envs=LEVELS).updates_per_step)
    for kind, num_steps in STEPS.items():
        for name, (model, batch_size, settings) in CASES.items():
            result = measure(model, batch_size, settings, updates * (kind == "fine-tuning"), num_steps)
            results[f"{kind}, {name}"] = result
            print(
                f"{kind}, {name}: {result['share']:.0%} of {result['wall_s']:.1f} s, {result['passes']} passes",
                flush=True,
            )
    write_result(
        arguments.output,
        "live_rewards",
        {"machine": machine(), "levels": LEVELS, "num_envs": NUM_ENVS, "updates": updates, "cases": results},
    )


if __name__ == "__main__":
    main()
