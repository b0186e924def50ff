"""Reads columns of other people's files under our names.

episode_index  step         image         language_instruction      in the file
episode_id     frame_index  observation.  instruction               as --column episode_id=episode_index, ... says, and for
                            images.image                            pictures by their type, where no column has our prefix
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.episodes import IMAGE_PREFIX, image_column
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.parquet_corpus.files import open_file
from vlm_rewards.schemas.formats.parquet_corpus.layout import KNOWN_COLUMNS, UnknownLayoutError, is_picture


@dataclasses.dataclass(frozen=True)
class ParquetFiles:
    """The files of a corpus, opened under our names.

    Args:
        folder: Folder of the corpus.
        columns: Name of the column in the file by our name, where the two differ.
    """

    folder: Folder
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def open(self, name: str) -> "pq.ParquetFile | RenamedFile":
        """Opens a file, see `open_file`.

        Raises:
            UnknownLayoutError: It lacks one of the columns.
        """
        return with_our_names(open_file(self.folder, name), self.columns)


def read_columns(text: str) -> dict[str, str]:
    """Reads which columns stand for ours.

    Args:
        text: A JSON object: by our name, the column's, such as {"episode_id": "episode_index"}.

    Raises:
        ValueError: It is none, one of ours is unknown, or a column stands for two.
    """
    try:
        columns = json.loads(text)
    except (ValueError, RecursionError):
        columns = None
    if not isinstance(columns, dict) or not all(isinstance(name, str) and name for name in columns.values()):
        raise ValueError(f"columns must be names by ours, got {text!r}. Give each as --column OURS=NAME")
    for ours in columns:
        if ours not in KNOWN_COLUMNS and not (ours.startswith(IMAGE_PREFIX) and ours != IMAGE_PREFIX):
            raise ValueError(
                f"a column must stand for one of {', '.join(KNOWN_COLUMNS)} or {IMAGE_PREFIX}<camera>, got {ours!r}. Write one of "
                "them before the = of --column"
            )
    twice = [name for name in columns.values() if list(columns.values()).count(name) > 1]
    if twice:
        raise ValueError(f"a column must stand for one of ours, got {twice[0]!r} for two. Remove one --column")
    return columns


def with_our_names(file: pq.ParquetFile, columns: Mapping[str, str]) -> "pq.ParquetFile | RenamedFile":
    """Returns a file under our names; as it is where it has them.

    Args:
        file: The file.
        columns: Name of the column in the file by our name.

    Raises:
        UnknownLayoutError: The file lacks one of the columns.
    """
    schema = file.schema_arrow
    missing = [(ours, theirs) for ours, theirs in columns.items() if theirs not in schema.names]
    if missing:
        ours, theirs = missing[0]
        raise UnknownLayoutError(
            f"the column for {ours} must be in the file, got {theirs!r}, where its columns are {', '.join(schema.names)}. Write "
            f"one of these: --column {ours}=NAME"
        )
    theirs_of = dict(columns)
    if not any(name.startswith(IMAGE_PREFIX) for name in (*schema.names, *columns)):
        mapped = set(columns.values())
        theirs_of |= {image_column(f.name): f.name for f in schema if f.name not in mapped and is_picture(f.type)}
    return RenamedFile(file, theirs_of) if theirs_of else file


class RenamedFile:
    """A Parquet file some of whose columns have other names; as much of `pyarrow.parquet.ParquetFile` as is used here.

    Args:
        file: The file.
        theirs_of: Names of its columns by our names.
    """

    def __init__(self, file: pq.ParquetFile, theirs_of: Mapping[str, str]) -> None:
        self._file = file
        self._theirs_of = theirs_of
        ours_of = {theirs: ours for ours, theirs in theirs_of.items()}
        self.metadata = file.metadata
        self.num_row_groups = file.num_row_groups
        self.sizes, self.dictionaries = file.sizes, file.dictionaries
        kept = [field for field in file.schema_arrow if field.name in ours_of or field.name not in theirs_of]
        self.schema_arrow = pa.schema(
            [field.with_name(ours_of.get(field.name, field.name)) for field in kept], file.schema_arrow.metadata
        )
        paths = [self.metadata.schema.column(index).path for index in range(self.metadata.num_columns)]
        self.leaf_paths = [self._renamed(path, ours_of) for path in paths]

    def iter_batches(self, *arguments: Any, columns: Iterable[str], **options: Any) -> Iterator[pa.RecordBatch]:
        """Streams batches; see `pyarrow.parquet.ParquetFile.iter_batches`."""
        names = list(columns)
        asked = [self._renamed(name, self._theirs_of) for name in names]
        tops = [name for name in self.schema_arrow.names if any(name == n or n.startswith(f"{name}.") for n in names)]
        for batch in self._file.iter_batches(*arguments, columns=asked, **options):
            arrays = [batch.column(self._theirs_of.get(name, name)) for name in tops]
            yield pa.RecordBatch.from_arrays(arrays, names=tops)

    def _renamed(self, path: str, names: Mapping[str, str]) -> str:
        for name, other in names.items():
            if path == name or path.startswith(f"{name}."):
                return other + path[len(name) :]
        return path

    def __enter__(self) -> "RenamedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
