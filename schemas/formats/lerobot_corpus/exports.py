"""Labels back into LeRobot: the sidecar of RA-BC, and columns of reward and success in the data files.

    sarm_progress.parquet   index, episode_index, frame_index int64, progress_sparse float32, sorted by index: the score of each
                            row's own frame, with no shift in time; every row is filled
    next.reward             float32, of the step from row i to row i+1; the last row, after which there is no frame, repeats it
    next.success            bool, whether the goal counts as achieved in the frame of row i+1; the last row repeats it
    next.done               bool, whether row i is the last of its episode
    vlm.scores              float32 [G], the scores of row i for all goals, where asked for

Data files are written row group by row group, as they were; info.json, without whose features LeRobot does not load the columns,
takes its place last.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.exports.interface import (
    EpisodeValues,
    ExportEpisode,
    ExportFormat,
    ExportSettings,
    LabelledCorpus,
    local_folder,
    require_all,
    require_all_scores,
    smoothed,
)
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.lerobot_corpus.info import INFO
from vlm_rewards.schemas.formats.lerobot_corpus.reader import LEROBOT
from vlm_rewards.schemas.formats.lerobot_corpus.rows import episode_rows

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
    """Writes the data files anew with columns of reward and success; see the module's picture."""
    require_all(labelled, LEROBOT.name)
    if settings.all_scores:
        require_all_scores(labelled, LEROBOT.name)
    folder = local_folder(labelled.corpus)
    features = _features(labelled, settings)
    info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    replaced = sorted(features.keys() & info["features"].keys())
    num_rows = 0
    for name, pieces in _pieces(labelled).items():
        num_rows += _write_file(folder / name, changes.file(name), _Pieces(labelled, pieces), features, settings)
    info["features"] |= features
    changes.file(INFO).write_text(json.dumps(info, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [f"{num_rows:,} rows have {', '.join(features)}"]
    if replaced:
        lines.append(f"replaced columns that were there: {', '.join(replaced)}")
    return lines


def check_rows(episode: ExportEpisode, num_rows: int) -> None:
    """Refuses an episode whose rows are not as many as its labels.

    Raises:
        ValueError: They are not.
    """
    if episode.num_frames != num_rows:
        raise ValueError(
            f"an episode must have as many rows as labels: got {num_rows} rows and {episode.num_frames} labels for "
            f"{episode.episode_id!r}. Label the corpus again"
        )


def _features(labelled: LabelledCorpus, settings: ExportSettings) -> dict[str, dict[str, object]]:
    features: dict[str, dict[str, object]] = {
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.success": {"dtype": "bool", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
    }
    if settings.all_scores:
        names = [goal.id for goal in labelled.goals]
        features[SCORES] = {"dtype": "float32", "shape": [len(names)], "names": names}
    return features


class _Piece(NamedTuple):
    """Successive rows of one episode in a file: `start` to `stop`, the first of which is of the episode's frame `frame`."""

    start: int
    stop: int
    frame: int
    episode: ExportEpisode


def _pieces(labelled: LabelledCorpus) -> dict[str, list[_Piece]]:
    """The pieces of each data file, in the order of its rows."""
    episodes = {episode.episode_id: episode for episode in labelled.episodes}
    found: dict[str, list[_Piece]] = defaultdict(list)
    for episode_id, rows in episode_rows(labelled.corpus.folder).items():
        check_rows(episodes[episode_id], rows.num_rows)
        frame = 0
        for piece in rows.pieces:
            found[piece.file].append(_Piece(piece.start, piece.stop, frame, episodes[episode_id]))
            frame += piece.stop - piece.start
    return {name: sorted(pieces) for name, pieces in found.items()}


class _Pieces:
    """Reads the values of a file's rows, forward."""

    def __init__(self, labelled: LabelledCorpus, pieces: list[_Piece]) -> None:
        self._labelled = labelled
        self._pieces = pieces
        self._next = 0
        self._held: tuple[str, EpisodeValues] | None = None

    def rows(self, start: int, stop: int) -> Iterator[tuple[EpisodeValues, slice]]:
        """The values of rows `start` to `stop`: per episode, its values and which of its frames."""
        while start < stop:
            while self._pieces[self._next].stop <= start:
                self._next += 1
            piece = self._pieces[self._next]
            end = min(stop, piece.stop)
            first = piece.frame + start - piece.start
            if self._held is None or self._held[0] != piece.episode.episode_id:
                self._held = (piece.episode.episode_id, self._labelled.values(piece.episode))
            yield self._held[1], slice(first, first + end - start)
            start = end


def _write_file(
    source: Path, target: Path, pieces: _Pieces, features: dict[str, dict[str, object]], settings: ExportSettings
) -> int:
    with pq.ParquetFile(source) as file:
        names = [name for name in file.schema_arrow.names if name not in features]
        compression = file.metadata.row_group(0).column(0).compression if file.num_row_groups else "SNAPPY"
        schema = _schema(
            pa.schema([file.schema_arrow.field(name) for name in names], file.schema_arrow.metadata), features
        )
        row = 0
        with pq.ParquetWriter(target, schema, compression=compression.lower()) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=names, use_threads=False)
                columns = _columns(pieces, row, row + table.num_rows, features, settings)
                arrays = [*table.select(names).columns, *columns]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=max(table.num_rows, 1))
                row += table.num_rows
        if row != file.metadata.num_rows:
            raise ValueError(f"a data file must have as many rows as it says: got {row} in {source}. Download it again")
    return row


def _columns(
    pieces: _Pieces, start: int, stop: int, features: dict[str, dict[str, object]], settings: ExportSettings
) -> list[pa.Array]:
    rewards, achieved, done, scores = [], [], [], []
    for values, frames in pieces.rows(start, stop):
        after = np.append(values.successes[1:], values.successes[-1])
        rewards.append(values.rewards[frames])
        achieved.append(after[frames])
        done.append(np.arange(len(after))[frames] == len(after) - 1)
        if settings.all_scores:
            scores.append(smoothed(values.all_scores, settings.smooth)[frames])
    columns = [pa.array(np.concatenate(parts)) for parts in (rewards, achieved, done)]
    if settings.all_scores:
        flat = np.concatenate(scores).astype(np.float32)
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1]))
    return columns


def _schema(schema: pa.Schema, features: dict[str, dict[str, object]]) -> pa.Schema:
    """The schema with the new columns; also what `datasets` has in its metadata, which must name every column."""
    metadata = dict(schema.metadata or {})
    types = {"float32": pa.float32(), "bool": pa.bool_()}
    fields = []
    own: dict[str, object] = {}
    # `datasets` before 4.0 knows no "List", and later ones do not write "Sequence": the file tells by its own lists which it is.
    list_type = "Sequence" if b'"Sequence"' in metadata.get(b"huggingface", b"") else "List"
    for name, feature in features.items():
        kind = types[str(feature["dtype"])]
        value = {"dtype": feature["dtype"], "_type": "Value"}
        if name == SCORES:
            names = feature["names"]
            assert isinstance(names, list)
            fields.append(pa.field(name, pa.list_(kind, len(names))))
            own[name] = {"feature": value, "length": len(names), "_type": list_type}
        else:
            fields.append(pa.field(name, kind))
            own[name] = value
    if b"huggingface" in metadata:
        record = json.loads(metadata[b"huggingface"])
        kept = {name: value for name, value in record["info"]["features"].items() if name in schema.names}
        record["info"]["features"] = kept | own
        metadata[b"huggingface"] = json.dumps(record).encode()
    return pa.schema([*schema, *fields], metadata=metadata)


RA_BC = ExportFormat(
    name="ra-bc",
    summary=f"{SIDECAR}, by which LeRobot weighs samples (RA-BC): the score of each frame for its episode's goal",
    write=write_ra_bc,
    corpus_formats=(LEROBOT.name,),
    place="beside",
)
LEROBOT_COLUMNS = ExportFormat(
    name="lerobot",
    summary="a LeRobot data set with next.reward, next.success and next.done of the labels",
    write=write_lerobot,
    corpus_formats=(LEROBOT.name,),
    place="copy",
)
