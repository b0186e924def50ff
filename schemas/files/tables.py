"""Tables that people write in an editor or a spreadsheet: CSV with commas, semicolons or tabs."""

import csv
import io
import re
from collections.abc import Iterator

from vlm_rewards.schemas.files.remote_paths import Location, size_of

MAX_BYTES = 256 * 2**20


def read_text(path: Location, what: str) -> str:
    """Reads a text file that people wrote.

    Args:
        path: The file, which exists.
        what: What it should be, for messages, such as "a goals file".

    Raises:
        ValueError: It is a folder, is too large to be such a file, or not UTF-8.
    """
    if path.is_dir():
        raise ValueError(f"{what} must be a file, got the folder {path}. Give the file in it")
    size = size_of(path) or 0
    if size > MAX_BYTES:
        raise ValueError(f"{what} must have at most {MAX_BYTES} bytes, got {size} in {path}. Check the path")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        number, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise ValueError(
            f"{path}, line {number}: {what} must be UTF-8, got the byte 0x{byte:02x}. Save the file as UTF-8"
        ) from error


def table_rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the lines of a table that hold anything, the names of the columns first.

    Args:
        text: The table. What stands between its columns is what its first line has most of: commas, semicolons or tabs; or what a
            line such as "sep=;" before it says.
        where: Its path, for messages.

    Yields:
        Number of the line, and its values without spaces around them.

    Raises:
        ValueError: A line is no CSV.
    """
    hint = re.match(r"sep=([^\r\n])\r?\n", text, re.IGNORECASE)  # a line for spreadsheets
    skipped = 0 if hint is None else 1
    text = text if hint is None else text[hint.end() :]
    head = re.sub('"[^"]*"', "", text.partition("\n")[0])
    delimiter = max(",;\t", key=head.count) if hint is None else hint[1]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in rows:
            values = [value.strip() for value in row]
            if any(values):
                yield rows.line_num + skipped, values
    except csv.Error as error:
        raise ValueError(
            f"{where}, line {rows.line_num + skipped}: a line must be CSV, got {error}. Correct it"
        ) from error
