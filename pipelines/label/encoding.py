"""Turns the frames of a unit into embeddings, in order and in full batches.

    frames, read ahead ─► digest ─┬─ seen before: reuse its embedding ───────────────────────┐
                                   └─ new: decode, resize (threads) ─► encode (full batches) ─┴─► rows

Batches run across episodes; an identical frame is encoded once, by the digest of its bytes or pixels. An encoder that looks at
windows of frames gets one window per frame, and none is known before.
"""

import contextlib
import ctypes
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache, FrameLookup, Slot, frame_digest
from vlm_rewards.labelers.encoders.frame_windows import FrameWindows
from vlm_rewards.labelers.scoring.windows import EpisodeScorer
from vlm_rewards.pipelines.engine.outputs import PartWriter
from vlm_rewards.pipelines.label.reading import Ended, Group
from vlm_rewards.schemas.episodes import Frame
from vlm_rewards.schemas.formats.interface import SCATTERED
from vlm_rewards.schemas.formats.label_parts.writer import Rows
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import decoded_frame

_DECODE_GROUP = 16
_CHUNK_BATCHES = 16  # rows of a chunk at most, in batches: frames that are all known must not pile up
_CHUNKS_PER_TRIM = 8


class FrameLabeler(Protocol):
    """What labels the frames of a unit: a process's own labeler, or a part of one whose model runs in another process."""

    @property
    def cache(self) -> EmbeddingCache: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def dim(self) -> int: ...

    def frame_buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays `[B, S, S, 3]` uint8 for the resized frames of a unit: one is embedded while the other one is filled."""
        ...

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """See `labelers.labeler.Labeler.resize`."""
        ...

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """See `labelers.labeler.Labeler.embed`."""
        ...

    def episodes(self) -> EpisodeScorer:
        """See `labelers.labeler.Labeler.episodes`."""
        ...


class _Frame(NamedTuple):
    episode_id: str
    frame_index: int
    source: str
    slot: Slot


@dataclasses.dataclass
class _Chunk:
    pixels: np.ndarray  # of the new frames
    frames: list[_Frame] = dataclasses.field(default_factory=list)
    new: list[_Frame] = dataclasses.field(default_factory=list)
    decoding: list[Future] = dataclasses.field(default_factory=list)


def encode_unit(
    labeler: FrameLabeler, groups: Iterable[Group | Ended | Failure], part: PartWriter, broken: set[str]
) -> Generator[Rows, None, None]:
    """Embeds all frames of the episodes, in order, in full batches.

    Args:
        labeler: What labels the frames.
        groups: Items of `pipelines.label.reading.frame_groups`.
        part: Part that collects failures, times and counts.
        broken: Set that collects ids of episodes that fail after some of their rows, since they break off or go on elsewhere in the
            unit: those rows must be dropped.

    Yields:
        Rows, at least one each time.
    """
    batch = labeler.batch_size
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode") as pool:
        window = labeler.window
        lookup, windows = FrameLookup(labeler.cache if window == 1 else None), FrameWindows(window)
        with contextlib.closing(_chunks(labeler, lookup, groups, part, broken, pool, batch)) as chunks:
            waiting: _Chunk | None = None
            for number, chunk in enumerate(chunks):  # the next chunk decodes while this one is encoded
                if waiting is not None:
                    yield from _embed_chunk(labeler, lookup, windows, waiting, part)
                if number % _CHUNKS_PER_TRIM == 0:
                    _give_memory_back()
                waiting = chunk
            if waiting is not None:
                yield from _embed_chunk(labeler, lookup, windows, waiting, part)


def _give_memory_back() -> None:
    """Returns freed memory to the system, where the C library is glibc: it keeps more of it the longer threads come and go."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _chunks(
    labeler: FrameLabeler,
    lookup: FrameLookup,
    groups: Iterable[Group | Ended | Failure],
    part: PartWriter,
    broken: set[str],
    pool: ThreadPoolExecutor,
    batch: int,
) -> Generator[_Chunk, None, None]:
    buffers = itertools.cycle(labeler.frame_buffers())
    chunk = _Chunk(next(buffers))
    undecoded: list[Frame] = []
    of_pictures = labeler.window == 1
    ended: set[str] = set()

    def submit() -> None:
        if undecoded:
            into = chunk.pixels[len(chunk.new) - len(undecoded) : len(chunk.new)]
            chunk.decoding.append(pool.submit(_decode, labeler.resize, tuple(undecoded), into))
            undecoded.clear()

    for group in groups:
        if isinstance(group, Failure):
            part.fail(group)
            if group.reason == SCATTERED and group.episode_id in ended:
                ended.discard(group.episode_id)  # what was taken for the whole episode fails with the rest
                broken.add(group.episode_id)
                part.episodes -= 1
            continue
        if isinstance(group, Ended):
            if group.failure is None:
                part.episodes += 1
                ended.add(group.episode_id)
            else:
                part.fail(group.failure)
                broken.add(group.episode_id)
            continue
        for frame_index, data in enumerate(group.frames, group.start):
            slot, is_new = lookup.find(frame_digest(data)) if of_pictures else (Slot(b"", None), True)
            frame = _Frame(group.episode_id, frame_index, group.source, slot)
            chunk.frames.append(frame)
            if is_new:
                chunk.new.append(frame)
                undecoded.append(data)
                if len(undecoded) == _DECODE_GROUP:
                    submit()
            if len(chunk.new) == batch or len(chunk.frames) == batch * _CHUNK_BATCHES:
                submit()
                yield chunk
                lookup.forget_all_but(frame.slot for frame in chunk.new)  # the chunk before is encoded by now
                chunk = _Chunk(next(buffers))  # that of the chunk before
    submit()
    if chunk.frames:
        yield chunk


def _decode(resize: Callable[[np.ndarray], np.ndarray], images: Sequence[Frame], into: np.ndarray) -> list[str | None]:
    """Decodes and resizes frames into rows of an array; returns what is wrong with each, None where nothing is."""
    errors: list[str | None] = []
    for data, row in zip(images, into, strict=True):
        try:
            row[...] = resize(decoded_frame(data, writable=False))  # copied once, to where the encoder reads it
        except ValueError as error:  # recorded as a failure of this frame, by _embed_chunk
            errors.append(str(error))
        else:
            errors.append(None)
    return errors


def _embed_chunk(
    labeler: FrameLabeler, lookup: FrameLookup, windows: FrameWindows, chunk: _Chunk, part: PartWriter
) -> Iterator[Rows]:
    with part.timing("wait for decoding"):
        errors = [error for future in chunk.decoding for error in future.result()]
    decoded = []
    for index, (frame, error) in enumerate(zip(chunk.new, errors, strict=True)):
        frame.slot.error = error
        if error is None:
            decoded.append(index)
    if decoded:
        if labeler.window > 1:
            pixels = np.stack(
                [windows.push(chunk.new[index].episode_id, chunk.pixels[index].copy()) for index in decoded]
            )
        else:
            pixels = chunk.pixels[: len(decoded)]
            if len(decoded) < len(errors):
                pixels[...] = chunk.pixels[decoded]
        with part.timing("encode"):
            embeddings = labeler.embed(pixels)
        lookup.fill([chunk.new[index].slot for index in decoded], embeddings)
    part.counts["encoded_frames"] += len(decoded)
    part.counts["cached_frames"] += len(chunk.frames) - len(chunk.new)
    rows = []
    for frame in chunk.frames:
        if frame.slot.error is not None:
            part.fail(
                Failure(
                    scope="frame",
                    shard=frame.source,
                    episode_id=frame.episode_id,
                    frame_index=frame.frame_index,
                    reason="undecodable image",
                    detail=frame.slot.error,
                ),
                num_rows=1,
            )
        else:
            rows.append(frame)
    if rows:
        yield Rows(
            [frame.episode_id for frame in rows],
            [frame.frame_index for frame in rows],
            np.stack([frame.slot.embedding for frame in rows if frame.slot.embedding is not None]),
        )
