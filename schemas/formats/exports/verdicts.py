"""Writes one verdict per episode, its success by the labels, to filter a corpus without rewriting it.

verdicts.parquet   one row per episode: episode_id, goal_id, success, first_success_frame, success_frames, score_max, ...
successful.json    the ids of the episodes that succeeded, in order
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.exports.interface import (
    ExportFormat,
    ExportSettings,
    LabelledCorpus,
    require_all_scores,
    smoothed,
)
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import episode_index_of
from vlm_rewards.schemas.formats.lerobot_corpus.reader import LEROBOT

VERDICTS_NAME = "verdicts.parquet"
SUCCESSFUL_NAME = "successful.json"
_BATCH = 4096

SCHEMA = pa.schema(
    [
        pa.field("episode_id", pa.string()),
        pa.field("file", pa.string()),
        pa.field("num_frames", pa.int64()),
        pa.field("instruction", pa.string()),
        pa.field("goal_id", pa.string()),
        pa.field("goal_text", pa.string()),
        pa.field("success", pa.bool_()),
        pa.field("success_at_end", pa.bool_()),
        pa.field("first_success_frame", pa.int64()),
        pa.field("success_frames", pa.int64()),
        pa.field("score_max", pa.float32()),
        pa.field("score_mean", pa.float32()),
        pa.field("score_last", pa.float32()),
        pa.field("why_none", pa.string()),
    ]
)
"""Columns of verdicts.parquet; where an episode has no verdict, `why_none` says why and those of the verdict are null."""


def write_verdicts(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Writes verdicts.parquet and successful.json; see the module's picture."""
    if settings.smooth > 1:
        require_all_scores(labelled, "verdicts with smooth")
    successful: list[str] = []
    judged = 0
    rows: list[dict[str, object]] = []
    with pq.ParquetWriter(changes.file(VERDICTS_NAME), SCHEMA, compression="zstd") as writer:
        for episode in labelled.episodes:
            row: dict[str, object] = {
                "episode_id": episode.episode_id,
                "file": episode.file,
                "num_frames": episode.num_frames,
                "instruction": episode.instruction,
            }
            if episode.goal is None:
                row["why_none"] = "its instruction asks for none of the goals"
            else:
                values = labelled.values(episode)
                scores = smoothed(values.scores, settings.smooth)
                achieved = bool(values.successes.any())
                judged += 1
                if achieved:
                    successful.append(episode.episode_id)
                known = not labelled.is_sparse  # sparse labels do not know the scores at or under the threshold
                row |= {
                    "goal_id": values.goal.id,
                    "goal_text": values.goal.text,
                    "success": achieved,
                    "success_at_end": bool(values.successes[-1]),
                    "first_success_frame": values.first_success,
                    "success_frames": int(np.count_nonzero(values.successes)),
                    "score_max": float(scores.max()) if np.isfinite(scores.max()) else None,
                    "score_mean": float(scores.mean(dtype=np.float64)) if known else None,
                    "score_last": float(scores[-1]) if np.isfinite(scores[-1]) else None,
                }
            rows.append(row)
            if len(rows) == _BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
                rows = []
        rows += [{"episode_id": name, "why_none": reason} for name, reason in labelled.left_out.items()]
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    is_lerobot = labelled.corpus.format_name == LEROBOT.name
    shown = [episode_index_of(name) for name in successful] if is_lerobot else successful
    changes.file(SUCCESSFUL_NAME).write_text(json.dumps(shown, ensure_ascii=False) + "\n", encoding="utf-8")
    without = len(labelled.episodes) + len(labelled.left_out) - judged
    lines = [f"{len(successful):,} of {judged:,} episodes succeeded: {VERDICTS_NAME}, {SUCCESSFUL_NAME}"]
    if without:
        lines.append(f"{without:,} episodes have no verdict: the column why_none says why")
    return lines


VERDICTS = ExportFormat(
    name="verdicts",
    write=write_verdicts,
    takes=("smooth",),
)
