"""What the frames of a corpus look like: sizes, and which are unreadable, black, or the same as the one before."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vlm_rewards.pipelines.engine.progress import Progress
from vlm_rewards.schemas.episodes import Episode, Frame, Frames
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, Corpus
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.pictures import decoded_frame

BLACK = 8
"""A frame is black where no value of it is greater: compressed black is not 0 everywhere."""
SAMPLED_UNITS = 8
SHOWN_FAILURES = 3
"""Frames of a camera that are named where they cannot be decoded; the others are counted."""
PROGRESS_INTERVAL_S = 30.0
"""Seconds between lines of progress where there is no terminal."""
_TRIED_FRAMES = 10


@dataclasses.dataclass
class CameraCounts:
    """What the frames of one camera look like.

    Args:
        sizes: Number of frames by (width, height).
        num_black: Number of frames that are black.
        num_repeated: Number of frames that are the same as the one before in their episode.
        num_unreadable: Number of frames that cannot be decoded.
    """

    sizes: Counter[tuple[int, int]] = dataclasses.field(default_factory=Counter)
    num_black: int = 0
    num_repeated: int = 0
    num_unreadable: int = 0

    @property
    def num_frames(self) -> int:
        """Number of frames that were decoded."""
        return self.sizes.total()


class Looked(NamedTuple):
    """What was seen of the frames.

    Attributes:
        cameras: Counts by camera.
        failures: Files and episodes that could not be read, and the first frames that could not be decoded.
    """

    cameras: Mapping[str, CameraCounts]
    failures: Sequence[Failure]


def look_at_all(corpus: Corpus, units: Iterable[Unit], num_frames: int) -> Looked:
    """Decodes every frame of every camera, and shows how far it is.

    Args:
        corpus: The corpus.
        units: Its units.
        num_frames: Frames of all cameras, about.
    """
    looked = _Look()
    with Progress("inspect", lambda: looked.num_decoded, num_frames, "frames", plain_interval_s=PROGRESS_INTERVAL_S):
        for unit in units:
            for item in corpus.episodes(unit, fields=()):
                looked.add(item)
    return looked.found()


def look_at_some(corpus: Corpus, units: Sequence[Unit]) -> Looked:
    """Decodes the first frame that can be read of an episode in each of some units, spread over the corpus."""
    looked = _Look(of_episode=1)
    chosen = np.unique(np.linspace(0, len(units) - 1, SAMPLED_UNITS).round().astype(int))
    for index in chosen.tolist():
        for item in corpus.episodes(units[index], fields=()):
            looked.add(item)
            if isinstance(item, Episode):
                break
    return looked.found()


class _Look:
    """Counts frames; of each episode and camera all, or the first that can be decoded."""

    def __init__(self, of_episode: int | None = None) -> None:
        self.num_decoded = 0  # read by the thread that shows progress
        self._of_episode = of_episode
        self._cameras: dict[str, CameraCounts] = {}
        self._failures: list[Failure] = []

    def found(self) -> Looked:
        return Looked(self._cameras, self._failures)

    def add(self, item: Episode | Failure) -> None:
        if isinstance(item, Failure):
            self._failures.append(item)
            return
        for camera, frames in item.images.items():
            counts = self._cameras.setdefault(camera, CameraCounts())
            try:
                self._add_frames(item, camera, frames, counts)
            except BrokenEpisodeError as error:
                self._failures.append(error.failure)

    def _add_frames(self, episode: Episode, camera: str, frames: Frames, counts: CameraCounts) -> None:
        tried = None if self._of_episode is None else _TRIED_FRAMES
        before: tuple[Frame, np.ndarray] | None = None
        num_read = 0
        for index, frame in enumerate(itertools.islice(frames, tried)):
            self.num_decoded += 1
            try:
                pixels = before[1] if before is not None and _is_same(frame, before[0]) else decoded_frame(frame)
            except ValueError as error:
                counts.num_unreadable += 1
                before = None
                if counts.num_unreadable <= SHOWN_FAILURES:
                    self._failures.append(_failure(episode, camera, index, error))
                continue
            counts.sizes[pixels.shape[1], pixels.shape[0]] += 1
            counts.num_black += bool(pixels.max() <= BLACK)
            counts.num_repeated += before is not None and np.array_equal(pixels, before[1])
            before = (frame, pixels)
            num_read += 1
            if num_read == self._of_episode:
                return


def _is_same(frame: Frame, other: Frame) -> bool:
    return isinstance(frame, bytes) and isinstance(other, bytes) and frame == other


def _failure(episode: Episode, camera: str, index: int, error: ValueError) -> Failure:
    return Failure(
        scope="frame",
        shard=episode.source,
        episode_id=episode.episode_id,
        frame_index=index,
        reason="undecodable image",
        detail=f"camera {camera}: {error}",
        num_frames=1,
    )
