"""Small files share units; what is large, few or recorded by us keeps a unit per file."""

import json

import pytest
from small_corpora import assert_same, plain_episode, read_whole

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import FORMATS, open_corpus, writable_format, write_episodes
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.units import file_ranges, file_stem, share_units, units_to_compare
from vlm_rewards.schemas.manifests import Failure, Unit

NAMES = [known.name for known in FORMATS if known.write is not None]


def units_of(frames, num_bytes=1000):
    return [
        Unit(name=f"u{number}", files=(f"u{number}.x",), num_frames=count, num_bytes=num_bytes)
        for number, count in enumerate(frames)
    ]


def test_small_units_are_joined_until_they_hold_1024_frames(tmp_path):
    joined = share_units(Folder(str(tmp_path)), units_of([200] * 17), 2**28)
    assert [(unit.name, len(unit.files), unit.num_frames, unit.num_bytes) for unit in joined] == [
        ("u0-f00006", 6, 1200, 6000),
        ("u6-f00006", 6, 1200, 6000),
        ("u12-f00005", 5, 1000, 5000),
    ]
    assert joined[1].files == tuple(f"u{number}.x" for number in range(6, 12))


def test_large_units_stay_alone_and_keep_their_names(tmp_path):
    frames = [10] * 8 + [256] + [10] * 8 + [5000]
    joined = share_units(Folder(str(tmp_path)), units_of(frames), 2**28)
    assert [(unit.name, len(unit.files)) for unit in joined] == [
        ("u0-f00008", 8),
        ("u8", 1),
        ("u9-f00008", 8),
        ("u17", 1),
    ]


def test_units_are_not_joined_beyond_the_largest_size(tmp_path):
    joined = share_units(Folder(str(tmp_path)), units_of([10] * 20, num_bytes=300), 1000)
    assert [len(unit.files) for unit in joined] == [3, 3, 3, 3, 3, 3, 2]


def test_where_frames_are_not_known_bytes_tell(tmp_path):
    joined = share_units(Folder(str(tmp_path)), units_of([None] * 20, num_bytes=2**20 - 1), 2**28)
    assert [len(unit.files) for unit in joined] == [17, 3]  # the seventeenth reaches 16 MiB
    assert {unit.num_frames for unit in joined} == {None}
    large = units_of([None] * 20, num_bytes=2**20)
    assert share_units(Folder(str(tmp_path)), large, 2**28) == large


def test_few_files_and_what_we_recorded_keep_a_unit_per_file(tmp_path):
    few = units_of([1] * 16)
    assert share_units(Folder(str(tmp_path)), few, 2**28) == few
    many = units_of([1] * 17)
    assert len(share_units(Folder(str(tmp_path)), many, 2**28)) == 1
    (tmp_path / "settings.json").write_text("{}")
    assert share_units(Folder(str(tmp_path)), many, 2**28) == many
    (tmp_path / "parts").mkdir()
    assert share_units(Folder(str(tmp_path / "parts")), many, 2**28) == many


def test_ranges_of_files_that_meet_within_a_file_become_one(tmp_path):
    cut = [Unit(name=f"u{i}", files=(f"{i}", f"{i + 1}"), start=3, stop=3, num_frames=10) for i in range(17)]
    (joined,) = share_units(Folder(str(tmp_path)), cut, 2**28)
    assert joined.files == tuple(str(i) for i in range(18))
    assert list(file_ranges(joined))[:2] == [("0", 3, -1), ("1", 0, -1)]
    assert list(file_ranges(joined))[-1] == ("17", 0, 3)


def test_stems_are_file_names_and_told_apart():
    assert file_stem("parts/episodes-000000-000020.parquet") == "episodes-000000-000020"
    assert file_stem("a b.tar") != file_stem("a?b.tar")
    assert file_stem("a b.tar").startswith("a-b-")


@pytest.mark.parametrize("format_name", NAMES)
def test_a_unit_of_many_files_gives_their_episodes_and_names_the_file_that_is_broken(tmp_path, format_name):
    ending = writable_format(format_name).extension
    episodes = [plain_episode(index, 3) for index in range(20)]
    for index, episode in enumerate(episodes):
        write_episodes(tmp_path / f"e{index:02d}.{ending}", CorpusFeatures.of(episode), [episode], format_name)
    corpus = open_corpus(tmp_path)
    (unit,) = corpus.units()
    assert (unit.name, len(unit.files)) == ("e00-f00020", 20)
    for written, read in zip(episodes, read_whole(corpus.episodes(unit)), strict=True):
        assert_same(written, read)
    (tmp_path / f"e07.{ending}").write_bytes(b"nothing")
    assert corpus.units()[0].content != unit.content
    items = list(corpus.episodes(corpus.units()[-1]))
    assert [item.shard for item in items if isinstance(item, Failure)] == [f"e07.{ending}"]
    assert corpus.episode_ids(unit) == [e.episode_id for i, e in enumerate(episodes) if i != 7]


def test_what_record_wrote_has_a_unit_per_part(tmp_path):
    for index in range(20):
        episode = plain_episode(index, 3)
        path = tmp_path / "parts" / f"e{index:02d}.parquet"
        path.parent.mkdir(exist_ok=True)
        write_episodes(path, CorpusFeatures.of(episode), [episode], "parquet")
    (tmp_path / "settings.json").write_text(json.dumps({"kind": "corpus"}))
    (tmp_path / "manifest.json").write_text("{}")
    names = [f"e{index:02d}" for index in range(20)]
    assert [unit.name for unit in open_corpus(tmp_path).units()] == names
    assert [unit.name for unit in open_corpus(tmp_path / "parts").units()] == names


def test_units_whose_ids_cannot_meet_need_no_comparison():
    def unit(name, *bounds):
        return Unit(name=name, id_bounds=bounds or None)

    assert units_to_compare([unit("a", "e0", "e4"), unit("b", "e5", "e9")]) == []
    touching = [unit("a", "e0", "e5"), unit("b", "e5", "e7"), unit("c", "e8", "e9")]
    assert [found.name for found in units_to_compare(touching)] == ["a", "b"]
    within = [unit("a", "e0", "e9"), unit("b", "e1", "e2"), unit("c", "e3", "e4"), unit("d", "f", "f")]
    assert [found.name for found in units_to_compare(within)] == ["a", "b", "c"]
    for unknown in (unit("x"), unit("x", 3, 4)):  # not known, or numbers among texts
        assert units_to_compare([unit("a", "e0", "e4"), unknown]) == [unit("a"), unit("x")]
    assert units_to_compare([]) == []


def test_bounds_of_ids_are_not_kept_in_markers():
    assert "id_bounds" not in Unit(name="a", id_bounds=("a", "b")).to_json()
    assert Unit(name="a", id_bounds=("a", "b")) == Unit(name="a")
