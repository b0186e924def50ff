"""Labels as columns of the Parquet files that they were made from; `datasets` loads them with the pictures.

vlm.goal_id   string, the goal that the episode is judged by
vlm.score     float32, the score of the row's frame
vlm.success   bool, whether the goal counts as achieved in the row's frame
vlm.reward    float32, of the row's action, by the frame after it; null in the row of a final frame, which has no action
vlm.scores    float32 [G], the scores of the row's frame for all goals, where asked for
"""

from collections import defaultdict

import numpy as np
import pyarrow as pa

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
)
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.label_parts.reader import episode_runs
from vlm_rewards.schemas.formats.parquet_corpus.reader import PARQUET, ParquetReader

_ID_ROWS = 1 << 16


def write_parquet_columns(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Rewrites the files with columns of labels; see the module's picture."""
    require_all(labelled, PARQUET.name)
    require_all_scores(labelled, PARQUET.name)
    folder = local_folder(labelled.corpus)
    columns = [
        Column(
            "vlm.goal_id", pa.string(), lambda values, frames: pa.array([values.goal.id] * (frames.stop - frames.start))
        ),
        Column(
            "vlm.score", pa.float32(), lambda values, frames: pa.array(smoothed(values.scores, settings.smooth)[frames])
        ),
        Column("vlm.success", pa.bool_(), lambda values, frames: pa.array(values.successes[frames])),
        Column("vlm.reward", pa.float32(), _rewards),
    ]
    if settings.all_scores:
        goals = len(labelled.goals)
        columns.append(scores_column("vlm.scores", goals, lambda values: smoothed(values.all_scores, settings.smooth)))
    num_rows = 0
    for name, pieces in _pieces(labelled).items():
        num_rows += write_with_columns(labelled, folder / name, changes.file(name), pieces, columns)
    return [f"{num_rows:,} rows have {', '.join(column.name for column in columns)}"]


def _rewards(values: EpisodeValues, frames: slice) -> pa.Array:
    missing = len(values.scores) - len(values.rewards)  # 1 where the final frame was recorded
    padded = np.concatenate([values.rewards, np.zeros(missing, np.float32)])
    return pa.array(padded[frames], mask=(np.arange(len(padded)) >= len(values.rewards))[frames])


def _pieces(labelled: LabelledCorpus) -> dict[str, list[Piece]]:
    """Returns the pieces of each file, in the order of its rows; an episode may continue in the next file."""
    episodes = {episode.episode_id: episode for episode in labelled.episodes}
    reader = labelled.corpus.reader
    assert isinstance(reader, ParquetReader)
    found: dict[str, list[Piece]] = defaultdict(list)
    frames: dict[str, int] = defaultdict(int)
    for name in reader.own_files():
        start = 0
        with reader.files.open(name) as file:
            for batch in file.iter_batches(batch_size=_ID_ROWS, columns=["episode_id"], use_threads=False):
                for episode_id, rows in episode_runs(batch.column("episode_id").cast(pa.string()).to_pylist()):
                    stop = start + rows.stop - rows.start
                    found[name].append(Piece(start, stop, frames[episode_id], episodes[episode_id]))
                    frames[episode_id] += stop - start
                    start = stop
    for episode_id, episode in episodes.items():
        check_rows(episode, frames[episode_id])
    return found


PARQUET_COLUMNS = ExportFormat(
    name="parquet",
    write=write_parquet_columns,
    corpus_formats=(PARQUET.name,),
    takes=("smooth", "all_scores"),
    place="copy",
)
