"""Describes a Parquet file of a corpus: columns, types, and the resulting features.

Columns are those of `schemas.episodes.corpus_schema`; others are ignored. Ids, frame indices and cameras are checked always,
another column only where it is wanted.
"""

import json
from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import IMAGE_PREFIX, METADATA_KEY, CorpusFeatures, corpus_schema, image_column
from vlm_rewards.schemas.formats.parquet_corpus.writer import STEP_COLUMNS

MISSING_FILE = (FileNotFoundError, PermissionError)
"""Errors that are not caused by a file's content."""
BROKEN_FILE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""Errors raised by reading a broken file."""

FIELD_COLUMNS = {
    "actions": ("action",),
    "rewards": tuple(STEP_COLUMNS),
    "success": (),  # no column of ours tells it
    "states": ("observation.state",),
    "instruction": ("instruction",),
    "achieved_goals": ("achieved_goals",),
}
"""The columns of each field that a reader may be asked for."""
KNOWN_COLUMNS = ("episode_id", "frame_index", *(column for columns in FIELD_COLUMNS.values() for column in columns))
"""All columns but those of pictures."""


class UnknownLayoutError(ValueError):
    """Raised for a Parquet file that is not a corpus."""


def leaf_paths(file: pq.ParquetFile) -> list[str]:
    """Returns the paths of a file's leaf columns, in the order of its footer; under our names where the file is read so."""
    renamed: list[str] | None = getattr(file, "leaf_paths", None)
    metadata = file.metadata
    return renamed or [metadata.schema.column(index).path for index in range(metadata.num_columns)]


def read_features(file: pq.ParquetFile) -> CorpusFeatures:
    """Returns the features of a file: from its schema's metadata, or from its columns if another tool wrote it.

    A column of a type that is not ours counts as absent here; `check_columns` refuses it where it is wanted.

    Raises:
        UnknownLayoutError: Ids, frame indices or cameras are missing or of another type, or our metadata is broken.
    """
    schema = file.schema_arrow
    check_columns(schema, cameras=None, fields=())
    try:
        own = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
        features = None
        if own.get("kind") == "corpus":
            features = CorpusFeatures(**own["features"], truth_goals=own.get("truth_goals"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        detail = f"our entry in the schema's metadata must say what the corpus holds, got {error!r}. Remove the entry"
        raise UnknownLayoutError(detail) from error
    if features is not None and set(corpus_schema(features).names) <= set(schema.names):  # a tool may take columns away
        return features
    fields = {field for field in FIELD_COLUMNS if _has(file, field)}
    try:
        return CorpusFeatures(
            cameras=cameras_of(schema),
            action_size=_width(file, "action") if "actions" in fields else None,
            state_size=_width(file, "observation.state") if "states" in fields else None,
            has_rewards="rewards" in fields,
            has_instruction="instruction" in fields,
            has_achieved_goals="achieved_goals" in fields,
            truth_goals=features.truth_goals if features is not None and "achieved_goals" in fields else None,
        )
    except pa.ArrowException:
        raise
    except ValueError as error:
        raise UnknownLayoutError(str(error)) from error


def cameras_of(schema: pa.Schema) -> tuple[str, ...]:
    """Returns the cameras, in the order of their columns."""
    return tuple(name.removeprefix(IMAGE_PREFIX) for name in schema.names if name.startswith(IMAGE_PREFIX))


def check_columns(schema: pa.Schema, cameras: Iterable[str] | None, fields: Iterable[str]) -> None:
    """Refuses a file that lacks what every corpus has, or whose columns are of a type that is none of ours.

    Args:
        schema: The file's.
        cameras: Cameras to check; None for all.
        fields: Fields to check beside ids, frame indices and cameras.

    Raises:
        UnknownLayoutError: It is no corpus, or a column that is wanted is of another type.
    """
    if not {"episode_id", "frame_index"} <= set(schema.names) or not cameras_of(schema):
        raise UnknownLayoutError(
            f"a corpus must have the columns episode_id, frame_index and {IMAGE_PREFIX}<camera>, got "
            f"{', '.join(schema.names)}. Say which they are, as --column episode_id=NAME, or give a folder that holds a corpus"
        )
    for camera in cameras_of(schema) if cameras is None else cameras:
        _check_type(schema, image_column(camera), "encoded pictures (bytes)", is_picture)
    wanted = ["episode_id", "frame_index", *(column for field in sorted(fields) for column in FIELD_COLUMNS[field])]
    for name in wanted:
        if name in schema.names:
            _check_type(schema, name, *_COLUMN_TYPES[name])


def check_widths(file: pq.ParquetFile, features: CorpusFeatures, fields: Iterable[str]) -> None:
    """Refuses vectors that are wanted and whose width nothing tells.

    Args:
        file: The file.
        features: Features of the file.
        fields: Fields that are wanted.

    Raises:
        UnknownLayoutError: A column of vectors holds no number.
    """
    for field, size, name in (
        ("actions", features.action_size, "action"),
        ("states", features.state_size, "observation.state"),
    ):
        if field in fields and size is None and name in file.schema_arrow.names:
            _width(file, name)


def _check_type(schema: pa.Schema, name: str, rule: str, is_right: Callable[[pa.DataType], bool]) -> None:
    dtype = schema.field(name).type
    if not is_right(dtype):
        raise UnknownLayoutError(f"column {name!r} must hold {rule}, got {dtype}. Convert the column")


def columns_to_read(schema: pa.Schema, fields: Iterable[str]) -> list[str]:
    """Returns the columns of ids, frame indices and some fields."""
    names = ["episode_id", "frame_index"]
    names += [column for field, columns in FIELD_COLUMNS.items() if field in fields for column in columns]
    return [name for name in names if name in schema.names]


def picture_leaf(schema: pa.Schema, column: str) -> str:
    """Returns the leaf of a column of pictures that holds them: of a struct only its bytes, not its path."""
    return f"{column}.bytes" if pa.types.is_struct(schema.field(column).type) else column


def is_list(dtype: pa.DataType) -> bool:
    """Returns whether a column holds lists of any kind."""
    return pa.types.is_list(dtype) or pa.types.is_fixed_size_list(dtype) or pa.types.is_large_list(dtype)


def _has(file: pq.ParquetFile, field: str) -> bool:
    if not set(FIELD_COLUMNS[field]) <= set(file.schema_arrow.names):
        return False
    try:
        check_columns(file.schema_arrow, cameras=(), fields=[field])
        for column in set(FIELD_COLUMNS[field]) & {"action", "observation.state"}:
            _width(file, column)
    except UnknownLayoutError:
        return False
    return True


def _is_text(dtype: pa.DataType) -> bool:
    plain = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    return pa.types.is_string(plain) or pa.types.is_large_string(plain)


def is_picture(dtype: pa.DataType) -> bool:
    """Returns whether a column holds encoded pictures."""
    plain = dtype.field("bytes").type if pa.types.is_struct(dtype) and "bytes" in dtype.names else dtype
    plain = plain.value_type if pa.types.is_dictionary(plain) else plain
    return pa.types.is_binary(plain) or pa.types.is_large_binary(plain)


def _is_number(dtype: pa.DataType) -> bool:
    return pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_boolean(dtype)


def _is_vector(dtype: pa.DataType) -> bool:
    plain = dtype.value_type if is_list(dtype) else dtype
    return pa.types.is_integer(plain) or pa.types.is_floating(plain)


_COLUMN_TYPES: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "episode_id": ("texts or whole numbers", lambda dtype: _is_text(dtype) or pa.types.is_integer(dtype)),
    "frame_index": ("whole numbers", pa.types.is_integer),
    **dict.fromkeys(STEP_COLUMNS, ("numbers", _is_number)),
    **dict.fromkeys(("action", "observation.state"), ("numbers or lists of numbers of one length", _is_vector)),
    "instruction": ("texts", _is_text),
    "achieved_goals": ("lists of texts", lambda dtype: is_list(dtype) and _is_text(dtype.value_type)),
}


def _width(file: pq.ParquetFile, name: str) -> int:
    """Returns the width of a vector column: 0 for whole numbers, of lists that of the first."""
    dtype = file.schema_arrow.field(name).type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return int(pa.types.is_floating(dtype))
    if pa.types.is_fixed_size_list(dtype):
        return dtype.list_size
    for batch in file.iter_batches(batch_size=16, columns=[name], use_threads=False):
        for value in batch.column(0):
            if value.is_valid and len(value):
                return len(value)
    raise UnknownLayoutError(
        f"column {name!r} must hold numbers or lists of numbers of one length, got {dtype} without a number. Remove the column"
    )
