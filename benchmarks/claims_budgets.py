"""How much `claims.py` measures, and which runs that makes.

A run is one agent from one seed: trained offline on the labels of one model in one wording, and fine-tuned with its rewards where a
figure asks for it. Figures share runs: each is done once.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from held_out import models_of
from wordings import WORDINGS

from vlm_rewards.labelers.domains.babyai.goals import HELD_OUT_KINDS, goal_bank
from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER
from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
from vlm_rewards.offline_rl.algorithms.agents import ALGORITHMS
from vlm_rewards.offline_rl.training.finetune import FinetuneSettings
from vlm_rewards.offline_rl.training.train import TrainSettings
from vlm_rewards.schemas.goals import Goal

EXPERIMENTS = ("offline", "figure3", "figure4", "figure5")
LEVELS = {"find": "BabyAI-GoToLocal-v0", "lift": "BabyAI-PickupDist-v0", "place": "BabyAI-PutNextLocal-v0"}
POLICY = "random:0.3,noisy-bot:0.5,bot:0.2"
CORPUS_SEED = 2_312
EVAL_SEED = 9_187
"""Of the held-out levels that claims are judged on; settings are chosen on those of seed 0, the library's default."""

OWN_TEXT = "the goal's own text"
INSTRUCTION = "pick up the ..."
UNREAD_INSTRUCTION = "pick the ... up"
BATCH_SIZE = 16
"""Frames a pass of the labeler: small, so that a step of a few live environments does not pay for a large batch."""

MIN_SEEDS = 5
"""Fewer are no evidence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is measured.

    Args:
        levels: By family, its BabyAI level.
        seeds: One a run; settings were chosen on others.
        episodes: By family, of its corpus.
        train: Offline training; algorithm, seed, environments and held-out goals are each run's own.
        finetune: Fine-tuning; seed and environments are each run's own.
        algorithms: By name, their settings that are not at their defaults; "bc" and "iql" among them.
        family_train: By family, settings of offline training that are its own.
        family_finetune: By family, settings of fine-tuning that are its own.
        model: The reward model, where neither sizes nor wordings are compared.
        wording_model: The reward model of figure 5.
        models: Reward models for figure 4, the smallest first.
        wordings: Names of `wordings.WORDINGS` for figure 5, the goal's own text first.
        figure4_families: Families that figure 4 is measured on.
        figure5_families: Families that figure 5 is measured on.
        held_out_kinds: Objects that no goal of training is about, see `offline_rl.training.held_out_goals.split_goals`.
        low_temperature: Of the policies, for a second look at what offline training gave: it makes up for random actions that
            were cloned, and costs a policy without memory its ways out of a loop.
        num_resamples: Of the bootstrap.

    Raises:
        ValueError: An algorithm that every comparison needs is missing, a wording is unknown, or a figure's family has no level.
    """

    levels: Mapping[str, str]
    seeds: tuple[int, ...]
    episodes: Mapping[str, int]
    train: TrainSettings
    finetune: FinetuneSettings
    algorithms: Mapping[str, Mapping[str, Any]]
    family_train: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    family_finetune: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    model: str = "reference-l"
    wording_model: str = "reference-s"
    models: tuple[str, ...] = ("reference-s", "reference-m", "reference-l")
    wordings: tuple[str, ...] = (OWN_TEXT, INSTRUCTION)
    figure4_families: tuple[str, ...] = ("find", "lift", "place")
    figure5_families: tuple[str, ...] = ("find", "lift", "place")
    held_out_kinds: tuple[str, ...] = ()
    low_temperature: float = 0.3
    num_resamples: int = 2000

    def __post_init__(self) -> None:
        missing = {"bc", "iql"} - set(self.algorithms)
        if missing:
            raise ValueError(
                f"algorithms must hold bc and iql, got {', '.join(self.algorithms)}; add {', '.join(sorted(missing))}"
            )
        unknown = set(self.wordings) - {wording.name for wording in WORDINGS}
        if unknown or self.wordings[0] != OWN_TEXT:
            raise ValueError(
                f"wordings must be names of wordings.WORDINGS, {OWN_TEXT!r} first, got {self.wordings}. Fix them"
            )
        of_families = {*self.episodes, *self.family_train, *self.family_finetune}
        homeless = {*self.figure4_families, *self.figure5_families, *of_families} - set(self.levels)
        if homeless:
            raise ValueError(f"a family must have a level, got {', '.join(sorted(homeless))} without; add it to levels")

    def train_of(self, family: str) -> TrainSettings:
        """How a family's agents are trained."""
        return dataclasses.replace(self.train, **self.family_train.get(family, {}))

    def finetune_of(self, family: str) -> FinetuneSettings:
        """How a family's agents are fine-tuned, in its level."""
        own = self.family_finetune.get(family, {})
        return dataclasses.replace(self.finetune, **own, envs=(self.levels[family],))

    @property
    def is_evidence(self) -> bool:
        """Whether there are seeds enough for anything to be said."""
        return len(self.seeds) >= MIN_SEEDS

    def to_json(self) -> dict[str, Any]:
        """The budget as JSON."""
        return dataclasses.asdict(self)

    def settings_of_runs(self) -> dict[str, Any]:
        """What a run's result depends on, as JSON: all but which runs there are, so that seeds, models, wordings and families can
        be added to what was measured before. Of algorithms and shipped models every one counts, asked for or not."""
        of_plan = {
            "seeds",
            "algorithms",
            "model",
            "wording_model",
            "models",
            "wordings",
            "figure4_families",
            "figure5_families",
        }
        settings = {name: value for name, value in self.to_json().items() if name not in {*of_plan, "num_resamples"}}
        return settings | {
            "algorithms": {
                name: {**dataclasses.asdict(settings_class()), **self.algorithms.get(name, {})}
                for name, (settings_class, _) in ALGORITHMS.items()
            },
            "corpus": {"seed": CORPUS_SEED, "policy": POLICY},
            "label_batch_size": BATCH_SIZE,
            "hindsight": dataclasses.asdict(HindsightSettings()),
            "reference_weights": {name: _digest_of_weights(name) for name in models_of("babyai")},
        }


def _digest_of_weights(name: str) -> str:
    return hashlib.sha256((REFERENCE_FOLDER / name / "model.safetensors").read_bytes()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Run:
    """One agent.

    Args:
        family: Of its goals.
        model: That labels and rewards.
        wording: Of the goals, as the model reads them.
        algorithm: It learns by.
        seed: Of weights, draws and live levels.
    """

    family: str
    model: str
    wording: str
    algorithm: str
    seed: int

    @property
    def labels(self) -> str:
        """Path of the labels it learns from, under the work folder."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.wording).split()
        return f"{self.family}/{self.model}/{'-'.join(words)}"

    @property
    def path(self) -> str:
        """Its own path under the work folder."""
        return f"{self.labels}/{self.algorithm}-{self.seed}"


def plan_runs(budget: Budget, only: Sequence[str] = EXPERIMENTS) -> dict[Run, bool]:
    """The runs of some experiments, each once, with whether it is fine-tuned; in the order in which they are done."""
    plan: dict[Run, bool] = {}

    def add(families: Sequence[str], model: str, wording: str, algorithm: str, finetuned: bool) -> None:
        for family in families:
            for seed in budget.seeds:
                run = Run(family=family, model=model, wording=wording, algorithm=algorithm, seed=seed)
                plan[run] = plan.get(run, False) or finetuned

    families = tuple(budget.levels)
    if "figure3" in only:
        add(families, budget.model, OWN_TEXT, "iql", True)
        add(families, budget.model, OWN_TEXT, "bc", False)
    if "offline" in only:
        for algorithm in budget.algorithms:
            add(families, budget.model, OWN_TEXT, algorithm, False)
    if "figure4" in only:
        for model in budget.models:
            add(budget.figure4_families, model, OWN_TEXT, "iql", True)
    if "figure5" in only:
        for wording in budget.wordings:
            add(budget.figure5_families, budget.wording_model, wording, "iql", True)
    return plan


def goals_in_wording(family: str, name: str) -> tuple[Goal, ...]:
    """A family's goals of the BabyAI bank, which the model reads in a wording; their own texts stay their names."""
    bank = goal_bank()
    wording = next(wording for wording in WORDINGS if wording.name == name)
    return tuple(
        goal if text == goal.text else dataclasses.replace(goal, prompts=(text,))
        for goal, text in zip(bank, wording.texts(bank), strict=True)
        if goal.family == family
    )


BUDGETS = {
    "small": Budget(
        levels=LEVELS,
        seeds=(100, 101),
        episodes=dict.fromkeys(LEVELS, 40),
        train=TrainSettings(steps=60, batch_size=64, num_actions=7, log_every=20, eval_episodes=20),
        finetune=FinetuneSettings(
            envs=tuple(LEVELS.values()),
            steps=480,
            batch_size=64,
            warmup_steps=80,
            updates_per_step=0.125,
            eval_episodes=20,
            eval_every=240,
            log_every=80,
        ),
        algorithms={"bc": {}, "filtered-bc": {}, "iql": {}, "cal-ql": {}},
        models=("reference-s", "reference-l"),
        figure4_families=("place",),
        figure5_families=("find",),
        num_resamples=500,
    ),
    "full": Budget(
        levels=LEVELS,
        seeds=(100, 101, 102, 103, 104),
        episodes={"find": 1000, "lift": 4000, "place": 10_000},
        train=TrainSettings(num_actions=7, eval_episodes=200),
        finetune=FinetuneSettings(envs=tuple(LEVELS.values()), steps=15_000, eval_episodes=200, eval_every=5000),
        family_train={"find": {"steps": 1500}, "lift": {"steps": 3000}, "place": {"steps": 6000}},
        family_finetune={"find": {"steps": 10_000}},
        algorithms={"bc": {}, "filtered-bc": {}, "iql": {}},
        wordings=(OWN_TEXT, INSTRUCTION, UNREAD_INSTRUCTION),
        figure4_families=("place",),
        figure5_families=("find",),
        held_out_kinds=HELD_OUT_KINDS,
    ),
}
"""`small` shows that everything runs, in a few minutes on 2 cores; `full` is what is reported. Sizes are compared on Place, and
wordings on Find by the smallest model: average precision differs there by size or by wording, and hardly anywhere else
(benchmarks/results/figures.json)."""
