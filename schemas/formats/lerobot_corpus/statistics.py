"""Computes the statistics of columns anew that an export of LeRobot changes.

meta/stats.json               of the whole data set     {"task_index": {"min": [0], "max": [3], "mean": [1.7], ...}}
meta/episodes_stats.jsonl     of each episode, in version 2.1
meta/episodes/...             of each episode, in version 3.0: columns such as stats/task_index/mean

Only figures that are there are computed, in the form that they have; none is added. Quantiles are those of the rows: LeRobot
estimates those of an episode from a histogram, and takes the mean of them for the data set.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import EPISODES_FOLDER
from vlm_rewards.schemas.formats.lerobot_corpus.rows import EpisodeRows, numbers

STATS = "meta/stats.json"
EPISODES_STATS = "meta/episodes_stats.jsonl"
_QUANTILE = re.compile(r"q\d\d")

Change = Callable[[int, pa.ChunkedArray], pa.Array]


class ColumnStatistics:
    """Statistics of changed columns.

    Args:
        folder: Folder of the data set.
        values: Values of the changed columns by name and episode_index: [N] or [N, width].
    """

    def __init__(self, folder: Path, values: Mapping[str, Mapping[int, np.ndarray]]) -> None:
        self._folder = folder
        self._values = values

    @classmethod
    def of_new_rows(
        cls, folder: Path, changes: Changes, rows: Mapping[str, EpisodeRows], columns: Sequence[str]
    ) -> "ColumnStatistics":
        """Reads the columns that have statistics, from the new files where there are such.

        Args:
            folder: Folder of the data set.
            changes: New files; all data files that change are written.
            rows: Places of the episodes' rows.
            columns: Columns that change.
        """
        told = _columns_with_statistics(folder)
        values: dict[str, dict[int, np.ndarray]] = {name: {} for name in columns if name in told}
        held: tuple[str, pa.Table] | None = None
        for place in rows.values() if values else ():
            parts = []
            for piece in place.pieces:
                if held is None or held[0] != piece.file:
                    path = changes.file(piece.file) if piece.file in changes.names else folder / piece.file
                    held = (piece.file, pq.read_table(path, columns=list(values)))
                parts.append(held[1].slice(piece.start, piece.stop - piece.start))
            table = pa.concat_tables(parts)
            for name, by_episode in values.items():
                by_episode[place.episode_index] = numbers(table, name, np.float64)
        return cls(folder, values)

    def write(self, changes: Changes) -> None:
        """Writes stats.json and episodes_stats.jsonl, where they have figures of the columns."""
        if (self._folder / STATS).is_file():
            record = json.loads((self._folder / STATS).read_text(encoding="utf-8"))
            if self._values.keys() & record.keys():
                whole = {name: np.concatenate(list(found.values())) for name, found in self._values.items()}
                record = _renewed(record, whole)
                changes.file(STATS).write_text(
                    json.dumps(record, indent=4, ensure_ascii=False) + "\n", encoding="utf-8"
                )
        if (self._folder / EPISODES_STATS).is_file() and self._values:
            made = []
            for line in (self._folder / EPISODES_STATS).read_text(encoding="utf-8").splitlines(keepends=True):
                record = json.loads(line) if line.strip() else {}
                own = self._of_episode(record.get("episode_index"))
                if own.keys() & record.get("stats", {}).keys():
                    line = json.dumps({**record, "stats": _renewed(record["stats"], own)}, ensure_ascii=False) + "\n"
                made.append(line)
            changes.file(EPISODES_STATS).write_text("".join(made), encoding="utf-8")

    def changes_of(self, path: Path) -> dict[str, Change]:
        """Returns the changes of a table of meta/episodes, by column."""
        found: dict[str, Change] = {}
        episodes: list[int] = []
        for column in pq.read_schema(path).names:
            name, figure = _statistic(column)
            if name in self._values:
                episodes = episodes or pq.read_table(path, columns=["episode_index"]).column(0).to_pylist()
                found[column] = self._change(self._values[name], figure, episodes)
        return found

    def _of_episode(self, index: object) -> dict[str, np.ndarray]:
        return {name: found[index] for name, found in self._values.items() if isinstance(index, int) and index in found}

    def _change(self, values: Mapping[int, np.ndarray], figure: str, episodes: Sequence[int]) -> Change:
        def change(row: int, column: pa.ChunkedArray) -> pa.Array:
            olds = column.to_pylist()
            new = [
                old if episodes[row + i] not in values else _figure(figure, values[episodes[row + i]], old)
                for i, old in enumerate(olds)
            ]
            return pa.array(new, column.type)

        return change


def _columns_with_statistics(folder: Path) -> set[str]:
    """Returns the columns of which any file has figures."""
    found: set[str] = set()
    if (folder / STATS).is_file():
        found |= json.loads((folder / STATS).read_text(encoding="utf-8")).keys()
    if (folder / EPISODES_STATS).is_file():
        with (folder / EPISODES_STATS).open(encoding="utf-8") as file:
            found |= json.loads(next(file, None) or "{}").get("stats", {}).keys()
    for path in sorted((folder / EPISODES_FOLDER).rglob("*.parquet"))[:1]:
        found |= {_statistic(column)[0] for column in pq.read_schema(path).names} - {""}
    return found


def _statistic(column: str) -> tuple[str, str]:
    """Returns column and figure of a column of statistics, such as "stats/task_index/mean"; of any other, texts that are ""."""
    match = re.fullmatch(r"stats/(.+)/([^/]+)", column)
    return ("", "") if match is None else (match[1], match[2])


def _renewed(record: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: {key: _figure(key, values[name], old) for key, old in figures.items()} if name in values else figures
        for name, figures in record.items()
    }


def _figure(name: str, values: np.ndarray, old: Any) -> Any:
    """Returns a figure of values in the form of the old one; the old one itself where it is of a kind that is not known."""
    rows = values.reshape(len(values), -1)
    if name == "count":
        figure = np.array([len(rows)])
    elif name in ("min", "max", "mean", "std"):
        figure = getattr(np, name)(rows, axis=0)
    elif _QUANTILE.fullmatch(name):
        figure = np.quantile(rows, int(name[1:]) / 100, axis=0)
    else:
        return old
    shape, leaf = np.shape(old), np.ravel(old)[:1].tolist()
    kind = type(leaf[0]) if leaf else float
    made = figure.reshape(shape) if np.prod(shape, dtype=int) == figure.size else figure
    return made.astype(kind if kind in (bool, int) else float).tolist()
