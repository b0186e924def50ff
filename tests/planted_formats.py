"""Writes the episodes of `planted_episodes` in other people's formats: with their libraries, or as these lay files out."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
import zarr
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from planted_episodes import CAMERAS, SIZE
from rlds_files import episode_features, group, image, serialized, tensor, text, write_data_set
from small_videos import H264, write_video

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import writable_format, write_episodes
from vlm_rewards.schemas.pictures import encode_png

Write = Callable[[Path, Sequence[Episode]], None]


def pixels(episode: Episode, camera: str) -> np.ndarray:
    """All frames of a camera, [F, H, W, 3]."""
    return np.stack(list(episode.images[camera]))  # type: ignore[arg-type]


def ours(format_name: str) -> Write:
    """Two files of two episodes each, in a format that we write."""

    def write(folder: Path, episodes: Sequence[Episode]) -> None:
        for start in (0, 2):
            path = folder / f"shard-{start}.{writable_format(format_name).extension}"
            write_episodes(path, CorpusFeatures.of(episodes[0]), episodes[start : start + 2], format_name)

    return write


def write_robomimic(folder: Path, episodes: Sequence[Episode]) -> None:
    """Two files of two demos each, with next_obs."""
    for start in (0, 2):
        with h5py.File(folder / f"demos-{start}.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
            for index, episode in enumerate(episodes[start : start + 2]):
                demo = data.create_group(f"demo_{index}")
                demo.attrs["num_samples"] = episode.num_steps
                demo["actions"] = np.asarray(episode.actions, np.float64)
                demo["rewards"] = np.asarray(episode.rewards, np.float64)
                demo["dones"] = np.asarray(episode.terminations, np.int64)
                for name, rows in (("obs", slice(0, -1)), ("next_obs", slice(1, None))):
                    for camera in CAMERAS:
                        demo.create_dataset(
                            f"{name}/{camera}_image", data=pixels(episode, camera)[rows], compression="gzip"
                        )
                    demo[f"{name}/robot0_eef_pos"] = np.asarray(episode.states)[rows]


def write_libero(folder: Path, episodes: Sequence[Episode]) -> None:
    """A file per episode, as each file has one instruction: the frame after each step, upside down."""
    for number, episode in enumerate(episodes):
        with h5py.File(folder / f"task-{number}_demo.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["problem_info"] = json.dumps({"language_instruction": episode.instruction})
            data.attrs["macros_image_convention"] = "opengl"
            data.attrs["env_args"] = json.dumps({"type": 1, "env_name": "Libero"})
            demo = data.create_group("demo_0")
            demo.attrs["num_samples"] = episode.num_steps
            for camera in CAMERAS:
                demo[f"obs/{camera}_rgb"] = pixels(episode, camera)[1:, ::-1]
            demo["obs/joint_states"] = np.asarray(episode.states)[1:]
            demo["actions"] = np.asarray(episode.actions, np.float64)
            demo["rewards"] = np.asarray(episode.rewards)
            demo["dones"] = np.asarray(episode.terminations, np.uint8)


def write_aloha(folder: Path, episodes: Sequence[Episode]) -> None:
    """A file per episode, as ACT's simulation records it: pixels, and no frame after the last action."""
    for number, episode in enumerate(episodes):
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = True
            for camera in CAMERAS:
                frames = pixels(episode, camera)[:-1]
                file.create_dataset(f"observations/images/{camera}", data=frames, chunks=(1, SIZE, SIZE, 3))
            file["observations/qpos"] = np.asarray(episode.states)[:-1]
            file["action"] = np.asarray(episode.actions)


def replay_buffers(zarr_format: int, *, pack: bool) -> Write:
    """Two replay buffers of two episodes each, in chunks that do not end where episodes do; as zip files if they are packed."""

    def write(folder: Path, episodes: Sequence[Episode]) -> None:
        for start in (0, 2):
            pair = episodes[start : start + 2]
            path = folder / f"buffer-{start}.zarr"
            store = zarr.storage.ZipStore(f"{path}.zip", mode="w") if pack else zarr.storage.LocalStore(path)
            root = zarr.open_group(store, mode="w", zarr_format=zarr_format)
            arrays = {f"data/{c}": np.concatenate([pixels(episode, c)[:-1] for episode in pair]) for c in CAMERAS}
            arrays["data/action"] = np.concatenate([np.asarray(episode.actions) for episode in pair])
            arrays["data/state"] = np.concatenate([np.asarray(episode.states)[:-1] for episode in pair])
            arrays["meta/episode_ends"] = np.cumsum([episode.num_steps for episode in pair])
            for name, values in arrays.items():
                array = root.create_array(
                    name,
                    shape=values.shape,
                    chunks=(2, *values.shape[1:]),
                    dtype=values.dtype,
                    config={"write_empty_chunks": True},  # as diffusion policy's version of zarr does
                )
                array[:] = values
            store.close()

    return write


def minari(data_format: str) -> Write:
    """A data set written by Minari itself, without JPEG."""

    def write(folder: Path, episodes: Sequence[Episode]) -> None:
        picture = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        observations = spaces.Dict(
            {**dict.fromkeys(CAMERAS, picture), "pose": spaces.Box(0, 99, (1,)), "mission": spaces.Text(40)}
        )
        (folder / "data").mkdir()
        storage = MinariStorage.new(
            folder / "data", observations, spaces.Box(0, 9, (2,)), data_format=data_format, jpeg_encoding=False
        )
        storage.update_episodes(
            EpisodeBuffer(
                id=index,
                observations={
                    **{camera: pixels(episode, camera) for camera in CAMERAS},
                    "pose": np.asarray(episode.states),
                    "mission": [episode.instruction] * episode.num_frames,
                },
                actions=np.asarray(episode.actions),
                rewards=np.asarray(episode.rewards).tolist(),
                terminations=np.asarray(episode.terminations).tolist(),
                truncations=np.asarray(episode.truncations).tolist(),
                infos={},
            )
            for index, episode in enumerate(episodes)
        )

    return write


def write_rlds(folder: Path, episodes: Sequence[Episode]) -> None:
    """Two shards of two records each, as Open X-Embodiment has them: T frames for T actions."""
    features = episode_features(
        {
            "observation": group({**dict.fromkeys(CAMERAS, image(SIZE, SIZE, 3)), "state": tensor("float32", 1)}),
            "action": tensor("float32", 2),
            "reward": tensor("float32"),
            "is_first": tensor("bool"),
            "is_last": tensor("bool"),
            "is_terminal": tensor("bool"),
            "language_instruction": text(),
        }
    )
    records = [
        serialized(
            {
                **{
                    f"steps/observation/{camera}": [encode_png(frame) for frame in pixels(episode, camera)[:-1]]
                    for camera in CAMERAS
                },
                "steps/observation/state": np.asarray(episode.states)[:-1],
                "steps/action": np.asarray(episode.actions),
                "steps/reward": np.asarray(episode.rewards),
                "steps/is_first": np.arange(episode.num_steps) == 0,
                "steps/is_last": np.asarray(episode.terminations),
                "steps/is_terminal": np.asarray(episode.terminations),
                "steps/language_instruction": [str(episode.instruction)] * episode.num_steps,
            }
        )
        for episode in episodes
    ]
    write_data_set(folder / "1.0.0", features, {"train": [records[:2], records[2:]]})


def write_videos(folder: Path, episodes: Sequence[Episode]) -> None:
    """A video of the first camera per episode, with a table of instructions."""
    lines = ["file_name,instruction"]
    for episode in episodes:
        write_video(folder / f"{episode.episode_id}.mp4", list(pixels(episode, CAMERAS[0])))
        lines.append(f"{episode.episode_id}.mp4,{episode.instruction}")
    (folder / "metadata.csv").write_text("\n".join(lines))


def write_pictures(folder: Path, episodes: Sequence[Episode]) -> None:
    """A folder of pictures of the first camera per episode, with a table of instructions."""
    lines = ["episode_id,instruction"]
    for episode in episodes:
        (folder / episode.episode_id).mkdir()
        for number, frame in enumerate(pixels(episode, CAMERAS[0])):
            (folder / episode.episode_id / f"{number}.png").write_bytes(encode_png(frame))
        lines.append(f"{episode.episode_id},{episode.instruction}")
    (folder / "metadata.csv").write_text("\n".join(lines))


def others_tars(*, per_step: bool) -> Write:
    """Two tars as webdataset packs them, with a sample per episode or per step; no frame after the last action."""

    def write(folder: Path, episodes: Sequence[Episode]) -> None:
        for start in (0, 2):
            with webdataset.TarWriter(str(folder / f"train-{start}.tar")) as tar:
                for episode in episodes[start : start + 2]:
                    for sample in _steps(episode) if per_step else [_sample(episode)]:
                        tar.write(sample)

    return write


def _sample(episode: Episode) -> dict[str, object]:
    frames = {
        f"{camera}.{number:03d}.png": encode_png(frame)
        for camera in CAMERAS
        for number, frame in enumerate(pixels(episode, camera)[:-1])
    }
    arrays = {
        "action.npy": episode.actions,
        "reward.npy": episode.rewards,
        "state.npy": np.asarray(episode.states)[:-1],
    }
    return {"__key__": episode.episode_id, **frames, **arrays, "json": {"instruction": episode.instruction}}


def _steps(episode: Episode) -> Iterator[dict[str, object]]:
    for t in range(episode.num_steps):
        frames = {f"{camera}.png": encode_png(pixels(episode, camera)[t]) for camera in CAMERAS}
        values = {"action": episode.actions, "reward": episode.rewards, "state": episode.states}
        arrays = {f"{name}.npy": np.asarray(value)[t] for name, value in values.items()}
        yield {"__key__": f"{episode.episode_id}_{t:03d}", **frames, **arrays, "txt": episode.instruction}


def lerobot(kind: str) -> Write:
    """Version 3.0 in the recorder's dialect, two data files of two episodes; pictures, or one video per camera and two episodes."""

    def write(folder: Path, episodes: Sequence[Episode]) -> None:
        picture = {"dtype": kind, "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]}
        numbers = ("timestamp", "frame_index", "episode_index", "index", "task_index")
        info = {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": len(episodes),
            "total_frames": sum(episode.num_steps for episode in episodes),
            "total_tasks": len(episodes),
            "chunks_size": 1000,
            "fps": 10,
            "splits": {"train": f"0:{len(episodes)}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": {
                **dict.fromkeys(CAMERAS, picture),
                "observation.state": {"dtype": "float32", "shape": [1], "names": None},
                "action": {"dtype": "float32", "shape": [2], "names": None},
                "next.reward": {"dtype": "float32", "shape": [1], "names": None},
                **{
                    n: {"dtype": "float32" if n == "timestamp" else "int64", "shape": [1], "names": None}
                    for n in numbers
                },
            },
        }
        for path in ("meta/episodes/chunk-000", "data/chunk-000", *(f"videos/{c}/chunk-000" for c in CAMERAS)):
            (folder / path).mkdir(parents=True)
        (folder / "meta/info.json").write_text(json.dumps(info))
        tasks = [str(episode.instruction) for episode in episodes]
        pq.write_table(pa.table({"task_index": range(len(tasks)), "task": tasks}), folder / "meta/tasks.parquet")
        rows, start = [], 0
        for index, episode in enumerate(episodes):
            file = index // 2
            of_file = sum(other.num_steps for other in episodes[2 * file : index])
            row = {"episode_index": index, "tasks": [tasks[index]], "length": episode.num_steps}
            row |= {"data/chunk_index": 0, "data/file_index": file}
            row |= {"dataset_from_index": start, "dataset_to_index": start + episode.num_steps}
            for camera in CAMERAS if kind == "video" else ():
                times = {"from_timestamp": of_file / 10, "to_timestamp": (of_file + episode.num_steps) / 10}
                row |= {f"videos/{camera}/{k}": v for k, v in ({"chunk_index": 0, "file_index": file} | times).items()}
            rows.append(row)
            start += episode.num_steps
        pq.write_table(pa.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
        for file in (0, 1):
            pair = list(enumerate(episodes))[2 * file : 2 * file + 2]
            name = f"chunk-000/file-{file:03d}"
            tables = [_lerobot_rows(index, episode, rows[index]["dataset_from_index"], kind) for index, episode in pair]
            with pq.ParquetWriter(folder / f"data/{name}.parquet", tables[0].schema) as writer:
                for table in tables:
                    writer.write_table(table)
            for camera in CAMERAS if kind == "video" else ():
                frames = [frame for _, episode in pair for frame in pixels(episode, camera)[:-1]]
                write_video(folder / f"videos/{camera}/{name}.mp4", frames, H264, fps=10)

    return write


def _lerobot_rows(index: int, episode: Episode, start: int, kind: str) -> pa.Table:
    length = episode.num_steps
    columns: dict[str, pa.Array] = {}
    for camera in CAMERAS if kind == "image" else ():
        columns[camera] = pa.array(
            [{"bytes": encode_png(f), "path": f"frame-{t:06d}.png"} for t, f in enumerate(pixels(episode, camera)[:-1])]
        )
    columns["observation.state"] = pa.array(np.asarray(episode.states)[:-1].tolist(), pa.list_(pa.float32(), 1))
    columns["action"] = pa.array(np.asarray(episode.actions).tolist(), pa.list_(pa.float32(), 2))
    columns["next.reward"] = pa.array(np.asarray(episode.rewards, np.float32))
    columns["timestamp"] = pa.array((np.arange(length) / 10).astype(np.float32))
    for name, values in (("frame_index", np.arange(length)), ("index", start + np.arange(length))):
        columns[name] = pa.array(values)
    for name in ("episode_index", "task_index"):
        columns[name] = pa.array(np.full(length, index))
    return pa.table(columns)
