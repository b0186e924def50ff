"""Writes relabelled trajectories as Parquet (a row an episode) or WebDataset (a sample an episode).

    Parquet       the columns of vlm_rewards.schemas.relabelled.relabelled_schema

    WebDataset    <id>.json                 goal_ids, goal_texts, goal_kinds, instruction, num_frames, cameras, ...
                  <id>.rewards.npy          [K, T] float32; <id>.start.npy, <id>.stop.npy [K] int32
                  <id>.terminated.npy       [K] bool
                  <id>.action.npy           [T] int64 or [T, A] float32; <id>.state.npy [F, S] float32
                  <id>.<camera>.000000.png  one picture a frame, as it was recorded
    <id> and <camera> as `schemas.formats.member_names` escapes them

Bytes depend on the episodes alone.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import CorpusFeatures, image_column
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.member_names import check_fields, escape_name
from vlm_rewards.schemas.pictures import image_extension
from vlm_rewards.schemas.relabelled import RELABELLED_TIME_CONVENTION, RelabelledEpisode, relabelled_schema

ROW_GROUP_BYTES = 32 * 2**20
ROW_GROUP_ROWS = 256


class RelabelledWriter(Protocol):
    """Writes one part."""

    def write(self, episode: RelabelledEpisode) -> None:
        """Adds an episode."""

    def close(self) -> None:
        """Writes what is left."""


class ParquetRelabelledWriter:
    """Writes a row an episode, in row groups of at most ROW_GROUP_BYTES of pictures, unless one episode has more.

    Args:
        path: File to write.
        features: What the corpus holds.
        fingerprint: What the output depends on.
    """

    def __init__(self, path: Path, features: CorpusFeatures, fingerprint: Fingerprint) -> None:
        self._features = features
        self._schema = relabelled_schema(features, fingerprint)
        self._writer = pq.ParquetWriter(
            path,
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
        num_bytes = sum(len(picture) for pictures in episode.images.values() for picture in pictures)
        if self._waiting and (
            self._waiting_bytes + num_bytes > ROW_GROUP_BYTES or len(self._waiting) == ROW_GROUP_ROWS
        ):
            self._flush()
        self._waiting.append(pa.RecordBatch.from_pylist([self._row(episode)], schema=self._schema))
        self._waiting_bytes += num_bytes

    def close(self) -> None:
        """Writes the last row group and the footer."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting), row_group_size=len(self._waiting))
        self._waiting, self._waiting_bytes = [], 0

    def _row(self, episode: RelabelledEpisode) -> dict[str, object]:
        row: dict[str, object] = {
            image_column(camera): [{"bytes": picture, "path": None} for picture in episode.images[camera]]
            for camera in self._features.cameras
        }
        for name, values in (
            ("observation.state", episode.states),
            ("action", episode.actions),
            ("rewards", episode.rewards),
            ("start", episode.start),
            ("stop", episode.stop),
            ("terminated", episode.terminated),
        ):
            row[name] = None if values is None else values.tolist()
        for name in ("episode_id", "instruction", "goal_ids", "goal_texts", "goal_kinds"):
            row[name] = getattr(episode, name)
        return row


class WebDatasetRelabelledWriter:
    """Writes a tar file with a sample an episode.

    Args:
        path: File to write.
        features: What the corpus holds.
        fingerprint: What the output depends on; its digest is in every sample.

    Raises:
        ValueError: Two cameras differ in nothing but their case.
    """

    def __init__(self, path: Path, features: CorpusFeatures, fingerprint: Fingerprint) -> None:
        check_fields(features.cameras)
        self._features = features
        self._digest = fingerprint.digest
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (closed by `close`)

    def write(self, episode: RelabelledEpisode) -> None:
        """Adds an episode."""
        for suffix, data in self._members(episode):
            member = tarfile.TarInfo(f"{escape_name(episode.episode_id)}.{suffix}")
            member.size = len(data)
            member.mode = 0o644
            self._tar.addfile(member, io.BytesIO(data))
        self._tar.members = []  # type: ignore[attr-defined]  # or it keeps a record of every frame ever written

    def close(self) -> None:
        """Writes the tar's end mark."""
        self._tar.close()

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
            for frame, picture in enumerate(episode.images[camera]):
                yield f"{escape_name(camera)}.{frame:06d}.{image_extension(picture)}", picture


EXTENSIONS = {"parquet": "parquet", "webdataset": "tar"}
"""The containers, and the file name extension of each."""


def open_writer(format_name: str, path: Path, features: CorpusFeatures, fingerprint: Fingerprint) -> RelabelledWriter:
    """Opens a part for writing.

    Args:
        format_name: "parquet" or "webdataset".
        path: File to write.
        features: What the corpus holds.
        fingerprint: What the output depends on.

    Raises:
        ValueError: The format is none of ours.
    """
    check_relabelled_format(format_name)
    if format_name == "parquet":
        return ParquetRelabelledWriter(path, features, fingerprint)
    return WebDatasetRelabelledWriter(path, features, fingerprint)


def check_relabelled_format(format_name: str) -> None:
    """Refuses a format that is none of EXTENSIONS.

    Raises:
        ValueError: It is none.
    """
    if format_name not in EXTENSIONS:
        raise ValueError(f"format must be one of {', '.join(EXTENSIONS)}, got {format_name!r}; choose one")
