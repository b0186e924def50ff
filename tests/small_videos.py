"""Small videos for tests: frames that tell their number even after lossy encoding, and files that are damaged in known ways."""

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

H264 = ("libx264", {"x264-params": "bframes=2:keyint=8:min-keyint=8:scenecut=0"})
"""With B-frames: frames are decoded in another order than they are shown in."""
OPEN_GOP = ("libx264", {"x264-params": "bframes=3:keyint=8:min-keyint=8:open-gop=1:scenecut=0"})
AV1 = ("libsvtav1", {"g": "8", "preset": "10", "svtav1-params": "lp=1"})
_BITS = 8


def numbered_frame(number: int, height: int = 32, width: int = 64) -> np.ndarray:
    """A frame of eight upright stripes, dark or light: the bits of its number."""
    bits = (number >> np.arange(_BITS)) & 1
    row = np.repeat(40 + 160 * bits, width // _BITS).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    """The number that a frame was made of."""
    stripes = frame.mean((0, 2)).reshape(_BITS, -1).mean(1) > 120
    return int((stripes * (1 << np.arange(_BITS))).sum())


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: tuple[str, dict[str, str]] = H264,
    *,
    fps: int = 10,
    stamps: Sequence[int] | None = None,
    rotation: int = 0,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Writes a video with PyAV.

    Args:
        path: The file; its index lies at the head of an mp4, so that one cut short still opens.
        frames: Its frames, [H, W, 3] uint8, or [H, W] uint16; read one at a time.
        codec: Name of the encoder, and its options.
        fps: Frames per second.
        stamps: Number of the frame's beat by frame; 0, 1, 2, ... by default.
        rotation: What its header says of turning, in degrees.
        pix_fmt: Its pixel format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec[0], rate=fps, options=codec[1])
        pixels = iter(frames)
        first = next(pixels)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        for index, shown in enumerate(itertools.chain([first], pixels)):
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24" if shown.ndim == 3 else "gray16le")
            frame.pts, frame.time_base = (index if stamps is None else stamps[index]), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copy_packets(source: Path, target: Path, kept: Sequence[int] | None = None, shift: int = 0) -> Path:
    """Copies a video without decoding it, as cutting tools do: some of its packets, or begun in the middle by an edit list.

    Args:
        source: The video.
        target: The copy.
        kept: Numbers of the packets to keep, in the order of decoding; all by default.
        shift: Beats by which all time stamps are moved back: what lies before 0 is hidden by an edit list.
    """
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = read.streams.video[0]
        beat = round(1 / stream.average_rate / stream.time_base)
        copy = written.add_stream_from_template(stream)
        packets = [packet for packet in read.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            if kept is None or number in kept:
                packet.pts -= shift * beat
                packet.dts -= shift * beat
                packet.stream = copy
                written.mux(packet)
    return target


def plain_frames(path: Path) -> list[np.ndarray]:
    """All frames of a video as PyAV decodes them from its start."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
