"""Reads the table beside videos or pictures, which describes each episode.

    metadata.csv, as `datasets` has it            file_name,instruction
    (or metadata.jsonl, or a CSV of any name)     ep000.mp4,put the cup into the sink

A table is of the folder it lies in, and names are below that. Columns: file_name (or file) or episode_id, instruction (or text),
num_frames; others are left alone. All values are texts; empty ones count as absent.
"""

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError
from vlm_rewards.schemas.manifests import Failure

NAMES = ("metadata.csv", "metadata.jsonl")
TABLE_OPTIONS = {
    "table": "name of a CSV or JSONL file that says more of the episodes (default: metadata.csv or metadata.jsonl)",
    "instruction": "column of that file that holds the instruction (default: instruction or text)",
}
_FILE_COLUMNS = ("file_name", "file")
_TEXT_COLUMNS = ("instruction", "text")


class Row(NamedTuple):
    """A table's row on one file or episode.

    Attributes:
        place: Place of the row, such as "metadata.csv, line 3".
        file: Name of the file below the corpus's folder, or "".
        episode_id: The episode's id, or "".
        instruction: Instruction; None if it is not given.
        num_frames: Expected number of frames; None if it is not given.
    """

    place: str
    file: str
    episode_id: str
    instruction: str | None
    num_frames: int | None


def find_tables(folder: Folder, options: Mapping[str, str]) -> list[str]:
    """Returns the tables of a corpus: the one that the option "table" names, or all metadata.csv and metadata.jsonl.

    Raises:
        ValueError: The option names a file that is not there.
    """
    if "table" in options:
        if not folder.has_file(options["table"]):
            raise ValueError(
                f"a table must be a file in {folder}: got {options['table']!r}, which is not there. Check its name"
            )
        return [options["table"]]
    found = [file.name for file in folder.files if file.name.rpartition("/")[2] in NAMES]
    if folder.only:  # a single file: its table lies beside it
        found += [name for name in (_beside(folder.only, name) for name in NAMES) if folder.has_file(name)]
    return list(dict.fromkeys(found))


def read_table(folder: Folder, name: str, options: Mapping[str, str]) -> list[Row]:
    """Reads a table.

    Args:
        folder: The corpus's folder.
        name: Name of the table below it.
        options: May name the column of instructions, "instruction".

    Raises:
        ValueError: It is no table, or lacks a column that says what its lines are of.
    """
    path = folder.path(name)
    try:
        text = folder.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8: got {error}. Save it as UTF-8") from error
    lines = list(_json_lines(text, path) if name.endswith(".jsonl") else _csv_lines(text, path))
    columns = list(dict.fromkeys(column for _, values in lines for column in values))
    file_column = next((column for column in _FILE_COLUMNS if column in columns), None)
    if lines and file_column is None and "episode_id" not in columns:
        raise ValueError(
            f"{path} must have the column file_name or episode_id: got {', '.join(columns) or 'none'}. Rename the column that "
            "says which file a line is of"
        )
    texts = (options["instruction"],) if "instruction" in options else _TEXT_COLUMNS
    text_column = next((column for column in texts if column in columns), None)
    if "instruction" in options and text_column is None:
        raise ValueError(
            f"{path} must have the column {texts[0]!r}: got {', '.join(columns) or 'none'}. Choose one of them"
        )
    rows = []
    for number, values in lines:
        place = f"{name}, line {number}"
        file = values.get(file_column or "", "")
        rows.append(
            Row(
                place=place,
                file=_beside(name, file) if file else "",
                episode_id=values.get("episode_id", ""),
                instruction=values.get(text_column or "") or None,
                num_frames=_count(values.get("num_frames", ""), f"{path}, line {number}"),
            )
        )
    return rows


def _beside(name: str, other: str) -> str:
    """Returns the name of a file that lies in the same folder as another."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), other))


def _count(text: str, where: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.removesuffix(".0").isdigit()):
        raise ValueError(f"num_frames must be a number: got {text!r} in {where}. Correct it")
    return int(text.removesuffix(".0"))


def _csv_lines(text: str, path: str) -> Iterator[tuple[int, dict[str, str]]]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="")
    try:
        for row in rows:
            if "" in row and any(row[""]):
                raise ValueError(
                    f"a line must have as many values as the first: got {row['']} more in {path}, line {rows.line_num}. Quote "
                    f"texts that hold {delimiter!r}"
                )
            values = {(column or "").strip(): (value or "").strip() for column, value in row.items() if column != ""}
            if any(values.values()):
                yield rows.line_num, values
    except csv.Error as error:
        raise ValueError(f"{path} must be lines of CSV: got {error} in line {rows.line_num + 1}. Correct it") from error


def _json_lines(text: str, path: str) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} must hold one JSON object per line: got {error} in line {number}. Correct it"
            ) from error
        if not isinstance(record, dict):
            raise ValueError(
                f"{path} must hold one JSON object per line: got {line[:40]!r} in line {number}. Correct it"
            )
        yield number, {str(name): "" if value is None else str(value).strip() for name, value in record.items()}


def check_count(name: str, num_frames: int, row: Row | None) -> None:
    """Refuses an episode of another number of frames than a table says.

    Raises:
        InvalidEpisodeError: It is.
    """
    if row is not None and row.num_frames not in (None, num_frames):
        raise InvalidEpisodeError(
            "missing frames",
            f"{name} should have {row.num_frames} frames by {row.place}, got {num_frames}. Leave the episode out",
        )


def missing_files(rows: Iterable[Row]) -> Iterator[Failure]:
    """Yields a failure for each missing file that a table names."""
    for row in rows:
        name = row.file or row.episode_id
        detail = f"{row.place} names {name}, which is not there. Copy it too, or remove the line"
        yield Failure(scope="shard", shard=name, reason="missing file", detail=detail)
