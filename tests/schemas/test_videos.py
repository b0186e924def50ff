"""Videos: every frame once and in order, from wherever a pass begins; what is missing is told with both numbers."""

import contextlib
import functools
import itertools
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from small_videos import AV1, H264, OPEN_GOP, copy_packets, number_of, numbered_frame, plain_frames, write_video

from vlm_rewards.schemas import videos
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.videos import VideoCursor, VideoFrames, decoder_versions, read_video_facts, to_pixels

NUM_FRAMES = 40
CODECS = pytest.mark.parametrize("codec", [H264, OPEN_GOP, AV1], ids=["h264", "open-gop", "av1"])


@functools.cache
def frames() -> list[np.ndarray]:
    return [numbered_frame(number) for number in range(NUM_FRAMES)]


def read(folder: Path, name: str, **options: bool) -> list[np.ndarray]:
    opened = Folder(str(folder))
    return list(VideoFrames(opened, name, read_video_facts(opened, name).num_frames, **options))


def test_facts_are_those_of_the_header(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames(), AV1)
    assert read_video_facts(Folder(str(tmp_path)), "a.mp4") == ("av1", 64, 32, NUM_FRAMES, 10)


def test_frames_are_counted_by_packets_where_the_header_has_no_number(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", frames())
    assert read_video_facts(Folder(str(tmp_path)), "a.mkv").num_frames == NUM_FRAMES
    assert len(read(tmp_path, "a.mkv")) == NUM_FRAMES


@CODECS
def test_every_frame_is_decoded_once_in_order(tmp_path: Path, codec: tuple) -> None:
    write_video(tmp_path / "a.mp4", frames(), codec)
    decoded = read(tmp_path, "a.mp4")
    assert [number_of(frame) for frame in decoded] == list(range(NUM_FRAMES))
    assert all(frame.dtype == np.uint8 and frame.shape == (32, 64, 3) for frame in decoded)


def test_videos_of_other_sizes_and_codecs_that_are_read_by_turns_keep_their_pixels(tmp_path: Path) -> None:
    wide = [frame.repeat(2, axis=1) for frame in frames()[:9]]
    paths = [
        write_video(tmp_path / "a.mp4", frames()[:9]),
        write_video(tmp_path / "b.mp4", wide, AV1),
        write_video(tmp_path / "c.mp4", wide),
    ]
    opened = Folder(str(tmp_path))
    by_turns = zip(*(VideoFrames(opened, path.name, 9) for path in paths), strict=True)
    for decoded, expected in zip(by_turns, zip(*map(plain_frames, paths), strict=True), strict=True):
        for mine, theirs in zip(decoded, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_video_may_be_iterated_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames()[:5])
    video = VideoFrames(Folder(str(tmp_path)), "a.mp4", 5)
    assert len(video) == 5
    assert [number_of(frame) for frame in video] == [number_of(frame) for frame in video] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_frames_are_turned_as_players_show_them(tmp_path: Path, rotation: int, turns: int) -> None:
    stored = write_video(tmp_path / "a.mp4", frames()[1:4], rotation=rotation)
    # FFmpeg's rotation counts against the clock, as numpy's rot90 does.
    expected = [np.rot90(frame, turns) for frame in plain_frames(stored)]
    np.testing.assert_array_equal(read(tmp_path, "a.mp4"), expected)
    np.testing.assert_array_equal(read(tmp_path, "a.mp4", turned=False), plain_frames(stored))


def test_a_mirrored_video_is_mirrored(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames()[1:4], rotation=180)
    expected = [frame[:, ::-1] for frame in plain_frames(path)]
    data = path.read_bytes()
    minus, one = ((65536 * sign).to_bytes(4, "big", signed=True) for sign in (-1, 1))
    turned = minus + bytes(12) + minus
    assert data.count(turned) == 1
    path.write_bytes(data.replace(turned, minus + bytes(12) + one))  # x' = -x, y' = y
    np.testing.assert_array_equal(read(tmp_path, "a.mp4"), expected)


def test_a_video_that_is_turned_by_less_than_a_quarter_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames()[:3], rotation=30)
    with pytest.raises(InvalidEpisodeError, match=r"a.mp4 is turned by less than a quarter \(\d\d degrees\)"):
        read(tmp_path, "a.mp4")


def test_a_dropped_frame_is_told_with_both_numbers(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", frames())
    copy_packets(whole, tmp_path / "a.mp4", kept=[number for number in range(NUM_FRAMES) if number != 7])
    with pytest.raises(
        InvalidEpisodeError, match="a.mp4 has time for 40 frames, got 39: the first gap is after frame 6"
    ):
        read(tmp_path, "a.mp4")


def test_a_video_of_no_even_beat_is_read(tmp_path: Path) -> None:
    stamps = list(itertools.accumulate([10 + (3 * number) % 7 for number in range(20)]))
    write_video(tmp_path / "a.mp4", frames()[:20], stamps=stamps, fps=300)
    assert [number_of(frame) for frame in read(tmp_path, "a.mp4")] == list(range(20))


def test_frames_hidden_by_an_edit_list_are_told_with_both_numbers(tmp_path: Path) -> None:
    copy_packets(write_video(tmp_path / "whole.mp4", frames()), tmp_path / "a.mp4", shift=5)
    with pytest.raises(InvalidEpisodeError, match="a.mp4 promises 40 frames, got 35"):
        read(tmp_path, "a.mp4")


@CODECS
def test_a_video_cut_short_is_told_with_both_numbers(tmp_path: Path, codec: tuple) -> None:
    data = write_video(tmp_path / "a.mp4", frames(), codec).read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) - 300])
    with pytest.raises(InvalidEpisodeError, match=r"promises 40 frames, (and|got) [1-3]?\d\b"):
        read(tmp_path, "a.mp4")


def test_a_damaged_frame_is_refused_and_not_made_up(tmp_path: Path) -> None:
    noise = [np.random.default_rng(number).integers(0, 256, (32, 64, 3), np.uint8) for number in range(12)]
    path = write_video(tmp_path / "a.mp4", noise)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][5]
    data = bytearray(path.read_bytes())
    start, size = packet.pos, packet.size
    data[start + size // 3 : start + size] = bytes(255 for _ in range(size - size // 3))
    path.write_bytes(data)
    with pytest.raises(InvalidEpisodeError, match="a.mp4 (is damaged at|cannot be decoded)"):
        read(tmp_path, "a.mp4")


@CODECS
def test_a_pass_that_begins_anywhere_finds_the_frames_of_an_unsplit_one(tmp_path: Path, codec: tuple) -> None:
    expected = plain_frames(write_video(tmp_path / "a.mp4", frames(), codec))
    for start in range(NUM_FRAMES):
        cursor = VideoCursor(Folder(str(tmp_path)))
        for number in range(start, min(start + 3, NUM_FRAMES)):
            found = cursor.find("a.mp4", number / 10, 0.04)
            assert found is not None
            np.testing.assert_array_equal(to_pixels("a.mp4", found), expected[number])
        cursor.close()


def test_one_pass_decodes_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", frames())
    decoded = []
    decode = videos._OpenVideo.frames
    monkeypatch.setattr(
        videos._OpenVideo, "frames", lambda video: (decoded.append(frame.pts) or frame for frame in decode(video))
    )
    cursor = VideoCursor(Folder(str(tmp_path)))
    for number in [*range(5), *range(7, 12), 14, 14, *range(35, 40)]:  # from 14 on, two keyframes can be skipped
        found = cursor.find("a.mp4", number / 10, 0.04)
        assert found is not None
        assert number_of(to_pixels("a.mp4", found)) == number
    beat = decoded[1] - decoded[0]
    assert [stamp // beat for stamp in decoded] == [*range(15), *range(32, 40)]


def test_a_video_is_never_whole_in_memory(tmp_path: Path) -> None:
    still = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    write_video(tmp_path / "a.mp4", itertools.repeat(still, 200))
    tracemalloc.start()
    count = sum(1 for _ in VideoFrames(Folder(str(tmp_path)), "a.mp4", 200))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200
    assert peak < 10 * still.nbytes


def test_going_back_begins_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames())
    cursor = VideoCursor(Folder(str(tmp_path)))
    for number in [30, 3, 39, 38, 0, 17]:
        found = cursor.find("a.mp4", number / 10, 0.04)
        assert found is not None
        assert number_of(to_pixels("a.mp4", found)) == number


def test_a_time_without_a_frame_finds_none(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames()[:20], stamps=[*range(10), *range(11, 21)])
    cursor = VideoCursor(Folder(str(tmp_path)))
    assert cursor.find("a.mp4", 1.0, 0.04) is None  # beat 10 was left out
    after = cursor.find("a.mp4", 1.1, 0.04)
    assert after is not None
    assert number_of(to_pixels("a.mp4", after)) == 10
    assert cursor.find("a.mp4", 2.1, 0.04) is None  # past the end
    assert cursor.find("a.mp4", 2.0, 0.04) is not None


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.avi"])
def test_containers_that_seek_elsewhere_give_the_same_frames(tmp_path: Path, name: str) -> None:
    expected = plain_frames(write_video(tmp_path / name, frames(), ("libx264", {"x264-params": "keyint=8:bframes=0"})))
    with av.open(str(tmp_path / name)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    for number in (21, 39, 5, 30, 31):
        cursor = VideoCursor(Folder(str(tmp_path)))
        found = cursor.find(name, times[number], 0.04)
        assert found is not None
        np.testing.assert_array_equal(to_pixels(name, found), expected[number])
        cursor.close()


def test_frames_without_time_stamps_are_refused_where_times_are_asked_for(tmp_path: Path) -> None:
    write_video(tmp_path / "a.h264", frames()[:4])
    with pytest.raises(InvalidEpisodeError, match="a.h264 has frames without time stamps. Store it as mp4"):
        VideoCursor(Folder(str(tmp_path))).find("a.h264", 0.0, 0.04)


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
def test_grey_and_depth_are_no_camera(tmp_path: Path, pix_fmt: str) -> None:
    depth = [np.full((32, 64), 1000 * number, np.uint16) for number in range(3)]
    write_video(tmp_path / "a.mkv", depth, ("ffv1", {}), pix_fmt=pix_fmt)
    with pytest.raises(InvalidEpisodeError, match=f"got a.mkv of {pix_fmt}: depth, or grey"):
        read_video_facts(Folder(str(tmp_path)), "a.mkv")


def test_deep_colours_are_no_camera(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", frames()[:3], ("ffv1", {}), pix_fmt="yuv420p16le")
    with pytest.raises(InvalidEpisodeError, match="three colours of at most 12 bits, got a.mkv of yuv420p16le"):
        read_video_facts(Folder(str(tmp_path)), "a.mkv")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
            "a.mp4 is a Git LFS pointer, .* git lfs pull",
        ),
        (b"", "a.mp4 is empty. Copy it again"),
        (b"no video" * 50, r"a.mp4 is no video that can be opened \(Invalid data found"),
    ],
    ids=["pointer", "empty", "text"],
)
def test_what_is_no_video_says_what_it_is(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InvalidEpisodeError, match=match):
        read_video_facts(Folder(str(tmp_path)), "a.mp4")


def test_a_missing_video_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidEpisodeError, match=f"there is no video {tmp_path}/a.mp4. Download it too"):
        read_video_facts(Folder(str(tmp_path)), "a.mp4")


def test_a_file_of_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(InvalidEpisodeError, match="a.mp4 holds no moving pictures. Leave it out"):
        read_video_facts(Folder(str(tmp_path)), "a.mp4")


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames()[:3])
    data = path.read_bytes()
    assert data.count(b"avc1") >= 1
    path.write_bytes(data.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(
        InvalidEpisodeError,
        match="a.mp4 is encoded in a way that PyAV cannot decode, or its header is damaged. Encode it",
    ):
        read_video_facts(Folder(str(tmp_path)), "a.mp4")


def test_a_video_too_large_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", frames()[:3])
    monkeypatch.setattr(videos, "MAX_PIXELS", 1000)
    with pytest.raises(InvalidEpisodeError, match="at most 1000 pixels, got 64 x 32 in a.mp4. Scale it down"):
        read_video_facts(Folder(str(tmp_path)), "a.mp4")


def test_a_remote_folder_is_read_through_fsspec(tmp_path: Path) -> None:
    import fsspec

    data = write_video(tmp_path / "a.mp4", frames()).read_bytes()
    fsspec.filesystem("memory").pipe("/videos-of-a-store/a.mp4", data)
    remote = Folder("memory://videos-of-a-store")
    assert [number_of(frame) for frame in VideoFrames(remote, "a.mp4", NUM_FRAMES)] == list(range(NUM_FRAMES))
    with pytest.raises(InvalidEpisodeError, match="there is no video memory://videos-of-a-store/b.mp4"):
        read_video_facts(remote, "b.mp4")


def test_versions_name_what_makes_rgb() -> None:
    versions = decoder_versions()
    assert versions["av"] == av.__version__
    assert versions["swscale"].count(".") == 2


@CODECS
def test_broken_bytes_fail_the_episode_and_raise_nothing_else(tmp_path: Path, codec: tuple) -> None:
    data = write_video(tmp_path / "a.mp4", frames()[:24], codec).read_bytes()
    folder, rng, failed = Folder(str(tmp_path)), np.random.default_rng(0), 0
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            broken[place] ^= 1 << rng.integers(8)
        (tmp_path / "a.mp4").write_bytes(broken)
        try:
            read(tmp_path, "a.mp4")
        except InvalidEpisodeError:
            failed += 1
        cursor = VideoCursor(folder)
        for number in (5, 17, 3):
            with contextlib.suppress(InvalidEpisodeError):
                cursor.find("a.mp4", number / 10, 0.04)
    assert failed > 0


def test_a_title_in_an_odd_encoding_is_no_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames()[:3])
    data = path.read_bytes()
    assert data.count(b"Lavf") == 1
    path.write_bytes(data.replace(b"Lavf", b"L\xefvf"))
    assert len(read(tmp_path, "a.mp4")) == 3
