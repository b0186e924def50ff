import dataclasses
import functools
import json
import pickle
import re

import pytest
from small_corpora import assert_same, plain_episode, read_whole, robot_episode

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats import corpus as corpus_module
from vlm_rewards.schemas.formats.corpus import (
    FORMATS,
    BrokenEpisodeError,
    Corpus,
    open_corpus,
    writable_format,
    write_episodes,
)
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import CorpusFormat, FoundEpisode, InvalidEpisodeError
from vlm_rewards.schemas.manifests import Failure, Unit

NAMES = [known.name for known in FORMATS if known.write is not None]


def plan_units(path, max_bytes=2**28):
    return open_corpus(path).units(max_bytes)


def _write(path, episodes, format_name="parquet"):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_episodes(path, CorpusFeatures.of(episodes[0]), episodes, format_name)


@pytest.mark.parametrize("make", [plain_episode, robot_episode, functools.partial(robot_episode, final_frame=True)])
def test_both_containers_hold_the_same_episodes(tmp_path, make):
    episodes = [make(i, num_steps=2 + i) for i in range(3)]
    for name in NAMES:
        _write(tmp_path / name / f"a.{writable_format(name).extension}", episodes, name)
        corpus = open_corpus(tmp_path / name)
        assert corpus.format_name == name
        (unit,) = corpus.units()
        assert unit.name == "a"
        for written, read in zip(episodes, read_whole(corpus.episodes(unit)), strict=True):
            assert_same(written, read)
            assert read.source == f"a.{writable_format(name).extension}"
        assert corpus.features == CorpusFeatures.of(episodes[0])
        assert corpus.episode_ids(unit) == [episode.episode_id for episode in episodes]
        unread = list(corpus.episodes(unit, cameras=["front"], frames=False))
        assert [{camera: len(frames) for camera, frames in e.images.items()} for e in unread] == [
            {"front": episode.num_frames} for episode in episodes
        ]
        with pytest.raises(AssertionError, match="these frames were not asked for"):
            list(unread[0].images["front"])


@pytest.mark.parametrize("format_name", NAMES)
@pytest.mark.parametrize("indices", [(0,), (0, 1), (1, 0)])
def test_an_episode_of_one_frame_keeps_the_width_of_its_actions(tmp_path, format_name, indices):
    episodes = [robot_episode(i, num_steps=4 * i, final_frame=True) for i in indices]  # number 0 has no step
    path = tmp_path / f"a.{writable_format(format_name).extension}"
    _write(path, episodes, format_name)
    corpus = open_corpus(path)
    (unit,) = corpus.units()
    read = read_whole(corpus.episodes(unit))
    for written, got in zip(episodes, read, strict=True):
        assert_same(written, got)
    assert read[indices.index(0)].actions.shape == (0, 3)
    assert corpus.features == CorpusFeatures.of(episodes[0])


@pytest.mark.parametrize("format_name", NAMES)
def test_a_shard_without_the_camera_is_a_failure_of_the_shard(tmp_path, format_name):
    path = tmp_path / f"a.{writable_format(format_name).extension}"
    _write(path, [robot_episode(i) for i in range(2)], format_name)
    (failure,) = open_corpus(path).episodes(*plan_units(path), cameras=["side"])
    assert (failure.scope, failure.shard, failure.reason) == ("shard", path.name, "missing camera")
    assert (failure.episode_id, failure.num_frames) == (None, 0)
    assert failure.detail == (
        f"a camera must be one of front, wrist in {path.name}, got 'side'; read the shard by itself with its own camera, "
        "or leave it out"
    )


@pytest.mark.parametrize("format_name", NAMES)
def test_units_of_a_large_shard_are_named_by_their_range(tmp_path, format_name):
    path = tmp_path / f"a.{writable_format(format_name).extension}"
    episodes = [plain_episode(i) for i in range(3)]
    _write(path, episodes, format_name)
    (whole,) = plan_units(path)
    assert (whole.name, whole.stop) == ("a", -1)
    units = plan_units(path, 1)
    assert len({unit.name for unit in units}) == len(units)
    assert all(re.fullmatch(r"a(-[bg][0-9-]+)?", unit.name) for unit in units)
    read = [episode for unit in units for episode in open_corpus(path).episodes(unit)]
    assert [e.episode_id for e in read] == [e.episode_id for e in episodes]


def test_unit_names_follow_from_paths_and_never_collide(tmp_path):
    for name in ("a.parquet", "b/a.parquet", "b-a.parquet", "c d.e.parquet", ".hidden.parquet", "_new/x.parquet"):
        _write(tmp_path / name, [plain_episode()])
    (tmp_path / "notes.txt").write_text("")
    names = [unit.name for unit in plan_units(tmp_path)]
    assert names[::2] == ["a", "b-a"]
    assert re.fullmatch(r"b-a-[0-9a-f]{8}", names[1])  # b/a.parquet
    assert re.fullmatch(r"c-d-e-[0-9a-f]{8}", names[3])
    assert len(names) == 4
    assert plan_units(tmp_path) == plan_units(tmp_path)
    (alone,) = plan_units(tmp_path / "b" / "a.parquet")
    assert alone.name == "a"


def test_two_units_of_one_name_are_refused(tmp_path):
    _write(tmp_path / "a.tar", [plain_episode(i) for i in range(2)], "webdataset")
    second = plan_units(tmp_path, 1)[1]
    _write(tmp_path / f"{second.name}.tar", [plain_episode(2)], "webdataset")
    with pytest.raises(ValueError, match=f"every unit must have a name of its own, got '{second.name}' twice"):
        plan_units(tmp_path, 1)


def test_a_replaced_shard_has_another_content(tmp_path):
    path = tmp_path / "a.parquet"
    _write(path, [plain_episode(0)])
    (before,) = plan_units(path)
    _write(path, [plain_episode(0)])
    assert plan_units(path) == [before]
    _write(path, [plain_episode(0, instruction="go to the ball 1")])
    assert plan_units(path)[0].content != before.content


def test_of_our_own_output_the_parts_are_read_once_it_is_finished(tmp_path):
    _write(tmp_path / "parts" / "x.parquet", [plain_episode()])
    (tmp_path / "settings.json").write_text(json.dumps({"kind": "corpus"}))
    with pytest.raises(
        ValueError, match=r"must be finished, got .*no manifest.json; run the command that made it again"
    ):
        plan_units(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    _write(tmp_path / "other" / "y.parquet", [plain_episode()])
    assert [unit.name for unit in plan_units(tmp_path)] == ["x"]


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a corpus must be a file or a folder, got .*nowhere, which is not there"):
        plan_units(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"a corpus must hold shards \(.parquet, .tar.*\), got none"):
        plan_units(tmp_path)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(ValueError, match=r"a shard's name must end with one of .parquet, .tar.*, got .*a.csv"):
        plan_units(tmp_path / "a.csv")
    _write(tmp_path / "a.parquet", [plain_episode()])
    _write(tmp_path / "b.tar", [plain_episode()], "webdataset")
    with pytest.raises(ValueError, match=r"a corpus must be of one format, got a.parquet and b.tar"):
        plan_units(tmp_path)
    with pytest.raises(ValueError, match="max_unit_bytes must be at least 1, got 0"):
        plan_units(tmp_path / "a.parquet", 0)


@pytest.mark.parametrize("format_name", NAMES)
def test_a_write_that_fails_leaves_no_file(tmp_path, format_name):
    def episodes():
        yield plain_episode(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_episodes(tmp_path / "a", CorpusFeatures.of(plain_episode()), episodes(), format_name)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a format must be one of parquet, webdataset, got 'hdf5'"):
        writable_format("hdf5")
    with pytest.raises(ValueError, match="a format must be one of"):
        write_episodes(tmp_path / "a", CorpusFeatures.of(plain_episode()), [], "hdf5")


@pytest.mark.parametrize("format_name", NAMES)
def test_an_unreadable_shard_is_planned_and_then_fails(tmp_path, format_name):
    extension = writable_format(format_name).extension
    _write(tmp_path / f"b.{extension}", [plain_episode()], format_name)
    (tmp_path / f"a.{extension}").write_bytes(b"nothing")
    corpus = open_corpus(tmp_path)
    unit, other = corpus.units(1)
    (failure,) = corpus.episodes(unit)
    assert isinstance(failure, Failure)
    assert (failure.scope, failure.shard) == ("shard", f"a.{extension}")
    assert corpus.episode_ids(unit) == []
    assert corpus.episode_ids(other) == ["episode-0000"]
    (tmp_path / f"b.{extension}").unlink()
    with pytest.raises(ValueError, match=r"must have a readable shard, got 1 that are not, the first being .*a\."):
        open_corpus(tmp_path)


def test_a_corpus_is_picklable_and_leaves_its_listing_behind(tmp_path):
    _write(tmp_path / "a.parquet", [plain_episode()])
    corpus = open_corpus(tmp_path)
    assert corpus.folder.files
    other = pickle.loads(pickle.dumps(corpus))
    assert "files" not in vars(other.folder)
    assert other == corpus
    assert_same(plain_episode(), *other.episodes(*corpus.units()))


class _Frames:
    def __init__(self, count, num_frames, error=None):
        self.count, self.num_frames, self.error = count, num_frames, error

    def __len__(self):
        return self.num_frames

    def __iter__(self):
        yield from [b"?"] * self.count
        if self.error is not None:
            raise self.error


@dataclasses.dataclass(frozen=True)
class _Reader:
    frames: _Frames

    @property
    def features(self):
        return CorpusFeatures(cameras=("front",))

    def units(self, max_bytes):
        return []

    def own_files(self):
        return ["toy.txt"]

    def episodes(self, unit, wanted):
        yield FoundEpisode("e", 3, "x.toy", lambda: Episode(episode_id="e", images={"front": self.frames}))

    def episode_ids(self, unit):
        return ["e", "e"]


@pytest.mark.parametrize(
    ("frames", "scope", "reason", "detail"),
    [
        (_Frames(2, 3), "episode", "missing frames", "an episode of 3 rows must have as many frames, got 2. Leave"),
        (_Frames(5, 3), "episode", "missing frames", "an episode of 3 rows must have as many frames, got 5. Leave"),
        (_Frames(1, 3, InvalidEpisodeError("cut video", "it ends")), "episode", "cut video", "it ends"),
        (_Frames(1, 3, InvalidEpisodeError("cut file", "it ends", scope="shard")), "shard", "cut file", "it ends"),
    ],
)
def test_frames_that_break_off_name_their_episode_and_file(tmp_path, frames, scope, reason, detail):
    corpus = Corpus(folder=Folder(str(tmp_path)), format_name="toy", options={}, reader=_Reader(frames))
    (episode,) = corpus.episodes(Unit(name="u"))
    with pytest.raises(BrokenEpisodeError, match=r"x\.toy") as caught:
        list(episode.images["front"])
    failure = caught.value.failure
    assert (failure.scope, failure.shard, failure.reason) == (scope, "x.toy", reason)
    assert detail in failure.detail
    assert (failure.episode_id, failure.num_frames) == (("e", 3) if scope == "episode" else (None, 0))
    assert corpus.episode_ids(Unit(name="u")) == ["e"]


def _toy(**changes):
    known = {"name": "toy", "recognizes": lambda folder: folder.has_file("toy.txt"), "open": _open_toy}
    return CorpusFormat(**{**known, **changes})


def _open_toy(folder, options):
    return _Reader(_Frames(1, 1))


def test_an_unknown_option_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "FORMATS", (*FORMATS, _toy(options={"channels": "order of the colours"})))
    (tmp_path / "toy.txt").write_text("")
    assert open_corpus(tmp_path, {"channels": "bgr"}).options == {"channels": "bgr"}
    with pytest.raises(
        ValueError, match=r"the format toy has no option 'chanels': its options are channels, picture-range\. Leave"
    ):
        open_corpus(tmp_path, {"chanels": "bgr"})
    _write(tmp_path / "b" / "a.parquet", [plain_episode()])
    with pytest.raises(
        ValueError, match="the format parquet has no option 'channels': its options are columns, picture-range"
    ):
        open_corpus(tmp_path / "b", {"channels": "bgr"})


def test_a_format_that_knows_the_layout_goes_before_endings_and_two_that_do_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "FORMATS", (*FORMATS, _toy()))
    _write(tmp_path / "a.parquet", [plain_episode()])
    assert open_corpus(tmp_path).format_name == "parquet"
    (tmp_path / "toy.txt").write_text("")
    assert open_corpus(tmp_path).format_name == "toy"
    monkeypatch.setattr(corpus_module, "FORMATS", (*FORMATS, _toy(), _toy(name="other")))
    with pytest.raises(ValueError, match="a corpus must be of one format, got toy and other in"):
        open_corpus(tmp_path)


def test_formats_of_other_packages_are_found_by_their_entry_points(tmp_path, monkeypatch):
    (tmp_path / "toy.txt").write_text("")
    monkeypatch.setattr(corpus_module, "load_extensions", lambda group: {"toy": _toy()})
    assert open_corpus(tmp_path).format_name == "toy"
    monkeypatch.setattr(corpus_module, "load_extensions", lambda group: {"toy": _toy(name="parquet")})
    with pytest.raises(ValueError, match="a format's name must be its own: got 'parquet' from the entry point 'toy'"):
        open_corpus(tmp_path)
    monkeypatch.setattr(corpus_module, "load_extensions", lambda group: {"toy": 3})
    with pytest.raises(ValueError, match=r"'vlm_rewards.formats' must be a CorpusFormat: got int for 'toy'"):
        open_corpus(tmp_path)
