"""Writes labels into RLDS: `steps/reward` is overwritten in place, and the record's checksum updated.

    record   ... steps/reward [0.0 0.0 0.0] ... │ checksum        sizes, offsets and dataset_info.json stay as they are,
             ... steps/reward [0.1 0.7 0.9] ... │ checksum        and so does every byte of the pictures

The reward of step i is that of its action, and looks at the frame of step i + 1. Where the last step is the final frame, without an
action, its reward is 0. TensorFlow Datasets reads the files as before.
"""

import shutil
from typing import BinaryIO

import numpy as np

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
from vlm_rewards.schemas.formats.rlds_corpus.examples import FLOATS, parse_example
from vlm_rewards.schemas.formats.rlds_corpus.format import RLDS
from vlm_rewards.schemas.formats.rlds_corpus.reader import RldsReader, mark_file
from vlm_rewards.schemas.formats.rlds_corpus.roles import REWARD
from vlm_rewards.schemas.formats.rlds_corpus.tfrecord import Record, open_record, walk_records, write_checksum


def write_rlds_rewards(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Rewrites the shards with new rewards; see the module's picture."""
    require_all(labelled, RLDS.name)
    folder = local_folder(labelled.corpus)
    reader = labelled.corpus.reader
    assert isinstance(reader, RldsReader)
    episodes = {episode.episode_id: episode for episode in labelled.episodes}
    num_records = 0
    for name in reader.shards:
        target = changes.file(name)
        shutil.copyfile(folder / name, target)
        with (folder / name).open("rb") as source, target.open("r+b") as written:
            for record in walk_records(source):
                episode = episodes[reader.episode_id(name, record.number)]
                try:
                    _splice(reader, name, source, written, record, _rewards(labelled, episode))
                except ValueError as error:
                    error.add_note(f"in record {record.number} at byte {record.start} of {folder / name}")
                    raise
                num_records += 1
    for data_set in reader.data_sets:
        path = changes.file(mark_file(data_set))
        path.write_text(own_labels.mark_text(labelled.model) + "\n", encoding="utf-8")
    return [f"{num_records:,} records in {len(reader.shards):,} files have new rewards; all else is as it was"]


def _rewards(labelled: LabelledCorpus, episode: ExportEpisode) -> np.ndarray:
    """Returns [F] float32, one per step of the record."""
    rewards = labelled.values(episode).rewards
    return np.concatenate([rewards, np.zeros(episode.num_frames - len(rewards), np.float32)])


def _splice(
    reader: RldsReader, name: str, source: BinaryIO, written: BinaryIO, record: Record, rewards: np.ndarray
) -> None:
    data, start = open_record(reader.folder, name, source, record)
    feature = parse_example(data, start, record.num_bytes).features.get(REWARD)
    if feature is None or feature.kind != FLOATS:
        found = "none" if feature is None else "values of another kind"
        raise ValueError(
            f"rewards are replaced where {REWARD} holds floats: got {found}. Export verdicts, or write the data set with a reward"
        )
    new = rewards.astype("<f4").tobytes()
    num_bytes = sum(size for _, size in feature)
    if num_bytes != len(new):
        raise ValueError(
            f"{REWARD} must have {len(rewards)} values, one per step: got {num_bytes // 4}. Label the corpus again"
        )
    done = 0
    for offset, size in feature:
        written.seek(record.data_start + offset - start)
        written.write(new[done : done + size])
        done += size
    write_checksum(written, record)


RLDS_REWARDS = ExportFormat(
    name="rlds",
    write=write_rlds_rewards,
    corpus_formats=(RLDS.name,),
    place="copy",
)
