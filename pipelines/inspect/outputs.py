"""Which output of vlm-rewards a folder is, if it is no corpus, and the command that uses it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_rewards.schemas.folders import MANIFEST, SETTINGS, read_manifest, read_settings

_LABELS: list[object] = ["--input", "CORPUS", "--labels"]
_KINDS: dict[str, tuple[str, list[object], list[object]]] = {
    "labels": ("labels of a corpus", ["hindsight", *_LABELS], ["--output", "relabelled/"]),
    "embeddings": (
        "kept embeddings of frames",
        ["label", "--goals", "GOALS.jsonl", "--model", "MODEL", "--embeddings"],
        ["--output", "labels/"],
    ),
    "relabelled": ("relabelled trajectories", ["train", "--input"], ["--output", "agent/"]),
    "training": ("an agent that was trained offline", ["rollout", "--agent"], ["--output", "rollout/"]),
    "fine-tuning": ("an agent that was fine-tuned live", ["rollout", "--agent"], ["--output", "rollout/"]),
    "rollout": ("episodes that an agent played", [], []),
    "calibration": (
        "a calibration of labels",
        ["label", "--input", "CORPUS", "--goals", "GOALS.jsonl", "--model", "MODEL", "--calibration"],
        ["--output", "labels/"],
    ),
    "model": (
        "a checkpoint of a model",
        ["label", "--input", "CORPUS", "--goals", "GOALS.jsonl", "--model"],
        ["--output", "labels/"],
    ),
    "evaluation": ("an evaluation of labels", [], []),
    "diff": ("a comparison of labels", [], []),
}
"""By kind: what it is, and the command that uses it, before and after the folder."""
_REPORTS = {"quality.json": "evaluation", "diff.json": "diff"}
"""By the file that holds the figures: the kind, which the file names too."""
_WITH_MANIFEST = ("labels", "embeddings", "relabelled")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputReport:
    """An output of vlm-rewards that is no corpus, or a model.

    Args:
        path: The folder, or the file of a calibration.
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
        is_half = self.is_finished is False
        found = [f"{self.path}: {self.what}{', not finished' if is_half else ''}"]
        if is_half:
            found.append("  run the command that made it again: it does what is missing")
        return [*found, *(f"  {detail}" for detail in self.details)]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {"path": self.path, "kind": self.kind, "is_finished": self.is_finished, "details": list(self.details)}


def output_at(path: str | Path) -> OutputReport | None:
    """Looks whether a folder is an output of vlm-rewards that is no corpus, or a model; or a file, a calibration.

    Returns:
        What it is; None for everything else, recorded corpora included.

    Raises:
        ValueError: Its settings or its manifest cannot be read.
    """
    if "://" in str(path):
        return None
    folder = Path(path)
    if folder.suffix == ".json" and folder.is_file():
        kind = _kind_in(folder)
        return _report(folder, kind, []) if kind == "calibration" else None
    if (folder / SETTINGS).is_file():
        record = read_settings(folder)
        return None if record["kind"] == "corpus" else _of_settings(folder, record)
    for name, kind in _REPORTS.items():
        if _kind_in(folder / name) == kind:
            page = folder / "report.html"
            details = [f"open {page} in a browser"] if page.is_file() else [f"its figures: {folder / name}"]
            return _report(folder, kind, details)
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return _report(folder, "model", [])
    return None


def _kind_in(path: Path) -> str | None:
    """The kind that a file of JSON names; None where it is none of ours."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    kind = record.get("kind") if isinstance(record, dict) else None
    return kind if isinstance(kind, str) else None


def _of_settings(folder: Path, record: dict[str, Any]) -> OutputReport:
    kind, settings, details = record["kind"], record["settings"], []
    for name, shown in (("model", "model"), ("camera", "camera"), ("num_goals", "goals"), ("algorithm", "algorithm")):
        if isinstance(settings.get(name), str | int):
            details.append(f"{shown}: {settings[name]}")
    is_finished: bool | None = None
    if kind in _WITH_MANIFEST:
        is_finished = (folder / MANIFEST).is_file()
        if is_finished:
            manifest = read_manifest(folder, kind)
            details.append(f"{manifest['rows']:,} rows of {manifest['episodes']:,} episodes")
            failed = ", ".join(f"{count:,} {reason}" for reason, count in manifest["failures"].items())
            details += [f"left out: {failed}: see {folder / 'failures'}"] if failed else []
    return _report(folder, kind, details, is_finished, settings)


def _report(
    path: Path,
    kind: str,
    details: list[str],
    is_finished: bool | None = None,
    settings: Mapping[str, Any] | None = None,
) -> OutputReport:
    what, before, after = _KINDS.get(kind, (f"an output of the kind {kind!r}", [], []))
    model = (settings or {}).get("model")
    known = [model if word == "MODEL" and model else word for word in before]
    return OutputReport(
        path=str(path),
        kind=kind,
        what=what,
        is_finished=is_finished,
        details=details,
        following=[*known, path, *after] if before and is_finished is not False else [],
    )
