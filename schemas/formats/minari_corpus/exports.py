"""Writes labels into Minari data sets: only the rewards change.

HDF5      main_data.hdf5 is copied byte for byte, then the numbers of episode_i/rewards are replaced
Arrow     part-0.arrow is rewritten, batch by batch, with another column of rewards; so is Parquet, by row groups
"""

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.exports.interface import (
    ExportEpisode,
    ExportFormat,
    ExportSettings,
    LabelledCorpus,
    local_folder,
    require_all,
)
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.hdf5_corpus.exports import replace_rewards
from vlm_rewards.schemas.formats.hdf5_corpus.files import group_at
from vlm_rewards.schemas.formats.minari_corpus.layout import MAIN_FILE
from vlm_rewards.schemas.formats.minari_corpus.reader import MINARI

_REWARDS = "rewards"


def write_minari(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Rewrites the files of episodes with their rewards; see the module's picture."""
    require_all(labelled, MINARI.name)
    folder = local_folder(labelled.corpus)
    by_file: dict[str, list[ExportEpisode]] = defaultdict(list)
    for episode in labelled.episodes:
        by_file[episode.file].append(episode)
    for name, episodes in by_file.items():
        source, target = folder / name, changes.file(name)
        if name.rpartition("/")[2] == MAIN_FILE:
            _write_hdf5(source, target, episodes, labelled)
        else:
            (episode,) = episodes
            _write_columns(source, target, labelled.values(episode).rewards, labelled.model)
    return [f"{len(labelled.episodes):,} episodes have new rewards"]


def _write_hdf5(source: Path, target: Path, episodes: list[ExportEpisode], labelled: LabelledCorpus) -> None:
    import h5py

    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        for episode in episodes:
            group = group_at(file, episode.episode_id)
            assert group is not None, episode.episode_id
            replace_rewards(group, labelled.values(episode), episode, labelled.model)


def _write_columns(source: Path, target: Path, rewards: np.ndarray, model: str) -> None:
    padded = np.append(rewards, np.zeros(1, rewards.dtype))  # the row of the last frame has no step
    start = 0

    def marked(schema: pa.Schema) -> pa.Schema:
        index = schema.get_field_index(_REWARDS)
        field = schema.field(index)
        mark = {own_labels.KEY: own_labels.mark_text(model)}
        return schema.set(index, field.with_metadata({**(field.metadata or {}), **mark}))

    def with_rewards(batch: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal start
        schema = marked(batch.schema)
        index = schema.get_field_index(_REWARDS)
        values = pa.array(padded[start : start + batch.num_rows]).cast(schema.field(index).type)
        start += batch.num_rows
        columns = [values if number == index else column for number, column in enumerate(batch.columns)]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    if source.suffix == ".parquet":
        with pq.ParquetFile(source) as file:
            with pq.ParquetWriter(target, marked(file.schema_arrow)) as writer:
                for group in range(file.num_row_groups):
                    for batch in file.read_row_group(group).combine_chunks().to_batches():
                        writer.write_batch(with_rewards(batch))
        assert start == len(padded), source
        return
    with pa.memory_map(str(source)) as mapped:
        stored = pa.ipc.open_file(mapped)
        with pa.ipc.new_file(str(target), marked(stored.schema)) as writer:
            for index in range(stored.num_record_batches):
                writer.write_batch(with_rewards(stored.get_batch(index)))
    assert start == len(padded), source


MINARI_REWARDS = ExportFormat(
    name="minari",
    write=write_minari,
    corpus_formats=(MINARI.name,),
    place="copy",
)
