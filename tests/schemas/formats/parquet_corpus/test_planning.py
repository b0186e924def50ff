"""Units of Parquet corpora whose files do not begin and end with episodes, as `datasets` writes them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, Value
from small_corpora import assert_same, plain_episode, read_whole

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.manifests import Failure

BARE = {"actions": None, "rewards": None, "terminations": None, "truncations": None, "achieved_goals": None}


def recorded(num_steps):
    return [plain_episode(index, count, **BARE) for index, count in enumerate(num_steps)]


def table_of(tmp_path, episodes):
    write_episodes(tmp_path / "all", CorpusFeatures.of(episodes[0]), episodes, "parquet")
    table = pq.read_table(tmp_path / "all").replace_schema_metadata(None)
    (tmp_path / "all").unlink()
    return table


def write_cut(folder, table, cuts, **options):
    """Writes rows up to each cut into a file of its own."""
    folder.mkdir()
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(table)], strict=True)):
        pq.write_table(table.slice(start, stop - start), folder / f"shard-{number:03d}.parquet", **options)
    return folder


def read_all(folder, max_bytes=2**28):
    corpus = open_corpus(folder)
    units = corpus.units(max_bytes)
    ids = [episode_id for unit in units for episode_id in corpus.episode_ids(unit)]
    return units, [read_whole(corpus.episodes(unit)) for unit in units], ids


def test_what_datasets_cuts_anywhere_is_read_as_whole_episodes(tmp_path):
    episodes = recorded([9] * 8)
    rows = [
        {"episode_id": e.episode_id, "frame_index": t, "observation.images.front": {"bytes": data, "path": None}}
        for e in episodes
        for t, data in enumerate(e.images["front"])
    ]
    features = Features(
        {"episode_id": Value("string"), "frame_index": Value("int32"), "observation.images.front": Image()}
    )
    data = Dataset.from_list(rows, features=features)
    (tmp_path / "c").mkdir()
    for index in range(3):  # as push_to_hub and save_to_disk cut: after 27 and 54 of 80 rows
        data.shard(3, index, contiguous=True).to_parquet(tmp_path / "c" / f"train-{index:05d}-of-00003.parquet")
    units, read, ids = read_all(tmp_path / "c")
    assert [(unit.name, unit.start, unit.stop, unit.num_frames) for unit in units] == [
        ("train-00000-of-00003", 0, 3, 30),  # episodes 0 to 2; the last goes on for 3 rows
        ("train-00001-of-00003", 3, 6, 30),  # 3 to 5
        ("train-00002-of-00003", 6, -1, 20),
    ]
    assert [len(unit.files) for unit in units] == [2, 2, 1]
    assert [[episode.episode_id[-1] for episode in unit] for unit in read] == [list("012"), list("345"), list("67")]
    assert ids == [episode.episode_id for episode in episodes]
    for written, found in zip(episodes, [episode for unit in read for episode in unit], strict=True):
        assert list(found.images["front"]) == list(written.images["front"])
    assert read[0][2].source == "train-00000-of-00003.parquet"  # where it begins


@pytest.mark.parametrize("row_group_size", [1, 3, 1000])
@pytest.mark.parametrize("write_statistics", [True, False])
@pytest.mark.parametrize("max_bytes", [1, 2**28])
def test_any_cut_gives_every_episode_once(tmp_path, row_group_size, write_statistics, max_bytes):
    episodes = recorded([2, 11, 0, 5, 1, 8])
    table = table_of(tmp_path, episodes)
    rng = np.random.default_rng(row_group_size)
    for trial in range(6):
        cuts = sorted(rng.choice(np.arange(1, len(table)), size=int(rng.integers(1, 9)), replace=False).tolist())
        options = {"row_group_size": row_group_size, "write_statistics": write_statistics}
        folder = write_cut(tmp_path / f"c{trial}", table, cuts, **options)
        units, read, ids = read_all(folder, max_bytes)
        assert ids == [episode.episode_id for episode in episodes], cuts
        assert len({unit.name for unit in units}) == len(units)
        assert sum(unit.num_frames for unit in units) == len(table)
        found = [episode for unit in read for episode in unit]
        for written, episode in zip(episodes, found, strict=True):
            assert_same(written, episode)


def test_an_episode_over_many_files_is_one(tmp_path):
    episodes = recorded([1, 20, 1])
    folder = write_cut(tmp_path / "c", table_of(tmp_path, episodes), [4, 6, 11, 22])
    units, read, _ = read_all(folder)
    assert [(len(unit.files), unit.start, unit.stop) for unit in units] == [(5, 0, 1), (1, 1, -1)]
    for written, found in zip(episodes, [episode for unit in read for episode in unit], strict=True):
        assert_same(written, found)


def test_a_second_episode_of_the_same_id_in_the_next_file_is_no_continuation(tmp_path):
    table = table_of(tmp_path, recorded([5]))
    folder = tmp_path / "c"
    folder.mkdir()
    for name in "ab":
        pq.write_table(table, folder / f"{name}.parquet")
    units, read, _ = read_all(folder)
    assert [unit.files for unit in units] == [("a.parquet",), ("b.parquet",)]
    assert [len(unit) for unit in read] == [1, 1]  # that an id occurs twice in a corpus is told by `label`


def test_files_of_other_columns_do_not_go_on(tmp_path):
    table = table_of(tmp_path, recorded([5, 5]))
    folder = tmp_path / "c"
    folder.mkdir()
    pq.write_table(table.slice(0, 3), folder / "a.parquet")
    rest = table.slice(3)
    index = rest.schema.get_field_index("frame_index")
    pq.write_table(rest.set_column(index, "frame_index", rest["frame_index"].cast(pa.int64())), folder / "b.parquet")
    _, read, _ = read_all(folder)
    (failure,) = [item for unit in read for item in unit if isinstance(item, Failure)]
    assert (failure.scope, failure.shard, failure.reason) == ("shard", "b.parquet", "unknown layout")
    assert "must have the same columns there, got others in b.parquet. Write the shards anew" in failure.detail


@pytest.mark.parametrize("broken", [b"", b"nothing"])
def test_a_broken_file_among_others_does_not_take_the_episode_before_with_it(tmp_path, broken):
    episodes = recorded([5, 5, 5])
    folder = write_cut(tmp_path / "c", table_of(tmp_path, episodes), [6, 12])
    (folder / "shard-001.parquet").write_bytes(broken)
    _, read, ids = read_all(folder)
    items = [item for unit in read for item in unit]
    assert [item.episode_id for item in items if isinstance(item, Episode)] == ["episode-0000", "episode-0002"] == ids
    assert [item.shard for item in items if isinstance(item, Failure)] == ["shard-001.parquet"]
