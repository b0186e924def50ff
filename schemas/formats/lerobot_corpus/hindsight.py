"""Writes hindsight goals as the tasks of a LeRobot data set, as if each episode had been asked for what it did.

    frame             0    1    2    3    4        the goal "the cup is up" begins to hold in frame 3
    task before       open the drawer
    task after        the cup is up ......| open the drawer

The rows from the start to the frame that achieves the goal get its text as their task; later rows, and those in which the goal held
before, keep theirs, as an episode may change its task. An episode that achieved nothing keeps its task in every row.

    data files       task_index of these rows; files without such rows stay as they are
    meta/tasks       goals that are no task yet follow the tasks, whose indices stay
    meta/episodes    tasks of the episodes, in the order of their rows
    statistics       those of task_index, wherever there are any; see `statistics.py`
    info.json        total_tasks; takes its place last
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_rewards.schemas.formats.exports.interface import (
    ExportFormat,
    ExportSettings,
    HindsightGoal,
    LabelledCorpus,
    local_folder,
)
from vlm_rewards.schemas.formats.exports.parquet_rows import check_rows, write_with_values
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import EPISODES_FOLDER, TASK_FILES, read_tasks
from vlm_rewards.schemas.formats.lerobot_corpus.info import INFO
from vlm_rewards.schemas.formats.lerobot_corpus.reader import LEROBOT
from vlm_rewards.schemas.formats.lerobot_corpus.rows import EpisodeRows, RowCursor, episode_rows, numbers, texts
from vlm_rewards.schemas.formats.lerobot_corpus.statistics import ColumnStatistics
from vlm_rewards.schemas.formats.parquet_corpus.pictures import OpenFiles

TASK_INDEX = "task_index"
EPISODES_LINES = "meta/episodes.jsonl"


def write_hindsight(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Rewrites data files and metadata with hindsight goals as tasks; see the module's picture."""
    folder = local_folder(labelled.corpus)
    tasks = read_tasks(labelled.corpus.folder)
    if tasks is None:
        raise ValueError(
            f"lerobot-hindsight adds to the tasks of a data set: got none of {', '.join(TASK_FILES)} in {folder}. Download "
            "meta again"
        )
    goals = labelled.hindsight_goals(settings.strategy, settings.seed)
    wanted = {found.goal.text for found in goals.values()}
    indices = {text: index for index, text in reversed(tasks.items()) if text is not None}
    added = [goal.text for goal in labelled.goals if goal.text in wanted and goal.text not in indices]
    added = list(dict.fromkeys(added))
    indices |= {text: max(tasks, default=-1) + 1 + number for number, text in enumerate(added)}
    new = {indices[text]: text for text in added}

    rows = episode_rows(labelled.corpus.folder)
    lengths = {episode.episode_id: episode for episode in labelled.episodes}
    for episode_id in goals:
        check_rows(lengths[episode_id], rows[episode_id].num_rows)
    changed = {episode_id: (rows[episode_id], goals[episode_id]) for episode_id in rows if episode_id in goals}
    for name, pieces in _pieces(changed, indices).items():
        write_with_values(folder / name, changes.file(name), {TASK_INDEX: _task_changer(pieces)})
    statistics = ColumnStatistics.of_new_rows(folder, changes, rows, [TASK_INDEX])
    _write_episodes(folder, changes, statistics, _tasks_of_episodes(labelled, changed, tasks | new, indices))
    statistics.write(changes)
    _write_tasks(folder, changes, new)
    info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    info["total_tasks"] = len(tasks) + len(new)
    changes.file(INFO).write_text(json.dumps(info, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")

    num_rows = sum(place.num_rows for place in rows.values())
    given = sum(found.achieved + 1 - found.start for found in goals.values())
    lines = [
        f"{len(goals):,} of {len(rows):,} episodes have a goal as their task that they achieved, by the labels; "
        f"{len(labelled.episodes) - len(goals):,} achieved none and keep their task",
        f"{given:,} of {num_rows:,} rows have the new task: those that lead to the frame that achieves it, and this frame's; the "
        "other rows keep theirs",
        f"{len(new):,} tasks added, {len(wanted) - len(new):,} were there",
    ]
    if labelled.left_out:
        lines.append(f"{len(labelled.left_out):,} episodes without complete labels keep their task")
    return lines


def _pieces(
    changed: Mapping[str, tuple[EpisodeRows, HindsightGoal]], indices: Mapping[str, int]
) -> dict[str, list[tuple[int, int, int]]]:
    """Returns the rows that get another task by data file: start, stop and task_index, in order."""
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for place, chosen in changed.values():
        frame = 0
        for piece in place.pieces:
            offset = piece.start - frame
            start, stop = max(chosen.start + offset, piece.start), min(chosen.achieved + 1 + offset, piece.stop)
            if start < stop:
                found[piece.file].append((start, stop, indices[chosen.goal.text]))
            frame += piece.stop - piece.start
    return {name: sorted(pieces) for name, pieces in found.items()}


def _task_changer(pieces: Sequence[tuple[int, int, int]]) -> Callable[[int, pa.ChunkedArray], pa.Array]:
    new = np.full(pieces[-1][1], -1)  # -1 for rows that keep their task, as those after the last piece do
    for start, stop, index in pieces:
        new[start:stop] = index

    def change(row: int, column: pa.ChunkedArray) -> pa.Array:
        values = column.to_numpy().copy()
        part = new[row : row + len(values)]
        values[: len(part)][part >= 0] = part[part >= 0]
        return pa.array(values, column.type)

    return change


def _tasks_of_episodes(
    labelled: LabelledCorpus,
    changed: Mapping[str, tuple[EpisodeRows, HindsightGoal]],
    tasks: Mapping[int, str | None],
    indices: Mapping[str, int],
) -> dict[int, list[str | None]]:
    """Returns the tasks of each changed episode by episode_index, in the order of its rows."""
    cursor = RowCursor(OpenFiles(labelled.corpus.folder, ()), [TASK_INDEX])
    found = {}
    for episode_id, (place, chosen) in changed.items():
        table = cursor.take(episode_id, place.pieces)
        values = numbers(table, TASK_INDEX, np.int64).copy()
        values[chosen.start : chosen.achieved + 1] = indices[chosen.goal.text]
        found[place.episode_index] = texts(pa.table({TASK_INDEX: values}), tasks)
    return found


def _write_episodes(
    folder: Path, changes: Changes, statistics: ColumnStatistics, tasks: Mapping[int, Sequence[str | None]]
) -> None:
    """Writes the tasks of the episodes in meta: lines in version 2, tables with statistics in version 3."""
    lines = folder / EPISODES_LINES
    if lines.is_file():
        made = []
        for line in lines.read_text(encoding="utf-8").splitlines(keepends=True):
            record = json.loads(line) if line.strip() else {}
            if record.get("episode_index") in tasks:
                record["tasks"] = tasks[record["episode_index"]]
                line = json.dumps(record, ensure_ascii=False) + "\n"
            made.append(line)
        changes.file(EPISODES_LINES).write_text("".join(made), encoding="utf-8")
    for path in sorted((folder / EPISODES_FOLDER).rglob("*.parquet")):
        episodes = pq.read_table(path, columns=["episode_index"]).column(0).to_pylist()
        if tasks.keys().isdisjoint(episodes):
            continue

        def change(row: int, column: pa.ChunkedArray, episodes: Sequence[int] = episodes) -> pa.Array:
            own = column.to_pylist()
            return pa.array([tasks.get(episodes[row + i], value) for i, value in enumerate(own)], column.type)

        of_tasks = {"tasks": change} if "tasks" in pq.read_schema(path).names else {}
        name = path.relative_to(folder).as_posix()
        write_with_values(path, changes.file(name), of_tasks | statistics.changes_of(path))


def _write_tasks(folder: Path, changes: Changes, new: Mapping[int, str]) -> None:
    """Rewrites the tasks, with new ones appended."""
    for name in TASK_FILES if new else ():
        source = folder / name
        if not source.is_file():
            continue
        if name.endswith(".jsonl"):
            text = source.read_text(encoding="utf-8")
            added = [json.dumps({TASK_INDEX: i, "task": task}, ensure_ascii=False) + "\n" for i, task in new.items()]
            ended = text if not text or text.endswith("\n") else text + "\n"
            changes.file(name).write_text(ended + "".join(added), encoding="utf-8")
        else:
            table = pq.read_table(source)
            column = next(field for field in table.column_names if field != TASK_INDEX)
            records = [{TASK_INDEX: index, column: text} for index, text in new.items()]
            added_rows = pa.Table.from_pylist(records, schema=table.schema)
            pq.write_table(pa.concat_tables([table, added_rows]), changes.file(name))


LEROBOT_HINDSIGHT = ExportFormat(
    name="lerobot-hindsight",
    write=write_hindsight,
    corpus_formats=(LEROBOT.name,),
    takes=("strategy", "seed"),
    place="copy",
    judges=False,
)
