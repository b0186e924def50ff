"""Streams the picture columns of Parquet files: one cursor per camera, shared by the episodes of a unit.

    rows of a file     0 ... 4095 | 4096 ... 8191 | ...       row groups
    cursor                     ^ next row: what follows is read on, what lies before is read from its row group again

Reading a row group from its start for every episode in it would cost the square of its length; reading on costs each row once.
"""

import bisect
import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import image_column
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.formats.parquet_corpus.files import names_all, open_file
from vlm_rewards.schemas.formats.parquet_corpus.layout import (
    BROKEN_FILE,
    KNOWN_COLUMNS,
    MISSING_FILE,
    cameras_of,
    leaf_paths,
    picture_leaf,
)

BATCH_BYTES = 8 * 2**20
BATCH_ROWS = 4096
_MAX_OPEN = 4
_NO_PICTURES = pa.array([], pa.binary())


class Rows(NamedTuple):
    """Rows `start` to `stop`, exclusive, of a file."""

    file: str
    start: int
    stop: int


class OpenFile(NamedTuple):
    """An open file with its frequently used properties.

    Attributes:
        file: The file.
        metadata: Footer of the file.
        schema: Schema of the file.
        bounds: Number of the first row of each row group, and at last the number of all rows.
        batch_rows: Rows of every batch, which are of about BATCH_BYTES of pictures at most.
        is_small: Whether all of it is one batch, pictures included.
    """

    file: pq.ParquetFile
    metadata: pq.FileMetaData
    schema: pa.Schema
    bounds: list[int]
    batch_rows: int
    is_small: bool


class OpenFiles:
    """The files that a pass over a unit has open, at most a few; what a cursor still reads stays open beside them.

    Args:
        folder: The corpus's folder.
        cameras: Cameras whose pictures are read, by which batches are measured; None for all.
        columns: Their columns; by default as corpora of ours name them.
        opener: Opens a file of a name; `open_file` by default.
    """

    def __init__(
        self,
        folder: Folder,
        cameras: Sequence[str] | None,
        columns: Mapping[str, str] | None = None,
        opener: Callable[[str], pq.ParquetFile] | None = None,
    ) -> None:
        self.folder = folder
        self.broken: set[str] = set()
        """Names of files that could not be read to their end."""
        self._cameras = cameras
        self._columns = columns
        self._opener = opener or functools.partial(open_file, folder)
        self._files: OrderedDict[str, OpenFile] = OrderedDict()

    def open(self, name: str) -> OpenFile:
        """Returns a file, opened if it is not."""
        opened = self._files.get(name)
        if opened is None:
            file = self._opener(name)
            metadata, schema = file.metadata, file.schema_arrow
            if file.sizes.is_small:
                opened = OpenFile(file, metadata, schema, [0, metadata.num_rows], BATCH_ROWS, is_small=True)
            else:
                groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
                bounds = [0, *itertools.accumulate(group.num_rows for group in groups)]
                rows = self._batch_rows(file, schema, groups)
                of_columns = (file.sizes.of_chunk(0, column) for column in range(metadata.num_columns))
                small_enough = len(groups) == 1 and sum(of_columns) <= BATCH_BYTES
                opened = OpenFile(file, metadata, schema, bounds, rows, is_small=small_enough and bounds[-1] <= rows)
            self._files[name] = opened
            if len(self._files) > _MAX_OPEN:
                self._files.popitem(last=False)
        return opened

    def column(self, camera: str) -> str:
        """Returns the column of a camera's pictures."""
        return image_column(camera) if self._columns is None else self._columns[camera]

    def close(self) -> None:
        """Closes all files; a file that is requested again is reopened."""
        self._files.clear()

    def _batch_rows(self, file: pq.ParquetFile, schema: pa.Schema, groups: Sequence[pq.RowGroupMetaData]) -> int:
        known = cameras_of(schema) if self._columns is None else tuple(self._columns)
        cameras = [camera for camera in known if self._cameras is None or camera in self._cameras]
        held = [self.column(camera) for camera in cameras if self.column(camera) in schema.names]
        leaves = {picture_leaf(schema, column) for column in held}
        columns = [index for index, path in enumerate(leaf_paths(file)) if path in leaves]
        rows = BATCH_ROWS
        others = [i for i, path in enumerate(leaf_paths(file)) if path.partition(".list")[0] in KNOWN_COLUMNS]
        sizes = file.sizes
        for number, group in enumerate(groups):
            for column in others:  # numbers and texts that a file holds once and names often
                chunk = group.column(column)
                if chunk.physical_type == "BYTE_ARRAY":  # a row of texts may name all of the dictionary
                    spelled_out = sizes.of_largest_value(number, column)
                else:
                    spelled_out = 8 * chunk.num_values // max(1, group.num_rows)
                if spelled_out * rows > 8 * BATCH_BYTES:
                    rows = max(1, 8 * BATCH_BYTES // spelled_out)
            for column in columns:
                num_bytes = sizes.of_chunk(number, column)
                if num_bytes > BATCH_BYTES:
                    rows = min(rows, group.num_rows * BATCH_BYTES // num_bytes)
                if column in file.dictionaries and names_all(group.column(column)):
                    continue
                largest = sizes.of_largest_value(number, column)
                if largest * rows > 4 * BATCH_BYTES:  # each row may name the largest value
                    rows = 4 * BATCH_BYTES // largest
        return max(1, rows)


class PictureCursor:
    """Reads one camera's pictures, best in the order of the rows.

    Args:
        files: The unit's files.
        camera: The camera.
    """

    def __init__(self, files: OpenFiles, camera: str) -> None:
        self.camera = camera
        self.files = files
        self._offered: OrderedDict[str, tuple[int, pa.Array]] = OrderedDict()
        self._name = ""
        self._opened: OpenFile | None = None
        self._batches: Iterator[pa.Array] | None = None
        self._held = _NO_PICTURES
        self._row = 0  # of the first picture held

    def offer(self, file: str, row: int, pictures: pa.Array) -> None:
        """Keeps the pictures of a small file from `row` on, which were read with its other columns; of a few files at most."""
        self._offered[file] = (row, pictures)
        if len(self._offered) > _MAX_OPEN:
            self._offered.popitem(last=False)

    def take(self, file: str, row: int, limit: int) -> pa.Array:
        """Returns at least one picture from `row` on, and at most `limit`: binary, null where there is none."""
        if file in self._offered:
            first, pictures = self._offered[file]
            if first <= row < first + len(pictures):
                return _bytes_of(pictures.slice(row - first, limit))
        if self._opened is None or file != self._name:
            self.reset()
            self._name, self._opened = file, self.files.open(file)
        if not self._row <= row < self._row + len(self._held):
            bounds = self._opened.bounds
            group = bisect.bisect_right(bounds, row) - 1
            if self._batches is None or row < self._row or bounds[group] > self._row + len(self._held):
                self._batches = self._read_from(self._opened, group)
                self._row, self._held = bounds[group], self._held.slice(0, 0)
            while row >= self._row + len(self._held):
                self._row += len(self._held)
                pictures = next(self._batches, None)
                if pictures is None:
                    raise pa.ArrowInvalid(f"it has {self._row} rows of pictures where its footer says more")
                self._held = pictures
        place = row - self._row
        return self._held.slice(place, min(limit, len(self._held) - place))

    def reset(self) -> None:
        """Drops the held pictures and closes the file."""
        self._name, self._opened, self._batches, self._held, self._row = "", None, None, _NO_PICTURES, 0

    def _read_from(self, opened: OpenFile, first_group: int) -> Iterator[pa.Array]:
        column = self.files.column(self.camera)
        leaf = picture_leaf(opened.schema, column)
        for group in range(first_group, len(opened.bounds) - 1):
            for batch in opened.file.iter_batches(
                opened.batch_rows, row_groups=[group], columns=[leaf], use_threads=False
            ):
                # By name: the leaf may be the beginning of another camera's column.
                yield _bytes_of(batch.column(column))


def _bytes_of(pictures: pa.Array) -> pa.Array:
    if not pa.types.is_struct(pictures.type):
        return pictures
    # The field alone, which is cheaper, says nothing of rows without a struct.
    return pc.struct_field(pictures, "bytes") if pictures.null_count else pictures.field("bytes")


class ParquetFrames:
    """The pictures of one camera in one episode, which may continue in the next file.

    Args:
        cursor: Cursor of the unit and the camera.
        episode_id: Id of the episode, for messages.
        pieces: Places of the episode's rows, in order.
    """

    def __init__(self, cursor: PictureCursor, episode_id: str, pieces: tuple[Rows, ...]) -> None:
        self._cursor = cursor
        self._episode_id = episode_id
        self._pieces = pieces
        self._num_frames = sum(piece.stop - piece.start for piece in pieces)

    def __len__(self) -> int:
        return self._num_frames

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
                        f"{index}. Embed the pictures of files that are only named, or leave the episode out"
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
            self._cursor.files.broken.add(file)
            self._cursor.reset()
            raise InvalidEpisodeError(
                "unreadable shard",
                f"a Parquet file must be whole, got one that cannot be read after the start of episode {self._episode_id} "
                f"({error}); the rest of it is not read. Copy it again from its source",
                scope="shard",
            ) from error
