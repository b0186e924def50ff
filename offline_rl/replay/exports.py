"""Replays as the files of other libraries: d3rlpy, torchrl and Minari.

A segment, one goal of one episode, becomes an episode of its own; its goal becomes a part of the observation:

    ours              segment, o_0 ... o_L, a_0 ... a_(L-1), r_0 ... r_(L-1), terminated
    d3rlpy (h5)       an episode; observations (frame [3, H, W] or embedding, goal [E], state [S] if there is one)
    torchrl           L transitions of a memory-mapped TensorDict: observation, goal, state, action, next, returns, goal_index
    Minari (folder)   an episode; observations {"observation", "goal", "state"}; goal id and text, kind and source episode in infos

| a segment's last step | ours | d3rlpy | torchrl, Minari |
|---|---|---|---|
| achieves the goal | mask 0 | terminated | terminated |
| is where the recording ends | mask 1 | not terminated | truncated |

d3rlpy makes no transition of the last row of an episode that is not terminated, so such an episode gets one more row, with the
last observation, action 0 and reward 0; it is only ever read as what comes next. Of a terminated one it takes the next
observation to be 0, which its mask hides. Its pictures have the channels first. Frames are written once per segment in d3rlpy and
Minari and twice per transition in torchrl: these formats have no place for shared frames, so they are much larger than the replay.

Shape letters as in `offline_rl.interfaces`; L steps of a segment.
"""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm_rewards.offline_rl.replay.replay import ReplayData, Segment

_CHUNK = 1024


def export_d3rlpy(replay: ReplayData, path: str | Path) -> Path:
    """Writes the file that `d3rlpy.dataset.ReplayBuffer.load(path, InfiniteBuffer())` reads, a segment at a time.

    d3rlpy takes the number of actions from the data; where the environment has more, give it `action_size=spaces.num_actions`.

    Args:
        replay: Replay to export; goals held out of it are left out.
        path: The .h5 file.

    Returns:
        The path.

    Raises:
        ImportError: d3rlpy is not installed.
        FileExistsError: There is such a file.
    """
    try:
        from d3rlpy.dataset import Episode, dump
    except ImportError as error:
        raise ImportError(_missing("d3rlpy")) from error

    class Episodes(Sequence[Any]):
        """Makes an episode when it is asked for, so that one is in memory."""

        def __len__(self) -> int:
            return len(replay.segments)

        def __getitem__(self, number: Any) -> Any:
            if number >= len(self):
                raise IndexError(number)
            segment = replay.segment(number)
            length = len(segment.actions)
            rows = length if segment.terminated else length + 1
            observations = segment.observations[:rows]
            if observations.dtype == np.uint8:
                observations = np.ascontiguousarray(observations.transpose(0, 3, 1, 2))
            goal = np.repeat(replay.goals.embeddings[segment.goal][None], rows, axis=0)
            state = [] if segment.states is None else [segment.states[:rows]]
            return Episode(
                observations=[observations, goal, *state],
                actions=_padded(segment.actions.reshape(length, -1), rows),
                rewards=_padded(segment.rewards[:, None], rows),
                terminated=segment.terminated,
            )

    path = _new(path)
    with path.open("w+b") as file:
        dump(Episodes(), file)
    return path


def export_torchrl(replay: ReplayData, folder: str | Path) -> Path:
    """Writes a memory-mapped TensorDict of all transitions, which `tensordict.TensorDict.load_memmap(folder)` opens.

    Its keys are torchrl's: observation, goal, state, action, ("next", "observation" | "goal" | "state" | "reward" | "terminated" |
    "truncated" | "done"), and returns, success and goal_index. It goes into `TensorDictReplayBuffer` by `extend(data)`.

    Args:
        replay: Replay to export; goals held out of it are left out.
        folder: Folder to write to; made if absent.

    Returns:
        The folder.

    Raises:
        ImportError: tensordict is not installed.
        FileExistsError: The folder is there.
    """
    try:
        from tensordict import TensorDict
    except ImportError as error:
        raise ImportError(_missing("tensordict")) from error

    folder = _new(folder)
    count = len(replay)
    ends = np.zeros(count, np.bool_)
    ends[np.cumsum(replay.segments["length"].astype(np.int64)) - 1] = True
    goal_indices = np.repeat(replay.segments["goal"], replay.segments["length"])
    written: Any = None
    for first in range(0, count, _CHUNK):
        numbers = np.arange(first, min(first + _CHUNK, count))
        batch = replay.gather(numbers)
        terminated = batch.masks[:, None] == 0
        end = torch.from_numpy(ends[numbers])[:, None]
        after: dict[str, Any] = {
            "observation": batch.next_observations,
            "goal": batch.goals,
            "reward": batch.rewards[:, None],
            "terminated": terminated,
            "truncated": end & ~terminated,
            "done": end,
        }
        now: dict[str, Any] = {
            "observation": batch.observations,
            "goal": batch.goals,
            "action": batch.actions,
            "returns": batch.returns[:, None],
            "success": batch.successes[:, None],
            "goal_index": torch.from_numpy(goal_indices[numbers])[:, None],
        }
        if batch.states is not None:
            now["state"], after["state"] = batch.states, batch.next_states
        chunk = TensorDict({**now, "next": after}, batch_size=len(numbers))
        if written is None:
            written = chunk[:1].expand(count).memmap_like(str(folder))
        written[first : first + len(numbers)] = chunk
    return folder


def export_minari(replay: ReplayData, folder: str | Path, dataset_id: str = "vlm-rewards/relabelled-v0") -> Path:
    """Writes a Minari dataset (HDF5), which `minari.MinariDataset(folder)` opens, a segment at a time.

    To open it by `minari.load_dataset(dataset_id)`, write it to `$MINARI_DATASETS_PATH/<dataset_id>/data`. Frames are stored
    as they are and not as JPEG, Minari's default, so that they come back to the bit.

    Args:
        replay: Replay to export; goals held out of it are left out.
        folder: Folder to write to; made if absent.
        dataset_id: Minari's id, `namespace/name-vN`.

    Returns:
        The folder.

    Raises:
        ImportError: minari, its h5py or gymnasium is not installed.
        FileExistsError: The folder is there.
    """
    try:
        import minari
        from gymnasium import spaces
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_storage import MinariStorage

        importlib.import_module("h5py")  # which minari imports when it writes
    except ImportError as error:
        raise ImportError(_missing("minari with h5py")) from error

    own = replay.spaces
    parts: dict[str, Any] = {
        "observation": spaces.Box(0, 255, own.observation_shape, np.uint8)
        if own.observation == "frames"
        else spaces.Box(-np.inf, np.inf, own.observation_shape, np.float32),
        "goal": spaces.Box(-1, 1, (own.goal_size,), np.float32),
    }
    if own.state_size is not None:
        parts["state"] = spaces.Box(-np.inf, np.inf, (own.state_size,), np.float32)
    actions: Any = (
        spaces.Discrete(own.num_actions)
        if own.num_actions is not None
        else spaces.Box(-np.inf, np.inf, (int(own.action_size or 0),), np.float32)
    )

    def episodes() -> Iterator[Any]:
        for number in range(len(replay.segments)):
            segment = replay.segment(number)
            yield EpisodeBuffer(
                id=number,
                observations=_observations(replay, segment),
                actions=segment.actions,
                rewards=segment.rewards,
                terminations=_last(segment, segment.terminated),
                truncations=_last(segment, not segment.terminated),
                infos=_infos(replay, segment),
            )

    folder = _new(folder)
    folder.mkdir(parents=True)
    storage = MinariStorage.new(
        folder, observation_space=spaces.Dict(parts), action_space=actions, data_format="hdf5", jpeg_encoding=False
    )
    storage.update_episodes(episodes())
    storage.update_metadata(
        {
            "dataset_id": dataset_id,
            "minari_version": minari.__version__,
            "description": "Trajectories relabelled in hindsight with rewards from a vision-language model.",
            "vlm_rewards_fingerprint": replay.fingerprint.digest,
        }
    )
    return folder


def _observations(replay: ReplayData, segment: Segment) -> dict[str, np.ndarray]:
    goal = np.repeat(replay.goals.embeddings[segment.goal][None], len(segment.observations), axis=0)
    state = {} if segment.states is None else {"state": segment.states}
    return {"observation": segment.observations, "goal": goal, **state}


def _infos(replay: ReplayData, segment: Segment) -> dict[str, np.ndarray]:
    texts = {
        "goal_id": replay.goals.ids[segment.goal],
        "goal_text": replay.goals.texts[segment.goal],
        "goal_kind": segment.kind,
        "source_episode": segment.episode_id,
    }
    return {name: np.array([text.encode()] * len(segment.observations)) for name, text in texts.items()}


def _last(segment: Segment, value: bool) -> np.ndarray:
    return (np.arange(len(segment.actions)) == len(segment.actions) - 1) & value


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])


def _missing(what: str) -> str:
    return f"to export to it, {what} must be installed, got none; pip install 'vlm-rewards[export]'"


def _new(path: str | Path) -> Path:
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"an export must not be there yet, got {path}; remove it or give another path")
    return path
