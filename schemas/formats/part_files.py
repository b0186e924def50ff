"""Opens the Parquet parts of output folders, and refuses incomplete or changed ones."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.files.digests import check_part
from vlm_rewards.schemas.files.remote_paths import Location, local_copy


@contextlib.contextmanager
def open_part(path: Location, kind: str) -> Iterator[pq.ParquetFile]:
    """Context manager that opens a part for reading, and refuses one that has changed since it was written.

    The whole file is checked against the digest in its marker or manifest. A part that was copied out of its folder cannot be
    checked, except for the checksums of its pages where it has them: a warning says so.

    Args:
        path: Path of the part.
        kind: Kind of content, for messages, such as "labels".

    Raises:
        ValueError: The part has changed or is not a complete Parquet file, which may be found only during reading.
    """
    with local_copy(path) as copy:
        is_whole = check_part(path, copy)
        # In a file that has not been checked, anything may be missing or have another name.
        changed = () if is_whole else (LookupError, TypeError, ValueError)
        with _opened(path, copy, kind, changed) as file:
            yield file


@contextlib.contextmanager
def _opened(path: Location, copy: Path, kind: str, changed: tuple[type[Exception], ...]) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(copy, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError, MemoryError, *changed) as error:
        if type(error) is ValueError:  # one of our errors, which already says what is wrong
            error.add_note(f"in the part {path}")
            raise
        raise ValueError(
            f"a part of {kind} must be a complete Parquet file, got {path} ({error}). Remove it, and run the command that makes "
            f"it again"
        ) from error
