"""LeRobot data sets written by hand, file by file, as LeRobot 0.3.3 (2.0, 2.1) and 0.4.4 (3.0) lay them out; small and whole.

frame k of the whole data set, in every camera, is `numbered_frame(k)`     state of row t of episode e: [e, t]
                                                                           action: [10 e + t, 0.5, -1]
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from small_videos import H264, numbered_frame, write_video

from vlm_rewards.schemas.pictures import encode_png

FPS = 10
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
SCALARS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
PATHS = {
    "v2": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    "v3": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """What is written.

    Args:
        version: "v2.0", "v2.1" or "v3.0".
        lengths: Frames of each episode.
        tasks: The task of each episode, or of each of its rows; a task that is None has no text.
        cameras: "image" or "video" by key.
        recorder: Whether version 3 is in the recorder's dialect (a row group per episode, lists of fixed size, metadata of
            `datasets`), or in the converter's.
        per_data_file: Episodes per data file, in version 3.
        per_video: Episodes per video, by key, in version 3; all by default.
        codec: Encoder of the videos.
        columns: Further columns, such as next.reward: the value of every row of the data set.
        frame: Makes frame k of the data set, [H, W, 3] uint8.
        first_index: episode_index of the first episode.
        changes: What info.json says otherwise.
    """

    version: str = "v3.0"
    lengths: Sequence[int] = (5, 3, 4)
    tasks: Sequence[str | Sequence[str] | None] = ("lift the cup", "open the drawer", "lift the cup")
    cameras: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"observation.images.front": "video"})
    recorder: bool = True
    per_data_file: int = 100
    per_video: Mapping[str, int] = dataclasses.field(default_factory=dict)
    codec: tuple[str, dict[str, str]] = H264
    columns: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    frame: Callable[[int], np.ndarray] = numbered_frame
    first_index: int = 0
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_v3(self) -> bool:
        return self.version == "v3.0"

    @property
    def starts(self) -> list[int]:
        """Number of the first frame of each episode, and of all."""
        return [0, *itertools.accumulate(self.lengths)]

    @property
    def texts(self) -> list[str | None]:
        """The tasks by task_index."""
        return list(dict.fromkeys(text for episode in range(len(self.lengths)) for text in self.texts_of(episode)))

    def texts_of(self, episode: int) -> list[str | None]:
        """The task of each row of an episode."""
        tasks = self.tasks[episode]
        return [tasks] * self.lengths[episode] if tasks is None or isinstance(tasks, str) else list(tasks)

    def write(self, folder: Path) -> Path:
        """Writes all files."""
        _write_json(folder / "meta/info.json", {**self._info(), **self.changes})
        self._write_tasks(folder)
        episodes = range(len(self.lengths))
        groups = [[episode] for episode in episodes]
        if self.is_v3:
            groups = [list(episodes[i : i + self.per_data_file]) for i in range(0, len(episodes), self.per_data_file)]
        for number, group in enumerate(groups):
            name = PATHS[self.version[:2]][0].format(
                episode_chunk=0, episode_index=self.first_index + number, chunk_index=0, file_index=number
            )
            self._write_rows(folder / name, group)
        places = {key: self._write_videos(folder, key) for key, kind in self.cameras.items() if kind == "video"}
        self._write_episodes(folder, groups, places)
        return folder

    def _info(self) -> dict[str, Any]:
        pictures = {
            key: {"dtype": kind, "shape": list(self.frame(0).shape), "names": ["height", "width", "channels"]}
            for key, kind in self.cameras.items()
        }
        others = {key: {"dtype": _dtype(values), "shape": [1], "names": None} for key, values in self.columns.items()}
        return {
            "codebase_version": self.version,
            "robot_type": None,
            "total_episodes": len(self.lengths),
            "total_frames": sum(self.lengths),
            "total_tasks": len(self.texts),
            "chunks_size": 1000,
            "fps": FPS,
            "splits": {"train": f"0:{len(self.lengths)}"},
            "data_path": PATHS[self.version[:2]][0],
            "video_path": PATHS[self.version[:2]][1] if "video" in self.cameras.values() else None,
            "features": {
                **pictures,
                "observation.state": {"dtype": "float32", "shape": [2], "names": None},
                "action": {"dtype": "float32", "shape": [3], "names": None},
                **others,
                **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in SCALARS.items()},
            },
        }

    def _write_tasks(self, folder: Path) -> None:
        if not self.is_v3:
            lines = [json.dumps({"task_index": index, "task": text}) for index, text in enumerate(self.texts)]
            (folder / "meta/tasks.jsonl").write_text("".join(line + "\n" for line in lines))
            return
        name = "task" if self.recorder else "__index_level_0__"  # the index of a data frame, named or not
        table = pa.table({"task_index": list(range(len(self.texts))), name: pa.array(self.texts, pa.string())})
        pq.write_table(table, folder / "meta/tasks.parquet")

    def _rows(self, episode: int) -> pa.Table:
        start, length = self.starts[episode], self.lengths[episode]
        index = self.first_index + episode
        frames = np.arange(length)
        vector = pa.list_ if not self.is_v3 or self.recorder else lambda dtype, _: pa.list_(dtype)
        columns: dict[str, pa.Array] = {}
        for key, kind in self.cameras.items():
            if kind == "image":
                pictures = [encode_png(self.frame(start + t)) for t in range(length)]
                columns[key] = pa.array(
                    [{"bytes": data, "path": f"frame-{t:06d}.png"} for t, data in enumerate(pictures)], IMAGE
                )
        columns["observation.state"] = pa.array([[index, t] for t in range(length)], vector(pa.float32(), 2))
        columns["action"] = pa.array([[10 * index + t, 0.5, -1] for t in range(length)], vector(pa.float32(), 3))
        for key, values in self.columns.items():
            columns[key] = pa.array(values[start : start + length], pa.type_for_alias(_dtype(values)))
        columns["timestamp"] = pa.array((frames / FPS).astype(np.float32))
        columns["frame_index"] = pa.array(frames)
        columns["episode_index"] = pa.array(np.full(length, index))
        columns["index"] = pa.array(start + frames)
        columns["task_index"] = pa.array([self.texts.index(text) for text in self.texts_of(episode)], pa.int64())
        return pa.table(columns)

    def _write_rows(self, path: Path, episodes: Sequence[int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = [self._rows(episode) for episode in episodes]
        if self.is_v3 and not self.recorder:
            whole = pa.concat_tables(tables)
            pq.write_table(whole.replace_schema_metadata({b"pandas": b'{"index_columns": []}'}), path)
            return
        schema = tables[0].schema.with_metadata({b"huggingface": b'{"info": {"features": {}}}'})
        with pq.ParquetWriter(path, schema) as writer:
            for table in tables:
                writer.write_table(table.cast(schema))

    def _write_videos(self, folder: Path, key: str) -> list[tuple[int, float, float]]:
        """Writes the videos of a camera; returns number of the file, start and end in seconds by episode."""
        per_video = self.per_video.get(key, 100) if self.is_v3 else 1
        places = []
        for number, first in enumerate(range(0, len(self.lengths), per_video)):
            last = min(first + per_video, len(self.lengths))
            name = PATHS[self.version[:2]][1].format(
                video_key=key,
                episode_chunk=0,
                episode_index=self.first_index + number,
                chunk_index=0,
                file_index=number,
            )
            frames = map(self.frame, range(self.starts[first], self.starts[last]))
            write_video(folder / name, frames, self.codec, fps=FPS)
            for episode in range(first, last):
                start, stop = (self.starts[e] - self.starts[first] for e in (episode, episode + 1))
                places.append((number, start / FPS, stop / FPS))
        return places

    def _write_episodes(
        self, folder: Path, groups: Sequence[Sequence[int]], places: Mapping[str, Sequence[tuple[int, float, float]]]
    ) -> None:
        records = []
        for number, group in enumerate(groups):
            for episode in group:
                tasks = list(dict.fromkeys(self.texts_of(episode)))
                record: dict[str, Any] = {"episode_index": self.first_index + episode, "tasks": tasks}
                record["length"] = self.lengths[episode]
                if self.is_v3:
                    record |= {"data/chunk_index": 0, "data/file_index": number}
                    record |= {"dataset_from_index": self.starts[episode], "dataset_to_index": self.starts[episode + 1]}
                    for key, of_camera in places.items():
                        fields = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
                        record |= dict(
                            zip((f"videos/{key}/{f}" for f in fields), (0, *of_camera[episode]), strict=True)
                        )
                    record |= {f"stats/action/{name}": [0.0, 0.0, 0.0] for name in ("min", "max", "mean", "std")}
                records.append(record)
        if self.is_v3:
            path = folder / "meta/episodes/chunk-000/file-000.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(records), path)
        else:
            (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
            statistics = {"min": [0.0] * 3, "max": [1.0] * 3, "mean": [0.5] * 3, "std": [0.5] * 3, "count": [1]}
            stats = [{"episode_index": record["episode_index"], "stats": {"action": statistics}} for record in records]
            name, text = "episodes_stats.jsonl", "".join(json.dumps(record) + "\n" for record in stats)
            if self.version == "v2.0":
                name, text = "stats.json", json.dumps({"action": statistics})
            (folder / "meta" / name).write_text(text)


def _dtype(values: Sequence[Any]) -> str:
    return {bool: "bool", float: "float32", int: "int64"}[type(values[0])]


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=4))
