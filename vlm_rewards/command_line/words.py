"""What commands say when they are done, where several say it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_rewards.pipelines.engine.driver import RunSummary

Said = tuple[list[str], list[list[object]]]
"""Lines to print, and the words of the commands that may follow."""


def skipped(summary: "RunSummary") -> str:
    """Says how many units an earlier run had done."""
    num_units, num_skipped = summary.num_units, summary.num_skipped
    if num_skipped == num_units:
        return f" (all {num_units} units were done before: nothing to do)"
    return f" ({num_skipped} of {num_units} units were done before)" if num_skipped else ""


def reasons(manifest: dict) -> str:
    """Lists failures by reason."""
    return ", ".join(f"{count} {reason}" for reason, count in manifest["failures"].items())


def describe_evaluations(folder: Path) -> list[str]:
    """The evaluations of a run in lines: of the goals trained on, and apart of those held out, the first and the last.

    Args:
        folder: Folder that `vlm-rewards train` or `finetune` has finished.
    """
    from vlm_rewards.offline_rl.runs.folders import read_metrics

    by_kind: dict[str, list[dict[str, Any]]] = {}
    for record in read_metrics(folder):
        if record["kind"].startswith("evaluation"):
            by_kind.setdefault(record["kind"], []).append(record)
    shown = [record for records in by_kind.values() for record in [*records[:1], *records[1:][-1:]]]
    return [f"  {record['kind']} ({record['when']}): {_success(record)}" for record in shown]


def describe_fine_tuning(folder: Path) -> list[str]:
    """What fine-tuning has made of an agent, in lines: its success by ground truth before and after, and what that does not show.

    Args:
        folder: Folder that `vlm-rewards finetune` has finished, with evaluations.
    """
    from vlm_rewards.offline_rl.runs.folders import read_metrics

    records = [record for record in read_metrics(folder) if record["kind"] == "evaluation"]
    before, after = records[0], records[-1]
    lines = [f"  before fine-tuning: {_success(before)}", f"  after fine-tuning:  {_success(after)}"]
    if max(before["success_low"], after["success_low"]) <= min(before["success_high"], after["success_high"]):
        lines.append("  the intervals overlap: so few steps and episodes show no difference between the two")
    return lines


def _success(record: Mapping[str, Any]) -> str:
    name, what = (
        ("success", "success") if record["success"] is not None else ("vlm_success", "no truth known, rewarded")
    )
    shown = share(record[name], record[f"{name}_low"], record[f"{name}_high"])
    return f"{what} {shown} in {record['episodes']} held-out episodes"


def share(mean: float, low: float, high: float) -> str:
    """Writes a share with its interval."""
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"
