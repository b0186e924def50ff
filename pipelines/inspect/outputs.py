"""Which output of vlm-rewards a folder is, and the command that uses it."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_rewards.schemas.folders import MANIFEST, SETTINGS, read_settings

_LABELS = ["--input", "CORPUS", "--labels"]
_KINDS: dict[str, tuple[str, list[object], list[object]]] = {
    "labels": ("labels of a corpus", ["hindsight", *_LABELS], ["--output", "relabelled/"]),
    "embeddings": (
        "kept embeddings of frames",
        ["label", "--goals", "GOALS.jsonl", "--embeddings"],
        ["--output", "labels/"],
    ),
    "relabelled": ("relabelled trajectories", ["train", "--input"], ["--output", "agent/"]),
    "training": ("an agent that was trained offline", ["rollout", "--agent"], ["--output", "rollout/"]),
    "fine-tuning": ("an agent that was fine-tuned live", ["rollout", "--agent"], ["--output", "rollout/"]),
    "rollout": ("episodes that an agent played", [], []),
}
"""By kind: what it is, and the command that uses it, before and after the folder."""
_REPORTS = {
    "quality.json": ("evaluation", "an evaluation of labels", "report.html"),
    "diff.json": ("diff", "a comparison of labels", ""),
}
"""By the file that tells: kind, what it is, and the page to open."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputReport:
    """An output folder of vlm-rewards that is no corpus.

    Args:
        path: The folder.
        kind: Its kind, as its settings name it.
        what: The kind in words.
        is_finished: Whether the command that made it came to its end; None where nothing says so.
        details: Facts of it, in a few words each.
        following: Words of the command that uses it; empty for none.
    """

    path: str
    kind: str
    what: str
    is_finished: bool | None
    details: Sequence[str]
    following: Sequence[object]

    def lines(self) -> list[str]:
        """Lines for people."""
        found = [
            f"{self.path}: {self.what}, made by vlm-rewards{'' if self.is_finished is not False else ', not finished'}"
        ]
        if self.is_finished is False:
            found.append("  run the command that made it again: it does what is missing")
        return [*found, *(f"  {detail}" for detail in self.details)]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {"path": self.path, "kind": self.kind, "is_finished": self.is_finished, "details": list(self.details)}


def output_at(path: str | Path) -> OutputReport | None:
    """Looks whether a folder is an output of vlm-rewards that is no corpus.

    Returns:
        What it is; None for everything else, recorded corpora included.

    Raises:
        ValueError: Its settings or its manifest cannot be read.
    """
    if "://" in str(path):
        return None
    folder = Path(path)
    if (folder / SETTINGS).is_file():
        record = read_settings(folder)
        return None if record["kind"] == "corpus" else _of_settings(folder, record)
    for name, (kind, what, page) in _REPORTS.items():
        if (folder / name).is_file():
            details = [f"open {folder / page} in a browser"] if page else [f"see {folder / name}"]
            return OutputReport(path=str(path), kind=kind, what=what, is_finished=True, details=details, following=())
    return None


def _of_settings(folder: Path, record: dict[str, Any]) -> OutputReport:
    kind = record["kind"]
    what, before, after = _KINDS.get(kind, (f"an output of the kind {kind!r}", [], []))
    settings, details = record["settings"], []
    for name, shown in (("model", "model"), ("camera", "camera"), ("num_goals", "goals"), ("algorithm", "algorithm")):
        if isinstance(settings.get(name), str | int):
            details.append(f"{shown}: {settings[name]}")
    is_finished: bool | None = None
    if kind in ("labels", "embeddings", "relabelled"):
        is_finished = (folder / MANIFEST).is_file()
        if is_finished:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            details.append(f"{manifest['rows']:,} rows of {manifest['episodes']:,} episodes")
            failed = ", ".join(f"{count} {reason}" for reason, count in manifest["failures"].items())
            details += [f"left out: {failed}: see {folder / 'failures'}"] if failed else []
    following = [*before, folder, *after] if before and is_finished is not False else []
    return OutputReport(
        path=str(folder), kind=kind, what=what, is_finished=is_finished, details=details, following=following
    )
