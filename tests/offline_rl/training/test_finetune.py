import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.settings import LabelerSettings, settings_from_json
from vlm_rewards.offline_rl.evaluation.rollout import rollout
from vlm_rewards.offline_rl.runs.folders import Metrics, latest_checkpoint, read_metrics, save_checkpoint
from vlm_rewards.offline_rl.runs.saved_agents import load_agent
from vlm_rewards.offline_rl.training.finetune import FinetuneSettings, finetune
from vlm_rewards.offline_rl.training.finetune_run import FinetuneRun
from vlm_rewards.offline_rl.training.train import TrainSettings, train
from vlm_rewards.pipelines.hindsight.relabelling import hindsight
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.record.recording import RecordSettings, record
from vlm_rewards.schemas.rules import NEVER

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
from vlm_rewards.offline_rl.training.finetune import finetune
finetune(sys.argv[1], output=sys.argv[2], envs=["BabyAI-GoToObj-v0"], steps=160, num_envs=4, batch_size=16,
         warmup_steps=16, updates_per_step=0.5, hindsight_goals=2, capacity=1000, eval_episodes=0, log_every=40,
         checkpoint_every=40)
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
    finetune(trained, output=tmp_path / "unbroken", **vars(SMALL))
    process = subprocess.Popen([sys.executable, "-c", RUN, str(trained), str(tmp_path / "killed")])
    checkpoint = tmp_path / "killed" / "checkpoints" / "step-000000080.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed_in_time = not (tmp_path / "killed" / "agent.json").exists()
    found = latest_checkpoint(tmp_path / "killed")
    before = read_metrics(tmp_path / "killed")
    finetune(trained, output=tmp_path / "killed", **vars(SMALL))
    assert killed_in_time
    assert found is not None
    assert 80 <= found[0] < 160
    kept = [record for record in before if record["step"] <= found[0]]
    assert kept == read_metrics(tmp_path / "killed")[: len(kept)]  # with the seconds they took: not measured again
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


def test_a_run_that_ends_before_its_first_checkpoint_begins_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SMALL, eval_episodes=4, eval_every=80)

    def fail(run: FinetuneRun, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FinetuneRun, "save", fail)
        finetune(trained, output=tmp_path / "online", **vars(settings))
    assert [record["step"] for record in read_metrics(tmp_path / "online")][:2] == [0, 20]
    finetune(trained, output=tmp_path / "online", **vars(settings))
    evaluations = [record["step"] for record in read_metrics(tmp_path / "online") if record["kind"] == "evaluation"]
    assert evaluations == [0, 20, 80, 160]


def test_an_agent_with_a_memory_goes_on_to_the_same_bits(
    relabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = train(
        relabelled, output=tmp_path / "agent", steps=10, batch_size=16, num_actions=7, frame_stack=3, eval_episodes=0
    )
    assert agent.agent.spaces.seen_shape == (56, 56, 9)
    assert load_agent(tmp_path / "agent").agent.spaces.frame_stack == 3
    short = dataclasses.replace(SMALL, steps=80, eval_episodes=4, eval_every=80)
    finetune(tmp_path / "agent", output=tmp_path / "unbroken", **vars(short))
    save = FinetuneRun.save

    def save_and_die(run: FinetuneRun, folder: Path) -> None:
        save(run, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FinetuneRun, "save", save_and_die)
        finetune(tmp_path / "agent", output=tmp_path / "killed", **vars(short))
    finetune(tmp_path / "agent", output=tmp_path / "killed", **vars(short))
    assert_same_weights(tmp_path / "killed", tmp_path / "unbroken")


def test_truth_may_reward_instead_of_the_model(trained: Path, tmp_path: Path) -> None:
    longer = dataclasses.replace(SMALL, steps=800, updates_per_step=0.05, checkpoint_every=400, reward="truth")
    finetune(trained, output=tmp_path / "online", **vars(longer))
    records = read_metrics(tmp_path / "online")
    scoring = [record for record in records if record["kind"] == "scoring"][-1]
    assert scoring["frames"] == scoring["encoded"] == 0  # the model was not asked
    assert scoring["positive_rewards"] > 0
    episodes = [record for record in records if record["kind"] == "episodes"][-1]
    assert episodes["vlm_return"] == episodes["success"]
    with pytest.raises(ValueError, match=r"must have the same fingerprint as this run, got other reward"):
        finetune(trained, output=tmp_path / "online", **vars(dataclasses.replace(longer, reward="truth:0.1:0")))


def test_fine_tuning_changes_the_agent_and_counts_its_updates(trained: Path, tmp_path: Path) -> None:
    saved = finetune(trained, output=tmp_path / "online", **vars(SMALL))
    before = load_agent(trained)
    # 160 steps of 4 environments, the first 16 without updates: 144 x 0.5 updates.
    assert saved.agent.num_updates - before.agent.num_updates == 72
    assert load_agent(tmp_path / "online").envs == (LEVEL,)
    assert load_agent(tmp_path / "online").steps == 160
    assert load_agent(tmp_path / "online").digest != before.digest


def test_evaluations_at_the_end_of_offline_the_first_step_on_the_way_and_the_end(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, eval_episodes=4, eval_every=80)
    finetune(trained, output=tmp_path / "online", **vars(settings))
    evaluations = [record for record in read_metrics(tmp_path / "online") if record["kind"] == "evaluation"]
    assert [(record["step"], record["when"]) for record in evaluations] == [
        (0, "end of offline training"),
        (20, "first online step"),
        (80, "on the way"),
        (160, "end"),
    ]
    assert all(record["episodes"] == 4 for record in evaluations)
    # What is told of scoring is of the live steps alone: as many frames as without evaluations, 4 a reset and 4 a step.
    finetune(trained, output=tmp_path / "unevaluated", **vars(SMALL))
    scoring = [
        [record for record in read_metrics(tmp_path / name) if record["kind"] == "scoring"][-1]
        for name in ("online", "unevaluated")
    ]
    assert scoring[0]["frames"] == scoring[1]["frames"] >= 164
    assert scoring[0]["encoded"] <= scoring[1]["encoded"]  # evaluations leave frames in the cache
    assert scoring[0]["steps"] == 160


def test_a_live_step_can_be_learned_from_when_its_episode_has_ended_alone(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, steps=320, warmup_steps=0, hindsight_goals=0, finished_only=True)
    saved = finetune(trained, output=tmp_path / "online", **vars(settings))
    # 320 steps at 0.5: fewer updates than 160, as nothing could be sampled before the first episode had ended, by the time limit
    # of 64 steps or before.
    assert 0 < saved.agent.num_updates - load_agent(trained).agent.num_updates < 160


def test_a_short_run_without_a_positive_reward_says_so_at_its_end(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = shutil.copytree(trained, tmp_path / "agent")
    saved = json.loads((agent / "agent.json").read_text())
    goals = len(saved["labeler"]["goals"])
    saved["labeler"]["threshold"] = [NEVER] * goals  # no frame is ever rewarded
    labels = Labeler.build(settings_from_json(saved["labeler"])).fingerprint.parts
    saved["labels_fingerprint"] |= {"rule": labels["rule"]}
    (agent / "agent.json").write_text(json.dumps(saved))
    finetune(agent, output=tmp_path / "online", **vars(dataclasses.replace(SMALL, steps=32)))
    told = capsys.readouterr().err
    assert "finetune: warning: a live reward must be positive now and then, got none in 32 steps and" in told
    assert "Calibrate the thresholds and label again" in told


def test_what_a_kill_left_of_a_buffer_is_removed(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, steps=8, warmup_steps=0)
    finetune(trained, output=tmp_path / "online", **vars(settings))
    unfinished = tmp_path / "online" / ".buffer-000000008.npz.tmp-0123"
    unfinished.write_bytes(b"half")
    finetune(trained, output=tmp_path / "online", **vars(settings))
    assert not unfinished.exists()
    assert (tmp_path / "online" / "buffer-000000008.npz").exists()


def test_asynchronous_scoring_where_success_does_not_end_the_episode(trained: Path, tmp_path: Path) -> None:
    # 64 steps is the level's time limit: all four end at the last one, where the agent is saved too.
    settings = dataclasses.replace(SMALL, steps=256, checkpoint_every=256, end_at_success=False, asynchronous=True)
    finetune(trained, output=tmp_path / "online", **vars(settings))
    finetune(trained, output=tmp_path / "again", **vars(settings))
    assert_same_weights(tmp_path / "online", tmp_path / "again")
    with np.load(tmp_path / "online" / "buffer-000000256.npz") as buffer:
        achieved = buffer["slots_reward"][:256] == 1
        assert np.array_equal(buffer["slots_mask"][:256] == 0, achieved)  # as in a corpus, though the episodes went on
        assert achieved.any()


def test_an_asynchronous_run_goes_on_to_the_same_bits(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(
        SMALL, steps=128, checkpoint_every=64, end_at_success=False, asynchronous=True, warmup_steps=96
    )
    finetune(trained, output=tmp_path / "unbroken", **vars(settings))
    advance = FinetuneRun.advance

    def interrupt(run: FinetuneRun, metrics: Metrics) -> None:
        if run.step >= 64:
            raise KeyboardInterrupt
        advance(run, metrics)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FinetuneRun, "advance", interrupt)
        finetune(trained, output=tmp_path / "interrupted", **vars(settings))
    finetune(trained, output=tmp_path / "interrupted", **vars(settings))
    assert_same_weights(tmp_path / "interrupted", tmp_path / "unbroken")


def test_a_checkpoint_of_another_version_is_refused(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, steps=8, warmup_steps=0)
    finetune(trained, output=tmp_path / "online", **vars(settings))
    step, state = latest_checkpoint(tmp_path / "online")
    del state["version"]  # as 0.2.0 wrote it
    save_checkpoint(tmp_path / "online", step, state)
    with pytest.raises(ValueError, match=r"step 8 in .*online must be of version 2, got 1. Resume with the version"):
        finetune(trained, output=tmp_path / "online", **vars(settings))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent of kept embeddings, of a corpus that was recorded in frames of 7 tiles of 16 pixels."""
    folder = tmp_path_factory.mktemp("embedded")
    settings = RecordSettings(
        envs=(LEVEL,), policy="bot:0.5,random:0.5", episodes=8, seed=5, max_steps=8, frame_size=(112, 112)
    )
    record(output=folder / "corpus", workers=1, **vars(settings))
    goals = tuple(goal for goal in goal_bank() if goal.family == "find")
    label(
        folder / "corpus",
        LabelerSettings(model="reference-s", goals=goals),
        output=folder / "labels",
        embeddings=folder / "embeddings",
        workers=1,
    )
    output = folder / "relabelled"
    hindsight(folder / "corpus", folder / "labels", output=output, workers=1)
    small = TrainSettings(
        steps=2, batch_size=16, num_actions=7, algorithm_settings={"width": 32}, envs=(LEVEL,), eval_episodes=2
    )
    train(output, output=folder / "agent", embeddings=folder / "embeddings", **vars(small))
    return folder / "agent"


def test_an_agent_of_embeddings_is_shown_the_frames_that_were_labelled(embedded: Path, tmp_path: Path) -> None:
    assert load_agent(embedded).frame_shape == (112, 112, 3)
    settings = dataclasses.replace(SMALL, steps=8, warmup_steps=0)
    online = finetune(embedded, output=tmp_path / "online", **vars(settings))
    assert online.frame_shape == load_agent(tmp_path / "online").frame_shape == (112, 112, 3)
    played = rollout(tmp_path / "online", output=tmp_path / "played", episodes=2, videos=2)
    assert {frames.shape[1:] for frames in played.frames} == {(112, 112, 3)}


@pytest.mark.parametrize(
    ("frame_shape", "message"),
    [
        ([64, 64, 3], r"must have the shape of the corpus's, \[64, 64, 3\], got \[56, 56, 3\]"),
        (None, "the frames behind an agent's embeddings must be of a known shape, got none: .*; train it again"),
    ],
)
def test_embeddings_of_frames_that_cannot_be_shown_are_refused(
    embedded: Path, tmp_path: Path, frame_shape: list[int] | None, message: str
) -> None:
    agent = shutil.copytree(embedded, tmp_path / "agent")
    saved = json.loads((agent / "agent.json").read_text())
    (agent / "agent.json").write_text(json.dumps({**saved, "frame_shape": frame_shape}))
    with pytest.raises(ValueError, match=message):
        finetune(agent, output=tmp_path / "online", **vars(SMALL))
    with pytest.raises(ValueError, match=message):
        rollout(agent, output=tmp_path / "played", envs=(LEVEL,), episodes=2)


def test_frames_and_camera_can_be_given(trained: Path, tmp_path: Path) -> None:
    cartpole = dataclasses.replace(SMALL, envs=("CartPole-v1",))
    with pytest.raises(ValueError, match=r"must be an RGB frame, .*; choose the frame with --frames"):
        finetune(trained, output=tmp_path / "online", **vars(cartpole))
    with pytest.raises(
        ValueError, match=r"must have the observation_shape that the agent was trained on, \(56, 56, 3\)"
    ):
        finetune(trained, output=tmp_path / "online", **vars(dataclasses.replace(cartpole, frames="render")))
    with pytest.raises(ValueError, match="must show the camera that the agent was trained on, 'egocentric', got 'top'"):
        finetune(trained, output=tmp_path / "online", **vars(dataclasses.replace(cartpole, camera="top")))


class GrayEnv(gymnasium.Env):
    """Gray frames, ten steps an episode, and no one who knows what holds in them."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, (56, 56, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(7)
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._frame(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return self._frame(), 1.0, False, self.t == 10, {"ground_truth": None}

    def _frame(self) -> np.ndarray:
        return np.full((56, 56, 3), 10 * self.t, np.uint8)


gymnasium.register("Gray-v0", GrayEnv)


def test_where_no_one_knows_the_truth_no_success_is_told(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, envs=("Gray-v0",), camera="egocentric")
    finetune(trained, output=tmp_path / "online", **vars(settings))
    records = [record for record in read_metrics(tmp_path / "online") if record["kind"] == "episodes"]
    assert records[-1]["episodes"] == 16
    assert {record["success"] for record in records} == {None}
    assert all(record["vlm_return"] >= 0 for record in records)


def test_an_agent_whose_labels_are_of_another_camera_is_refused(trained: Path, tmp_path: Path) -> None:
    agent = shutil.copytree(trained, tmp_path / "agent")
    saved = json.loads((agent / "agent.json").read_text())
    saved["labels_fingerprint"]["camera"] = "wrist"
    (agent / "agent.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r'got other camera \(camera is "wrist" there and "egocentric" here\)'):
        finetune(agent, output=tmp_path / "online", **vars(SMALL))
    assert not (tmp_path / "online" / "settings.json").exists()


def test_another_run_does_not_write_into_the_folder(trained: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, steps=8, warmup_steps=0)
    finetune(trained, output=tmp_path / "online", **vars(settings))
    with pytest.raises(ValueError, match="got other steps"):
        finetune(trained, output=tmp_path / "online", **vars(dataclasses.replace(settings, steps=16)))


def test_another_replay_than_the_agents_is_refused(trained: Path, relabelled: Path, tmp_path: Path) -> None:
    agent = shutil.copytree(trained, tmp_path / "agent")
    hindsight(
        relabelled.parent / "corpus", relabelled.parent / "labels", output=tmp_path / "relabelled", seed=1, workers=1
    )
    small = TrainSettings(steps=1, batch_size=16, num_actions=7, algorithm_settings={"width": 32, "channels": 8})
    train(tmp_path / "relabelled", output=tmp_path / "other", **vars(small))
    shutil.rmtree(agent / "replay")
    shutil.copytree(tmp_path / "other" / "replay", agent / "replay")
    with pytest.raises(
        ValueError, match=r"the replay .*agent/replay must have the same .*; put the replay that .* into"
    ) as error:
        finetune(agent, output=tmp_path / "online", **vars(SMALL))
    found, wanted = (load_agent(folder).replay_fingerprint for folder in (tmp_path / "other", agent))
    assert found is not None
    assert wanted is not None
    there, here = (part.parts["relabelled_digest"] for part in (found, wanted))
    assert re.search(f'"{there}" there and "{here}" here', str(error.value))
    assert not (tmp_path / "online").exists()


def test_a_mix_of_what_the_corpus_has_not_is_refused_before_the_first_step(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mix must have a share of a kind that the replay has"):
        finetune(trained, output=tmp_path / "online", **vars(dataclasses.replace(SMALL, mix=(0.0, 0.0, 0.0))))
    assert not (tmp_path / "online").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"capacity": 3}, "capacity must be at least 16, got 3"),
        ({"steps": 16}, "warmup_steps must be below steps, 16, got 16: nothing would be learned. Take more steps"),
        ({"offline_share": 1.5}, "offline_share must be from 0 to 1, got 1.5"),
        ({"updates_per_step": 0.0}, "updates_per_step must be above 0 and finite, got 0.0"),
        ({"camera": "top"}, "cameras of babyai must be some of its own, each once: got top"),
        ({"envs": (LEVEL,) * 5}, "num_envs must be at least the number of environments named, 5, got 4"),
        ({"envs": (LEVEL,) * 3, "eval_episodes": 2}, "eval_episodes must be at least 3, got 2"),
        ({"frames": ""}, "frames must be 'observation', 'render' or a key of the observation, got ''"),
        ({"eval_seed": -1}, "eval_seed must be at least 0, got -1"),
        ({"eval_temperature": -1.0}, "eval_temperature must be above 0 and finite, got -1.0"),
    ],
)
def test_settings_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **given)
