"""Corpora in WebDataset: tar files with a sample an episode; opens with `webdataset.WebDataset(...).decode("rgb8")`.

    <id>.json                    num_frames, cameras, instruction, achieved_goals, features, convention of time
    <id>.action.npy              [T] int64 or [T, A] float32
    <id>.reward.npy              [T] float32; <id>.terminated.npy and <id>.truncated.npy [T] bool
    <id>.state.npy               [F, S] float32
    <id>.<camera>.000000.png     one picture a frame, as it was recorded: png, jpg, webp or bmp

What an episode does not hold is absent. Reading never extracts to disk, loads no pickles and follows no links; the
order of a sample's members does not matter, and members of other names are ignored. A tar is read from front to end,
so the episodes before a cut are still given.
"""

import dataclasses
import io
import json
import re
import tarfile
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vlm_rewards.schemas.episodes import TIME_CONVENTION, CorpusFeatures, Episode
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.pictures import image_extension

MAX_JSON_BYTES = 256 * 2**20
MAX_ARRAY_BYTES = 1024 * 2**20
MAX_IMAGE_BYTES = 64 * 2**20

_ARRAYS = {
    "action.npy": "actions",
    "reward.npy": "rewards",
    "terminated.npy": "terminations",
    "truncated.npy": "truncations",
    "state.npy": "states",
}
_HEADER_ERRORS = (tarfile.TarError, ValueError, OverflowError)
_FLAGS = ("terminations", "truncations")
_MISSING_CAMERA = "missing camera"
_PICTURE = re.compile(r"(?P<camera>\w+)\.(?P<frame>\d{1,9})\.(?:png|jpe?g|webp|bmp)", re.ASCII | re.IGNORECASE)


def write_webdataset(path: str | Path, features: CorpusFeatures, episodes: Iterable[Episode]) -> None:
    """Writes episodes to one tar file; the same episodes give the same bytes.

    Args:
        path: The file; replaced if it exists.
        features: What every episode holds.
        episodes: The episodes, read one at a time.

    Raises:
        ValueError: An episode holds other things than `features` says, occurs twice, or has a picture that is none.
    """
    seen: set[str] = set()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for episode in episodes:
            features.check(episode)
            if episode.episode_id in seen:
                raise ValueError(
                    f"an episode_id must occur once in a file, got {episode.episode_id!r} again; rename one"
                )
            seen.add(episode.episode_id)
            for suffix, data in _members(features, episode):
                member = tarfile.TarInfo(f"{episode.episode_id}.{suffix}")
                member.size = len(data)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(data))
            tar.members = []  # type: ignore[attr-defined]  # or it keeps a record of every frame ever written


def plan_webdataset(path: str | Path, max_unit_bytes: int) -> list[Unit]:
    """Cuts a file into units of about `max_unit_bytes`: ranges of bytes that begin with a sample.

    A small file is one unit at once; a large one is walked from header to header. From the place where it becomes
    unreadable it stays uncut: the reader of that unit says what is wrong.
    """
    path = Path(path)
    size = path.stat().st_size
    whole = Unit(name=path.stem, shard=str(path), num_bytes=size)
    if size <= max_unit_bytes:
        return [whole]
    starts: list[int] = []
    counts: list[int] = []
    with path.open("rb") as file:
        previous = None
        try:
            for member in _walk(file, whole):
                key = _split(member.name)[0]
                if key != previous:
                    if not starts or member.offset - starts[-1] >= max_unit_bytes:
                        starts.append(member.offset)
                        counts.append(0)
                    counts[-1] += 1
                    previous = key
        except _BrokenTarError:
            pass
    if len(starts) < 2:
        return [dataclasses.replace(whole, num_episodes=counts[0] if counts else None)]
    starts[0] = 0
    return [
        dataclasses.replace(
            whole,
            name=f"{path.stem}-b{start:012d}",
            start=start,
            stop=stop if stop < size else -1,
            num_bytes=stop - start,
            num_episodes=count,
        )
        for start, stop, count in zip(starts, [*starts[1:], size], counts, strict=True)
    ]


def read_webdataset(
    unit: Unit, *, images: bool = True, cameras: Sequence[str] | None = None
) -> Iterator[Episode | Failure]:
    """Streams the episodes of a unit, and a Failure for each that cannot be read.

    Args:
        unit: A range of bytes of a tar file.
        images: False skips the pictures; every frame is then b"".
        cameras: Read only these; all by default. An episode that lacks one is a Failure; where all do, the shard is.
    """
    lacking: list[Failure] = []
    found = False
    for item in _read_samples(unit, images, cameras):
        if not found and isinstance(item, Failure) and item.reason == _MISSING_CAMERA:
            lacking.append(item)
            continue
        if not found and isinstance(item, Episode):
            found = True
            yield from lacking
        yield item
    if lacking and not found:
        yield Failure(scope="shard", shard=lacking[0].shard, reason=_MISSING_CAMERA, detail=lacking[0].detail)


def _read_samples(unit: Unit, images: bool, cameras: Sequence[str] | None) -> Iterator[Episode | Failure]:
    shard = Path(unit.shard).name
    seen: set[str] = set()
    sample: _Sample | None = None
    with Path(unit.shard).open("rb") as file:
        try:
            for member in _walk(file, unit):
                key, suffix = _split(member.name)
                if sample is None or sample.key != key:
                    if sample is not None:
                        done, sample = sample, None
                        yield _to_episode(done, cameras, shard, seen)
                    sample = _Sample(key)
                sample.add(member, suffix, file, images, cameras)
            if sample is not None:
                yield _to_episode(sample, cameras, shard, seen)
        except _BrokenTarError as error:
            within = "" if sample is None else f", in episode {sample.key!r}"
            # Our own samples end with their pictures: one with all of them is whole.
            if sample is not None and sample.record is not None and "features" in sample.record:
                item = _to_episode(sample, cameras, shard, seen)
                if isinstance(item, Episode):
                    yield item
                    within = f", after episode {sample.key!r}"
            detail = f"a tar file must be whole, got one that {error}{within}; the rest is lost: copy it again"
            yield Failure(scope="shard", shard=shard, reason="unreadable shard", detail=detail)
        except Exception as error:
            error.add_note(f"while reading {unit.shard}")
            raise


def read_webdataset_ids(unit: Unit) -> list[str]:
    """The ids of a unit's episodes in order, each once; up to the place where the file becomes unreadable."""
    ids: dict[str, None] = {}
    with Path(unit.shard).open("rb") as file:
        try:
            for member in _walk(file, unit):
                ids[_split(member.name)[0]] = None
        except _BrokenTarError:
            pass  # the read of the unit says so, as a Failure
    return list(ids)


def read_webdataset_features(unit: Unit) -> CorpusFeatures:
    """What a unit's corpus holds: as its first sample's JSON says, or as that sample does if another tool wrote it.

    Raises:
        ValueError: The tar has no episode that can be read, or its features are none.
    """
    failure = "it is empty"
    for item in read_webdataset(unit, images=False):
        if isinstance(item, Failure):
            failure = str(item)
            continue
        with Path(unit.shard).open("rb") as file:
            for member in _walk(file, unit):
                if member.name.removeprefix("./") == f"{item.episode_id}.json":
                    record = json.loads(_read(file, member, MAX_JSON_BYTES))
                    try:
                        return CorpusFeatures(**record["features"]) if "features" in record else CorpusFeatures.of(item)
                    except (TypeError, ValueError) as error:
                        detail = f"features must say what the corpus holds, got {record['features']!r} ({error})"
                        raise ValueError(f"{detail}; remove them from {member.name!r} in {unit.shard}") from error
    raise ValueError(f"a tar file must hold a readable episode, got none in {unit.shard} ({failure}); record it again")


class _BrokenTarError(Exception):
    """The tar cannot be walked further."""


class _InvalidError(ValueError):
    """A sample that is no episode, and the short class of reasons why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Sample:
    """The members of one episode, as they arrive; the first thing wrong is kept and the rest skipped."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.record: dict | None = None
        self.arrays: dict[str, np.ndarray] = {}
        self.pictures: dict[str, dict[int, bytes]] = {}
        self.problem: _InvalidError | None = None

    def add(
        self, member: tarfile.TarInfo, suffix: str, file: BinaryIO, images: bool, cameras: Sequence[str] | None
    ) -> None:
        if self.problem is None:
            try:
                self._take(member, suffix, file, images, cameras)
            except _InvalidError as problem:
                self.problem = problem
        if self.problem is not None and (match := _PICTURE.fullmatch(suffix)):  # lost with the rest, but counted
            self.pictures.setdefault(match["camera"], {}).setdefault(int(match["frame"]), b"")

    @property
    def num_frames(self) -> int:
        """As its JSON says, or as the pictures tell."""
        recorded = 0 if self.record is None else self.record["num_frames"]
        return max([recorded, *map(len, self.pictures.values())])

    def _take(
        self, member: tarfile.TarInfo, suffix: str, file: BinaryIO, images: bool, cameras: Sequence[str] | None
    ) -> None:
        if not member.isreg() or member.sparse is not None or "/" in self.key:
            kind = "in a folder" if member.isreg() else f"a link, device or other (tar type {member.type!r})"
            detail = f"a member must be a plain file, got {member.name!r}, {kind}; write the tar anew"
            raise _InvalidError("odd member", detail)
        if suffix == "json":
            self.record = _json(_read(file, member, MAX_JSON_BYTES), member.name)
        elif suffix in _ARRAYS:
            self.arrays[_ARRAYS[suffix]] = _array(_read(file, member, MAX_ARRAY_BYTES), member.name)
        elif match := _PICTURE.fullmatch(suffix):
            pictures = self.pictures.setdefault(match["camera"], {})
            frame = int(match["frame"])
            if frame in pictures:
                raise _InvalidError(
                    "duplicate frame", f"a frame must occur once, got {member.name!r} again; remove one"
                )
            wanted = images and (cameras is None or match["camera"] in cameras)
            pictures[frame] = _read(file, member, MAX_IMAGE_BYTES) if wanted else b""


def _members(features: CorpusFeatures, episode: Episode) -> Iterator[tuple[str, bytes]]:
    record: dict[str, object] = {
        "num_frames": episode.num_frames,
        "cameras": list(features.cameras),
        "time": TIME_CONVENTION,
        "features": dataclasses.asdict(features),
    }
    if episode.instruction is not None:
        record["instruction"] = episode.instruction
    if episode.achieved_goals is not None:
        record["achieved_goals"] = [list(goals) for goals in episode.achieved_goals]
    yield "json", json.dumps(record, ensure_ascii=False, sort_keys=True).encode()
    for suffix, name in _ARRAYS.items():
        values = getattr(episode, name)
        if values is not None:
            dtype: type = np.float32 if name in ("rewards", "states") or values.ndim == 2 else np.int64
            if name in _FLAGS:
                dtype = np.bool_
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(values, dtype), allow_pickle=False)
            yield suffix, buffer.getvalue()
    for camera in features.cameras:
        for frame, data in enumerate(episode.images[camera]):
            try:
                yield f"{camera}.{frame:06d}.{image_extension(data)}", data
            except ValueError as error:
                error.add_note(f"in frame {frame} of camera {camera!r} of episode {episode.episode_id!r}")
                raise


def _walk(file: BinaryIO, unit: Unit) -> Iterator[tarfile.TarInfo]:
    """Members of the unit in order, by their headers; their data is sought, not read."""
    file.seek(0, io.SEEK_END)
    size = file.tell()
    file.seek(unit.start)
    try:
        tar = tarfile.TarFile(fileobj=file, mode="r")
    except _HEADER_ERRORS as error:
        raise _BrokenTarError(f"has no readable header at byte {unit.start} ({error})") from error
    while True:
        try:
            member = tar.next()
        except _HEADER_ERRORS as error:
            raise _BrokenTarError(f"breaks at byte {tar.offset} ({error})") from error
        tar.members = []  # type: ignore[attr-defined]  # or it keeps a record of every member ever seen
        if member is None:
            break
        # tar.offset is now where the next header should be: after the data, where this member has some.
        if tar.offset > member.offset_data and member.offset_data + member.size > size:
            raise _BrokenTarError(f"ends within {member.name!r}")
        if not member.isdir():
            yield member
        if 0 <= unit.stop <= tar.offset:
            return
    # tarfile takes broken headers and missing ones for the end: only zeros to the end of the file are one.
    file.seek(tar.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE:
        raise _BrokenTarError(f"ends at byte {tar.offset} without a tar's end mark")
    while end:
        if end.strip(b"\0"):
            raise _BrokenTarError(f"has bytes that are no member after byte {tar.offset}")
        end = file.read(2**20)


def _split(name: str) -> tuple[str, str]:
    """A member's key and suffix, as WebDataset splits them: at the first dot of the file's name."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix


def _read(file: BinaryIO, member: tarfile.TarInfo, max_bytes: int) -> bytes:
    if member.size > max_bytes:
        raise _InvalidError(
            "oversized member",
            f"{member.name!r} must have at most {max_bytes} bytes, got {member.size}; split the episode",
        )
    file.seek(member.offset_data)
    return file.read(member.size)


def _json(data: bytes, name: str) -> dict:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        detail = f"{name!r} must be JSON, got {data[:40]!r} ({error}); record it again"
        raise _InvalidError("broken member", detail) from error
    count = record.get("num_frames") if isinstance(record, dict) else None
    cameras = record.get("cameras") if isinstance(record, dict) else None
    if not isinstance(count, int) or not isinstance(cameras, list) or not all(isinstance(c, str) for c in cameras):
        raise _InvalidError("broken member", f"{name!r} must hold num_frames and cameras, got {data[:80]!r}; add them")
    return record


def _array(data: bytes, name: str) -> np.ndarray:
    """Like np.load without pickles, but the size that the header claims is checked before it is believed."""
    try:
        buffer = io.BytesIO(data)
        version = np.lib.format.read_magic(buffer)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(buffer)
        if dtype.kind not in "biuf":
            raise ValueError(f"dtype {dtype} is not one of numbers")
        count = int(np.prod(shape, dtype=object))
        if count * dtype.itemsize != len(data) - buffer.tell():
            raise ValueError(f"{len(data) - buffer.tell()} bytes are not the {list(shape)} {dtype} of the header")
        values = np.frombuffer(data, dtype, count, buffer.tell())
        return values.reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, SyntaxError, EOFError, OverflowError, tokenize.TokenError) as error:
        detail = f"{name!r} must be a .npy array of numbers, got {data[:16]!r} ({error}); record it again"
        raise _InvalidError("broken member", detail) from error


def _to_episode(sample: _Sample, cameras: Sequence[str] | None, shard: str, seen: set[str]) -> Episode | Failure:
    def failure(reason: str, detail: str) -> Failure:
        return Failure(
            scope="episode",
            shard=shard,
            episode_id=sample.key,
            reason=reason,
            detail=detail,
            num_frames=sample.num_frames,
        )

    if sample.key in seen:
        detail = f"an episode_id must occur once, got {sample.key!r} again; rename or remove one"
        return failure("duplicate episode", detail)
    seen.add(sample.key)
    try:
        if sample.problem is not None:
            raise sample.problem
        return _assemble(sample, cameras, shard)
    except _InvalidError as problem:
        return failure(problem.reason, str(problem))
    except ValueError as error:
        return failure("invalid episode", str(error))
    except Exception as error:
        error.add_note(f"while reading episode {sample.key} of {shard}")
        raise


def _assemble(sample: _Sample, cameras: Sequence[str] | None, shard: str) -> Episode:
    record = sample.record
    if record is None:
        detail = f"an episode must have the member '{sample.key}.json', got none; record it again"
        raise _InvalidError("missing member", detail)
    chosen = record["cameras"] if cameras is None else list(cameras)
    for camera in chosen:
        if camera not in record["cameras"]:
            detail = (
                f"a camera must be one of {', '.join(record['cameras'])} in {shard}, got {camera!r}; read the shard by "
                "itself with its own camera, or leave it out"
            )
            raise _InvalidError(_MISSING_CAMERA, detail)
        frames = sample.pictures.get(camera, {})
        missing = next((i for i in range(record["num_frames"]) if i not in frames), None)
        if missing is not None or len(frames) != record["num_frames"]:
            what = f"no frame {missing}" if missing is not None else f"{len(frames)} frames"
            detail = f"camera {camera!r} must have frames 0 to {record['num_frames'] - 1}, got {what}; record it again"
            raise _InvalidError("missing frames", detail)
    achieved_goals = record.get("achieved_goals")
    if achieved_goals is not None and not (
        isinstance(achieved_goals, list) and all(isinstance(goals, list) for goals in achieved_goals)
    ):
        detail = f"achieved_goals must be a list a frame, got {str(achieved_goals)[:60]}; mend it"
        raise _InvalidError("broken member", detail)
    arrays = dict(sample.arrays)
    for name, values in arrays.items():
        if name == "actions" and values.ndim == 1 and values.dtype.kind in "iu":
            dtype: type = np.int64
        else:
            dtype = np.bool_ if name in _FLAGS else np.float32
        rank = 2 if name == "states" or (name == "actions" and dtype is np.float32) else 1
        if values.ndim != rank and not (rank == 2 and values.ndim == 1):
            detail = f"{name} must have {rank} axes, got {list(values.shape)}; mend the recording"
            raise _InvalidError("invalid episode", detail)
        arrays[name] = (values if values.ndim == rank else values[:, None]).astype(dtype)
    return Episode(
        episode_id=sample.key,
        images={camera: [sample.pictures[camera][i] for i in range(record["num_frames"])] for camera in chosen},
        instruction=record.get("instruction"),
        achieved_goals=achieved_goals,
        **arrays,
    )
