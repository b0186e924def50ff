"""Goals that were held out of training stay held out of fine-tuning: no live episode asks for them, and hindsight stores none."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.settings import settings_from_json
from vlm_rewards.offline_rl.runs.folders import read_metrics
from vlm_rewards.offline_rl.runs.saved_agents import load_agent
from vlm_rewards.offline_rl.training.finetune import FinetuneSettings, finetune
from vlm_rewards.offline_rl.training.train import TrainSettings, train

FIND = [goal.id for goal in goal_bank() if goal.family == "find"]
EASY = 3e-5  # a threshold that a goal is over in about every third frame
SETTINGS = FinetuneSettings(
    envs=("BabyAI-GoToObj-v0",),
    steps=400,
    num_envs=4,
    batch_size=16,
    warmup_steps=16,
    updates_per_step=0.1,
    hindsight_goals=4,
    capacity=4000,
    end_at_success=False,
    eval_episodes=4,
    eval_every=400,
    checkpoint_every=400,
)


@pytest.fixture(scope="module")
def agents(relabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Agents that every second goal was held out from, and none; their labeler sees a goal in about every third frame."""
    small = {"width": 8, "channels": 8}
    folders = {}
    for name, hold_out in (("held out", tuple(FIND[::2])), ("none", ())):
        folders[name] = tmp_path_factory.mktemp("agents") / "agent"
        settings = TrainSettings(steps=1, batch_size=16, num_actions=7, algorithm_settings=small, hold_out=hold_out)
        train(relabelled, output=folders[name], **vars(settings))
        record = json.loads((folders[name] / "agent.json").read_text())
        record["labeler"]["threshold"] = [EASY] * len(FIND)
        labels = Labeler.build(settings_from_json(record["labeler"])).fingerprint.parts
        record["labels_fingerprint"] |= {"rule": labels["rule"]}
        (folders[name] / "agent.json").write_text(json.dumps(record))
    return folders


def goals_learned_from(folder: Path, steps: int) -> tuple[set[str], set[str]]:
    """Goals that were asked for in a run, and goals that hindsight stored; its buffer has forgotten none."""
    with np.load(folder / f"buffer-{steps:09d}.npz") as buffer:
        goals = buffer["slots_goal"]
        assert len(buffer["ready"]) == len(goals) > steps
        first = buffer["slots_before"]
    seen, asked, stored = set(), set(), set()
    for goal, frame in zip(goals.tolist(), first.tolist(), strict=True):
        (stored if frame in seen else asked).add(FIND[goal])  # hindsight shares the frames of the step itself
        seen.add(frame)
    return asked, stored


def test_no_held_out_goal_is_asked_for_or_stored_by_hindsight(agents: dict[str, Path], tmp_path: Path) -> None:
    held_out = set(load_agent(agents["held out"]).held_out_goals)
    assert held_out == set(FIND[::2])
    finetune(agents["held out"], output=tmp_path / "online", **vars(SETTINGS))
    asked, stored = goals_learned_from(tmp_path / "online", SETTINGS.steps)
    assert not asked & held_out
    assert not stored & held_out
    assert len(asked) > 1
    assert len(stored) > 1
    # They are evaluated apart, and only there.
    kinds = {record["kind"] for record in read_metrics(tmp_path / "online") if record["kind"].startswith("evaluation")}
    assert kinds == {"evaluation", "evaluation of held-out goals"}


def test_the_same_run_would_ask_for_and_store_them(agents: dict[str, Path], tmp_path: Path) -> None:
    finetune(agents["none"], output=tmp_path / "online", **vars(dataclasses.replace(SETTINGS, eval_episodes=0)))
    asked, stored = goals_learned_from(tmp_path / "online", SETTINGS.steps)
    assert asked & set(FIND[::2])  # so that the test above can fail
    assert stored & set(FIND[::2])
