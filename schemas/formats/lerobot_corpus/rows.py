"""The rows of LeRobot data sets, apart from pictures: read forward, an episode at a time; and where they are, for exports."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import read_episode_table
from vlm_rewards.schemas.formats.lerobot_corpus.info import INFO, read_info
from vlm_rewards.schemas.formats.parquet_corpus.layout import BROKEN_FILE, MISSING_FILE, is_list
from vlm_rewards.schemas.formats.parquet_corpus.pictures import OpenFile, OpenFiles, Rows


class EpisodeRows(NamedTuple):
    """The rows of an episode.

    Attributes:
        episode_index: Number of the episode in the data set.
        first_index: `index` of its first row; each row's is one more than that of the row before.
        num_rows: Number of its rows; `frame_index` counts them from 0.
        pieces: Data files that hold them, each with the first row and the row after the last.
    """

    episode_index: int
    first_index: int
    num_rows: int
    pieces: tuple[Rows, ...]


def episode_rows(folder: Folder) -> dict[str, EpisodeRows]:
    """Finds the rows of every episode, by its id, in the order of the data set.

    Raises:
        ValueError: It is no LeRobot data set, a data file cannot be read, an episode occurs twice, or `index` does not count on.
    """
    table = read_episode_table(folder, read_info(folder))
    for name, why in table.broken.items():
        raise ValueError(f"every data file must be readable: got {folder.path(name)}, which is not ({why})")
    cursor = RowCursor(OpenFiles(folder, ()), ["index"])
    found: dict[str, EpisodeRows] = {}
    for position in range(len(table)):
        pieces = table.pieces(position)
        index = cursor.take(table.id(position), pieces).column("index").to_numpy()
        if (index != index[0] + np.arange(len(index))).any():
            raise ValueError(
                f"index must rise by one from row to row, got another in {table.id(position)}. Number the column anew"
            )
        if table.id(position) in found:
            raise ValueError(
                f"an episode must occur once, got {table.id(position)} again in {pieces[0].file}. Remove one"
            )
        rows = EpisodeRows(int(table.indices[position]), int(index[0]), len(index), pieces)
        found[table.id(position)] = rows
    return found


class RowCursor:
    """Reads some columns, best in the order of the rows.

    Args:
        files: The data files.
        columns: The columns; those that a file lacks are left out.
    """

    def __init__(self, files: OpenFiles, columns: Sequence[str]) -> None:
        self._files = files
        self._columns = columns
        self._name = ""
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._held: pa.RecordBatch | None = None
        self._row = 0  # of the first row held

    def take(self, episode_id: str, pieces: Sequence[Rows]) -> pa.Table:
        """Returns the rows of an episode.

        Args:
            episode_id: Id of the episode, for messages.
            pieces: Places of the rows.

        Raises:
            InvalidEpisodeError: The file breaks off.
        """
        batches: list[pa.RecordBatch] = []
        for piece in pieces:
            try:
                batches += self._take(piece)
            except MISSING_FILE:
                raise
            except BROKEN_FILE as error:
                self._files.broken.add(piece.file)
                self._name = ""
                raise InvalidEpisodeError(
                    "unreadable shard",
                    f"a Parquet file must be whole, got one that cannot be read after the start of {episode_id} ({error}); the "
                    "rest of it is not read. Download it again",
                    scope="shard",
                ) from error
        try:
            return pa.Table.from_batches(batches)
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"an episode must have the same columns in all its files, got {error}. Download them again"
            ) from error

    def _take(self, piece: Rows) -> Iterator[pa.RecordBatch]:
        opened = self._files.open(piece.file)
        if piece.file != self._name or piece.start < self._row:
            self._name, self._row, self._held = piece.file, 0, None
            self._batches = self._read_from(opened, piece.start)
        row = piece.start
        while row < piece.stop:
            while self._held is None or row >= self._row + self._held.num_rows:
                self._row += 0 if self._held is None else self._held.num_rows
                self._held = next(self._batches, None)
                if self._held is None:
                    raise pa.ArrowInvalid(f"it has {self._row} rows where its footer says more")
            part = self._held.slice(row - self._row, piece.stop - row)
            yield part
            row += part.num_rows

    def _read_from(self, opened: OpenFile, row: int) -> Iterator[pa.RecordBatch]:
        columns = [column for column in self._columns if column in opened.schema.names]
        for group, stop in enumerate(opened.bounds[1:]):
            if stop <= row:
                self._row = stop
                continue
            yield from opened.file.iter_batches(
                opened.batch_rows, row_groups=[group], columns=columns, use_threads=False
            )


def numbers(table: pa.Table, name: str, dtype: type) -> np.ndarray:
    """Returns a column as numbers, [N], or [N, width] where it holds lists or `dtype` is that of vectors.

    Args:
        table: N rows.
        name: The column.
        dtype: float32 for vectors and rewards, int64 for discrete actions and indices, bool for flags.

    Raises:
        ValueError: The column is missing, a value is null, or rows differ in length.
    """
    if name not in table.column_names:
        raise ValueError(f"the rows must have the column {name!r} that {INFO} names, got none. Download the data again")
    column = table.column(name)
    flat, nulls = column, column.null_count
    while is_list(flat.type):
        flat = pc.list_flatten(flat)
        nulls += flat.null_count
    if nulls:
        raise ValueError(f"column {name!r} must have a value in every row, got null. Leave the episode out")
    values: np.ndarray = np.asarray(flat.to_numpy()).astype(dtype, copy=False)
    if not is_list(column.type):
        return values
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) > 1 or len(values) % len(column):
        raise ValueError(
            f"column {name!r} must have as many values in every row, got {len(values)} in {len(column)} rows. Leave "
            "the episode out"
        )
    return values.reshape(len(column), -1)


def texts(table: pa.Table, tasks: Mapping[int, str | None]) -> list[str | None]:
    """Returns the different texts of the tasks of some rows, in order; an empty one counts as none.

    Raises:
        ValueError: A row has no task_index, or one that is not in the tasks.
    """
    if "task_index" not in table.column_names:
        raise ValueError("the rows must have the column 'task_index', got none. Download the data again")
    found = []
    for index in pc.unique(table.column("task_index")).to_pylist():
        if index not in tasks:
            raise ValueError(
                f"task_index must be one of the {len(tasks)} tasks in meta, got {index}. Download meta again"
            )
        found.append(tasks[index] or None)
    return list(dict.fromkeys(found))
