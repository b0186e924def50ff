"""Reads the frames of a unit ahead of the model, in small groups, so that no episode is ever whole in memory.

corpus.episodes(unit) ──► frame_groups ──► Group, Group, ..., Ended, Group, ..., Failure, ... ──► read_ahead (thread) ──►
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple, TypeVar

from vlm_rewards.pipelines.engine.outputs import PartWriter
from vlm_rewards.schemas.episodes import IMAGE_PREFIX, Episode, Frame
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, Corpus
from vlm_rewards.schemas.manifests import Failure

_GROUP_FRAMES = 64
_GROUP_BYTES = 1 << 20
_GROUPS_AHEAD = 8
T = TypeVar("T")


class Group(NamedTuple):
    """Successive frames of an episode, the first of which is number `start`; `source` is the file they are from."""

    episode_id: str
    source: str
    start: int
    frames: list[Frame]


class Ended(NamedTuple):
    """The end of an episode; `failure` says why where its frames broke off, and all of it is invalid."""

    episode_id: str
    failure: Failure | None


def choose_camera(corpus: Corpus, camera: str | None) -> str:
    """The camera to label: the one asked for, by its name or that of its column, or the only one.

    Raises:
        ValueError: The corpus does not have it, or has several and none was asked for.
    """
    cameras = corpus.features.cameras
    if camera is None and len(cameras) > 1:
        raise ValueError(
            f"a camera must be chosen where there are several, got {', '.join(cameras)}; give --camera NAME"
        )
    if camera is not None and camera not in cameras and camera.removeprefix(IMAGE_PREFIX) in cameras:
        return camera.removeprefix(IMAGE_PREFIX)
    if camera is not None and camera not in cameras:
        raise ValueError(
            f"the camera must be one of the corpus's ({', '.join(cameras)}), got {camera!r}; give --camera NAME"
        )
    return camera or cameras[0]


def frame_groups(episodes: Iterable[Episode | Failure], camera: str) -> Iterator[Group | Ended | Failure]:
    """Turns episodes into groups of frames of about a megabyte at most."""
    for episode in episodes:
        if isinstance(episode, Failure):
            yield episode
            continue
        start, num_bytes = 0, 0
        frames: list[Frame] = []
        failure = None
        try:
            for frame in episode.images[camera]:
                frames.append(frame)
                num_bytes += len(frame) if isinstance(frame, bytes) else frame.nbytes
                if num_bytes >= _GROUP_BYTES or len(frames) == _GROUP_FRAMES:
                    yield Group(episode.episode_id, episode.source, start, frames)
                    start, num_bytes, frames = start + len(frames), 0, []
        except BrokenEpisodeError as error:
            failure = error.failure
        if frames and failure is None:
            yield Group(episode.episode_id, episode.source, start, frames)
        yield Ended(episode.episode_id, failure)


def read_ahead(
    read: Callable[[], Iterator[T]], part: PartWriter, ahead: int = _GROUPS_AHEAD
) -> Generator[T, None, None]:
    """Runs a reader in a thread of its own, a few items ahead; its errors are raised here.

    Args:
        read: Starts the reader.
        part: Part that collects the time spent waiting.
        ahead: Items that may wait.
    """
    items: queue.Queue = queue.Queue(maxsize=ahead)
    stop = threading.Event()
    end = object()

    def put(item: object) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=0.1)
                return True
        return False

    def run() -> None:
        try:
            for item in read():
                if not put(item):
                    return
            put(end)
        except BaseException as error:  # handed to the thread that consumes the items
            put(error)

    thread = threading.Thread(target=run, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            with part.timing("wait for reading"):
                item = items.get()
            if item is end:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
