import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vlm_rewards.offline_rl.replay.replay import open_replay
from vlm_rewards.offline_rl.runs.saved_agents import load_agent


@pytest.fixture
def agent(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return shutil.copytree(trained, tmp_path / "agent")


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
    with pytest.raises(ValueError, match="got /another/machine/agent/replay with none .*; put back what was moved, or"):
        open_replay(load_agent(agent).replay)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:999])])
def test_weights_that_cannot_be_read_are_named(agent: Path, spoil) -> None:
    spoil(agent / "agent.pt")
    with pytest.raises(
        ValueError, match=r"weights of an agent must be readable, got .*agent\.pt .*; copy the whole folder"
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
