"""Exports into Minari, read back by Minari: rewards of hand-drawn labels, and pictures to the byte as they were."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_corpora import holds, write_labels_of
from minari.dataset.minari_storage import MinariStorage
from minari_storages import STORAGES, write_minari

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("cup", "the cup is up"), Goal("drawer", "the drawer is open"))
MARKS = {"episode_0": holds("..X.", "...."), "episode_1": holds("...", "X.X")}


def labelled(tmp_path, storage):
    corpus = write_minari(tmp_path / "set", storage, (3, 2))
    return corpus, write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("in_place", [False, True])
def test_minari_reads_the_new_rewards_and_the_same_pictures(tmp_path, storage, in_place):
    corpus, labels = labelled(tmp_path, storage)
    pictures = [list(episode.images["image"]) for episode in open_corpus(corpus)]
    before = list(MinariStorage.read(corpus / "data").get_episodes([0, 1]))
    where = {"in_place": True} if in_place else {"output": tmp_path / "copy"}
    summary = export(corpus, labels, to="minari", goal="cup", **where)
    assert summary.lines == ("2 episodes have new rewards",)
    new = corpus if in_place else tmp_path / "copy"
    assert [list(episode.images["image"]) for episode in open_corpus(new)] == pictures
    after = list(MinariStorage.read(new / "data").get_episodes([0, 1]))
    assert [episode["rewards"].tolist() for episode in after] == [[0, 1, 0], [0, 0]]
    for old, found in zip(before, after, strict=True):
        assert found["rewards"].dtype == old["rewards"].dtype
        for name in ("actions", "terminations", "truncations"):
            np.testing.assert_array_equal(found[name], old[name])
        np.testing.assert_array_equal(found["observations"]["pose"], old["observations"]["pose"])
    if not in_place:
        assert next(iter(MinariStorage.read(corpus / "data").get_episodes([0])))["rewards"].tolist() == [0, 0.25, 0.5]


@pytest.mark.parametrize("storage", ["arrow", "parquet"])
def test_schemas_and_all_other_columns_stay(tmp_path, storage):
    corpus, labels = labelled(tmp_path, storage)
    export(corpus, labels, to="minari", goal="cup", output=tmp_path / "copy")
    name = f"data/0/part-0.{storage}"
    tables = [
        pq.read_table(root / name, partitioning=None)
        if storage == "parquet"
        else pa.ipc.open_file(root / name).read_all()
        for root in (corpus, tmp_path / "copy")
    ]
    place = tables[0].schema.get_field_index("rewards")
    own = tables[0].schema.field(place)
    marked = own.with_metadata({**(own.metadata or {}), "vlm_rewards": '{"labels_of": "some/model"}'})
    assert tables[1].schema.equals(tables[0].schema.set(place, marked), check_metadata=True)
    assert tables[0].drop_columns(["rewards"]).equals(tables[1].drop_columns(["rewards"]))
    assert tables[1]["rewards"].to_pylist() == [0, 1, 0, 0]


def test_scores_of_all_goals_are_refused(tmp_path):
    corpus, labels = labelled(tmp_path, "arrow")
    with pytest.raises(ValueError, match="'minari' has no use for all_scores: got True. Leave it out"):
        export(corpus, labels, to="minari", goal="cup", all_scores=True, output=tmp_path / "copy")
    with pytest.raises(ValueError, match="takes corpora of the format minari|takes corpora of the format hdf5"):
        export(corpus, labels, to="robomimic", goal="cup", output=tmp_path / "copy")
