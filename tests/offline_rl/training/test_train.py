import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from relabelled_folders import write_relabelled

from vlm_rewards.offline_rl.evaluation.rollout import rollout
from vlm_rewards.offline_rl.runs.folders import latest_checkpoint, read_metrics
from vlm_rewards.offline_rl.runs.saved_agents import load_agent
from vlm_rewards.offline_rl.training.finetune import FinetuneSettings, finetune
from vlm_rewards.offline_rl.training.train import TrainSettings, resolve_held_out, train
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.relabelled import RelabelledEpisode

SMALL = TrainSettings(
    steps=30,
    batch_size=16,
    num_actions=7,
    algorithm_settings={"width": 32, "channels": 8},
    checkpoint_every=5,
    log_every=10,
)
RUN = """
import sys
from vlm_rewards.offline_rl.training.train import train
train(sys.argv[1], output=sys.argv[2], steps=30, batch_size=16, num_actions=7,
      algorithm_settings={"width": 32, "channels": 8}, checkpoint_every=5, log_every=10)
"""


def weights(folder: Path) -> dict:
    return torch.load(folder / "agent.pt", weights_only=True)


def assert_same(one: object, other: object) -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)
    else:
        assert one == other


def write_with_settings_of(relabelled: Path, folder: Path, episodes: list[RelabelledEpisode]) -> Path:
    """Writes episodes as relabelled trajectories that say the same of their labels and labeler as others."""
    recorded = json.loads((relabelled / "settings.json").read_text())["settings"]
    source = write_relabelled(folder, [episodes], labels=recorded["labels_fingerprint"])
    own = json.loads((source / "settings.json").read_text())
    (source / "settings.json").write_text(json.dumps({**own, "settings": {**own["settings"], **recorded}}))
    return source


def test_a_run_that_is_killed_goes_on_to_the_same_bits(relabelled: Path, tmp_path: Path) -> None:
    train(relabelled, output=tmp_path / "unbroken", **vars(SMALL))
    process = subprocess.Popen([sys.executable, "-c", RUN, str(relabelled), str(tmp_path / "killed")])
    checkpoint = tmp_path / "killed" / "checkpoints" / "step-000000005.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed_in_time = not (tmp_path / "killed" / "agent.json").exists()
    found = latest_checkpoint(tmp_path / "killed")
    before = read_metrics(tmp_path / "killed")
    train(relabelled, output=tmp_path / "killed", **vars(SMALL))
    assert killed_in_time
    assert found is not None
    assert 5 <= found[0] < 30
    kept = [record for record in before if record["step"] <= found[0]]
    assert kept == read_metrics(tmp_path / "killed")[: len(kept)]  # with the seconds they took: not measured again
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))
    records = [
        [(record["step"], record["kind"], record.get("critic_loss")) for record in read_metrics(tmp_path / name)]
        for name in ("killed", "unbroken")
    ]
    assert records[0] == records[1]
    assert [record[0] for record in records[0]] == [10, 20, 30]


def test_a_finished_run_is_done_at_once(relabelled: Path, tmp_path: Path) -> None:
    train(relabelled, output=tmp_path / "agent", **vars(SMALL))
    before = weights(tmp_path / "agent")
    train(relabelled, output=tmp_path / "agent", **vars(SMALL))
    assert_same(weights(tmp_path / "agent"), before)


def test_another_run_does_not_write_into_the_folder(relabelled: Path, tmp_path: Path) -> None:
    train(relabelled, output=tmp_path / "agent", **vars(dataclasses.replace(SMALL, steps=1)))
    with pytest.raises(ValueError, match="got other seed .*give another folder, or the settings that made this one"):
        train(relabelled, output=tmp_path / "agent", **vars(dataclasses.replace(SMALL, steps=1, seed=1)))


def test_a_saved_agent_acts_as_it_did(relabelled: Path, tmp_path: Path) -> None:
    saved = train(relabelled, output=tmp_path / "agent", **vars(dataclasses.replace(SMALL, steps=3)))
    again = load_agent(tmp_path / "agent")
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 56, 56, 3), dtype=np.uint8))
    goals = torch.from_numpy(saved.goals.embeddings[:5])
    assert np.array_equal(saved.agent.act(frames, goals), again.agent.act(frames, goals))
    assert again.goals.ids == saved.goals.ids
    assert again.labels_fingerprint == saved.labels_fingerprint
    assert again.discount == saved.agent.settings.discount == 0.95
    assert again.digest == load_agent(tmp_path / "agent").digest != ""


def test_the_trained_agent_is_evaluated_on_goals_it_knows_and_on_others(relabelled: Path, tmp_path: Path) -> None:
    held_out = resolve_held_out(relabelled, ["green box", "yellow ball", "purple key"])
    assert held_out == ("find-green-box", "find-purple-key", "find-yellow-ball")
    settings = dataclasses.replace(SMALL, steps=2, hold_out=held_out, envs=("BabyAI-GoToObj-v0",), eval_episodes=4)
    saved = train(relabelled, output=tmp_path / "agent", **vars(settings))
    assert saved.held_out_goals == held_out
    evaluations = {
        record["kind"]: record for record in read_metrics(tmp_path / "agent") if "evaluation" in record["kind"]
    }
    assert evaluations.keys() == {"evaluation", "evaluation of held-out goals"}
    for record in evaluations.values():
        assert record["episodes"] == 4
        assert 0 <= record["success_low"] <= record["success"] <= record["success_high"] <= 1


def test_an_evaluation_that_was_recorded_is_not_recorded_again(relabelled: Path, tmp_path: Path) -> None:
    held_out = resolve_held_out(relabelled, ["green box"])
    settings = dataclasses.replace(SMALL, steps=2, hold_out=held_out, envs=("BabyAI-GoToObj-v0",), eval_episodes=2)
    train(relabelled, output=tmp_path / "agent", **vars(settings))
    path = tmp_path / "agent" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert [json.loads(line)["kind"] for line in lines[-2:]] == ["evaluation", "evaluation of held-out goals"]
    path.write_text("".join(lines[:-1]))  # killed between the two
    train(relabelled, output=tmp_path / "agent", **vars(settings))
    records = read_metrics(tmp_path / "agent")
    assert [record["kind"] for record in records] == [json.loads(line)["kind"] for line in lines]
    assert records[:-1] == [json.loads(line) for line in lines[:-1]]


def test_a_mix_without_a_success_is_refused_before_training(relabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mix must draw successes and rewards above 0, got .*: negative goals have 0"):
        train(relabelled, output=tmp_path / "agent", **vars(dataclasses.replace(SMALL, mix=(0.0, 0.0, 1.0))))
    assert not (tmp_path / "agent").exists()  # not claimed for settings that are refused


def test_continuous_actions_out_of_range_are_refused_before_training(relabelled: Path, tmp_path: Path) -> None:
    episodes = [
        dataclasses.replace(episode, actions=np.zeros((episode.num_frames - 1, 2), np.float32))
        for episode in read_relabelled(relabelled)
    ]
    episodes[-1].actions[-1, 1] = -1.5  # type: ignore[index]
    source = write_with_settings_of(relabelled, tmp_path / "relabelled", episodes)
    settings = dataclasses.replace(SMALL, num_actions=None)
    with pytest.raises(ValueError, match="continuous actions must be from -1 to 1, got -1.5 to 0; scale the actions"):
        train(source, output=tmp_path / "agent", **vars(settings))
    assert not (tmp_path / "agent").exists()


def test_an_environment_of_other_actions_is_refused_before_training(relabelled: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, num_actions=9, envs=("BabyAI-GoToObj-v0",))
    with pytest.raises(ValueError, match="the environment BabyAI-GoToObj-v0 must have the num_actions .* 9, got 7"):
        train(relabelled, output=tmp_path / "agent", **vars(settings))
    assert not (tmp_path / "agent").exists()


@pytest.mark.parametrize(
    ("level", "held_out"),
    [
        ("BabyAI-OpenRedDoor-v0", ()),  # its mission is to open a door
        ("BabyAI-GoToRedBall-v0", ("find-green-box",)),  # a level may ask for trained goals and never for one held out
    ],
)
def test_a_level_that_asks_for_none_of_the_goals_is_refused_before_training(
    relabelled: Path, tmp_path: Path, level: str, held_out: tuple[str, ...]
) -> None:
    settings = dataclasses.replace(SMALL, envs=(level,), hold_out=held_out)
    with pytest.raises(ValueError, match=f"{level} can be asked for none of the .* goals: got none in 1000 levels"):
        train(relabelled, output=tmp_path / "agent", **vars(settings))
    assert not (tmp_path / "agent").exists()


def test_goals_are_not_embedded_by_another_model_than_the_labels(relabelled: Path, tmp_path: Path) -> None:
    source = shutil.copytree(relabelled, tmp_path / "relabelled")
    record = json.loads((source / "settings.json").read_text())
    record["settings"]["labels_fingerprint"]["weights"] = "of another model"
    (source / "settings.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="must have the same fingerprint as this run, got other weights"):
        train(source, output=tmp_path / "agent", **vars(SMALL))


def test_an_agent_that_is_not_finished_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="an agent must be a folder that vlm-rewards train or finetune has finished, got"
    ):
        load_agent(tmp_path)


def test_no_goals_are_held_out_unless_asked_for(relabelled: Path) -> None:
    assert resolve_held_out(relabelled, []) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithm": "ppo"}, "algorithm must be one of bc, .*, got 'ppo'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"frame_stack": 0}, "frame_stack must be at least 1, got 0"),
        ({"envs": ("BabyAI-GoToObj-v0",), "eval_episodes": 0}, "eval_episodes must be at least 1, got 0"),
        ({"envs": ("BabyAI-GoToObj-v0",), "frames": ""}, "frames must be 'observation', 'render' or a key"),
        ({"eval_temperature": -1.0}, "eval_temperature must be above 0 and finite, got -1.0"),
    ],
)
def test_settings_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**given)


def test_an_agent_of_states_is_for_offline_use_alone(relabelled: Path, tmp_path: Path) -> None:
    episodes = [
        dataclasses.replace(episode, states=np.zeros((episode.num_frames, 2), np.float32))
        for episode in read_relabelled(relabelled)
    ]
    source = write_with_settings_of(relabelled, tmp_path / "relabelled", episodes)
    small, envs = dataclasses.replace(SMALL, steps=1), ("BabyAI-GoToObj-v0",)
    message = "must take no state, got one of 2 numbers: states are for offline training alone; train .* --no-states"
    with pytest.raises(ValueError, match=message):
        train(source, output=tmp_path / "agent", **vars(dataclasses.replace(small, envs=envs)))
    assert train(source, output=tmp_path / "stateful", **vars(small)).agent.spaces.state_size == 2
    online = FinetuneSettings(envs=envs, steps=8, num_envs=2, warmup_steps=0, batch_size=16, eval_episodes=0)
    with pytest.raises(ValueError, match=message):
        finetune(tmp_path / "stateful", output=tmp_path / "online", **vars(online))
    with pytest.raises(ValueError, match=message):
        rollout(tmp_path / "stateful", output=tmp_path / "played", envs=envs, episodes=2)
    blind = dataclasses.replace(small, states=False, envs=envs, eval_episodes=2)
    assert train(source, output=tmp_path / "stateless", **vars(blind)).agent.spaces.state_size is None
    assert finetune(tmp_path / "stateless", output=tmp_path / "online", **vars(online)).steps == 8


@pytest.mark.parametrize(
    ("num_actions", "told"),
    [
        (7, "; 7 actions, given\n"),
        (None, "; 7 actions, the highest recorded one and those under it: --num-actions gives others\n"),
    ],
)
def test_the_number_of_actions_is_told_before_training(
    relabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_actions: int | None, told: str
) -> None:
    train(relabelled, output=tmp_path / "agent", **vars(dataclasses.replace(SMALL, steps=1, num_actions=num_actions)))
    assert told in capsys.readouterr().err


def test_settings_say_what_was_trained_on(relabelled: Path, tmp_path: Path) -> None:
    train(relabelled, output=tmp_path / "agent", **vars(dataclasses.replace(SMALL, steps=1)))
    record = json.loads((tmp_path / "agent" / "settings.json").read_text())
    assert record["settings"]["source"] == str(relabelled)
    assert record["fingerprint"]["relabelled"]["labels"]["formula"] == "softmax"
