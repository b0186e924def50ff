"""Tars of others whose frames are in videos: a member per camera of an episode's sample."""

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from labelled_corpora import write_labels_of
from small_corpora import frame, read_whole
from small_videos import number_of, numbered_frame, write_video

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.webdataset_others.videos import TarVideo
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import encode_png
from vlm_rewards.schemas.videos import decoder_versions


def video(folder: Path, numbers: range, ending: str = "mp4", **given: Any) -> bytes:
    path = write_video(folder / f"video.{ending}", map(numbered_frame, numbers), **given)
    data = path.read_bytes()
    path.unlink()
    return data


def array(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def write(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def episode_members(folder: Path, key: str, first: int, count: int) -> dict[str, bytes]:
    return {
        f"{key}.front.mp4": video(folder, range(first, first + count)),
        f"{key}.wrist.mkv": video(folder, range(100 + first, 100 + first + count), "mkv"),
        f"{key}.actions.npy": array(np.full((count, 2), first, np.float32)),
        f"{key}.json": json.dumps({"instruction": "lift"}).encode(),
    }


def read(path: Path, options: dict[str, str] | None = None, **wanted: Any) -> list:
    corpus = open_corpus(path, options)
    return [item for unit in corpus.units() for item in read_whole(corpus.episodes(unit, **wanted))]


def test_videos_are_cameras_of_an_episodes_sample(tmp_path: Path) -> None:
    write(tmp_path / "c/a.tar", episode_members(tmp_path, "ep0", 0, 12) | episode_members(tmp_path, "ep1", 20, 5))
    write(tmp_path / "c/b.tar", episode_members(tmp_path, "x/ep2", 40, 3))
    corpus = open_corpus(tmp_path / "c")
    assert (corpus.format_name, corpus.features.cameras) == ("webdataset", ("front", "wrist"))
    assert (corpus.features.action_size, corpus.features.missing_frame) == (2, "last")
    assert corpus.notes == (
        "members are read by the names in the first tar: video={episode}.{camera}.*, action={episode}.actions.npy, "
        "instruction={episode}.json:instruction; options of these names say otherwise",
    )
    assert corpus.decoders("wrist") == decoder_versions()
    found = read(tmp_path / "c")
    assert [(e.episode_id, e.num_frames, e.num_steps) for e in found] == [
        ("ep0", 12, 12),
        ("ep1", 5, 5),
        ("x/ep2", 3, 3),
    ]
    for episode, first in zip(found, (0, 20, 40), strict=True):
        for camera, start in (("front", first), ("wrist", 100 + first)):
            numbers = [number_of(pixels) for pixels in episode.images[camera]]
            assert numbers == list(range(start, start + episode.num_frames))
        assert (episode.instruction, episode.actions[0, 0]) == ("lift", first)
    (bare, *_) = read(tmp_path / "c", fields=(), frames=False, cameras=["wrist"])
    assert (bare.actions, {camera: len(frames) for camera, frames in bare.images.items()}) == (None, {"wrist": 12})
    assert len([item for item in pickle.loads(pickle.dumps(corpus)) if isinstance(item, Episode)]) == 3


def test_one_video_per_sample_has_no_name_of_a_camera(tmp_path: Path) -> None:
    write(tmp_path / "c/a.tar", {"ep0.mp4": video(tmp_path, range(4)), "ep1.mp4": video(tmp_path, range(4, 9))})
    corpus = open_corpus(tmp_path / "c")
    assert corpus.features.cameras == ("video",)
    assert [[number_of(f) for f in e.images["video"]] for e in read(tmp_path / "c")] == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]
    assert read(tmp_path / "c")[0].actions is None


def test_videos_that_webdataset_packed_are_read(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with webdataset.TarWriter(str(tmp_path / "c/a.tar")) as tar:
        tar.write({"__key__": "ep0", "front.mp4": video(tmp_path, range(4)), "json": {"task": "push"}})
    (episode,) = read(tmp_path / "c")
    assert (episode.instruction, [number_of(f) for f in episode.images["front"]]) == ("push", [0, 1, 2, 3])


def test_videos_beside_pictures_are_read_where_the_option_says_so(tmp_path: Path) -> None:
    pictures = {f"ep0.frame_{number}.png": encode_png(frame(number)) for number in range(3)}
    write(tmp_path / "c/a.tar", pictures | {"ep0.side.mp4": video(tmp_path, range(3))})
    corpus = open_corpus(tmp_path / "c")
    assert corpus.features.cameras == ("image",)
    assert corpus.notes[1:] == (
        "videos beside pictures are not read (ep0.side.mp4): the option video makes them cameras",
    )
    told = open_corpus(tmp_path / "c", {"video": "{episode}.{camera}.mp4"})
    assert told.features.cameras == ("image", "side")
    assert (told.decoders("image"), told.decoders("side")) == ({}, decoder_versions())
    assert told.notes == ()
    (episode,) = read(tmp_path / "c", {"video": "{episode}.{camera}.mp4"})
    assert [number_of(pixels) for pixels in episode.images["side"]] == [0, 1, 2]
    assert len(list(episode.images["image"])) == 3


def test_videos_that_break_off_or_are_none_fail_their_episode(tmp_path: Path) -> None:
    whole = video(tmp_path, range(40))
    members = {"ep0.front.mp4": whole[: len(whole) * 2 // 3], "ep1.front.mp4": b"no video", "ep2.front.mp4": whole}
    write(tmp_path / "c/a.tar", members)
    first, second, third = read(tmp_path / "c")
    assert (first.episode_id, first.reason) == ("ep0", "unreadable video")
    assert "it promises 40 frames, and " in first.detail
    assert (second.episode_id, second.reason) == ("ep1", "unreadable video")
    assert "ep1.front.mp4 is no video that can be opened" in second.detail
    assert [number_of(pixels) for pixels in third.images["front"]] == list(range(40))


def test_a_camera_of_two_videos_and_a_linked_one_are_refused(tmp_path: Path) -> None:
    one = video(tmp_path, range(3))
    write(
        tmp_path / "c/a.tar",
        {"ep0.front.mp4": one, "ep0.front.mkv": video(tmp_path, range(3), "mkv"), "ep1.front.mp4": one},
    )
    failure, _ = read(tmp_path / "c")
    assert failure.detail == "a video must occur once, got ep0.front.mkv again. Remove one"
    with tarfile.open(tmp_path / "c/a.tar", "a") as tar:
        link = tarfile.TarInfo("ep2.front.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "ep1.front.mp4"
        tar.addfile(link)
    assert "ep2.front.mp4 must be a plain file, got a link" in read(tmp_path / "c")[2].detail


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "{episode}_{frame}.mp4",
            "a pattern of videos must be without {frame}: got .* Remove it, as a video holds all",
        ),
        (
            "{episode}.rgb.mp4",
            "videos must have names like .*: got ep0.front.mp4 in .*a.tar. Give another option video",
        ),
    ],
)
def test_an_option_that_fits_no_video_is_refused(option: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "c/a.tar", {"ep0.front.mp4": video(tmp_path, range(2))})
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path / "c", {"video": option})


def test_labels_go_back_into_tars_with_videos(tmp_path: Path) -> None:
    members = episode_members(tmp_path, "ep0", 0, 4)
    corpus = write(tmp_path / "c/a.tar", members).parent
    holds = np.array([[False], [True], [False], [True]])
    labels = write_labels_of(tmp_path / "labels", corpus, {"ep0": holds}, goals=(Goal("cup", "the cup is up"),))
    export(corpus, labels, to="webdataset", goal="cup", output=tmp_path / "out")
    with tarfile.open(tmp_path / "out/a.tar") as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert {name: found[name] for name in members} == members
    assert np.load(io.BytesIO(found["ep0.vlm_success.npy"])).tolist() == [False, True, False, True]


def test_the_place_of_a_video_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"....0123456789....")
    place = TarVideo(Folder(str(tmp_path)), "a.tar", 4, 10)
    assert (place.is_local, place.path("v.mp4")) == (False, f"{tmp_path / 'a.tar'}:v.mp4")
    with place.open("v.mp4") as file:
        assert file.readable()
        assert file.read(3) == b"012"
        assert (file.seek(-2, io.SEEK_END), file.tell()) == (8, 8)
        assert file.read() == b"89"
        assert (file.seek(1), file.seek(2, io.SEEK_CUR)) == (1, 3)
        assert file.read(4) == b"3456"
