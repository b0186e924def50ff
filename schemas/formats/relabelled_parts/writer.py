"""Writes relabelled trajectories as Parquet (one row per episode) or WebDataset (one sample per episode).

    Parquet       the columns of vlm_rewards.schemas.relabelled.relabelled_schema

    WebDataset    <id>.json                 goal_ids, goal_texts, goal_kinds, instruction, num_frames, cameras, ...
                  <id>.rewards.npy          [K, T] float32; <id>.start.npy, <id>.stop.npy [K] int32
                  <id>.terminated.npy       [K] bool
                  <id>.action.npy           [T] int64 or [T, A] float32; <id>.state.npy [F, S] float32
                  <id>.<camera>.000000.png  one picture per frame, as recorded
    <id> and <camera> as `schemas.formats.member_names` escapes them

Bytes depend on the episodes alone.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import CorpusFeatures, image_column
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.member_names import check_fields, escape_name
from vlm_rewards.schemas.formats.relabelled_parts.spool import LettingGo, PictureSpool
from vlm_rewards.schemas.pictures import encoded_frame, image_extension
from vlm_rewards.schemas.relabelled import RELABELLED_TIME_CONVENTION, RelabelledEpisode, relabelled_schema

ROW_GROUP_BYTES = 32 * 2**20
ROW_GROUP_ROWS = 256


class RelabelledWriter(Protocol):
    """Writes one part."""

    def write(self, episode: RelabelledEpisode) -> None:
        """Adds an episode, whose frames stream; all of it or, where its frames break off, nothing."""

    def close(self) -> None:
        """Writes what is left."""


class ParquetRelabelledWriter:
    """Writes one row per episode, in row groups of at most ROW_GROUP_BYTES of pictures, unless one episode has more.

    Args:
        path: File to write.
        features: Features of the corpus.
        fingerprint: Fingerprint of what the output depends on.
    """

    def __init__(self, path: Path, features: CorpusFeatures, fingerprint: Fingerprint) -> None:
        self._features = features
        self._schema = relabelled_schema(features, fingerprint)
        self._folder = path.parent
        self._file = LettingGo(path)
        self._writer = pq.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            use_dictionary=["instruction", *(f"goal_{name}.list.element" for name in ("ids", "texts", "kinds"))],
            write_statistics=["episode_id"],
            write_page_checksum=True,
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0

    def write(self, episode: RelabelledEpisode) -> None:
        """Adds an episode."""
        spools = {camera: self._spooled(episode, camera) for camera in self._features.cameras}
        num_bytes = sum(spool.num_bytes for spool in spools.values())
        if self._waiting and (
            self._waiting_bytes + num_bytes > ROW_GROUP_BYTES or len(self._waiting) == ROW_GROUP_ROWS
        ):
            self._flush()
        self._waiting.append(self._row(episode, spools))
        self._file.spools += spools.values()
        self._waiting_bytes += num_bytes

    def close(self) -> None:
        """Writes the last row group and the footer."""
        if self._waiting:
            self._flush()
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting), row_group_size=len(self._waiting))
        self._waiting, self._waiting_bytes = [], 0
        self._file.spools.clear()

    def _spooled(self, episode: RelabelledEpisode, camera: str) -> PictureSpool:
        spool = PictureSpool(self._folder)
        for frame in episode.images[camera]:
            spool.append(encoded_frame(frame))
        return spool

    def _row(self, episode: RelabelledEpisode, spools: Mapping[str, PictureSpool]) -> pa.RecordBatch:
        columns = {image_column(camera): spool.row() for camera, spool in spools.items()}
        for name, value in (
            ("episode_id", episode.episode_id),
            ("instruction", episode.instruction),
            ("observation.state", episode.states),
            ("action", episode.actions),
            ("goal_ids", episode.goal_ids),
            ("goal_texts", episode.goal_texts),
            ("goal_kinds", episode.goal_kinds),
            ("rewards", episode.rewards),
            ("start", episode.start),
            ("stop", episode.stop),
            ("terminated", episode.terminated),
        ):
            if name in self._schema.names:
                columns[name] = _row_of(value, self._schema.field(name).type)
        return pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)


def _row_of(value: str | Sequence[str] | np.ndarray | None, dtype: pa.DataType) -> pa.Array:
    """Returns one row that holds a text, or an array or list of up to two axes; null for None."""
    if value is None or not pa.types.is_list(dtype):
        return pa.array([value], dtype)
    if isinstance(value, np.ndarray) and value.ndim == 2:
        ends = np.arange(len(value) + 1, dtype=np.int32) * value.shape[1]
        flat = pa.array(np.ascontiguousarray(value).reshape(-1), dtype.value_type.value_type)
        values = pa.ListArray.from_arrays(pa.array(ends), flat, type=dtype.value_type)
    else:
        values = pa.array(value, dtype.value_type)
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values, type=dtype)


class WebDatasetRelabelledWriter:
    """Writes a tar file with one sample per episode.

    Args:
        path: File to write.
        features: Features of the corpus.
        fingerprint: Fingerprint of what the output depends on; its digest is in every sample.

    Raises:
        ValueError: Two cameras differ in nothing but their case.
    """

    def __init__(self, path: Path, features: CorpusFeatures, fingerprint: Fingerprint) -> None:
        check_fields(features.cameras)
        self._features = features
        self._digest = fingerprint.digest
        self._file = path.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (closed by `close`)

    def write(self, episode: RelabelledEpisode) -> None:
        """Adds an episode."""
        start = self._tar.offset
        try:
            for suffix, data in self._members(episode):
                member = tarfile.TarInfo(f"{escape_name(episode.episode_id)}.{suffix}")
                member.size = len(data)
                member.mode = 0o644
                self._tar.addfile(member, io.BytesIO(data))
                self._tar.members = []  # type: ignore[attr-defined]  # or it keeps a record of every frame ever written
        except BaseException:  # half an episode would look like a whole one
            self._file.seek(start)
            self._file.truncate()
            self._tar.offset = start
            raise

    def close(self) -> None:
        """Writes the tar's end mark."""
        self._tar.close()
        self._file.close()

    def _members(self, episode: RelabelledEpisode) -> Iterator[tuple[str, bytes]]:
        record = {
            "kind": "relabelled",
            "version": 1,
            "time": RELABELLED_TIME_CONVENTION,
            "fingerprint": self._digest,
            "num_frames": episode.num_frames,
            "cameras": list(self._features.cameras),
            "instruction": episode.instruction,
            "goal_ids": list(episode.goal_ids),
            "goal_texts": list(episode.goal_texts),
            "goal_kinds": list(episode.goal_kinds),
        }
        yield "json", json.dumps(record, ensure_ascii=False, sort_keys=True).encode()
        for suffix, values in (
            ("rewards", episode.rewards),
            ("start", episode.start),
            ("stop", episode.stop),
            ("terminated", episode.terminated),
            ("action", episode.actions),
            ("state", episode.states),
        ):
            if values is not None:
                buffer = io.BytesIO()
                np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
                yield f"{suffix}.npy", buffer.getvalue()
        for camera in self._features.cameras:
            for frame, picture in enumerate(map(encoded_frame, episode.images[camera])):
                yield f"{escape_name(camera)}.{frame:06d}.{image_extension(picture)}", picture


EXTENSIONS = {"parquet": "parquet", "webdataset": "tar"}
"""The containers, and the file name extension of each."""


def open_writer(format_name: str, path: Path, features: CorpusFeatures, fingerprint: Fingerprint) -> RelabelledWriter:
    """Opens a part for writing.

    Args:
        format_name: "parquet" or "webdataset".
        path: File to write.
        features: Features of the corpus.
        fingerprint: Fingerprint of what the output depends on.

    Raises:
        ValueError: The format is none of ours.
    """
    check_relabelled_format(format_name)
    if format_name == "parquet":
        return ParquetRelabelledWriter(path, features, fingerprint)
    return WebDatasetRelabelledWriter(path, features, fingerprint)


def check_relabelled_format(format_name: str) -> None:
    """Refuses a format that is not in EXTENSIONS.

    Raises:
        ValueError: The format is unknown.
    """
    if format_name not in EXTENSIONS:
        raise ValueError(f"format must be one of {', '.join(EXTENSIONS)}, got {format_name!r}; choose one")
