"""Comparison of two folders of outputs of vlm-rewards, file by file.

    bytes equal ─────────────────────────────────────────────► equal, compared whole
    bytes differ, a rule of `RULES` names the file
        and the contents without its volatile values agree ──► equal, compared in part; says what was left out
    anything else ───────────────────────────────────────────► different; says where first

Every file of both folders is compared. A volatile value is what a clock measured, named by its full place in one kind of file; the
same name elsewhere is compared. Tensors are compared by dtype, shape and bytes. What a comparison in part does not see is the
layout of a JSON text (spaces, line breaks) and of a checkpoint's archive.
"""

import dataclasses
import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from google.protobuf.json_format import MessageToDict
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

EVENTS = "events.out.tfevents"
_SPEED = re.compile(r"(<tr><td>frames a second and worker</td><td class=number>)([^<]*)(</td></tr>)")
_STAGES = re.compile(r"(<th scope=col class=number>frames/s</th></tr></thead><tbody>)(.*?)(</tbody>)")
_STAGE = re.compile(
    r"<tr><td>([^<]*)</td><td class=number>[^<]*</td><td class=number>[^<]*</td><td class=number>[^<]*</td></tr>"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How one kind of file is compared when its bytes differ.

    Args:
        glob: Pattern of the file's path; `*` matches slashes as well.
        read: Reads the file as numbers, texts and tensors in dicts and lists.
        volatile: Places of the values that are left out, such as `run.seconds`; `[]` stands for every index of a list.
    """

    glob: str
    read: Callable[[Path], Any]
    volatile: frozenset[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileComparison:
    """The result for one file.

    Args:
        path: Path inside the folder, the same on both sides.
        differs: Whether the two files differ.
        left_out: Places that were left out of the comparison; empty where the file was compared whole.
        detail: What differs first; empty where nothing does.
    """

    path: str
    differs: bool
    left_out: tuple[str, ...] = ()
    detail: str = ""

    def is_allowed(self, globs: Sequence[str]) -> bool:
        """Whether one of the patterns matches the path."""
        return any(fnmatchcase(self.path, glob) for glob in globs)


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text())


def read_json_lines(path: Path) -> list[Any]:
    """Reads a file with one JSON value per line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_checkpoint(path: Path) -> Any:
    """Reads a file of torch.save on the CPU; refuses anything but tensors and plain containers."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Reads a TensorBoard file: one dict per event, with the values of a summary by tag."""
    events = []
    for event in LegacyEventFileLoader(str(path)).Load():
        record = MessageToDict(event)
        if "summary" in record:
            record["summary"] = {value["tag"]: value for value in record["summary"]["value"]}
        events.append(record)
    return events


def read_report(path: Path) -> dict[str, Any]:
    """Reads a report of `evaluate`: its text without the measured times, and these apart.

    The table of stages is sorted by time, so that its order is measured as well: the names of the stages are kept, sorted.
    """
    text = path.read_text()
    measured: dict[str, Any] = {"speed": [found[2] for found in _SPEED.finditer(text)]}
    measured["stages"] = [found[2] for found in _STAGES.finditer(text)]
    text = _SPEED.sub(r"\1\3", text)
    text = _STAGES.sub(lambda found: found[1] + ", ".join(sorted(_STAGE.findall(found[2]))) + found[3], text)
    return {"text": text, "measured": {name: values for name, values in measured.items() if values}}


def _values(prefix: str, *names: str) -> frozenset[str]:
    return frozenset(prefix + name for name in names)


RULES = (
    Rule(glob="*/markers/*.json", read=read_json, volatile=frozenset({"seconds"})),
    Rule(glob="*/quality.json", read=read_json, volatile=frozenset({"run.seconds"})),
    Rule(glob="*/report.html", read=read_report, volatile=_values("measured.", "speed", "stages")),
    Rule(
        glob="*/metrics.jsonl",
        read=read_json_lines,
        volatile=_values("[].", "seconds", "seconds_evaluating", "seconds_scoring", "seconds_waited"),
    ),
    Rule(glob="*/checkpoints/*.pt", read=read_checkpoint, volatile=_values("live.judge.", "seconds", "seconds_waited")),
    Rule(
        glob=f"*/{EVENTS}*",
        read=read_events,
        volatile=_values(
            "[].",
            "wallTime",
            "summary.evaluation/seconds_evaluating",
            "summary.scoring/seconds_scoring",
            "summary.scoring/seconds_waited",
        ),
    ),
)
"""All files that may be compared in part, and what is left out of each."""


def compare_folders(old: Path, new: Path) -> list[FileComparison]:
    """Compares every file of two folders.

    Returns:
        One result per path that either folder has, sorted by path. A TensorBoard file has the time, host and process in its name;
        these are left out of it.

    Raises:
        ValueError: Both folders are without a file.
    """
    files = _files_by_name(old), _files_by_name(new)
    names = sorted(files[0].keys() | files[1].keys())
    if not names:
        raise ValueError(f"there are no files to compare: got {old} and {new}. Give folders that hold outputs.")
    found = []
    for name in names:
        paths = files[0].get(name), files[1].get(name)
        if paths[0] is not None and paths[1] is not None:
            found.append(compare_files(name, paths[0], paths[1]))
        else:
            found.append(
                FileComparison(path=name, differs=True, detail=f"only in {'NEW' if paths[0] is None else 'OLD'}")
            )
    return found


def compare_files(name: str, old: Path, new: Path) -> FileComparison:
    """Compares two files.

    Args:
        name: Path inside the folders, which chooses the rule.
        old: File of OLD.
        new: File of NEW.
    """
    bytes_of = old.read_bytes(), new.read_bytes()
    if hashlib.sha256(bytes_of[0]).digest() == hashlib.sha256(bytes_of[1]).digest():
        return FileComparison(path=name, differs=False)
    rule = next((rule for rule in RULES if fnmatchcase(name, rule.glob)), None)
    if rule is None and name.endswith(".json"):
        rule = Rule(glob=name, read=read_json, volatile=frozenset())  # for the place of the first difference alone
    place = _first_byte(*bytes_of)
    if rule is None:
        return FileComparison(path=name, differs=True, detail=place)
    try:
        leaves = [list(leaves_of(rule.read(path))) for path in (old, new)]
    except (ValueError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        return FileComparison(path=name, differs=True, detail=f"{place}; cannot be read: {error}")
    left_out = {general for side in leaves for _, general, _ in side if _is_under(general, rule.volatile)}
    kept = [[(at, leaf) for at, general, leaf in side if general not in left_out] for side in leaves]
    for one, other in zip_longest(*kept):
        if one != other:
            return FileComparison(path=name, differs=True, detail=_first_leaf(one, other))
    if not left_out:
        return FileComparison(path=name, differs=True, detail=f"{place}; the values are equal")
    removed = {place for place in rule.volatile if any(_is_under(general, {place}) for general in left_out)}
    return FileComparison(path=name, differs=False, left_out=tuple(sorted(removed)))


def leaves_of(value: Any, at: str = "", general: str = "") -> Iterator[tuple[str, str, str]]:
    """Lists the values inside dicts and lists, in order.

    Args:
        value: The outermost value.
        at: Place of `value`, such as `rows[3].loss`.
        general: The same with `[]` in place of every index, such as `rows[].loss`.

    Yields:
        Place, general place and value as text; that of a tensor is its dtype, shape and sha256. An empty dict or list is a value.
    """
    if isinstance(value, dict) and value:
        for key, item in value.items():
            dot = "." if at else ""
            yield from leaves_of(item, f"{at}{dot}{key}", f"{general}{dot}{key}")
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from leaves_of(item, f"{at}[{index}]", f"{general}[]")
    elif isinstance(value, torch.Tensor):
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield at, general, f"{value.dtype}{list(value.shape)} {hashlib.sha256(data).hexdigest()}"
    else:
        yield at, general, repr(value)


def describe(found: Sequence[FileComparison], allowed: Sequence[str]) -> list[str]:
    """Lists which files were compared how, and which differ.

    Args:
        found: Results of `compare_folders`.
        allowed: Patterns of files that may differ.
    """
    whole = [one.path for one in found if not one.differs and not one.left_out]
    parts = [f"{one.path}: without {', '.join(one.left_out)}" for one in found if not one.differs and one.left_out]
    different = [one for one in found if one.differs]
    refused = [f"{one.path}: {one.detail}" for one in different if not one.is_allowed(allowed)]
    permitted = [f"{one.path}: {one.detail}" for one in different if one.is_allowed(allowed)]
    lines = []
    for title, paths in (
        ("equal, compared whole", whole),
        ("equal, compared in part", parts),
        ("different, allowed", permitted),
        ("different", refused),
    ):
        lines += [f"{title}: {len(paths)} files", *(f"  {path}" for path in paths)]
    unmatched = [glob for glob in allowed if not any(one.is_allowed([glob]) for one in different)]
    lines += [f"--allow {glob} matched no file that differs" for glob in unmatched]
    return [*lines, "not compared: what the commands printed", f"result: {'different' if refused else 'equal'}"]


def _files_by_name(folder: Path) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            relative = path.relative_to(folder)
            name = str(relative)
            if relative.name.startswith(EVENTS):
                number = sum(one.startswith(str(relative.with_name(EVENTS))) for one in named)
                name = str(relative.with_name(f"{EVENTS}-{number}"))
            named[name] = path
    return named


def _is_under(general: str, places: frozenset[str] | set[str]) -> bool:
    return any(general == place or general.startswith((f"{place}.", f"{place}[")) for place in places)


def _first_byte(old: bytes, new: bytes) -> str:
    shorter = min(len(old), len(new))
    first = next((index for index in range(shorter) if old[index] != new[index]), shorter)
    return f"first difference at byte {first} (sizes {len(old)} and {len(new)})"


def _first_leaf(old: tuple[str, str] | None, new: tuple[str, str] | None) -> str:
    if old is not None and new is not None and old[0] == new[0]:
        return f"at {old[0]}: {_short(old[1])} in OLD, {_short(new[1])} in NEW"
    sides = ("nothing" if leaf is None else f"{leaf[0]} = {_short(leaf[1])}" for leaf in (old, new))
    return "{} in OLD, {} in NEW".format(*sides)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
