"""Writes labels into LeRobot data sets: the sidecar of RA-BC, and columns of reward and success in the data files.

    sarm_progress.parquet   index, episode_index, frame_index int64, progress_sparse float32, sorted by index: the score of each
                            row's own frame, with no shift in time; every row is filled
    next.reward             float32, of the step from row i to row i+1; the last row, after which there is no frame, repeats it
    next.success            bool, whether the goal counts as achieved in the frame of row i+1; the last row repeats it
    next.done               bool, whether row i is the last of its episode
    vlm.scores              float32 [G], the scores of row i for all goals, where asked for

Data files are written row group by row group, as they were; info.json, without whose features LeRobot does not load the columns,
takes its place last. It says of each column whose labels it is. Statistics that there are of a replaced column are computed anew.
"""

import json
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.exports.interface import (
    EpisodeValues,
    ExportFormat,
    ExportSettings,
    LabelledCorpus,
    local_folder,
    require_all,
    require_all_scores,
    smoothed,
)
from vlm_rewards.schemas.formats.exports.parquet_rows import (
    Column,
    Piece,
    check_rows,
    scores_column,
    write_with_columns,
    write_with_values,
)
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import EPISODES_FOLDER
from vlm_rewards.schemas.formats.lerobot_corpus.info import INFO
from vlm_rewards.schemas.formats.lerobot_corpus.reader import LEROBOT
from vlm_rewards.schemas.formats.lerobot_corpus.rows import episode_rows
from vlm_rewards.schemas.formats.lerobot_corpus.statistics import ColumnStatistics

SIDECAR = "sarm_progress.parquet"
SIDECAR_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64()),
        pa.field("episode_index", pa.int64()),
        pa.field("frame_index", pa.int64()),
        pa.field("progress_sparse", pa.float32()),
    ]
)
SCORES = "vlm.scores"
KAPPA = 0.01
"""Rise of the score over a chunk from which RA-BC gives a chunk the weight 1, by default."""
CHUNK = 50
"""Frames of the chunk that the shares of weights are told for."""


def write_ra_bc(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Writes the sidecar; see the module's picture."""
    require_all(labelled, "ra-bc")
    require_all_scores(labelled, "ra-bc")
    episodes = {episode.episode_id: episode for episode in labelled.episodes}
    rows = sorted(episode_rows(labelled.corpus.folder).items(), key=lambda item: item[1].first_index)
    schema = SIDECAR_SCHEMA.with_metadata({"reward_model_path": labelled.model})
    num_rows, ones, zeros = 0, 0, 0
    with pq.ParquetWriter(changes.file(SIDECAR), schema, compression="zstd") as writer:
        for episode_id, place in rows:
            scores = smoothed(labelled.values(episodes[episode_id]).scores, settings.smooth)
            check_rows(episodes[episode_id], place.num_rows)
            frames = np.arange(place.num_rows)
            columns = [
                pa.array(place.first_index + frames),
                pa.array(np.full(place.num_rows, place.episode_index)),
                pa.array(frames),
                pa.array(scores),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            rises = scores[np.minimum(frames + CHUNK, place.num_rows - 1)] - scores
            ones, zeros, num_rows = (
                ones + int((rises > KAPPA).sum()),
                zeros + int((rises < 0).sum()),
                num_rows + len(frames),
            )
    return [
        f"{num_rows:,} rows: {SIDECAR}; LeRobot finds it in the data set's folder",
        f"for chunks of {CHUNK} frames, RA-BC would give weight 1 to {ones / num_rows:.0%} of the rows and weight 0 to "
        f"{zeros / num_rows:.0%}; --smooth steadies scores that flicker",
    ]


def write_lerobot(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Rewrites the data files with columns of reward and success; see the module's picture."""
    require_all(labelled, LEROBOT.name)
    if settings.all_scores:
        require_all_scores(labelled, LEROBOT.name)
    folder = local_folder(labelled.corpus)
    columns = _columns(labelled, settings)
    info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    features = {column.name: _feature(column, labelled) for column in columns}
    replaced = sorted(features.keys() & info["features"].keys())
    num_rows = 0
    for name, pieces in _pieces(labelled).items():
        num_rows += write_with_columns(labelled, folder / name, changes.file(name), pieces, columns)
    rows = episode_rows(labelled.corpus.folder)
    statistics = ColumnStatistics.of_new_rows(folder, changes, rows, list(features))
    for path in sorted((folder / EPISODES_FOLDER).rglob("*.parquet")):
        if renewed := statistics.changes_of(path):
            write_with_values(path, changes.file(path.relative_to(folder).as_posix()), renewed)
    statistics.write(changes)
    info["features"] |= features
    changes.file(INFO).write_text(json.dumps(info, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [f"{num_rows:,} rows have {', '.join(features)}"]
    if replaced:
        lines.append(f"replaced columns that were there: {', '.join(replaced)}")
    return lines


def _columns(labelled: LabelledCorpus, settings: ExportSettings) -> list[Column]:
    columns = [
        Column("next.reward", pa.float32(), lambda values, frames: pa.array(_rewards(values)[frames])),
        Column("next.success", pa.bool_(), lambda values, frames: pa.array(_after(values.successes)[frames])),
        Column("next.done", pa.bool_(), lambda values, frames: pa.array(_is_last(len(values.successes))[frames])),
    ]
    if settings.all_scores:
        columns.append(
            scores_column(SCORES, len(labelled.goals), lambda values: smoothed(values.all_scores, settings.smooth))
        )
    return columns


def _rewards(values: EpisodeValues) -> np.ndarray:
    """Returns one reward per row; without recorded actions, a step lies between two rows, and the last row repeats."""
    rewards = values.rewards
    missing = len(values.successes) - len(rewards)
    return np.append(rewards, [rewards[-1] if len(rewards) else 0] * missing).astype(np.float32)


def _after(successes: np.ndarray) -> np.ndarray:
    return np.append(successes[1:], successes[-1])


def _is_last(num_frames: int) -> np.ndarray:
    return np.arange(num_frames) == num_frames - 1


def _feature(column: Column, labelled: LabelledCorpus) -> dict[str, object]:
    mark = {own_labels.KEY: own_labels.mark_of(labelled.model)}
    if column.name == SCORES:
        return {
            "dtype": "float32",
            "shape": [len(labelled.goals)],
            "names": [goal.id for goal in labelled.goals],
            **mark,
        }
    return {"dtype": "bool" if column.type == pa.bool_() else "float32", "shape": [1], "names": None, **mark}


def _pieces(labelled: LabelledCorpus) -> dict[str, list[Piece]]:
    """Returns the pieces of each data file, in the order of its rows."""
    episodes = {episode.episode_id: episode for episode in labelled.episodes}
    found: dict[str, list[Piece]] = defaultdict(list)
    for episode_id, rows in episode_rows(labelled.corpus.folder).items():
        check_rows(episodes[episode_id], rows.num_rows)
        frame = 0
        for piece in rows.pieces:
            found[piece.file].append(Piece(piece.start, piece.stop, frame, episodes[episode_id]))
            frame += piece.stop - piece.start
    return {name: sorted(pieces) for name, pieces in found.items()}


RA_BC = ExportFormat(
    name="ra-bc",
    write=write_ra_bc,
    corpus_formats=(LEROBOT.name,),
    takes=("smooth",),
    place="beside",
)
LEROBOT_COLUMNS = ExportFormat(
    name="lerobot",
    write=write_lerobot,
    corpus_formats=(LEROBOT.name,),
    takes=("smooth", "all_scores"),
    place="copy",
)
