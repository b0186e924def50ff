"""Corpora in Parquet: a row a frame, episodes one after another; opens in `datasets` with Image columns.

    row group 0                    row group 1                          row group 2
    episode a | a | a | b | b      episode c | c | c | c | c            d | d | d | d | d
                             cut here? a < b < c: yes           cut here? c < d: yes

A file of ours has whole episodes in a row group, unless one episode is larger than a row group should be. Files of
other writers may put an episode in several row groups, or thousands in one: reading streams batches of rows, and memory
is bounded by the largest episode and the largest page of the file. A unit of work is cut only between row groups whose
ranges of episode ids, by the statistics in the file's footer, have nothing in common, so that no episode is ever in two
units.

Columns are those of `schemas.episodes.corpus_schema`; others are ignored.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import (
    IMAGE_PREFIX,
    METADATA_KEY,
    CorpusFeatures,
    Episode,
    corpus_schema,
    image_column,
)
from vlm_rewards.schemas.formats.parquet_corpus.writer import STEP_COLUMNS
from vlm_rewards.schemas.manifests import Failure, Unit

BATCH_BYTES = 8 * 2**20
BATCH_ROWS = 4096
_BUFFER_BYTES = 2**20
_MISSING_FILE = (FileNotFoundError, PermissionError)
_BROKEN_FILE = (pa.ArrowException, OSError, UnicodeDecodeError)


def plan_parquet(path: str | Path, max_unit_bytes: int) -> list[Unit]:
    """Cuts a file into units of about `max_unit_bytes`: ranges of row groups that share no episode.

    Only the footer is read. A file that cannot be read, or has no statistics to cut by, is one unit.
    """
    path = Path(path)
    size = path.stat().st_size
    whole = Unit(name=path.stem, shard=str(path), num_bytes=size)
    try:
        metadata = pq.read_metadata(path)
    except _MISSING_FILE:
        raise
    except _BROKEN_FILE:
        return [whole]
    whole = dataclasses.replace(whole, num_frames=metadata.num_rows)
    column = _id_column(metadata)
    if size <= max_unit_bytes or column < 0:
        return [whole]
    units = []
    start = num_bytes = num_frames = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        num_bytes += group.total_byte_size
        num_frames += group.num_rows
        last = index + 1 == metadata.num_row_groups
        if last or (num_bytes >= max_unit_bytes and _disjoint(metadata, column, index)):
            name = f"{path.stem}-g{start:05d}-{index + 1:05d}"
            units.append(
                dataclasses.replace(
                    whole, name=name, start=start, stop=index + 1, num_bytes=num_bytes, num_frames=num_frames
                )
            )
            start, num_bytes, num_frames = index + 1, 0, 0
    return units if len(units) > 1 else [whole]


def read_parquet(
    unit: Unit, *, images: bool = True, cameras: Sequence[str] | None = None
) -> Iterator[Episode | Failure]:
    """Streams the episodes of a unit, and a Failure for each that cannot be read.

    Args:
        unit: A range of row groups of a file.
        images: False leaves the picture columns unread; every frame is then b"".
        cameras: Read only these; all by default. A file that lacks one is a Failure.
    """
    shard = Path(unit.shard).name
    pending: list[pa.RecordBatch] = []
    seen: set[str] = set()
    try:
        with _open(unit.shard) as file:
            features = _features(file)
            chosen = features.cameras if cameras is None else tuple(cameras)
            unknown = [camera for camera in chosen if camera not in features.cameras]
            if unknown:
                detail = (
                    f"a camera must be one of {', '.join(features.cameras)} in {shard}, got {unknown[0]!r}; read the "
                    "shard by itself with its own camera, or leave it out"
                )
                yield Failure(scope="shard", shard=shard, reason="missing camera", detail=detail)
                return
            columns = _columns_to_read(file.schema_arrow, chosen if images else ())
            for rows, starts_episode, ends_episode in _runs(file, unit, columns):
                if starts_episode and pending:
                    yield _to_episode(pending, features, chosen, images, shard, seen)
                    pending = []
                pending.append(rows)
                if ends_episode:
                    yield _to_episode(pending, features, chosen, images, shard, seen)
                    pending = []
        if pending:
            yield _to_episode(pending, features, chosen, images, shard, seen)
    except _UnknownLayoutError as error:
        yield Failure(scope="shard", shard=shard, reason="unknown layout", detail=str(error))
    except _MISSING_FILE as error:
        error.add_note(f"while reading {unit.shard}")
        raise
    except _BROKEN_FILE as error:
        episode_id = pending[0].column("episode_id")[0].as_py() if pending else None
        after = f" after the start of episode {episode_id}" if pending else ""
        detail = (
            f"a Parquet file must be whole, got one that cannot be read{after} ({error}); the rest of it is not read: "
            "copy or record it again"
        )
        yield Failure(scope="shard", shard=shard, reason="unreadable shard", detail=detail)
    except Exception as error:
        error.add_note(f"while reading {unit.shard}")
        raise


def read_parquet_ids(unit: Unit) -> list[str]:
    """The ids of a unit's episodes in order, each once; up to the place where the file becomes unreadable."""
    ids: dict[str, None] = {}
    try:
        with _open(unit.shard) as file:
            if "episode_id" not in file.schema_arrow.names:
                return []
            groups = _row_groups(file, unit)
            for batch in file.iter_batches(row_groups=groups, columns=["episode_id"], use_threads=False):
                ids.update(dict.fromkeys(pc.unique(batch.column(0).cast(pa.string())).to_pylist()))
    except _MISSING_FILE:
        raise
    except _BROKEN_FILE:
        pass  # the read of the unit says so, as a Failure
    return [episode_id for episode_id in ids if episode_id is not None]


def read_parquet_features(unit: Unit) -> CorpusFeatures:
    """What a unit's corpus holds: from the schema's metadata, or from the columns if another tool wrote the file.

    Raises:
        ValueError: The file is not Parquet, or a column is missing or of a type that is none of ours.
    """
    try:
        with _open(unit.shard) as file:
            return _features(file)
    except _UnknownLayoutError as error:
        error.add_note(f"in {unit.shard}")
        raise
    except _MISSING_FILE:
        raise
    except _BROKEN_FILE as error:
        detail = f"a Parquet file must be whole, got {unit.shard} ({error}); copy or record it again"
        raise ValueError(detail) from error


def _features(file: pq.ParquetFile) -> CorpusFeatures:
    schema = file.schema_arrow
    _check_types(schema)
    try:
        own = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
        features = CorpusFeatures(**own["features"]) if own.get("kind") == "corpus" else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        detail = f"our entry in the schema's metadata must say what the corpus holds, got {error!r}; remove the entry"
        raise _UnknownLayoutError(detail) from error
    if features is not None and set(corpus_schema(features).names) <= set(schema.names):  # a tool may take columns away
        return features
    types = {field.name: field.type for field in schema}
    cameras = tuple(name.removeprefix(IMAGE_PREFIX) for name in types if name.startswith(IMAGE_PREFIX))
    try:
        return CorpusFeatures(
            cameras=cameras,
            action_size=_width(file, "action"),
            state_size=_width(file, "observation.state"),
            has_rewards=STEP_COLUMNS.keys() <= types.keys(),
            has_instruction="instruction" in types,
            has_achieved_goals="achieved_goals" in types,
        )
    except pa.ArrowException:
        raise
    except ValueError as error:
        raise _UnknownLayoutError(str(error)) from error


def _is_text(dtype: pa.DataType) -> bool:
    plain = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    return pa.types.is_string(plain) or pa.types.is_large_string(plain)


def _is_picture(dtype: pa.DataType) -> bool:
    plain = dtype.field("bytes").type if pa.types.is_struct(dtype) and "bytes" in dtype.names else dtype
    return pa.types.is_binary(plain) or pa.types.is_large_binary(plain)


def _is_number(dtype: pa.DataType) -> bool:
    return pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_boolean(dtype)


_COLUMN_TYPES: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "episode_id": ("texts or whole numbers", lambda dtype: _is_text(dtype) or pa.types.is_integer(dtype)),
    "frame_index": ("whole numbers", pa.types.is_integer),
    **dict.fromkeys(STEP_COLUMNS, ("numbers", _is_number)),
    "instruction": ("texts", _is_text),
    "achieved_goals": ("lists of texts", lambda dtype: _is_list(dtype) and _is_text(dtype.value_type)),
}


def _check_types(schema: pa.Schema) -> None:
    cameras = [name for name in schema.names if name.startswith(IMAGE_PREFIX)]
    if not {"episode_id", "frame_index"} <= set(schema.names) or not cameras:
        raise _UnknownLayoutError(
            f"a corpus must have the columns episode_id, frame_index and {IMAGE_PREFIX}<camera>, got "
            f"{', '.join(schema.names)}; rename its columns or give a folder that holds a corpus"
        )
    for field in schema:
        default = ("encoded pictures (bytes)", _is_picture) if field.name in cameras else ("anything", lambda _: True)
        rule, is_right = _COLUMN_TYPES.get(field.name, default)
        if not is_right(field.type):
            raise _UnknownLayoutError(f"column {field.name!r} must hold {rule}, got {field.type}; convert it")


class _UnknownLayoutError(ValueError):
    """The file is Parquet, but no corpus."""


def _open(path: str) -> pq.ParquetFile:
    # Not memory-mapped: a file cut short while it is read would end the process. Not read ahead: a row group may be huge.
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)


def _row_groups(file: pq.ParquetFile, unit: Unit) -> list[int]:
    return list(range(unit.start, file.num_row_groups if unit.stop < 0 else unit.stop))


def _id_column(metadata: pq.FileMetaData) -> int:
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return paths.index("episode_id") if "episode_id" in paths else -1


def _disjoint(metadata: pq.FileMetaData, column: int, index: int) -> bool:
    """Whether row groups index and index + 1 share no episode; statistics that other writers cut short stay bounds."""
    left, right = (metadata.row_group(i).column(column).statistics for i in (index, index + 1))
    if left is None or right is None or not (left.has_min_max and right.has_min_max):
        return False
    return left.max < right.min or right.max < left.min


def _columns_to_read(schema: pa.Schema, cameras: Iterable[str]) -> list[str]:
    """Leaf columns: of a picture only its bytes, not its path."""
    names = ["episode_id", "frame_index", "observation.state", "action", *STEP_COLUMNS]
    columns = [name for name in [*names, "instruction", "achieved_goals"] if name in schema.names]
    for camera in cameras:
        name = image_column(camera)
        columns.append(f"{name}.bytes" if pa.types.is_struct(schema.field(name).type) else name)
    return columns


def _runs(file: pq.ParquetFile, unit: Unit, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, bool, bool]]:
    """Streams rows in pieces that each belong to one episode; whether it is its first, and surely its last.

    An episode starts where the id changes, or where the frames count from 0 again: a duplicate that follows at once. It
    ends for sure with a row group that shares no episode with the next.
    """
    previous_id, previous_index = None, -1
    id_column = _id_column(file.metadata)
    for group in _row_groups(file, unit):
        metadata = file.metadata.row_group(group)
        rows_left = metadata.num_rows
        closed = group + 1 < file.num_row_groups and _disjoint(file.metadata, id_column, group)
        rows = max(1, min(BATCH_ROWS, rows_left * BATCH_BYTES // max(1, metadata.total_byte_size)))
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=False):
            if batch.num_rows == 0:
                continue
            ids = batch.column("episode_id").cast(pa.string()).to_numpy(zero_copy_only=False)
            indices = batch.column("frame_index").to_numpy(zero_copy_only=False)
            starts = np.append(ids[1:] != ids[:-1], True)
            starts[:-1] |= (indices[1:] == 0) & (indices[:-1] > 0)
            begin = 0
            rows_left -= batch.num_rows
            for end in (np.flatnonzero(starts) + 1).tolist():
                first = begin > 0 or ids[0] != previous_id or (indices[0] == 0 and previous_index > 0)
                last = closed and rows_left == 0 and end == batch.num_rows
                yield batch.slice(begin, end - begin), first, last
                begin = end
            previous_id, previous_index = ids[-1], indices[-1]


def _to_episode(
    batches: list[pa.RecordBatch],
    features: CorpusFeatures,
    cameras: Sequence[str],
    images: bool,
    shard: str,
    seen: set[str],
) -> Episode | Failure:
    first_id = batches[0].column("episode_id").cast(pa.string())[0].as_py()
    episode_id = "" if first_id is None else first_id
    num_frames = sum(batch.num_rows for batch in batches)

    def failure(reason: str, detail: str) -> Failure:
        return Failure(
            scope="episode", shard=shard, episode_id=episode_id, reason=reason, detail=detail, num_frames=num_frames
        )

    if episode_id in seen:
        detail = f"an episode_id must occur once, got {episode_id!r} again; rename or remove one"
        return failure("duplicate episode", detail)
    seen.add(episode_id)
    try:
        return _assemble(episode_id, pa.Table.from_batches(batches), features, cameras, images)
    except _MissingFramesError as error:
        return failure("missing frames", str(error))
    except ValueError as error:
        return failure("invalid episode", str(error))
    except Exception as error:
        error.add_note(f"while reading episode {episode_id} of {shard}")
        raise


class _MissingFramesError(ValueError):
    """An episode's frames are not all there."""


def _assemble(
    episode_id: str, table: pa.Table, features: CorpusFeatures, cameras: Sequence[str], images: bool
) -> Episode:
    num_frames = table.num_rows
    indices = table.column("frame_index").to_numpy()
    wrong = np.flatnonzero(indices != np.arange(num_frames))
    if wrong.size:
        raise _MissingFramesError(
            f"frame_index must count 0, 1, 2, ... in each episode, got {indices[wrong[0]]} in place of {wrong[0]}; "
            "record the episode again or leave it out"
        )
    pictures: Mapping[str, Sequence[bytes]] = {camera: [b""] * num_frames for camera in cameras}
    if images:
        pictures = {camera: _pictures(table.column(image_column(camera)), camera) for camera in cameras}
    values: dict[str, np.ndarray] = {}
    num_steps = num_frames - 1
    if "action" in table.column_names:
        column = table.column("action")
        num_steps = num_frames - (1 if not column[-1].is_valid else 0)
        dtype: type = np.int64 if pa.types.is_integer(column.type) else np.float32
        values["actions"] = _numbers("action", column.slice(0, num_steps), dtype)
        if num_steps == 0 and features.action_size:  # no row tells the width
            values["actions"] = np.zeros((0, features.action_size), np.float32)
    if "observation.state" in table.column_names:
        values["states"] = _numbers("observation.state", table.column("observation.state"), np.float32)
    for name, attribute in STEP_COLUMNS.items():
        if name in table.column_names:
            dtype = np.float32 if name == "reward" else np.bool_
            values[attribute] = _numbers(name, table.column(name).slice(0, num_steps), dtype)
    achieved_goals = _lists(table.column("achieved_goals")) if "achieved_goals" in table.column_names else None
    instruction = _instruction(table.column("instruction")) if "instruction" in table.column_names else None
    return Episode(
        episode_id=episode_id, images=pictures, instruction=instruction, achieved_goals=achieved_goals, **values
    )


def _pictures(column: pa.ChunkedArray, camera: str) -> list[bytes]:
    pictures: list[bytes] = []
    for chunk in column.chunks:
        encoded = pc.struct_field(chunk, "bytes") if pa.types.is_struct(chunk.type) else chunk
        if encoded.null_count:
            index = len(pictures) + pc.index(encoded.is_null(), True).as_py()
            raise _MissingFramesError(
                f"every frame must have the bytes of a picture of camera {camera!r}, got none in frame {index}; "
                "record the episode again or embed its pictures"
            )
        pictures += encoded.to_numpy(zero_copy_only=False).tolist()  # far cheaper than to_pylist
    return pictures


def _numbers(name: str, column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    """A column without nulls as [N], or [N, width] where it holds lists."""
    flat = pc.list_flatten(column) if _is_list(column.type) else column
    if column.null_count or flat.null_count:
        index = pc.index(column.is_null(), True).as_py()
        where = f" in row {index}" if index >= 0 else ""
        raise ValueError(
            f"column {name!r} must have a value in every row of a step, got null{where}; mend the recording"
        )
    values: np.ndarray = np.asarray(flat.to_numpy()).astype(dtype, copy=False)
    if not _is_list(column.type):
        return values[:, None] if name in ("action", "observation.state") and dtype is np.float32 else values
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) > 1:
        raise ValueError(f"column {name!r} must have as many values in every row, got {sorted(widths)}; mend them")
    return values.reshape(len(column), widths[0] if widths else 0)


def _lists(column: pa.ChunkedArray) -> list[list[str]]:
    if column.null_count:
        raise ValueError("column 'achieved_goals' must have a list in every row, got null; write [] for no goal")
    flat = pc.list_flatten(column).cast(pa.string()).to_numpy().tolist()
    ends = np.cumsum(pc.list_value_length(column).to_numpy()).tolist()
    return [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _instruction(column: pa.ChunkedArray) -> str | None:
    texts = pc.unique(column).to_pylist()
    if len(texts) > 1:
        raise ValueError(f"an episode must have one instruction, got {texts[0]!r} and {texts[1]!r}; split the episode")
    return texts[0]


def _is_list(dtype: pa.DataType) -> bool:
    return pa.types.is_list(dtype) or pa.types.is_fixed_size_list(dtype) or pa.types.is_large_list(dtype)


def _width(file: pq.ParquetFile, name: str) -> int | None:
    """The width of a vector column: None if there is none, 0 for whole numbers, of lists that of the first."""
    if name not in file.schema_arrow.names:
        return None
    dtype = file.schema_arrow.field(name).type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return int(pa.types.is_floating(dtype))
    if pa.types.is_fixed_size_list(dtype):
        return dtype.list_size
    if _is_list(dtype):
        for batch in file.iter_batches(batch_size=16, columns=[name], use_threads=False):
            for value in batch.column(0):
                if value.is_valid and len(value):
                    return len(value)
    detail = f"column {name!r} must hold numbers or lists of numbers of one length, got {dtype}; convert it"
    raise _UnknownLayoutError(detail)
