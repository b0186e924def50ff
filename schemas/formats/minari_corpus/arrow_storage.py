"""Minari's Arrow and Parquet storages: a file per episode, a row per frame.

    observations.image   observations.mission   actions     rewards   terminations   truncations
    JPEG of o_0          "get the ball"         a_0         r_0       false          false
    ...
    JPEG of o_T          "get the ball"         0           0         false          false            padding

So a file of F rows holds F frames and T = F-1 steps. Pictures are read some at a time and are given as the bytes that they are.
"""

import contextlib
import dataclasses
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frame, UnreadFrames
from vlm_rewards.schemas.formats.array_slices import MIN_SIDE
from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.folder import File, Folder
from vlm_rewards.schemas.formats.hdf5_corpus.recording import Told, as_actions, as_outcome, not_numbers
from vlm_rewards.schemas.formats.interface import FoundEpisode, InvalidEpisodeError, Wanted
from vlm_rewards.schemas.formats.minari_corpus.hdf5_storage import no_observation, no_pictures
from vlm_rewards.schemas.formats.minari_corpus.layout import INSTRUCTION, METADATA, WHOLE
from vlm_rewards.schemas.formats.parquet_corpus.files import open_file as open_parquet_file
from vlm_rewards.schemas.formats.units import file_stem, share_units
from vlm_rewards.schemas.manifests import Failure, Unit

_ROWS = 32
_VALUES = 1 << 22
"""Numbers that are read of a Parquet file at a time: each takes some ten bytes on its way."""
_FILE = re.compile(r"(\d+)/part-(\d+)\.(arrow|parquet)")
_STEPS = ("rewards", "terminations", "truncations")


@dataclasses.dataclass(frozen=True)
class _EpisodeFile:
    """One file, which is opened where it is read.

    Args:
        folder: The corpus's folder.
        name: Name of the file below it.
    """

    folder: Folder
    name: str

    def shape(self) -> tuple[pa.Schema, int]:
        """Returns the schema and the number of rows.

        Raises:
            InvalidEpisodeError: The file cannot be read.
        """
        with self._plain_errors():
            if self.name.endswith(".parquet"):
                parquet = open_parquet_file(self.folder, self.name)
                return parquet.schema_arrow, parquet.metadata.num_rows
            file, _ = self._open_arrow()
            return file.schema, sum(file.get_batch(index).num_rows for index in range(file.num_record_batches))

    def column(self, path: Sequence[str]) -> Iterator[pa.Array]:
        """Yields a column, or a field of it, some rows at a time.

        Raises:
            InvalidEpisodeError: The file cannot be read; from the iterator.
        """
        with self._plain_errors():
            if self.name.endswith(".parquet"):
                file = open_parquet_file(self.folder, self.name)
                rows = max(1, min(_ROWS, _VALUES // _width(_kind(file.schema_arrow, path))))
                for batch in file.iter_batches(batch_size=rows, columns=[".".join(path)]):
                    yield _field(batch, path)
                return
            file, mapped = self._open_arrow()
            for index in range(file.num_record_batches):
                batch = file.get_batch(index)
                column = batch.column(batch.schema.get_field_index(path[0]))
                column.validate(full=True)  # pyarrow would follow broken offsets out of the file
                for start in range(0, batch.num_rows, _ROWS):
                    yield _field(batch, path).slice(start, _ROWS)
                    if mapped is not None:  # an episode of pixels may be of any size: what was read is given back
                        mapped.madvise(mmap.MADV_DONTNEED)

    def _open_arrow(self) -> tuple["pa.ipc.RecordBatchFileReader", mmap.mmap | None]:
        with self.folder.open(self.name) as file:
            if not self.folder.is_local:
                return pa.ipc.open_file(pa.py_buffer(file.read())), None
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_file(pa.py_buffer(mapped)), mapped

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, PermissionError, InvalidEpisodeError):
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            detail = f"a file of an episode must be whole: got {self.name}, which is not ({error}). Copy it again"
            raise InvalidEpisodeError("unreadable shard", detail, scope="shard") from error


def _kind(schema: pa.Schema, path: Sequence[str]) -> pa.DataType:
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return kind


def _field(batch: pa.RecordBatch, path: Sequence[str]) -> pa.Array:
    array = batch.column(batch.schema.get_field_index(path[0]))
    for name in path[1:]:
        array = pc.struct_field(array, name)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


@dataclasses.dataclass(frozen=True)
class _ColumnFrames:
    """The pictures of one camera: encoded, or pixels of one shape."""

    file: _EpisodeFile
    path: tuple[str, ...]
    num_frames: int
    shape: tuple[int, ...] | None

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[Frame]:
        for array in self.file.column(self.path):
            if self.shape is None:
                yield from array.to_pylist()
            else:
                yield from array.flatten().to_numpy(zero_copy_only=False).reshape(-1, *self.shape)


@dataclasses.dataclass(frozen=True)
class ArrowStorageReader:
    """An open Minari data set of Arrow or Parquet files.

    Args:
        folder: Folder of the corpus.
        prefix: Path of `data` below it.
        spaces: Spaces of the observations.
        told: Options that the user gave.
        features: Features of its first readable episode.
        notes: Notes for the user on how it is read.
    """

    folder: Folder
    prefix: str
    spaces: Mapping[str, Mapping[str, Any]]
    told: Told
    features: CorpusFeatures
    notes: tuple[str, ...] = ()

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns units of whole files."""
        return share_units(
            self.folder, [self._unit(file) for file in episode_files(self.folder, self.prefix)], max_bytes
        )

    def own_files(self) -> list[str]:
        """Returns the names of the episodes' files and of their metadata."""
        described = re.compile(rf"{re.escape(self.prefix)}(\d+/)?{re.escape(METADATA)}")
        files = [file.name for file in episode_files(self.folder, self.prefix)]
        return files + [file.name for file in self.folder.files if described.fullmatch(file.name)]

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the unit's episodes."""
        for name in unit.files:
            try:
                stored = StoredEpisode.open(self.folder, name, self.spaces, self.told)
            except ValueError as error:
                reason = error.reason if isinstance(error, InvalidEpisodeError) else "invalid episode"
                yield Failure(scope="shard", shard=name, reason=reason, detail=str(error))
                continue
            cameras = tuple(stored.cameras)
            yield FoundEpisode(stored.episode_id, stored.num_frames, name, stored.reading(wanted), cameras)

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of a unit's episodes in order, as the names of their folders tell them."""
        return [episode_id(name) for name in unit.files]

    def labelled_by(self, unit: Unit) -> dict[str, str]:
        """Returns the model whose labels the rewards of any of the unit's episodes are."""
        for name in unit.files:
            try:
                schema, _ = _EpisodeFile(self.folder, name).shape()
            except InvalidEpisodeError:
                continue  # reported as a Failure when the unit is read
            metadata = schema.field(_STEPS[0]).metadata if _STEPS[0] in schema.names else None
            model = own_labels.model_of((metadata or {}).get(own_labels.KEY.encode()))
            if model is not None:
                return {own_labels.REWARDS: model}
        return {}

    def _unit(self, file: File) -> Unit:
        whole = Unit(name=file_stem(file.name), files=(file.name,), num_bytes=file.num_bytes, num_episodes=1)
        try:
            _, num_rows = _EpisodeFile(self.folder, file.name).shape()
        except InvalidEpisodeError:
            return whole  # reported as a Failure when the unit is read
        return dataclasses.replace(whole, num_frames=num_rows)


def episode_files(folder: Folder, prefix: str) -> list[File]:
    """Returns the files of a data set's episodes, in the order of their numbers."""
    found = [(match, file) for file in folder.files if (match := _FILE.fullmatch(file.name.removeprefix(prefix)))]
    return [file for _, file in sorted(found, key=lambda pair: (int(pair[0][1]), int(pair[0][2]), pair[1].name))]


def episode_id(name: str) -> str:
    """Returns the id of an episode, as in the HDF5 storage; for a second file of a folder, with the file's name."""
    number, _, file = name.rpartition("/")
    number = number.rpartition("/")[2]
    return f"episode_{number}" if re.match(r"part-0\.", file) else f"episode_{number}/{file}"


@dataclasses.dataclass(frozen=True)
class StoredEpisode:
    """One episode, with the roles of its file's columns.

    Args:
        file: The file.
        schema: Schema of the file.
        num_frames: Number of its rows.
        cameras: The pictures by camera.
        told: Options that the user gave.
    """

    file: _EpisodeFile
    schema: pa.Schema
    num_frames: int
    cameras: Mapping[str, _ColumnFrames]
    told: Told

    @classmethod
    def open(cls, folder: Folder, name: str, spaces: Mapping[str, Mapping[str, Any]], told: Told) -> "StoredEpisode":
        """Looks at a file.

        Raises:
            InvalidEpisodeError: It cannot be read, is empty or holds no pictures.
        """
        file = _EpisodeFile(folder, name)
        schema, num_rows = file.shape()
        if num_rows == 0 or WHOLE not in schema.names:
            detail = (
                f"a file of Minari must hold observations: got {num_rows} rows of {', '.join(schema.names)} in {name}. Copy it "
                "again"
            )
            raise InvalidEpisodeError("invalid episode", detail)
        found = dict(_fields(schema.field(WHOLE), ()))
        cameras = {}
        for path, kind in found.items():
            shape = _picture_shape(kind, spaces.get(_called(path), {}))
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or shape is not None:
                cameras[_called(path)] = _ColumnFrames(file, (WHOLE, *path), num_rows, shape)
        if not cameras:
            shapes = {_called(path): spaces.get(_called(path), {}).get("shape") for path in found}
            raise no_pictures(
                {_called(path): f"{shapes[_called(path)] or ''} {kind}".strip() for path, kind in found.items()}
            )
        stored = cls(file, schema, num_rows, cameras, told)
        for option, names, known in (
            ("states", told.states, [_called(path) for path, kind in found.items() if _is_numbers(kind)]),
            ("instruction", (told.instruction,) if told.instruction else (), stored.texts),
        ):
            for chosen in names:
                if chosen not in known:
                    raise no_observation(option, chosen, known)
        return stored

    @property
    def episode_id(self) -> str:
        """Its id."""
        return episode_id(self.file.name)

    @property
    def texts(self) -> list[str]:
        """Observations that are texts."""
        return [_called(path) for path, kind in _fields(self.schema.field(WHOLE), ()) if _is_text(kind)]

    @property
    def features(self) -> CorpusFeatures:
        """Features of the episode."""
        kinds = {_called(path): kind for path, kind in _fields(self.schema.field(WHOLE), ())}
        widths = [_width(kinds[name]) for name in self.told.states]
        actions = self.schema.field("actions").type if "actions" in self.schema.names else pa.null()
        return CorpusFeatures(
            cameras=tuple(self.cameras),
            action_size=None if not _is_numbers(actions) else 0 if pa.types.is_integer(actions) else _width(actions),
            state_size=sum(widths) or None,
            has_rewards=set(_STEPS) <= set(self.schema.names),
            has_instruction=(self.told.instruction or INSTRUCTION) in self.texts,
        )

    def reading(self, wanted: Wanted) -> Any:
        """Returns a function that reads the episode."""

        def read() -> Episode:
            chosen = tuple(self.cameras) if wanted.cameras is None else wanted.cameras
            parts: dict[str, Any] = {}
            if "actions" in wanted.fields and "actions" in self.schema.names:
                parts["actions"] = as_actions(self._numbers(("actions",))[:-1])
            if "rewards" in wanted.fields and set(_STEPS) <= set(self.schema.names):
                parts |= as_outcome(*(self._numbers((name,))[:-1] for name in _STEPS))
            if "states" in wanted.fields and self.told.states:
                columns = [self._numbers((WHOLE, *name.split("/"))) for name in self.told.states]
                parts["states"] = np.concatenate(
                    [column.reshape(self.num_frames, -1) for column in columns], axis=1, dtype=np.float32
                )
            name = self.told.instruction or INSTRUCTION
            if "instruction" in wanted.fields and name in self.texts:
                parts["instruction"] = next(self.file.column((WHOLE, *name.split("/"))))[0].as_py()
            return Episode(
                episode_id=self.episode_id,
                images={
                    camera: self.cameras[camera] if wanted.frames else UnreadFrames(self.num_frames)
                    for camera in chosen
                },
                **parts,
            )

        return read

    def _numbers(self, path: tuple[str, ...]) -> np.ndarray:
        arrays = list(self.file.column(path))
        kind = arrays[0].type
        if not _is_numbers(kind):
            raise not_numbers(".".join(path), str(kind))
        if pa.types.is_fixed_size_list(kind):
            flat = [array.flatten().to_numpy(zero_copy_only=False) for array in arrays]
            return np.concatenate(flat).reshape(-1, kind.list_size)
        return np.concatenate([array.to_numpy(zero_copy_only=False) for array in arrays])


def _fields(field: pa.Field, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
    """Yields the leaves of a column, by their paths below it."""
    if not pa.types.is_struct(field.type):
        yield path, field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        return
    for inner in field.type:
        yield from _fields(inner, (*path, inner.name))


def _called(path: tuple[str, ...]) -> str:
    return "/".join(path) or WHOLE


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_numbers(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
    return bool(pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner))


def _width(kind: pa.DataType) -> int:
    return kind.list_size if pa.types.is_fixed_size_list(kind) else 1


def _picture_shape(kind: pa.DataType, space: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Returns [H, W, 3] of a column of pixels; None for any other."""
    shape = tuple(space.get("shape") or ())
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.uint8() or len(shape) != 3:
        return None
    if shape[2] != 3 or min(shape[:2]) < MIN_SIDE or int(np.prod(shape)) != kind.list_size:
        return None
    return shape
