import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from offline_rl.finetune import FinetuneSettings, finetune
from offline_rl.runs import read_metrics
from offline_rl.saved_agents import load_agent

LEVEL = "BabyAI-GoToObj-v0"
SMALL = FinetuneSettings(
    envs=(LEVEL,),
    steps=160,
    num_envs=4,
    batch_size=16,
    warmup_steps=16,
    updates_per_step=0.5,
    hindsight_goals=2,
    capacity=1000,
    eval_episodes=0,
    log_every=40,
    checkpoint_every=40,
)
RUN = """
import sys
from offline_rl.finetune import FinetuneSettings, finetune
finetune(sys.argv[1], sys.argv[2], FinetuneSettings(envs=("BabyAI-GoToObj-v0",), steps=160, num_envs=4, batch_size=16,
         warmup_steps=16, updates_per_step=0.5, hindsight_goals=2, capacity=1000, eval_episodes=0, log_every=40,
         checkpoint_every=40))
"""


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = (torch.load(folder / "agent.pt", weights_only=True) for folder in (one, other))
    tensors = [
        (path, value)
        for path, value in torch.utils._pytree.tree_flatten_with_path(a)[0]
        if isinstance(value, torch.Tensor)
    ]
    others = dict(torch.utils._pytree.tree_flatten_with_path(b)[0])
    assert len(tensors) > 10
    for path, value in tensors:
        assert torch.equal(value, others[path]), path


def test_a_run_that_is_killed_goes_on_to_the_same_bits(trained: Path, tmp_path: Path) -> None:
    finetune(trained, tmp_path / "unbroken", SMALL)
    process = subprocess.Popen([sys.executable, "-c", RUN, str(trained), str(tmp_path / "killed")])
    checkpoint = tmp_path / "killed" / "checkpoints" / "step-000000080.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed_in_time = not (tmp_path / "killed" / "agent.json").exists()
    finetune(trained, tmp_path / "killed", SMALL)
    assert killed_in_time
    assert_same_weights(tmp_path / "killed", tmp_path / "unbroken")
    records = [
        [
            {name: value for name, value in record.items() if "seconds" not in name}
            for record in read_metrics(tmp_path / name)
            if record["kind"] != "scoring"  # the cache is empty after an interruption
        ]
        for name in ("killed", "unbroken")
    ]
    assert records[0] == records[1]


def test_fine_tuning_changes_the_agent_and_counts_its_updates(trained: Path, tmp_path: Path) -> None:
    saved = finetune(trained, tmp_path / "online", SMALL)
    before = load_agent(trained)
    # 160 steps of 4 environments, the first 16 without updates: 144 x 0.5 updates.
    assert saved.agent.num_updates - before.agent.num_updates == 72
    assert load_agent(tmp_path / "online").envs == (LEVEL,)
    assert load_agent(tmp_path / "online").steps == 160
    assert load_agent(tmp_path / "online").digest != before.digest


def test_evaluations_at_the_end_of_offline_the_first_step_on_the_way_and_the_end(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, eval_episodes=4, eval_every=80)
    finetune(trained, tmp_path / "online", settings)
    evaluations = [record for record in read_metrics(tmp_path / "online") if record["kind"] == "evaluation"]
    assert [(record["step"], record["when"]) for record in evaluations] == [
        (0, "end of offline training"),
        (20, "first online step"),
        (80, "on the way"),
        (160, "end"),
    ]
    assert all(record["episodes"] == 4 for record in evaluations)


def test_asynchronous_scoring_where_success_does_not_end_the_episode(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, steps=80, end_at_success=False, asynchronous=True)
    finetune(trained, tmp_path / "online", settings)
    finetune(trained, tmp_path / "again", settings)
    assert_same_weights(tmp_path / "online", tmp_path / "again")


def test_another_run_does_not_write_into_the_folder(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, steps=8, warmup_steps=0)
    finetune(trained, tmp_path / "online", settings)
    with pytest.raises(ValueError, match="got other steps"):
        finetune(trained, tmp_path / "online", dataclasses.replace(settings, steps=16))


def test_an_environment_with_other_actions_is_refused_before_anything_runs(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be registered with gymnasium|BabyAI"):
        finetune(trained, tmp_path / "online", dataclasses.replace(SMALL, envs=("BabyAI-NoSuchLevel-v0",)))


def test_a_mix_of_what_the_corpus_has_not_is_refused_before_the_first_step(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mix must have a share of a kind that the replay has"):
        finetune(trained, tmp_path / "online", dataclasses.replace(SMALL, mix=(0.0, 0.0, 0.0)))
    assert not (tmp_path / "online").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"capacity": 3}, "capacity must be at least 16, got 3"),
        ({"steps": 16}, "warmup_steps must be below steps, 16, got 16: nothing would be learned; take more steps"),
        ({"offline_share": 1.5}, "offline_share must be from 0 to 1, got 1.5"),
        ({"updates_per_step": 0.0}, "updates_per_step must be above 0 and finite, got 0.0"),
        ({"eval_seed": -1}, "eval_seed must be at least 0, got -1"),
        ({"eval_temperature": -1.0}, "eval_temperature must be above 0 and finite, got -1.0"),
    ],
)
def test_settings_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **given)
