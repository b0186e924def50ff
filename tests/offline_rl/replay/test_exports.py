import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from relabelled_folders import GOALS, one_camera, write_relabelled

from vlm_rewards.offline_rl.replay.builder import build_replay
from vlm_rewards.offline_rl.replay.exports import export_d3rlpy, export_minari, export_torchrl
from vlm_rewards.offline_rl.replay.replay import ReplayData

STATES = np.arange(12, dtype=np.float32).reshape(6, 2)
WIDE = np.linspace(0, 1, 15, dtype=np.float32).reshape(5, 3)


@pytest.fixture(params=["discrete", "continuous with states"])
def replay(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayData:
    """Segment 0: ball, steps 1 to 3, achieved. Segment 1: box, steps 0 to 4, the recording ends."""
    given = {} if request.param == "discrete" else {"states": STATES, "actions": WIDE}
    source = write_relabelled(tmp_path / "relabelled", [[one_camera(**given)]])
    return build_replay(source, tmp_path / "replay", goals=GOALS, num_actions=None)


def values(frames: np.ndarray) -> list[int]:
    """What the pixels of each frame are."""
    assert (frames.reshape(len(frames), -1) == frames.reshape(len(frames), -1)[:, :1]).all()
    return frames.reshape(len(frames), -1)[:, 0].tolist()


def test_d3rlpy_reads_it_back(replay: ReplayData, tmp_path: Path) -> None:
    from d3rlpy.dataset import InfiniteBuffer, ReplayBuffer

    path = export_d3rlpy(replay, tmp_path / "export.h5")
    loaded = ReplayBuffer.load(str(path), InfiniteBuffer())
    success, failure = loaded.episodes
    assert (success.terminated, failure.terminated) == (True, False)
    assert success.rewards.tolist() == [[0], [0], [1]]
    assert failure.rewards.tolist() == [[0]] * 6  # five steps and the row of the last frame
    assert loaded.transition_count == 3 + 5
    assert success.observations[0].shape == (3, 3, 8, 8)  # channels first
    assert success.observations[1].tolist() == [[1, 0, 0]] * 3
    discrete = replay.spaces.num_actions is not None
    expected = np.arange(0, 50, 10).reshape(5, 1) if discrete else WIDE
    assert np.array_equal(success.actions, expected[1:4])
    assert np.array_equal(failure.actions[:5], expected)
    steps = [loaded.transition_picker(failure, index) for index in range(5)]
    assert [values(step.observation[0][None])[0] for step in steps] == [0, 1, 2, 3, 4]
    assert [values(step.next_observation[0][None])[0] for step in steps] == [1, 2, 3, 4, 5]
    assert [step.terminal for step in steps] == [0] * 5  # bootstrapped from to the end
    assert [loaded.transition_picker(success, index).terminal for index in range(3)] == [0, 0, 1]
    assert ("discrete" in str(loaded.dataset_info.action_space).lower()) == discrete
    if not discrete:
        assert np.array_equal(failure.observations[2], STATES)


def test_torchrl_reads_it_back(replay: ReplayData, tmp_path: Path) -> None:
    from tensordict import TensorDict
    from torchrl.data import LazyMemmapStorage, TensorDictReplayBuffer

    data = TensorDict.load_memmap(str(export_torchrl(replay, tmp_path / "export")))
    assert data.batch_size == torch.Size([8])
    assert values(data["observation"].numpy()) == [1, 2, 3, 0, 1, 2, 3, 4]
    assert values(data["next", "observation"].numpy()) == [2, 3, 4, 1, 2, 3, 4, 5]
    assert data["next", "reward"].squeeze(1).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert data["next", "terminated"].squeeze(1).tolist() == [False, False, True] + [False] * 5
    assert data["next", "truncated"].squeeze(1).tolist() == [False] * 7 + [True]
    assert data["next", "done"].squeeze(1).tolist() == [False, False, True] + [False] * 4 + [True]
    assert data["returns"].squeeze(1).tolist() == pytest.approx([0.99**2, 0.99, 1, 0, 0, 0, 0, 0])
    assert data["goal_index"].squeeze(1).tolist() == [1] * 3 + [0] * 5
    assert data["goal"].tolist() == [[1, 0, 0]] * 3 + [[0, 1, 0]] * 5
    expected = 10 * np.arange(5) if replay.spaces.num_actions is not None else WIDE
    assert np.array_equal(data["action"].numpy(), expected[[1, 2, 3, 0, 1, 2, 3, 4]])
    if replay.spaces.state_size is not None:
        assert np.array_equal(data["next", "state"].numpy(), STATES[[2, 3, 4, 1, 2, 3, 4, 5]])
    buffer = TensorDictReplayBuffer(storage=LazyMemmapStorage(8), batch_size=16)
    buffer.extend(data)
    drawn = buffer.sample()
    assert torch.equal(drawn["observation"] + 1, drawn["next", "observation"])


def test_minari_reads_it_back(replay: ReplayData, tmp_path: Path) -> None:
    from minari import MinariDataset

    dataset = MinariDataset(export_minari(replay, tmp_path / "export"))
    assert (dataset.total_episodes, dataset.total_steps) == (2, 8)
    success, failure = dataset.iterate_episodes()
    assert values(success.observations["observation"]) == [1, 2, 3, 4]
    assert success.observations["goal"].tolist() == [[1, 0, 0]] * 4
    assert success.rewards.tolist() == [0, 0, 1]
    assert success.terminations.tolist() == [False, False, True]
    assert success.truncations.tolist() == [False] * 3
    assert success.infos["goal_text"].tolist() == [b"at the ball"] * 4
    assert success.infos["source_episode"].tolist() == [b"a"] * 4
    assert values(failure.observations["observation"]) == [0, 1, 2, 3, 4, 5]
    assert failure.terminations.tolist() == [False] * 5
    assert failure.truncations.tolist() == [False] * 4 + [True]
    assert failure.infos["goal_id"].tolist() == [b"box"] * 6
    assert failure.infos["goal_kind"].tolist() == [b"negative"] * 6
    discrete = replay.spaces.num_actions is not None
    assert np.array_equal(failure.actions, 10 * np.arange(5) if discrete else WIDE)
    if not discrete:
        assert np.array_equal(failure.observations["state"], STATES)
    for part in (success, failure):
        for step in range(len(part.actions)):
            assert dataset.action_space.contains(np.asarray(part.actions)[step])


def test_minari_finds_it_by_its_id(replay: ReplayData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    export_minari(replay, tmp_path / "minari" / "vlm-rewards" / "balls-v3" / "data", "vlm-rewards/balls-v3")
    assert minari.load_dataset("vlm-rewards/balls-v3").total_steps == 8


@pytest.mark.parametrize("export", [export_d3rlpy, export_torchrl, export_minari])
def test_nothing_is_overwritten(replay: ReplayData, tmp_path: Path, export: object) -> None:
    assert callable(export)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError, match=r"an export must not be there yet, got .*there; remove it"):
        export(replay, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"


@pytest.mark.parametrize(
    ("export", "module", "what"),
    [
        (export_d3rlpy, "d3rlpy.dataset", "d3rlpy"),
        (export_torchrl, "tensordict", "tensordict"),
        (export_minari, "minari", "minari with h5py"),
        (export_minari, "h5py", "minari with h5py"),
    ],
)
def test_without_the_library_the_remedy_is_named(
    replay: ReplayData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: object, module: str, what: str
) -> None:
    assert callable(export)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{what} must be installed, got none; pip install 'vlm-rewards\[export\]'"):
        export(replay, tmp_path / "there")
    assert not (tmp_path / "there").exists()
