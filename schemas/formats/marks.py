"""Reads marks of single frames: a small CSV in which a person states whether a goal holds in a frame.

episode_id,frame_index,goal,achieved
kitchen-0001,5,cup-in-sink,1
kitchen-0001,0,cup-in-sink,0
"""

from collections.abc import Sequence
from typing import NamedTuple

from vlm_rewards.schemas.files.remote_paths import Location, location_of
from vlm_rewards.schemas.files.tables import read_text, table_rows

COLUMNS = ("episode_id", "frame_index", "goal", "achieved")
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


class Mark(NamedTuple):
    """One line of the file: whether goal number `goal` holds in a frame."""

    line: int
    episode_id: str
    frame_index: int
    goal: int
    achieved: bool


def read_marks(path: str | Location, goal_ids: Sequence[str]) -> list[Mark]:
    """Reads the marks; `check_marks` checks that their frames exist once labels have been read.

    Args:
        path: A CSV file in UTF-8 whose first line names the four columns, in any order.
        goal_ids: Ids of the G goals; a mark's goal number is an index into this list.

    Raises:
        ValueError: The file does not exist, is not UTF-8 or not CSV, has no marks or other columns, or a line has a frame index
            that is no number, an unknown goal, a value other than 0 or 1, or repeats or contradicts another. The message names
            the line.
    """
    path = location_of(path)
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"marks must be a CSV file, got {path}, which is not there; check the path")
    numbers = {goal: number for number, goal in enumerate(goal_ids)}
    rows = table_rows(read_text(path, "a file of marks"), str(path))
    _, columns = next(rows, (1, []))
    if sorted(filter(None, columns)) != sorted(COLUMNS):
        raise ValueError(
            f"marks must have the columns {', '.join(COLUMNS)}, got {', '.join(columns) or 'none'} in {path}; write them into its "
            f"first line"
        )
    marks: list[Mark] = []
    seen: dict[tuple[str, int, int], Mark] = {}
    for line, values in rows:
        mark = _mark(columns, values, numbers, f"{path}, line {line}", line)
        before = seen.setdefault((mark.episode_id, mark.frame_index, mark.goal), mark)
        if before is not mark:
            verb = "repeats" if before.achieved == mark.achieved else "contradicts"
            raise ValueError(
                f"a goal must be marked once in a frame, got {path}, line {mark.line}, which {verb} line {before.line}; "
                f"remove one"
            )
        marks.append(mark)
    if not marks:
        raise ValueError(f"marks must be at least one, got none in {path}; mark some frames of each goal")
    return marks


def _mark(columns: Sequence[str], values: Sequence[str], numbers: dict[str, int], where: str, line: int) -> Mark:
    row = {name: value for name, value in zip(columns, values, strict=False) if name}
    if len(row) < len(COLUMNS) or not all(row.values()) or any(values[len(columns) :]):
        raise ValueError(f"a mark must have four values, got {list(values)} in {where}. Correct the line")
    frame, goal, achieved = row["frame_index"], row["goal"], row["achieved"].lower()
    if not frame.isascii() or not frame.isdigit():
        raise ValueError(f"frame_index must be a number from 0, got {frame!r} in {where}. Correct it")
    if goal not in numbers:
        raise ValueError(f"a marked goal must be one of the labels' goals, got {goal!r} in {where}. Correct its id")
    if achieved not in _YES + _NO:
        raise ValueError(
            f"achieved must be 0 or 1, or one of {', '.join((*_NO[1:], *_YES[1:]))}, got {row['achieved']!r} in {where}. Leave the "
            "line out if you cannot tell"
        )
    return Mark(line, row["episode_id"], int(frame), numbers[goal], achieved in _YES)


def check_marks(marks: Sequence[Mark], path: str | Location, found_episodes: set[str], found_lines: set[int]) -> None:
    """Refuses marks of frames that have no label.

    Args:
        marks: All marks.
        path: Path of their file.
        found_episodes: Marked episodes that have labels.
        found_lines: Lines whose frames have labels.

    Raises:
        ValueError: A mark's episode or frame is unknown.
    """
    for mark in marks:
        if mark.episode_id not in found_episodes:
            raise ValueError(
                f"a marked episode must have labels, got {mark.episode_id!r} in {path}, line {mark.line}. Correct its id, or "
                f"give the labels of that episode"
            )
        if mark.line not in found_lines:
            raise ValueError(
                f"a marked frame must have a label, got frame {mark.frame_index} of episode {mark.episode_id!r} in {path}, line "
                f"{mark.line}. Correct the number: frames count from 0"
            )
