"""Corpora in zarr: replay buffers of diffusion policy and UMI, whose episodes lie one after another in arrays.

    data/img      frames   o_0 o_1 o_2 | o_0 o_1 | o_0 ...
    data/action            a_0 a_1 a_2 | a_0 a_1 | a_0 ...      the frame after an episode's last action was not recorded
    meta/episode_ends              3         5                 the row after each episode's last

Ids hold the store's name: "pusht/episode_0". A unit is a range of episodes of one store.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, UnreadFrames
from vlm_rewards.schemas.formats.array_slices import why_no_camera
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import (
    CorpusFormat,
    FoundEpisode,
    InvalidEpisodeError,
    Wanted,
)
from vlm_rewards.schemas.formats.units import file_stem
from vlm_rewards.schemas.formats.zarr_corpus.chunk_files import chunk_reader
from vlm_rewards.schemas.formats.zarr_corpus.outcomes import REWARD, SUCCESS, outcome_array, read_outcomes
from vlm_rewards.schemas.formats.zarr_corpus.rows import ArrayRows
from vlm_rewards.schemas.formats.zarr_corpus.stores import Store, find_stores, plain_errors
from vlm_rewards.schemas.manifests import Failure, Unit

if TYPE_CHECKING:
    import zarr

_ACTION = "action"
_CHANNELS = ("rgb", "bgr")
_FLOATS = {"1": 255.0, "255": 1.0}
_YES, _NO = "yes", "no"


@dataclasses.dataclass(frozen=True)
class Told:
    """Options that the user gave for a corpus, beside what its files say.

    Args:
        states: Arrays that make up the state vector, in order.
        bgr: Whether the first channel of the pictures is blue.
        floats: The value of white where pictures are of floating-point numbers; None where they are none.
        black: Whether a chunk without a file is black.
        outcomes: Names of the arrays of rewards and of success that the user gave, by role.
    """

    states: tuple[str, ...] = ()
    bgr: bool = False
    floats: str | None = None
    black: bool = False
    outcomes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, str]) -> "Told":
        """Reads the options of the format.

        Raises:
            ValueError: A value is none of those allowed.
        """
        for name, allowed in (("channels", _CHANNELS), ("white", tuple(_FLOATS)), ("missing-is-black", (_YES, _NO))):
            if name in options and options[name] not in allowed:
                raise ValueError(
                    f"the option {name} must be {' or '.join(allowed)}: got {options[name]!r}. Choose one of them"
                )
        return cls(
            states=tuple(filter(None, options.get("states", "").split(","))),
            bgr=options.get("channels") == "bgr",
            floats=options.get("white"),
            black=options.get("missing-is-black") == _YES,
            outcomes=tuple((role, options[role]) for role in (REWARD, SUCCESS) if role in options),
        )


@dataclasses.dataclass(frozen=True)
class _StoreFrames:
    """Rows of one camera's array."""

    store: Store
    rows: ArrayRows
    start: int
    stop: int
    told: Told

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[np.ndarray]:
        array = self.rows.array
        missing = None if self.told.black else self.store.missing_chunk(array, self.start, self.stop)
        if missing is not None:
            detail = (
                f"every chunk of pictures must have a file: got none at {missing!r}, which zarr would read as black. Copy the "
                "store again, or say that it is black: --corpus-option missing-is-black=yes"
            )
            raise InvalidEpisodeError("missing data", detail)
        for rows in self.rows.slices(self.start, self.stop):
            yield from self._as_pictures(rows)

    def _as_pictures(self, rows: np.ndarray) -> np.ndarray:
        if rows.dtype != np.uint8:
            assert self.told.floats is not None
            scaled = rows * np.float64(_FLOATS[self.told.floats])
            if not (np.isfinite(scaled).all() and scaled.min() >= 0 and scaled.max() <= 255):
                detail = (
                    f"pictures must be from 0 to {self.told.floats}, as the option white says: got values from {rows.min()} to "
                    f"{rows.max()} in {self.rows.array.name}. Correct the option"
                )
                raise InvalidEpisodeError("invalid episode", detail)
            rows = np.rint(scaled).astype(np.uint8)
        return np.ascontiguousarray(rows[..., ::-1]) if self.told.bgr else rows


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A store as a replay buffer, with the roles of its arrays.

    Args:
        store: The store.
        told: Options that the user gave.
        cameras: The arrays of pictures.
        others: All other arrays of `data`.
        outcomes: Names of the arrays of rewards and of success, by role.
    """

    store: Store
    told: Told
    cameras: Mapping[str, ArrayRows]
    others: Mapping[str, "zarr.Array"]
    outcomes: Mapping[str, str]

    @classmethod
    def open(cls, store: Store, told: Told) -> "Buffer":
        """Looks at a store.

        Raises:
            ValueError: It is no replay buffer, holds no pictures, or its arrays are of different lengths.
        """
        arrays = store.data()
        num_rows = int(store.ends[-1])
        reasons = {}
        for name, array in arrays.items():
            dtype = np.dtype(array.dtype)
            told_dtype = np.dtype(np.uint8) if told.floats is not None and dtype.kind == "f" else dtype
            reasons[name] = why_no_camera(array.shape, told_dtype)
        cameras = {name: arrays[name] for name, reason in reasons.items() if not reason}
        if not cameras:
            close = [f"{name} {reason}" for name, reason in reasons.items() if reason != "-"]
            found = "; ".join(close) or ", ".join(f"{name} {list(a.shape)} {a.dtype}" for name, a in arrays.items())
            is_float = any(reasons[name] != "-" and np.dtype(array.dtype).kind == "f" for name, array in arrays.items())
            remedy = "Say which value is white: --corpus-option white=255, or 1" if is_float else "Convert them"
            raise ValueError(
                f"pictures must be [N, H, W, 3] uint8 in 'data': got {found or 'nothing'} in {store}. {remedy}"
            )
        for name in told.states:
            if name not in arrays or name in cameras:
                others = ", ".join(name for name in arrays if name not in cameras) or "none"
                raise ValueError(
                    f"the option states must name arrays of 'data': got {name!r}, and they are {others}. Correct it"
                )
        for name in (*cameras, *told.states, *([_ACTION] if _ACTION in arrays else [])):
            if arrays[name].shape[0] != num_rows:
                raise ValueError(
                    f"arrays must have as many rows as the episodes end with: got {arrays[name].shape[0]} of {name!r}, and "
                    f"episodes end with {num_rows} in {store}. Copy the store again"
                )
        # A missing chunk that is black is none of those that are read from files.
        rows = {
            name: ArrayRows(array, None if told.black else chunk_reader(store, array))
            for name, array in cameras.items()
        }
        rest = {name: array for name, array in arrays.items() if name not in cameras}
        outcomes = {role: outcome_array(role, rest, dict(told.outcomes).get(role)) for role in (REWARD, SUCCESS)}
        return cls(store, told, rows, rest, {role: name for role, name in outcomes.items() if name is not None})

    @property
    def features(self) -> CorpusFeatures:
        """Features of its episodes."""
        action = self.others.get(_ACTION)
        size = None if action is None else int(np.prod(action.shape[1:], dtype=np.int64))
        if action is not None and action.ndim == 1:
            size = 0 if np.dtype(action.dtype).kind in "iu" else 1
        widths = [int(np.prod(self.others[name].shape[1:], dtype=np.int64)) for name in self.told.states]
        return CorpusFeatures(
            cameras=tuple(self.cameras),
            action_size=size,
            state_size=sum(widths) or None,
            has_rewards=REWARD in self.outcomes,
            has_instruction=False,
            missing_frame=None if action is None else "last",
        )

    @property
    def in_image_codecs(self) -> frozenset[str]:
        """Cameras whose pictures the package imagecodecs decodes."""
        return frozenset(
            name
            for name, rows in self.cameras.items()
            for codec in rows.array.compressors
            if str(getattr(codec, "codec_id", "")).startswith("imagecodecs_")
        )

    @property
    def starts(self) -> np.ndarray:
        """[E] int64: the first row of each episode."""
        return np.concatenate([[0], self.store.ends[:-1]]).astype(np.int64)

    def found(self, index: int, wanted: Wanted) -> FoundEpisode:
        """Returns an episode, to be put together."""
        start, stop = int(self.starts[index]), int(self.store.ends[index])
        episode_id = f"{self.store.stem}/episode_{index}"
        file = self.store.label
        return FoundEpisode(
            episode_id, stop - start, file, self._reading(episode_id, start, stop, wanted), tuple(self.cameras)
        )

    def _reading(self, episode_id: str, start: int, stop: int, wanted: Wanted) -> Callable[[], Episode]:
        def read() -> Episode:
            chosen = tuple(self.cameras) if wanted.cameras is None else wanted.cameras
            parts: dict[str, Any] = {}
            if "actions" in wanted.fields and _ACTION in self.others:
                values = self._rows(_ACTION, start, stop)
                is_discrete = values.ndim == 1 and values.dtype.kind in "iu"
                parts["actions"] = values.astype(np.int64) if is_discrete else _vectors(values)
            if "states" in wanted.fields and self.told.states:
                parts["states"] = np.concatenate(
                    [_vectors(self._rows(name, start, stop)) for name in self.told.states], axis=1
                )
            roles = {"rewards": REWARD, "success": SUCCESS}
            names = {
                role: self.outcomes[role]
                for field, role in roles.items()
                if field in wanted.fields and role in self.outcomes
            }
            num_steps = stop - start - (_ACTION not in self.others)
            parts |= read_outcomes(names, self.others, lambda name: self._rows(name, start, stop), num_steps)
            return Episode(
                episode_id=episode_id,
                images={
                    camera: _StoreFrames(self.store, self.cameras[camera], start, stop, self.told)
                    if wanted.frames
                    else UnreadFrames(stop - start)
                    for camera in chosen
                },
                **parts,
            )

        return read

    def _rows(self, name: str, start: int, stop: int) -> np.ndarray:
        array = self.others[name]
        with plain_errors(f"rows {start} to {stop - 1} of {array.name}"):
            values = np.asarray(array[start:stop])
        if values.dtype.kind not in "biuf":
            raise InvalidEpisodeError(
                "invalid episode", f"{array.name} must be numbers: got {values.dtype}. Convert the array"
            )
        return values


def _vectors(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ZarrReader:
    """An open zarr corpus.

    Args:
        folder: Folder of the corpus.
        features: Features of its first readable store.
        told: Options that the user gave.
        in_image_codecs: Cameras whose pictures the package imagecodecs decodes.
    """

    folder: Folder
    features: CorpusFeatures
    told: Told
    in_image_codecs: frozenset[str] = frozenset()

    def decoders(self, camera: str) -> dict[str, str]:
        """Returns the version of imagecodecs, where it makes the pixels of a camera."""
        return {"imagecodecs": version("imagecodecs")} if camera in self.in_image_codecs else {}

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns units of whole episodes; ranges count episodes."""
        return [unit for store in find_stores(self.folder) for unit in self._plan(store, max_bytes)]

    def own_files(self) -> list[str]:
        """Returns the stores, with all that lies in them."""
        names = []
        for store in find_stores(self.folder):
            if store.name:
                names.append(store.name)
            else:
                names += ["data/", "meta/", "zarr.json", ".zgroup", ".zattrs", ".zmetadata"]
        return names

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the unit's episodes."""
        store = self._store(unit)
        try:
            buffer = Buffer.open(store, self.told)
        except ValueError as error:
            yield Failure(scope="shard", shard=store.label, reason="unreadable shard", detail=str(error))
            return
        for index in _range(unit, store):
            yield buffer.found(index, wanted)

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of a unit's episodes in order; none of a store that cannot be read."""
        store = self._store(unit)
        try:
            return [f"{store.stem}/episode_{index}" for index in _range(unit, store)]
        except ValueError:
            return []  # reported as a Failure when the unit is read

    def _store(self, unit: Unit) -> Store:
        inside = [store for store in find_stores(self.folder) if unit.files[0].startswith(store.name)]
        return max(inside, key=lambda store: len(store.name))

    def _plan(self, store: Store, max_bytes: int) -> list[Unit]:
        stem = file_stem(f"{store.stem}.zarr")
        try:
            buffer = Buffer.open(store, self.told)
        except ValueError:
            return [
                Unit(name=stem, files=tuple(store.content_files([])))
            ]  # reported as a Failure when the unit is read
        lengths = np.diff(store.ends, prepend=0)
        arrays = [*(rows.array for rows in buffer.cameras.values()), *buffer.others.values()]
        row_bytes = max(1, sum(_row_bytes(array) for array in arrays))
        files = tuple(store.content_files(arrays))
        starts = [0]
        waiting = 0
        for index, length in enumerate(lengths.tolist()):
            if waiting and (waiting + length) * row_bytes > max_bytes:
                starts.append(index)
                waiting = 0
            waiting += length
        is_cut = len(starts) > 1
        return [
            Unit(
                name=f"{stem}-e{start:06d}" if is_cut else stem,
                files=files,
                start=start,
                stop=stop if stop < len(lengths) else -1,
                num_episodes=stop - start,
                num_frames=int(lengths[start:stop].sum()),
                num_bytes=int(lengths[start:stop].sum()) * row_bytes,
            )
            for start, stop in zip(starts, [*starts[1:], len(lengths)], strict=True)
        ]


def _range(unit: Unit, store: Store) -> range:
    return range(unit.start, len(store.ends) if unit.stop < 0 else unit.stop)


def _row_bytes(array: "zarr.Array") -> int:
    """Returns the number of bytes per row, uncompressed."""
    return np.dtype(array.dtype).itemsize * int(np.prod(array.shape[1:], dtype=np.int64))


def open_zarr(folder: Folder, options: Mapping[str, str]) -> ZarrReader:
    """Opens a folder that is a store or holds stores; errors of single stores are reported when they are read.

    Raises:
        ValueError: No store can be read, or an option's value is none.
    """
    told = Told.of(options)
    first: ValueError | None = None
    stores = find_stores(folder)
    for store in stores:
        try:
            buffer = Buffer.open(store, told)
            return ZarrReader(folder, buffer.features, told, buffer.in_image_codecs)
        except ValueError as error:
            first = first or error
    raise ValueError(
        f"a corpus must have a store that can be read: got none of {len(stores)}, the first being {stores[0]} ({first})"
    ) from first


ZARR = CorpusFormat(
    name="zarr",
    recognizes=lambda folder: bool(find_stores(folder)),
    open=open_zarr,
    options={
        "states": "names of arrays that make up the state vector, with commas between them",
        REWARD: "name of the array of rewards; reward or rewards by default",
        SUCCESS: "name of the array that says in which steps the task was solved; success by default",
        "channels": "rgb or bgr: order of the channels of the pictures; rgb by default",
        "white": "1 or 255: the value of white in pictures of floating-point numbers",
        "missing-is-black": "yes or no: whether chunks without a file are black frames; no by default",
    },
)
