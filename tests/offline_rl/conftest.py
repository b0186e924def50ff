"""One small BabyAI corpus, labelled, relabelled and trained on, for all tests of whole runs."""

from pathlib import Path

import pytest

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.training.train import TrainSettings, train
from vlm_rewards.pipelines.hindsight.relabelling import hindsight
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.record.recording import RecordSettings, record

LEVEL = "BabyAI-GoToObj-v0"


@pytest.fixture(scope="session")
def relabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Relabelled trajectories of a level, labelled by reference-s for its Find goals."""
    folder = tmp_path_factory.mktemp("babyai")
    settings = RecordSettings(envs=(LEVEL,), policy="bot:0.5,random:0.5", episodes=16, seed=5, max_steps=12)
    record(output=folder / "corpus", workers=1, **vars(settings))
    goals = tuple(goal for goal in goal_bank() if goal.family == "find")
    label(
        folder / "corpus",
        LabelerSettings(model="reference-s", goals=goals),
        output=folder / "labels",
        embeddings=folder / "embeddings",
        workers=1,
    )
    hindsight(folder / "corpus", folder / "labels", output=folder / "relabelled", workers=1)
    return folder / "relabelled"


@pytest.fixture(scope="session")
def trained(relabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent that has learned next to nothing."""
    folder = tmp_path_factory.mktemp("agents") / "agent"
    settings = TrainSettings(steps=4, batch_size=16, num_actions=7, algorithm_settings={"width": 32, "channels": 8})
    train(relabelled, output=folder, **vars(settings))
    return folder
