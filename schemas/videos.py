"""Video files to frames, uint8 [H, W, 3]: each decoded once, in order, on one thread, and its frames counted.

    header          191 frames promised        VideoFrames    one file is one episode: as many frames as promised, or refused
    packets          I B B P B B P ... I B B
    decoded          0 1 2 3 4 5 6 ...         VideoCursor    several episodes in one file, one pass; begins at a keyframe

Neither the header nor the packets tell how many frames there are: an edit list hides some, a file cut short loses its end, a
frame that was dropped leaves a gap. Only decoding tells. Frames are found by their integer time stamps, never by seeking to
seconds. YUV is exact by its standard; RGB is what PyAV's swscale makes of it, so `decoder_versions` are part of what labels
depend on.
"""

import bisect
import contextlib
import functools
import itertools
import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, cast

import numpy as np

from vlm_rewards.schemas.files.pointers import MAX_POINTER_BYTES, pointer_kind_of
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.pictures import MAX_PIXELS

if TYPE_CHECKING:
    from av import FFmpegError, VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

_OF_THREAD = threading.local()
_MAX_BITS = 12  # of a channel: more are depth, or another measurement
_UNEVEN = 0.1  # of a beat: time stamps are rounded
MISSING_VIDEO = "missing video"
"""The reason of failures where there is no such file."""
_UNREADABLE = "unreadable video"
_MISSING = "missing frames"


class VideoFiles(Protocol):
    """Where videos are opened: a `schemas.formats.folder.Folder`, or what stands for one."""

    @property
    def is_local(self) -> bool:
        """Whether `path` is one that any library can open."""

    def path(self, name: str) -> str:
        """Returns the path of a video."""

    def open(self, name: str) -> BinaryIO:
        """Opens a video for reading, with seeking."""


class VideoFacts(NamedTuple):
    """Facts from a video's header; nothing is decoded.

    Attributes:
        codec: Name of its codec, such as "h264".
        width: Width of a frame in pixels, as it is stored.
        height: Height of a frame in pixels, as it is stored.
        num_frames: Number of frames that the header states, or else the number of its packets.
        rate: Average frames per second, if stated.
    """

    codec: str
    width: int
    height: int
    num_frames: int
    rate: Fraction | None


def decoder_versions() -> dict[str, str]:
    """Returns the versions of the libraries that decode videos to RGB, by name."""
    import av

    return {"av": av.__version__, "swscale": ".".join(map(str, av.library_versions["libswscale"]))}


def read_video_facts(folder: VideoFiles, name: str) -> VideoFacts:
    """Reads the facts of a video without decoding it.

    Args:
        folder: Folder that it lies in.
        name: Name of the video below the folder.

    Raises:
        InvalidEpisodeError: The file is missing, broken, not a video, or not from a camera: depth or grey.
    """
    with _OpenVideo(folder, name) as video:
        stream = video.stream
        count = stream.frames or sum(1 for packet in video.container.demux(stream) if packet.size)
        return VideoFacts(stream.codec.canonical_name, stream.width, stream.height, count, stream.average_rate)


class VideoFrames:
    """The frames of a video that is one episode: `schemas.episodes.Frames`.

    Its iterator raises InvalidEpisodeError where the video breaks off, holds another number of frames than it promises, or
    leaves out a frame of its even beat.

    Args:
        folder: Folder that the video lies in.
        name: Name of the video below the folder.
        num_frames: Frames it promises, from `read_video_facts`.
        turned: Whether frames are turned and mirrored as the video says, as players show them; phones rely on it.
    """

    def __init__(self, folder: VideoFiles, name: str, num_frames: int, *, turned: bool = True) -> None:
        self._folder = folder
        self._name = name
        self._num_frames = num_frames
        self._turned = turned

    def __len__(self) -> int:
        return self._num_frames

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        stamps: list[int] = []
        with _OpenVideo(self._folder, self._name) as video:
            try:
                for frame in video.frames():
                    pixels = to_pixels(self._name, frame)
                    yield _turned(self._name, pixels, frame) if self._turned else pixels
                    count += 1
                    if frame.pts is not None:
                        stamps.append(frame.pts)
            except InvalidEpisodeError as error:
                detail = f"{error}; it promises {self._num_frames} frames, and {count} were decoded before"
                raise InvalidEpisodeError(error.reason, detail) from error
        if count != self._num_frames:
            raise InvalidEpisodeError(
                _MISSING,
                f"{self._name} promises {self._num_frames} frames, got {count} (an edit list hides frames, or its end is "
                "missing). Encode the video anew or leave it out",
            )
        _check_beat(self._name, stamps)


class VideoCursor:
    """Finds frames by their times in videos that several episodes share: one pass over each file, best in order.

    Going on decodes on; frames that nobody asks for are decoded past, or skipped where two keyframes lie between. Going back
    begins again at the keyframe before. The same time gives the same frame, wherever the pass began.

    Args:
        folder: Folder that the videos lie in.
    """

    def __init__(self, folder: VideoFiles) -> None:
        self._folder = folder
        self._name = ""
        self._video: _OpenVideo | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._held: VideoFrame | None = None  # the frame that was decoded last; None at the end of the file
        self._least = math.inf  # time stamps from here on are found by decoding on from the frame held

    def find(self, name: str, seconds: float, tolerance: float) -> "VideoFrame | None":
        """Returns the frame of a time; None where the video has none.

        Args:
            name: Name of the video below the folder.
            seconds: Time stamp of the frame.
            tolerance: Seconds that its own time stamp may differ; less than half the time between two frames.

        Raises:
            InvalidEpisodeError: The video is missing or no camera's, or cannot be decoded at that place.
        """
        try:
            if self._video is None or name != self._name:
                self.close()
                self._name, self._video = name, _OpenVideo(self._folder, name)
            base = self._video.time_base
            low, high = math.ceil((seconds - tolerance) / base), math.floor((seconds + tolerance) / base)
            self._go_to(self._video, low)
        except InvalidEpisodeError:
            self.close()  # the next episode begins anew, at its own keyframe
            raise
        return self._held if self._held is not None and _stamp(name, self._held) <= high else None

    def close(self) -> None:
        """Closes the file."""
        if self._video is not None:
            self._video.close()
        self._name, self._video, self._frames, self._held, self._least = "", None, iter(()), None, math.inf

    def _go_to(self, video: "_OpenVideo", low: int) -> None:
        """Decodes until the frame held is the first whose time stamp is `low` or later."""
        if low < self._least or (self._held is not None and video.is_far(_stamp(self._name, self._held), low)):
            self._frames, self._least = video.frames_from(low)
            self._held = next(self._frames, None)
        while self._held is not None and _stamp(self._name, self._held) < low:
            self._least = _stamp(self._name, self._held) + 1
            self._held = next(self._frames, None)


def to_pixels(name: str, frame: "VideoFrame") -> np.ndarray:
    """Returns the pixels of a decoded frame, [H, W, 3] uint8 RGB.

    Args:
        name: Name of its video, for messages.
        frame: The frame.

    Raises:
        InvalidEpisodeError: Its bytes are damaged, so that the decoder made up a part of it.
    """
    if frame.is_corrupt:
        raise InvalidEpisodeError(
            _UNREADABLE, f"{name} is damaged at {frame.time} s: a part of that frame is missing. Copy it again"
        )
    pixels: np.ndarray = _converter().reformat(frame, format="rgb24", threads=1).to_ndarray()
    return pixels


def _converter() -> "VideoReformatter":
    """Returns this thread's own converter: what it has set up for one frame serves the next, to the same pixels."""
    from av.video.reformatter import VideoReformatter

    if not hasattr(_OF_THREAD, "converter"):
        _OF_THREAD.converter = VideoReformatter()
    return cast(VideoReformatter, _OF_THREAD.converter)


class _OpenVideo:
    """An open video file: one stream of pictures, decoded on one thread."""

    def __init__(self, folder: VideoFiles, name: str) -> None:
        self._folder = folder
        self._name = name
        self._open()

    def __enter__(self) -> "_OpenVideo":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self.container.close()

    @property
    def time_base(self) -> Fraction:
        """Seconds that a time stamp counts."""
        assert self.stream.time_base is not None
        return self.stream.time_base

    @functools.cached_property
    def _keyframes(self) -> list[int]:
        """Decoding time stamps of the keyframes, where the file lists them; never later than the frames' own."""
        return sorted(entry.timestamp for entry in self.stream.index_entries if entry.is_keyframe)

    def is_far(self, held: int, low: int) -> bool:
        """Returns whether beginning again for the time stamp `low` decodes no frame twice: two keyframes lie between."""
        return bisect.bisect_right(self._keyframes, low) - bisect.bisect_right(self._keyframes, held) > 1

    def frames(self) -> "Iterator[VideoFrame]":
        """Decodes on from where the file stands."""
        import av

        try:
            yield from self.container.decode(self.stream)
        except av.FFmpegError as error:
            with contextlib.suppress(av.FFmpegError):
                yield from self.stream.codec_context.decode(None)  # whole frames that it still holds
            detail = f"{self._name} cannot be decoded to its end ({error.strerror}): it is cut short or damaged. Copy it again"
            raise InvalidEpisodeError(_UNREADABLE, detail) from error

    def frames_from(self, low: int) -> "tuple[Iterator[VideoFrame], float]":
        """Decodes from the last keyframe that is not after the time stamp `low`.

        Returns:
            The frames, and the least time stamp from which on none is left out.
        """
        import av

        first = None
        if low > (self.stream.start_time or 0):
            try:
                self.container.seek(low, stream=self.stream)
                frames = self.frames()
                first = next(frames, None)
            except (av.FFmpegError, InvalidEpisodeError):  # there is no way to begin there
                first = None
        if first is not None and _stamp(self._name, first) <= low:
            return itertools.chain([first], frames), _stamp(self._name, first)
        self.close()
        self._open()
        return self.frames(), -math.inf

    def _open(self) -> None:
        import av

        path, name = self._folder.path(self._name), self._name
        try:
            source = f"file:{path}" if self._folder.is_local else self._folder.open(name)
            self.container = av.open(source, "r", metadata_errors="replace")  # titles in odd encodings are no matter
        except FileNotFoundError as error:
            raise InvalidEpisodeError(
                MISSING_VIDEO, f"there is no video {path}. Download it too, or leave it out"
            ) from error
        except av.FFmpegError as error:
            raise InvalidEpisodeError(_UNREADABLE, self._why_not(error)) from error
        try:
            self.stream = _picture_stream(name, self.container)
        except InvalidEpisodeError:
            self.container.close()
            raise
        self.stream.codec_context.thread_count = 1

    def _why_not(self, error: "FFmpegError") -> str:
        with self._folder.open(self._name) as file:
            head = file.read(MAX_POINTER_BYTES)
        if pointer_kind_of(head) is not None:
            return f"{self._name} is a {pointer_kind_of(head)} pointer, not the video itself. Run git lfs pull"
        if not head:
            return f"{self._name} is empty. Copy it again"
        return f"{self._name} is no video that can be opened ({error.strerror}): it is cut short or of another kind. Copy it again"


def _picture_stream(name: str, container: "InputContainer") -> "VideoStream":
    import av

    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise InvalidEpisodeError("no video", f"{name} holds no moving pictures. Leave it out")
    stream = streams[0]
    if stream.codec_context is None or stream.format is None:
        raise InvalidEpisodeError(
            "unknown codec",
            f"{name} is encoded in a way that PyAV cannot decode, or its header is damaged. Encode it as H.264 or AV1",
        )
    bits = max(component.bits for component in stream.format.components)
    if len(stream.format.components) < 3 or bits > _MAX_BITS:
        raise InvalidEpisodeError(
            "no colour video",
            f"a camera's video must have three colours of at most {_MAX_BITS} bits, got {name} of {stream.format.name}: depth, or "
            "grey. Convert it, or choose another camera",
        )
    if stream.width * stream.height > MAX_PIXELS:
        raise InvalidEpisodeError(
            "large video",
            f"a frame must have at most {MAX_PIXELS} pixels, got {stream.width} x {stream.height} in {name}. Scale it down",
        )
    return stream


def _stamp(name: str, frame: "VideoFrame") -> int:
    if frame.pts is None:
        raise InvalidEpisodeError(_UNREADABLE, f"{name} has frames without time stamps. Store it as mp4")
    return frame.pts


def _check_beat(name: str, stamps: Sequence[int]) -> None:
    """Refuses a video of an even beat with gaps of whole beats: frames were dropped. One of no even beat is left as it is."""
    steps = np.diff(stamps)
    if not steps.size:
        return
    beat, count = Counter(steps.tolist()).most_common(1)[0]
    beats = np.round(steps / max(beat, 1))
    if 2 * count <= steps.size or np.abs(steps / max(beat, 1) - beats).max() > _UNEVEN or beats.max() <= 1:
        return
    first = int(np.argmax(beats > 1))
    raise InvalidEpisodeError(
        _MISSING,
        f"{name} has time for {int(beats.sum()) + 1} frames, got {len(stamps)}: the first gap is after frame {first}. Encode the "
        "video anew at one rate, or leave it out",
    )


def _turned(name: str, pixels: np.ndarray, frame: "VideoFrame") -> np.ndarray:
    """Returns a frame as players show it: turned by quarters and mirrored by the matrix x' = ax + cy, y' = bx + dy of its video."""
    matrix = cast(bytes | None, frame.side_data.get("DISPLAYMATRIX"))  # a buffer, which PyAV's stubs do not say
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if (a or d) and (b or c):
        raise InvalidEpisodeError(
            "turned video", f"{name} is turned by less than a quarter ({frame.rotation} degrees). Encode it anew"
        )
    if b or c:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
