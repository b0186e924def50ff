import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vlm_rewards.offline_rl.replay.replay import open_replay
from vlm_rewards.offline_rl.runs.saved_agents import load_agent


@pytest.fixture
def agent(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return shutil.copytree(trained, tmp_path / "agent")


@pytest.fixture
def agent_without_digests(agent: Path) -> Path:
    """As an earlier version wrote it, or somebody who means ill."""
    record = json.loads((agent / "agent.json").read_text())
    del record["files"]
    (agent / "agent.json").write_text(json.dumps(record))
    return agent


def test_weights_and_goals_that_have_changed_are_refused(agent: Path) -> None:
    for name in ("agent.pt", "goals.npy"):
        data = (agent / name).read_bytes()
        (agent / name).write_bytes(data[:-200] + bytes([data[-200] ^ 1]) + data[-199:])
        with pytest.raises(
            ValueError, match=rf"a file must be as it was written, got .*{name} .*Copy the whole folder again"
        ):
            load_agent(agent)
        (agent / name).write_bytes(data)
    load_agent(agent)


def test_a_moved_agent_finds_the_replay_that_was_moved_with_it(agent: Path, trained: Path) -> None:
    moved = load_agent(agent)
    assert moved.replay == str(
        agent / "replay"
    )  # though the one where it was made is still there, or another agent's by now
    assert load_agent(trained).replay == str(trained / "replay")
    there = open_replay(moved.replay, num_actions=moved.agent.spaces.num_actions)
    assert there.spaces == moved.agent.spaces
    np.testing.assert_array_equal(there.goals.embeddings, moved.goals.embeddings)
    shutil.rmtree(agent / "replay")
    assert load_agent(agent).replay == str(trained / "replay")
    record = json.loads((agent / "agent.json").read_text())
    (agent / "agent.json").write_text(json.dumps({**record, "replay": "/another/machine/agent/replay"}))
    with pytest.raises(ValueError, match="got /another/machine/agent/replay with none .*. Put back what was moved, or"):
        open_replay(load_agent(agent).replay)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:999])])
def test_weights_that_cannot_be_read_are_named(agent_without_digests: Path, spoil) -> None:
    agent = agent_without_digests
    spoil(agent / "agent.pt")
    with pytest.raises(
        ValueError, match=r"weights of an agent must be a file of tensors, got .*agent\.pt .*. Copy the whole folder"
    ):
        load_agent(agent)


@pytest.mark.parametrize(
    ("change", "found"), [({"version": 9}, "agent of version 9"), ({"kind": "labels"}, "labels of v")]
)
def test_an_agent_of_another_version_is_refused(agent: Path, change: dict, found: str) -> None:
    record = json.loads((agent / "agent.json").read_text())
    (agent / "agent.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(ValueError, match=f"must be of an agent of version 1, got {found}"):
        load_agent(agent)


def test_an_agent_says_what_the_frames_of_its_corpus_were(agent: Path) -> None:
    saved = load_agent(agent)
    assert (saved.camera, saved.labels_camera, saved.frame_shape) == ("egocentric", "egocentric", (56, 56, 3))
    assert saved.frames == "observation"
    record = json.loads((agent / "agent.json").read_text())
    for name in ("camera", "frame_shape", "frames"):
        del record[name]
    (agent / "agent.json").write_text(json.dumps(record))
    before = load_agent(agent)  # of before these were recorded: frames tell their shape
    assert (before.camera, before.frame_shape, before.frames) == (None, (56, 56, 3), "observation")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"agent"', b"null"])
def test_a_record_that_is_no_json_object_is_refused(agent: Path, content: bytes) -> None:
    (agent / "agent.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"agent.json must (be JSON|hold a JSON object), got .*. Copy the whole folder"
    ):
        load_agent(agent)


def _changed(agent: Path, name: str, value: object) -> None:
    """Sets a field of agent.json, inside an object by a name with dots; None removes it."""
    record = json.loads((agent / "agent.json").read_text())
    *outer, last = name.split(".")
    inner = record
    for part in outer:
        inner = inner[part]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    (agent / "agent.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("algorithm", None, r"algorithm in .*agent.json must be a text, got nothing. Copy the whole folder"),
        ("algorithm", 3, "algorithm in .*agent.json must be a text, got 3. Copy"),
        ("algorithm", "ppo", "algorithm must be one of bc, .* got 'ppo'"),
        ("algorithm_settings", [], r"algorithm_settings in .*agent.json must be an object, got \[\]"),
        ("algorithm_settings.width", "wide", "settings of iql must be of their defaults' types, got width 'wide'"),
        ("algorithm_settings.colour", 3, "settings of iql must be among .* got colour"),
        ("spaces", "frames", "spaces.observation in .*agent.json must be a text, got nothing"),
        ("spaces.goal_size", -1, "spaces.goal_size in .*agent.json must be a whole number of at least 1, got -1"),
        ("spaces.observation_shape", [56, "a", 3], "spaces.observation_shape in .* must be a list of whole numbers"),
        ("spaces.sound", 1, "spaces must be of known fields alone, got 'sound'. Copy"),
        ("spaces.action_size", 2, "actions must be either discrete or continuous, got num_actions 7 and action_size 2"),
        ("goals.ids", "ball", "goals.ids in .*agent.json must be a list of texts, got .ball."),
        ("goals.fingerprint", {}, "goals.fingerprint in .*agent.json must be an object that is not empty"),
        ("labeler", None, "labeler in .*agent.json must be an object, got nothing"),
        ("labeler.goals", None, "agent.json must describe an agent and its labeler, got no 'goals'. Copy"),
        ("labeler.colour", 3, "agent.json must describe an agent and its labeler, got .* 'colour'. Copy"),
        ("labeler.batch_size", "many", "batch_size must be a whole number: got 'many'"),
        ("labeler.formula", "best", "formula must be one of .* got 'best'"),
        ("labels_fingerprint.camera", 3, "labels_fingerprint.camera in .*agent.json must be a text, got 3"),
        ("held_out_goals", ["cup"], "held_out_goals in .*agent.json must be among its goals, got 'cup'. Copy"),
        ("envs", {"a": 1}, "envs in .*agent.json must be a list of texts"),
        ("steps", "many", "steps in .*agent.json must be a whole number of at least 0, got .many."),
        ("frame_shape", "large", "frame_shape in .*agent.json must be a list of whole numbers .* or null"),
        ("replay", 7, "replay in .*agent.json must be a text, got 7"),
    ],
)
def test_a_field_that_cannot_be_is_named(agent: Path, name: str, value: object, message: str) -> None:
    _changed(agent, name, value)
    with pytest.raises(ValueError, match=message) as error:
        load_agent(agent)
    told = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert "agent.json" in told


def test_weights_of_another_agent_are_refused(agent: Path) -> None:
    _changed(agent, "algorithm_settings.width", 64)
    with pytest.raises(
        ValueError, match=r"weights in .*agent.pt must be those of the agent in agent.json .* width.*Copy"
    ):
        load_agent(agent)


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("evil-was-run"),))


def test_weights_that_would_run_code_are_refused_without_advice_to_run_it(
    agent_without_digests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_without_digests
    monkeypatch.chdir(tmp_path)
    torch.save({"parts": Evil()}, agent / "agent.pt")
    with pytest.raises(ValueError, match="the weights of an agent must be a file of tensors, got .*agent.pt") as error:
        load_agent(agent)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "evil-was-run").exists()


def test_goals_that_are_not_those_of_the_record_are_refused(agent_without_digests: Path) -> None:
    agent = agent_without_digests
    embeddings = np.load(agent / "goals.npy")
    np.save(agent / "goals.npy", embeddings[1:])
    with pytest.raises(
        ValueError, match=r"goals in .*goals.npy must be \[.*\] float32, as agent.json says, got .*. Copy"
    ):
        load_agent(agent)
    (agent / "goals.npy").write_bytes(b"goals")
    with pytest.raises(ValueError, match=r"goals.npy must be a NumPy array, got .*. Copy the whole folder"):
        load_agent(agent)
