"""Streams the picture columns of Parquet files: one cursor per camera, shared by the episodes of a unit.

    rows of a file     0 ... 4095 | 4096 ... 8191 | ...       row groups
    cursor                     ^ next row: what follows is read on, what lies before is read from its row group again

Reading a row group from its start for every episode in it would cost the square of its length; reading on costs each row once.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.formats.parquet_corpus.layout import BROKEN_FILE, MISSING_FILE, open_file, picture_leaf

BATCH_BYTES = 8 * 2**20
BATCH_ROWS = 4096


class Rows(NamedTuple):
    """Rows `start` to `stop`, exclusive, of a file."""

    file: str
    start: int
    stop: int


class PictureCursor:
    """Reads one camera's pictures, best in the order of the rows.

    Args:
        folder: The corpus's folder.
        camera: The camera.

    Attributes:
        camera: The camera.
        broken: Names of files that could not be read to their end.
    """

    def __init__(self, folder: Folder, camera: str) -> None:
        self.camera = camera
        self.broken: set[str] = set()
        self._folder = folder
        self._name = ""
        self._file: pq.ParquetFile | None = None
        self._bounds = np.zeros(1, np.int64)
        self._batches: Iterator[pa.Array] | None = None
        self._held = pa.array([], pa.binary())
        self._row = 0  # of the first picture held

    def take(self, file: str, row: int, limit: int) -> pa.Array:
        """At least one picture from `row` on, and at most `limit`: binary, null where there is none."""
        if self._file is None or file != self._name:
            self._open(file)
        if not self._row <= row < self._row + len(self._held):
            group = int(np.searchsorted(self._bounds, row, side="right")) - 1
            if self._batches is None or row < self._row or self._bounds[group] > self._row + len(self._held):
                self._batches = self._read_from(group)
                self._row, self._held = int(self._bounds[group]), self._held.slice(0, 0)
            while row >= self._row + len(self._held):
                self._row += len(self._held)
                pictures = next(self._batches, None)
                if pictures is None:
                    raise pa.ArrowInvalid(f"it has {self._row} rows of pictures where its footer says more")
                self._held = pictures
        place = row - self._row
        return self._held.slice(place, min(limit, len(self._held) - place))

    def break_off(self, file: str) -> None:
        """Remembers that the file is broken, and closes it."""
        self.broken.add(file)
        with contextlib.suppress(*BROKEN_FILE):
            self.close()

    def close(self) -> None:
        """Closes the file; a later `take` opens it again."""
        if self._file is not None:
            self._batches, self._held, self._row = None, pa.array([], pa.binary()), 0
            self._file.close()
            self._file = None

    def _open(self, name: str) -> None:
        self.close()
        self._file = open_file(self._folder, name)
        self._name = name
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def _read_from(self, first_group: int) -> Iterator[pa.Array]:
        assert self._file is not None
        leaf = picture_leaf(self._file.schema_arrow, self.camera)
        metadata = self._file.metadata
        column = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == leaf)
        for group in range(first_group, metadata.num_row_groups):
            num_rows = metadata.row_group(group).num_rows
            num_bytes = metadata.row_group(group).column(column).total_uncompressed_size
            rows = max(1, min(BATCH_ROWS, num_rows * BATCH_BYTES // max(1, num_bytes)))
            for batch in self._file.iter_batches(
                batch_size=rows, row_groups=[group], columns=[leaf], use_threads=False
            ):
                values = batch.column(0)
                yield pc.struct_field(values, "bytes") if pa.types.is_struct(values.type) else values


class ParquetFrames:
    """The pictures of one camera in one episode, which may go on in the next file.

    Args:
        cursor: Of the unit and the camera.
        episode_id: Id of the episode, for messages.
        pieces: Where the episode's rows are, in order.
    """

    def __init__(self, cursor: PictureCursor, episode_id: str, pieces: tuple[Rows, ...]) -> None:
        self._cursor = cursor
        self._episode_id = episode_id
        self._pieces = pieces

    def __len__(self) -> int:
        return sum(piece.stop - piece.start for piece in self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        frame = 0
        for file, start, stop in self._pieces:
            row = start
            while row < stop:
                pictures = self._take(file, row, stop - row)
                if pictures.null_count:
                    index = frame + pc.index(pictures.is_null(), True).as_py()
                    detail = (
                        f"every frame must have the bytes of a picture of camera {self._cursor.camera!r}, got none in frame "
                        f"{index}; record the episode again or embed its pictures"
                    )
                    raise InvalidEpisodeError("missing frames", detail)
                yield from pictures.to_numpy(zero_copy_only=False)  # far cheaper than to_pylist
                row += len(pictures)
                frame += len(pictures)

    def _take(self, file: str, row: int, limit: int) -> pa.Array:
        try:
            return self._cursor.take(file, row, limit)
        except MISSING_FILE:
            raise
        except BROKEN_FILE as error:
            self._cursor.break_off(file)
            raise InvalidEpisodeError(
                "unreadable shard",
                f"a Parquet file must be whole, got one that cannot be read after the start of episode {self._episode_id} "
                f"({error}); the rest of it is not read: copy or record it again",
                scope="shard",
            ) from error
