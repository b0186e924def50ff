import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_corpora import assert_same, frame, opened, plain_episode, read_file, robot_episode, whole_file

from vlm_rewards.schemas.episodes import METADATA_KEY, CorpusFeatures, Episode, UnreadFrames
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.parquet_corpus import pictures as parquet_pictures
from vlm_rewards.schemas.formats.parquet_corpus import reader as parquet_reader
from vlm_rewards.schemas.formats.parquet_corpus import writer as parquet_writer
from vlm_rewards.schemas.formats.parquet_corpus.columns import ParquetFiles
from vlm_rewards.schemas.formats.parquet_corpus.pictures import OpenFiles
from vlm_rewards.schemas.formats.parquet_corpus.planning import plan_files
from vlm_rewards.schemas.formats.parquet_corpus.reader import read_file_features
from vlm_rewards.schemas.formats.parquet_corpus.writer import write_parquet
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.pictures import encode_png


def _write(path, episodes):
    write_parquet(path, CorpusFeatures.of(episodes[0]), episodes)
    return path


def plan(path, max_bytes):
    folder = Folder(str(path.parent), only=path.name)
    return plan_files(ParquetFiles(folder), folder.files, max_bytes)


def features_of(path):
    return read_file_features(ParquetFiles(Folder(str(path.parent), only=path.name)), path.name)


def ids_of(path, unit=None):
    return opened(path).episode_ids(unit or whole_file(path))


def _rewrite(path, change, **options):
    """Writes the table anew as another tool would: without our metadata, and changed."""
    table = change(pq.read_table(path)).replace_schema_metadata(None)
    pq.write_table(table, path, **options)


def _set(table, name, values, dtype=None):
    array = pa.array(values, dtype or table.schema.field(name).type)
    return table.set_column(table.schema.get_field_index(name), name, array)


def test_what_is_written_is_read_back(tmp_path):
    episodes = [plain_episode(i, num_steps=3 + i) for i in range(4)]
    path = _write(tmp_path / "a.parquet", episodes)
    for written, read in zip(episodes, read_file(path), strict=True):
        assert_same(written, read)
    assert features_of(path) == CorpusFeatures.of(episodes[0])
    assert ids_of(path) == [episode.episode_id for episode in episodes]


def test_cameras_states_continuous_actions_and_no_final_frame(tmp_path):
    episodes = [robot_episode(i, final_frame=i == 1) for i in range(3)]
    path = _write(tmp_path / "a.parquet", episodes)
    for written, read in zip(episodes, read_file(path), strict=True):
        assert_same(written, read)
        assert read.has_final_frame == written.has_final_frame
    (first, *_) = read_file(path, cameras=["wrist"])
    assert dict(first.images) == {"wrist": list(episodes[0].images["wrist"])}


def test_frames_without_actions(tmp_path):
    bare = plain_episode(
        actions=None, rewards=None, terminations=None, truncations=None, instruction=None, achieved_goals=None
    )
    assert_same(bare, *read_file(_write(tmp_path / "a.parquet", [bare])))


def test_an_episode_of_one_frame(tmp_path):
    single = plain_episode(num_steps=0)
    assert_same(single, *read_file(_write(tmp_path / "a.parquet", [single])))


def test_the_same_episodes_give_the_same_bytes(tmp_path):
    episodes = [plain_episode(i) for i in range(3)]
    _write(tmp_path / "a.parquet", episodes)
    _write(tmp_path / "b.parquet", iter(episodes) and episodes)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_datasets_sees_images(tmp_path):
    episodes = [robot_episode(i) for i in range(2)]
    path = _write(tmp_path / "a.parquet", episodes)
    table = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert table.features["observation.images.front"] == datasets.Image()
    assert table.features["observation.images.wrist"] == datasets.Image()
    np.testing.assert_array_equal(np.array(table[6]["observation.images.wrist"]), frame(7 + 1 + 1000))
    np.testing.assert_array_equal(np.float32(table[6]["action"]), episodes[1].actions[1])


def test_pyarrow_sees_rows_and_the_convention_of_time(tmp_path):
    episode = plain_episode(num_steps=2)
    path = _write(tmp_path / "a.parquet", [episode])
    table = pyarrow.dataset.dataset(path).to_table()
    assert table.column("frame_index").to_pylist() == [0, 1, 2]
    # Two steps and three frames: the last row is the final frame, in which nothing was done.
    assert table.column("action").to_pylist() == [*episode.actions.tolist(), None]
    assert table.column("reward").to_pylist() == [*episode.rewards.tolist(), None]
    assert table.column("terminated").to_pylist() == [False, True, None]
    assert b"the frame after the action" in table.schema.metadata[METADATA_KEY]


def test_pictures_can_be_left_unread(tmp_path):
    episode = plain_episode()
    (read,) = read_file(_write(tmp_path / "a.parquet", [episode]), frames=False)
    assert read.images == {"front": UnreadFrames(episode.num_frames)}
    np.testing.assert_array_equal(read.actions, episode.actions)


def test_an_episode_that_is_not_of_the_corpus_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold what its corpus holds, got other cameras"):
        write_parquet(tmp_path / "a.parquet", CorpusFeatures.of(plain_episode()), [robot_episode()])


def test_large_episodes_span_row_groups_and_small_ones_share_them(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_writer, "ROW_GROUP_ROWS", 4)
    episodes = [plain_episode(0, num_steps=9), plain_episode(1, num_steps=1), plain_episode(2, num_steps=1)]
    path = _write(tmp_path / "a.parquet", episodes)
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 4, 2]
    for written, read in zip(episodes, read_file(path), strict=True):
        assert_same(written, read)


@pytest.mark.parametrize("row_group_size", [1, 4, 7, 1000])
@pytest.mark.parametrize("batch_bytes", [1, 1000, 10**9])
def test_row_groups_and_batches_of_any_size_give_the_same_episodes(tmp_path, monkeypatch, row_group_size, batch_bytes):
    monkeypatch.setattr(parquet_pictures, "BATCH_BYTES", batch_bytes)
    episodes = [plain_episode(i, num_steps=2 + i) for i in range(4)]
    path = _write(tmp_path / "a.parquet", episodes)
    _rewrite(path, lambda table: table, row_group_size=row_group_size)
    for written, read in zip(episodes, read_file(path), strict=True):
        assert_same(written, read)


def test_units_are_cut_only_between_episodes(tmp_path):
    episodes = [plain_episode(i, num_steps=5) for i in range(6)]  # 6 rows each
    path = _write(tmp_path / "a.parquet", episodes)
    _rewrite(path, lambda table: table, row_group_size=4)  # 9 groups; a cut is right only after 12, 24, 36 rows
    units = plan(path, 1)
    assert [(u.start, u.stop, u.num_frames) for u in units] == [(0, 12, 12), (12, 24, 12), (24, -1, 12)]
    assert len({u.name for u in units}) == 3
    read = [episode for u in units for episode in read_file(path, u)]
    for written, episode in zip(episodes, read, strict=True):
        assert_same(written, episode)
    assert ids_of(path, units[1]) == ["episode-0002", "episode-0003"]


def test_without_statistics_or_need_a_file_is_one_unit(tmp_path):
    path = _write(tmp_path / "a.parquet", [plain_episode(i) for i in range(4)])
    assert [(u.start, u.stop, u.num_frames) for u in plan(path, 2**30)] == [(0, -1, 24)]
    _rewrite(path, lambda table: table, row_group_size=6, write_statistics=False)
    assert len(plan(path, 1)) == 1


def _foreign(table):
    """Large types, lists of any length, doubles, pictures as plain bytes, ids as numbers, columns that we do not know."""
    ids = [int(text[-4:]) for text in table.column("episode_id").to_pylist()]
    pictures = [row["bytes"] for row in table.column("observation.images.front").to_pylist()]
    table = _set(table, "episode_id", ids, pa.int64())
    table = _set(table, "observation.images.front", pictures, pa.large_binary())
    table = _set(table, "observation.state", table.column("observation.state").to_pylist(), pa.list_(pa.float64()))
    table = _set(table, "action", table.column("action").to_pylist(), pa.large_list(pa.float64()))
    return table.append_column("comment", pa.array(["?"] * len(table), pa.large_string()))


def test_files_of_other_writers(tmp_path):
    episodes = [robot_episode(i) for i in range(2)]
    path = _write(tmp_path / "a.parquet", episodes)
    _rewrite(path, _foreign)
    assert features_of(path) == CorpusFeatures.of(episodes[0])
    for written, read in zip(episodes, read_file(path), strict=True):
        assert read.episode_id == str(int(written.episode_id[-4:]))
        assert list(read.images["front"]) == list(written.images["front"])
        np.testing.assert_array_equal(read.actions, written.actions)
        np.testing.assert_array_equal(read.states, written.states)
        assert read.actions.dtype == read.states.dtype == np.float32


def _only_failure(path, num_good):
    items = read_file(path)
    failures = [item for item in items if hasattr(item, "reason")]
    assert len(failures) == 1, items
    assert len(items) - 1 == num_good
    return failures[0]


def _without_row(row):
    return lambda table: pa.concat_tables([table.slice(0, row), table.slice(row + 1)])


def _value_at(name, row, value):
    def change(table):
        values = table.column(name).to_pylist()
        values[row] = value
        return _set(table, name, values)

    return change


# Episodes of 6 rows each: rows 6..11 are episode-0001.
@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (
            _without_row(8),
            "missing frames",
            r"frame_index must count 0, 1, 2, ... in each episode, got 3 in place of 2",
        ),
        (_value_at("frame_index", 7, None), "missing frames", "frame_index must count"),
        (_value_at("observation.images.front", 8, None), "missing frames", "of camera 'front', got none in frame 2"),
        (
            _value_at("action", 8, None),
            "invalid episode",
            "'action' must have a value in every row of a step, got null in row 2",
        ),
        (_value_at("reward", 7, None), "invalid episode", "'reward' must have a value in every row"),
        (_value_at("reward", 7, float("nan")), "invalid episode", "must have finite rewards, got nan at index"),
        (_value_at("achieved_goals", 7, None), "invalid episode", "'achieved_goals' must have a list in every row"),
        (_value_at("instruction", 7, "fly"), "several instructions", "must have one instruction, got .* and 'fly'"),
    ],
)
def test_an_invalid_episode_is_a_failure_and_the_rest_goes_on(tmp_path, change, reason, detail):
    path = _write(tmp_path / "a.parquet", [plain_episode(i) for i in range(3)])
    _rewrite(path, change)
    failure = _only_failure(path, num_good=2)
    assert (failure.scope, failure.shard, failure.episode_id) == ("episode", "a.parquet", "episode-0001")
    assert failure.reason == reason
    with pytest.raises(ValueError, match=detail):
        raise ValueError(failure.detail)


def test_nan_in_continuous_actions_and_lists_of_two_lengths(tmp_path):
    path = _write(tmp_path / "a.parquet", [robot_episode(i) for i in range(2)])
    _rewrite(path, _value_at("action", 1, [0.0, float("nan"), 0.0]))
    assert "must have finite actions, got nan at index [1, 1]" in _only_failure(path, num_good=1).detail
    actions = [[0.0] * 3] * 9 + [[0.0] * 2]
    _rewrite(path, lambda table: _set(table, "action", actions, pa.list_(pa.float32())))
    assert "must have as many values in every row, got [2, 3]" in _only_failure(path, num_good=1).detail


@pytest.mark.parametrize("order", [(0, 1, 0), (0, 0, 1)])
def test_the_second_episode_of_one_id_fails(tmp_path, order):
    path = _write(tmp_path / "a.parquet", [plain_episode(i) for i in order])
    failure = _only_failure(path, num_good=2)
    assert (failure.episode_id, failure.reason) == ("episode-0000", "duplicate episode")
    assert failure.num_frames == 6


@pytest.mark.parametrize("row_group_size", [2, 1000])
def test_a_failed_episode_tells_how_many_frames_are_lost(tmp_path, row_group_size):
    path = _write(tmp_path / "a.parquet", [plain_episode(i, num_steps=3 + i) for i in range(3)])
    _rewrite(path, _value_at("reward", 5, float("nan")), row_group_size=row_group_size)  # rows 4 to 8 are of 1
    failure = _only_failure(path, num_good=2)
    assert (failure.episode_id, failure.num_frames) == ("episode-0001", 5)


def test_an_episode_id_that_cannot_be_a_key_fails(tmp_path):
    path = _write(tmp_path / "a.parquet", [plain_episode(i) for i in range(2)])
    _rewrite(path, lambda table: _set(table, "episode_id", ["a\0b"] * 6 + ["ok"] * 6))
    assert "holds no control characters: got 'a\\x00b'" in _only_failure(path, num_good=1).detail


@pytest.mark.parametrize("content", ["cut", "garbage", "empty"])
def test_a_file_that_is_not_parquet_is_a_failure(tmp_path, content):
    path = _write(tmp_path / "a.parquet", [plain_episode()])
    path = tmp_path / "a.parquet"
    path.write_bytes({"cut": path.read_bytes()[:-40], "garbage": b"x" * 500, "empty": b""}[content])
    failure = _only_failure(path, num_good=0)
    assert (failure.scope, failure.reason, failure.num_frames) == ("shard", "unreadable shard", 0)
    assert "the rest of it is not read. Copy it again from its source" in failure.detail
    assert plan(path, 1) == [Unit(name="a", files=(path.name,), num_bytes=path.stat().st_size)]
    assert ids_of(path) == []
    with pytest.raises(ValueError, match="a Parquet file must be whole, got"):
        features_of(path)


def test_a_flipped_bit_is_found_and_the_episodes_before_it_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_writer, "ROW_GROUP_ROWS", 6)
    episodes = [plain_episode(i) for i in range(3)]
    path = _write(tmp_path / "a.parquet", episodes)
    path = tmp_path / "a.parquet"
    data = bytearray(path.read_bytes())
    data[data.index(episodes[1].images["front"][2]) + 60] ^= 1
    path.write_bytes(data)
    failure = _only_failure(path, num_good=1)
    assert (failure.scope, failure.reason) == ("shard", "unreadable shard")


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda t: t.drop_columns(["frame_index"]), "a corpus must have the columns episode_id, frame_index and"),
        (lambda t: t.drop_columns(["observation.images.front"]), "a corpus must have the columns"),
        (lambda t: _set(t, "observation.images.front", ["x"] * len(t), pa.string()), "must hold encoded pictures"),
        (
            lambda t: _set(t, "frame_index", ["x"] * len(t), pa.string()),
            "'frame_index' must hold whole numbers, got string",
        ),
        (
            lambda t: _set(t, "episode_id", [1.5] * len(t), pa.float64()),
            "'episode_id' must hold texts or whole numbers, got double",
        ),
        (
            lambda t: t.append_column("observation.images.a\tb", t.column("observation.images.front")),
            "a camera's name must be",
        ),
    ],
)
def test_another_layout_is_a_failure(tmp_path, change, detail):
    path = _write(tmp_path / "a.parquet", [plain_episode()])
    _rewrite(path, change)
    failure = _only_failure(path, num_good=0)
    assert (failure.scope, failure.reason) == ("shard", "unknown layout")
    with pytest.raises(ValueError, match=detail):
        features_of(path)


@pytest.mark.parametrize(
    ("field", "column", "value", "detail"),
    [
        ("rewards", "reward", "x", "'reward' must hold numbers, got string"),
        ("instruction", "instruction", 1, "'instruction' must hold texts, got int64"),
        ("achieved_goals", "achieved_goals", "x", "'achieved_goals' must hold lists of texts, got string"),
        ("actions", "action", "x", "'action' must hold numbers or lists of numbers of one length, got string"),
        ("actions", "action", [], "'action' must hold numbers or lists of numbers of one length, got list"),
    ],
)
def test_a_column_of_another_type_hinders_only_whoever_wants_it(tmp_path, field, column, value, detail):
    path = _write(tmp_path / "a.parquet", [plain_episode()])
    dtype = pa.list_(pa.float32()) if value == [] else None
    _rewrite(path, lambda t: t.set_column(t.schema.get_field_index(column), column, pa.array([value] * len(t), dtype)))
    failure = _only_failure(path, num_good=0)
    assert (failure.scope, failure.reason) == ("shard", "unknown layout")
    assert detail in failure.detail
    (failure,) = read_file(path, fields=[field])
    assert failure.reason == "unknown layout"
    others = sorted({"actions", "achieved_goals", "instruction", "states"} - {field})
    (read,) = read_file(path, fields=others)
    assert getattr(read, field) is None
    (read,) = read_file(path, fields=())
    assert list(read.images["front"]) == list(plain_episode().images["front"])
    assert features_of(path).cameras == ("front",)


def test_a_missing_file_is_no_failure_of_the_data(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read_file(tmp_path / "a.parquet")
    assert caught.match("a.parquet")
    assert "while reading" in caught.value.__notes__[0]


def test_memory_is_bounded_by_the_episode_not_by_the_row_group(tmp_path):
    big = encode_png(frame(0, 200))  # 120 kB of noise
    episodes = [plain_episode(i, num_steps=7, images={"front": [big] * 8}) for i in range(60)]
    path = _write(tmp_path / "a.parquet", episodes)
    _rewrite(path, lambda table: table, row_group_size=10**6, write_batch_size=8, use_dictionary=False)
    assert pq.read_metadata(path).num_row_groups == 1
    before = pa.total_allocated_bytes()
    peak = 0
    for _ in read_file(path):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 0.5 * 60 * 8 * len(big)  # of 58 MB in the row group
    assert Image.open(io.BytesIO(big)).size == (200, 200)


def test_a_column_that_another_tool_took_away_is_not_missed(tmp_path):
    path = _write(tmp_path / "a.parquet", [plain_episode()])
    table = pq.read_table(path).drop_columns(["reward", "achieved_goals"])  # our metadata stays
    pq.write_table(table, path)
    (read,) = read_file(path)
    assert read.rewards is None
    assert read.achieved_goals is None
    assert read.terminations is not None
    assert not features_of(path).has_rewards
    assert not features_of(path).has_achieved_goals


def test_metadata_that_is_not_ours_is_refused(tmp_path):
    path = _write(tmp_path / "a.parquet", [plain_episode()])
    for own in (b"{", b"[]", b'{"kind": "corpus"}', b'{"kind": "corpus", "features": {"wheels": 4}}'):
        pq.write_table(pq.read_table(path).replace_schema_metadata({METADATA_KEY: own}), path)
        assert _only_failure(path, num_good=0).reason == "unknown layout"
        with pytest.raises(ValueError, match="our entry in the schema's metadata must say what the corpus holds, got"):
            features_of(path)


def test_broken_bytes_never_raise_anything(tmp_path):
    path = _write(tmp_path / "a.parquet", [plain_episode(i) for i in range(2)])
    path = tmp_path / "a.parquet"
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # broken footers are Arrow's to stand
    rng = np.random.default_rng(0)
    for _ in range(100):
        broken = bytearray(data)
        for place in rng.integers(4, footer, 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        for item in read_file(path):
            assert isinstance(item, Episode | Failure)
        ids_of(path)
        plan(path, 1)


@pytest.mark.parametrize("plain_at_end", [False, True], ids=["repeated alone", "others after them"])
def test_pictures_that_a_file_holds_once_and_names_often_stay_small(tmp_path, plain_at_end):
    big = encode_png(frame(0, 400))  # 480 kB of noise, once in the file
    others = [encode_png(frame(seed, 400)) for seed in range(1, 5)] if plain_at_end else []
    pictures = [*[big] * 1000, *others]
    path = _write(
        tmp_path / "a.parquet", [plain_episode(num_steps=len(pictures) - 1, images={"front": [big] * len(pictures)})]
    )
    rows = [{"bytes": data, "path": None} for data in pictures]
    _rewrite(path, lambda t: _set(t, "observation.images.front", rows), use_dictionary=True)
    assert path.stat().st_size < 8 * len(big)
    before, peak, read = pa.total_allocated_bytes(), 0, 0
    for item in opened(path).episodes(whole_file(path)):
        for index, picture in enumerate(item.images["front"]):
            assert picture == pictures[index]
            peak = max(peak, pa.total_allocated_bytes() - before)
            read += 1
    assert read == len(pictures)
    assert peak < 100 * len(big)  # of the 1,000 that they are when spelled out


def test_numbers_and_texts_that_a_file_holds_once_and_names_often_stay_small(tmp_path):
    path = _write(tmp_path / "a.parquet", [plain_episode(num_steps=1199)])
    text = "lift " * 60_000  # 300 kB in each of 1,200 rows, 20,000 numbers likewise: 360 MB and 190 MB spelled out
    _rewrite(path, lambda t: _set(t, "instruction", [text] * 1200))
    _rewrite(path, lambda t: _set(t, "action", [[0.5] * 20_000] * 1199 + [None], pa.list_(pa.float64())))
    assert path.stat().st_size < 5_000_000
    before, peak, read = pa.total_allocated_bytes(), 0, 0
    for item in opened(path).episodes(whole_file(path), fields=()):
        peak, read = max(peak, pa.total_allocated_bytes() - before), read + item.num_frames
    assert read == 1200
    assert peak < 20_000_000  # neither is wanted
    assert 1 <= OpenFiles(Folder(str(tmp_path)), ()).open("a.parquet").batch_rows <= 2**26 // 300_000


def test_an_episode_whose_numbers_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = _write(tmp_path / "a.parquet", [robot_episode(i, num_steps=n) for i, n in enumerate((5, 3000, 5))])
    monkeypatch.setattr(parquet_reader, "MAX_EPISODE_BYTES", 50_000)
    failure = _only_failure(path, num_good=2)
    assert (failure.episode_id, failure.reason, failure.num_frames) == ("robot-0001", "oversized episode", 3000)
    assert "at most 50,000 bytes beside its pictures, got more in 3,000 frames. Split it" in failure.detail
