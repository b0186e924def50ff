"""Which runs `controls.py` makes; what they are for and how they are judged is in controls_rules.md."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from claims_budgets import BUDGETS, Budget

from vlm_rewards.offline_rl.training.finetune import FinetuneSettings
from vlm_rewards.offline_rl.training.train import TrainSettings

SEEDS = tuple(range(300, 310))
EVAL_SEED = 15_012
CORPUS_SEED = 4_417
CHANCE = ("random", "goal-blind", "bot")
"""Policies that learn nothing, or everything: played once, without seeds of agents."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """How an agent is made.

    Args:
        algorithm: Algorithm of offline training.
        all_updates: Whether offline training has the updates of fine-tuning too.
        settings: Settings of the algorithm that are not at their defaults.
        reward: Source of the live reward, as in `FinetuneSettings.reward`; None for no fine-tuning.
    """

    algorithm: str = "iql"
    all_updates: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reward: str | None = None


CLONING = ("filtered-bc-equal", "filtered-bc-slow", "filtered-bc-fast")
CONTROLS = {
    "offline": Control(),
    "offline-equal": Control(all_updates=True),
    "bc-equal": Control(algorithm="bc", all_updates=True),
    "filtered-bc-equal": Control(algorithm="filtered-bc", all_updates=True),
    "filtered-bc-slow": Control(algorithm="filtered-bc", all_updates=True, settings={"learning_rate": 3e-4}),
    "filtered-bc-fast": Control(algorithm="filtered-bc", all_updates=True, settings={"learning_rate": 3e-3}),
    **{
        reward: Control(reward=reward)
        for reward in ("model", "truth", "truth:0.005:0.1", "truth:0.05:0.1", "truth:0:0.5", "shuffled-truth")
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class ControlRun:
    """One agent, or one policy of `CHANCE`, which has seed 0.

    Args:
        family: Family of the goals.
        control: Name in `CONTROLS` or `CHANCE`.
        seed: Seed of weights, draws and live levels.
    """

    family: str
    control: str
    seed: int

    @property
    def path(self) -> str:
        """Name in the results, and path under the work folder."""
        return f"{self.family}/controls/{self.control.replace(':', '_')}-{self.seed}"


def plan_controls(families: Sequence[str], controls: Sequence[str], seeds: Sequence[int] = SEEDS) -> list[ControlRun]:
    """Returns the runs, seed by seed, so that a command that is stopped has whole seeds.

    Raises:
        ValueError: A control is unknown.
    """
    unknown = [name for name in controls if name not in (*CONTROLS, *CHANCE)]
    if unknown:
        known = ", ".join((*CHANCE, *CONTROLS))
        raise ValueError(f"controls must be some of {known}, got {unknown[0]!r}. Choose among them.")
    chance = [name for name in controls if name in CHANCE]
    runs = [ControlRun(family=family, control=name, seed=0) for name in chance for family in families]
    for seed in seeds:
        runs += [
            ControlRun(family=family, control=name, seed=seed)
            for name in controls
            if name in CONTROLS
            for family in families
        ]
    return runs


def online_updates(settings: FinetuneSettings) -> int:
    """Returns the number of updates that fine-tuning makes."""
    # The step that crosses the warm-up has updates already, in parts that add up: see `FinetuneRun`.
    learning = sum(
        step + settings.num_envs > settings.warmup_steps for step in range(0, settings.steps, settings.num_envs)
    )
    return int(learning * settings.num_envs * settings.updates_per_step)


def train_settings(budget: Budget, run: ControlRun) -> TrainSettings:
    """Returns how a run's agent is trained offline."""
    control, own = CONTROLS[run.control], budget.train_of(run.family)
    more = online_updates(budget.finetune_of(run.family)) if control.all_updates else 0
    given = {**budget.algorithms.get(control.algorithm, {}), **control.settings}
    return dataclasses.replace(
        own, algorithm=control.algorithm, algorithm_settings=given, steps=own.steps + more, seed=run.seed
    )


def finetune_settings(budget: Budget, run: ControlRun, reward: str) -> FinetuneSettings:
    """Returns how a run's agent is fine-tuned; it is evaluated when it is done."""
    return dataclasses.replace(budget.finetune_of(run.family), reward=reward, seed=run.seed, eval_episodes=0)


MICRO = dataclasses.replace(BUDGETS["small"], model="reference-s", held_out_kinds=BUDGETS["full"].held_out_kinds)
"""A test of the command."""

CONTROL_BUDGETS = {"small": MICRO, "full": BUDGETS["full"]}
