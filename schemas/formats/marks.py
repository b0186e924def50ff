"""Frames that a person marked: a small CSV that says of single frames whether a goal holds in them.

episode_id,frame_index,goal,achieved
kitchen-0001,5,cup-in-sink,1
kitchen-0001,0,cup-in-sink,0
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("episode_id", "frame_index", "goal", "achieved")


class Mark(NamedTuple):
    """One line of the file: whether goal number `goal` holds in a frame."""

    line: int
    episode_id: str
    frame_index: int
    goal: int
    achieved: bool


def read_marks(path: str | Path, goal_ids: Sequence[str]) -> list[Mark]:
    """Reads the marks; whether their frames exist is for `check_marks`, once labels have been read.

    Args:
        path: A CSV file in UTF-8 whose first line names the four columns, in any order.
        goal_ids: Ids of the G goals; a mark's number is of this list.

    Raises:
        ValueError: The file is not there, is not UTF-8 or not CSV, has no marks or other columns, or a line has a frame index that
            is no number, an unknown goal, something else than 0 or 1, or repeats or contradicts an earlier line. The message names
            the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"marks must be a CSV file, got {path}, which is not there; check the path")
    numbers = {goal: number for number, goal in enumerate(goal_ids)}
    marks: list[Mark] = []
    seen: dict[tuple[str, int, int], Mark] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        number, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ValueError(
            f"marks must be UTF-8, got the byte 0x{byte:02x} in {path}, line {number}; save the file as UTF-8"
        ) from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if sorted(rows.fieldnames or ()) != sorted(COLUMNS):
            raise ValueError(
                f"marks must have the columns {', '.join(COLUMNS)}, got {', '.join(rows.fieldnames or ()) or 'none'} in {path}; "
                f"write them into its first line"
            )
        for row in rows:
            mark = _mark(row, numbers, f"{path}, line {rows.line_num}", rows.line_num)
            before = seen.setdefault((mark.episode_id, mark.frame_index, mark.goal), mark)
            if before is not mark:
                verb = "repeats" if before.achieved == mark.achieved else "contradicts"
                raise ValueError(
                    f"a goal must be marked once in a frame, got {path}, line {mark.line}, which {verb} line {before.line}; "
                    f"remove one"
                )
            marks.append(mark)
    except csv.Error as error:
        raise ValueError(
            f"marks must be lines of CSV, got {path}, line {rows.line_num + 1} ({error}). Correct it"
        ) from error
    if not marks:
        raise ValueError(f"marks must be at least one, got none in {path}; mark some frames of each goal")
    return marks


def _mark(row: dict, numbers: dict[str, int], where: str, line: int) -> Mark:
    values = [row[name] for name in COLUMNS]
    stripped = [(value or "").strip() for value in values]
    if None in row or not all(stripped):
        raise ValueError(
            f"a mark must have four values, got {[*values, *row.get(None, [])]} in {where}. Correct the line"
        )
    episode_id, frame, goal, achieved = stripped
    if not frame.isascii() or not frame.isdigit():
        raise ValueError(f"frame_index must be a number from 0, got {frame!r} in {where}. Correct it")
    if goal not in numbers:
        raise ValueError(f"a marked goal must be one of the labels' goals, got {goal!r} in {where}. Correct its id")
    if achieved not in ("0", "1"):
        raise ValueError(f"achieved must be 0 or 1, got {achieved!r} in {where}; leave the line out if you cannot tell")
    return Mark(line, episode_id, int(frame), numbers[goal], achieved == "1")


def check_marks(marks: Sequence[Mark], path: str | Path, found_episodes: set[str], found_lines: set[int]) -> None:
    """Refuses marks of frames that have no label.

    Args:
        marks: All marks.
        path: Of their file.
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
