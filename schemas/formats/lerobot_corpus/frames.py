"""Reads the frames of one camera and episode of a LeRobot data set from a video that episodes may share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import VideoPlace
from vlm_rewards.schemas.formats.lerobot_corpus.info import INFO
from vlm_rewards.schemas.videos import MISSING_VIDEO, VideoCursor, to_pixels

if TYPE_CHECKING:
    from av import VideoFrame

_TOLERANCE = 0.45  # of the time between two frames
_TOO_FEW = "missing frames"


class EpisodeVideo:
    """Frames found by the times of their rows, as in LeRobot, which also ignores rotation in the video's header.

    Args:
        cursor: Cursor of the camera, which all episodes of a unit share.
        folder: The data set's folder.
        key: Feature of the camera.
        place: Place of the episode in the video.
        times: [T] float64, seconds of each row since the start of the episode.
        fps: Frames per second.
    """

    def __init__(
        self, cursor: VideoCursor, folder: Folder, key: str, place: VideoPlace, times: np.ndarray, fps: float
    ) -> None:
        self._cursor = cursor
        self._folder = folder
        self._key = key
        self._place = place
        self._times = times
        self._fps = fps

    def __len__(self) -> int:
        return len(self._times)

    def __iter__(self) -> Iterator[np.ndarray]:
        name, start, stop = self._place
        promised = len(self) if stop < 0 else round((stop - start) * self._fps)
        if promised < len(self):
            raise self._too_few(promised, f"from {start:.3f} s to {stop:.3f} s, as meta/episodes says")
        row = 0
        try:
            for row, time in enumerate(self._times.tolist()):
                frame = self._find(time)
                if frame is None:
                    found = row + sum(self._find(later) is not None for later in self._times[row + 1 :].tolist())
                    raise self._too_few(found, f"and none for row {row} at {start + time:.3f} s")
                yield to_pixels(name, frame)
        except InvalidEpisodeError as error:
            if error.reason == MISSING_VIDEO:
                raise InvalidEpisodeError(
                    MISSING_VIDEO, f"there is no video {self._folder.path(name)}{self._elsewhere()}"
                ) from error
            if error.reason == _TOO_FEW:
                raise
            detail = f"the episode has {len(self)} rows, and {row} frames were decoded before: {error}"
            raise InvalidEpisodeError(error.reason, detail) from error

    def _find(self, time: float) -> "VideoFrame | None":
        return self._cursor.find(self._place.name, self._place.start_s + time, _TOLERANCE / self._fps)

    def _too_few(self, found: int, where: str) -> InvalidEpisodeError:
        return InvalidEpisodeError(
            _TOO_FEW,
            f"an episode of {len(self)} rows must have as many frames of {self._key}, got {found} in {self._place.name} ({where}). "
            "Download the video again or leave the episode out",
        )

    def _elsewhere(self) -> str:
        """Describes where a video of that name is instead."""
        base = self._place.name.rpartition("/")[2]
        others = [file.name for file in self._folder.files if file.name.rpartition("/")[2] == base]
        likely = [name for name in others if self._key in name] or others
        if not likely:
            return ". Download it too, or leave it out"
        return f", where {INFO} says, but there is {likely[0]}. Correct video_path, or move the videos"
