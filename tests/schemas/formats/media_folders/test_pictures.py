import io
import pickle

import fsspec
import numpy as np
import pytest
from PIL import Image
from small_corpora import frame, read_whole
from small_videos import numbered_frame, write_video

from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.formats.media_folders.pictures import in_order
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import encode_png


def picture(seed, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(frame(seed)).save(buffer, format=kind)
    return buffer.getvalue()


def write(folder, *names, kind="PNG"):
    found = {}
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        found[name] = picture(seed, kind)
        (folder / name).write_bytes(found[name])
    return found


def read(path, options=None, **wanted):
    corpus = open_corpus(path, options)
    return [item for unit in corpus.units() for item in read_whole(corpus.episodes(unit, **wanted))]


def test_each_folder_is_an_episode_in_the_order_of_its_numbers(tmp_path):
    found = write(tmp_path, "b/9.png", "b/10.png", "b/8.png", "a.x/y/step_001.webp")
    jpeg = write(tmp_path, "a.x/y/step_002.JPG", kind="JPEG")
    webp = write(tmp_path, "a.x/y/step_000.webp", kind="WEBP")
    (tmp_path / "b" / "notes.txt").write_text("")
    corpus = open_corpus(tmp_path)
    assert (corpus.format_name, corpus.features.cameras, corpus.features.has_instruction) == (
        "pictures",
        ("image",),
        False,
    )
    assert [entry.name for entry in corpus.passed_over] == ["b/notes.txt"]
    first, second = read(tmp_path)
    assert (first.episode_id, second.episode_id) == ("a.x/y", "b")
    assert first.images["image"] == [*webp.values(), found["a.x/y/step_001.webp"], *jpeg.values()]
    assert second.images["image"] == [found["b/8.png"], found["b/9.png"], found["b/10.png"]]
    assert (second.num_steps, second.actions) == (2, None)
    corpus.features.check(second)
    assert [corpus.episode_ids(unit) for unit in corpus.units()] == [["a.x/y"], ["b"]]
    assert [(unit.num_frames, unit.num_episodes) for unit in corpus.units()] == [(3, 1), (3, 1)]
    assert [len(item.images["image"]) for item in read(tmp_path, frames=False)] == [3, 3]
    assert len(list(pickle.loads(pickle.dumps(corpus)))) == 2


def test_pictures_of_the_folder_itself_are_an_episode_of_its_name(tmp_path):
    write(tmp_path / "mine", "1.png", "2.png")
    (episode,) = read(tmp_path / "mine")
    assert (episode.episode_id, episode.num_frames) == ("mine", 2)
    (single,) = read(tmp_path / "mine" / "2.png")
    assert (single.episode_id, single.num_frames) == ("mine", 1)


def test_a_folder_per_camera_is_said_by_an_option(tmp_path):
    found = write(tmp_path, "e/front/0.png", "e/front/1.png", "e/wrist/0.png", "e/wrist/1.png", "f/front/0.png")
    options = {"layout": "episode/camera/frame"}
    assert open_corpus(tmp_path, options).features.cameras == ("front", "wrist")
    first, second = read(tmp_path, options)
    assert first.images == {
        "front": [found["e/front/0.png"], found["e/front/1.png"]],
        "wrist": [found["e/wrist/0.png"], found["e/wrist/1.png"]],
    }
    assert second.images.keys() == {"front"}
    assert [len(item.images) for item in read(tmp_path, options, cameras=["front"])] == [1, 1]
    lacking = read(tmp_path, options, cameras=["wrist"])[1]
    assert (lacking.episode_id or lacking.shard, lacking.reason) == ("f/front/0.png", "missing camera")
    assert [episode.episode_id for episode in read(tmp_path)] == ["e/front", "e/wrist", "f/front"]
    with pytest.raises(ValueError, match="the option layout must be episode/frame or episode/camera/frame: got 'x'"):
        open_corpus(tmp_path, {"layout": "x"})
    write(tmp_path, "2.png")
    with pytest.raises(ValueError, match=r"each picture must lie in a folder for its camera: got 2.png in"):
        open_corpus(tmp_path, options)


def test_a_pattern_chooses_pictures_and_the_others_are_passed_over(tmp_path):
    write(tmp_path, "e/rgb_1.png", "e/rgb_2.png", "e/depth_1.png", "e/depth_2.png")
    (failure,) = read(tmp_path)
    assert failure.reason == "unclear order"
    assert "got e/depth_1.png and e/rgb_1.png. Choose pictures with the option pattern" in failure.detail
    (episode,) = read(tmp_path, {"pattern": "rgb_*"})
    assert episode.num_frames == 2
    assert [entry.name for entry in open_corpus(tmp_path, {"pattern": "rgb_*"}).passed_over] == [
        "e/depth_1.png",
        "e/depth_2.png",
    ]
    with pytest.raises(ValueError, match=r"must be a picture of the pattern 'x\*': got none in .*, but e/depth_1.png"):
        open_corpus(tmp_path, {"pattern": "x*"})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["f10", "f9", "f100"], ["f9", "f10", "f100"]),
        (["b", "a"], ["a", "b"]),  # no numbers: by name
        (["1_b", "0_a", "2_a"], ["0_a", "1_b", "2_a"]),
        (["00_640x480", "02_640x480", "01_640x480"], ["00_640x480", "01_640x480", "02_640x480"]),
        (["10", "0", "5"], ["0", "5", "10"]),  # every fifth frame
        (
            ["17.25", "17.31", "17.4", "18.01"],
            ["17.4", "17.25", "17.31", "18.01"],
        ),  # times are numbers with a dot between
        (["1" * 30, "2"], ["2", "1" * 30]),
        (["3", "1"], ["1", "3"]),  # too few to tell a beat
    ],
)
def test_the_order_is_that_of_the_numbers(names, expected):
    assert in_order([f"e/{name}.png" for name in names]) == [f"e/{name}.png" for name in expected]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0", "1", "2", "4"], "leave room for 5 frames, got 4: none lies between e/2.png and e/4.png"),
        (["00", "10", "20", "50"], "leave room for 6 frames, got 4: none lies between e/20.png and e/50.png"),
        (["1", "01"], "each frame must be one picture, got e/01.png and e/1.png"),
    ],
)
def test_names_that_are_in_no_order_are_refused(names, message):
    with pytest.raises(InvalidEpisodeError, match=message):
        in_order([f"e/{name}.png" for name in names])


def test_an_episode_with_a_gap_fails_alone(tmp_path):
    write(tmp_path, "a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png", "b/3.png", "b/4.png")
    episode, failure = read(tmp_path)
    assert (episode.episode_id, failure.episode_id, failure.reason) == ("a", "b", "missing frames")
    assert failure.num_frames == 4


def test_a_table_gives_instructions_by_picture_folder_or_id(tmp_path):
    write(tmp_path, "a/0.png", "a/1.png", "b/0.png", "c/0.png")
    (tmp_path / "metadata.csv").write_text(
        "file_name,episode_id,text,num_frames\na/0.png,,lift,2\na/1.png,,lift,\nb/,,push,\n,c,pull,2\na/7.png,,,\n,d,,\n"
    )
    items = read(tmp_path)
    assert [(item.shard, item.reason) for item in items[:2]] == [("a/7.png", "missing file"), ("d", "missing file")]
    first, second, third = items[2:]
    assert (first.instruction, second.instruction) == ("lift", "push")
    assert "c should have 2 frames by metadata.csv, line 5, got 1. Leave the episode out" in third.detail
    (tmp_path / "metadata.csv").write_text("file_name,text\na/0.png,lift\na/1.png,push\n")
    with pytest.raises(ValueError, match="must have one instruction: got 'lift' in metadata.csv, line 2 and 'push' in"):
        open_corpus(tmp_path)


def test_a_picture_that_was_removed_meanwhile_fails_its_episode(tmp_path):
    write(tmp_path, "a/0.png", "a/1.png")
    corpus = open_corpus(tmp_path)
    (unit,) = corpus.units()
    (tmp_path / "a" / "1.png").unlink()
    (failure,) = read_whole(corpus.episodes(unit))
    assert isinstance(failure, Failure)
    assert "a/1.png is not there any more" in failure.detail


def test_short_episodes_share_units_and_units_keep_their_names(tmp_path):
    write(tmp_path, *(f"e{episode}/{number}.png" for episode in range(20) for number in range(2)))
    corpus = open_corpus(tmp_path)
    (unit,) = corpus.units()
    assert (unit.num_episodes, unit.num_frames, len(unit.files)) == (20, 40, 40)
    assert unit.name.endswith("-e00020")
    assert len(corpus.units(1)) == 20
    assert [e.episode_id for e in read(tmp_path)] == corpus.episode_ids(unit) == sorted(f"e{n}" for n in range(20))


@pytest.mark.parametrize("kind", ["pictures", "videos"])
def test_folders_in_an_object_store_are_read(tmp_path, kind):
    if kind == "pictures":
        write(tmp_path, "a/0.png", "a/1.png")
    else:
        write_video(tmp_path / "a.mp4", [numbered_frame(number) for number in range(4)])
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{'a/0.png' if kind == 'pictures' else 'a.mp4'},lift\n")
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path), f"/{kind}", recursive=True)
    try:
        (remote,) = read(f"memory://{kind}")
    finally:
        files.rm(f"/{kind}", recursive=True)
    (local,) = read(tmp_path)
    assert (remote.episode_id, remote.instruction) == (local.episode_id, local.instruction) == ("a", "lift")
    for camera, frames in local.images.items():
        assert all(np.array_equal(one, other) for one, other in zip(frames, remote.images[camera], strict=True))


def test_pictures_beside_another_corpus_are_passed_over(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    (tmp_path / "figure.png").write_bytes(encode_png(frame(0)))
    with pytest.raises(ValueError, match="a corpus must have a readable shard"):
        open_corpus(tmp_path)
