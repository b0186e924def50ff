"""Describes an evaluation in a few lines for people."""

from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = 3


class Quality(dict):
    """Contents of quality.json, by the same names; shown as its summary."""

    def __repr__(self) -> str:
        return "\n".join(summary_lines(self))


def summary_lines(quality: Mapping[str, Any]) -> list[str]:
    """Lines for people: figures per family and for all goals, and what the false positives are."""
    groups = [*quality["families"].items(), ("all goals", quality["overall"])]
    width = max(len(name) for name, _ in groups)
    lines = [
        f"evaluated {quality['counts']['frames']:,} frames of {quality['counts']['episodes']:,} episodes",
        "  average precision, and at the thresholds F1, false-positive rate and EPIC distance (0 is best), means over goals:",
    ]
    for name, group in groups:
        macro = group["macro"]
        precision = group["mean_average_precision"]
        shown = precision  # or why there is none
        if not isinstance(precision, str):
            values = {"F1": macro["f1"], "FPR": macro["false_positive_rate"], "EPIC": macro["epic_distance"]["success"]}
            told = [f"{key} {'undefined' if isinstance(x, str) else format(x, '.3g')}" for key, x in values.items()]
            shown = f"{precision:.3f}  {', '.join(told)}"
        occur = f"{group['num_goals_with_positives']} of {group['num_goals']} goals occur"
        lines.append(f"    {name:<{width}}  {shown}  ({occur})")
    causes = quality["overall"]["false_positives"]
    if causes["total"]:
        most = sorted(causes["causes"].items(), key=lambda item: -item[1])[:3]
        told = [f"{count / causes['total']:.0%} {cause}" for cause, count in most if count]
        lines.append(f"  {causes['total']:,} false positives: {', '.join(told)}")
    for key, what in (
        ("goals_without_ground_truth", "labelled goals without ground truth are left out"),
        ("goals_without_labels", "goals of the ground truth are not labelled"),
    ):
        if quality[key]:
            lines.append(f"  {len(quality[key]):,} {what}: {first_ids(quality[key])}")
    return lines


def first_ids(ids: Sequence[str]) -> str:
    """Lists the first few of some ids."""
    return f"{', '.join(ids[:_SHOWN])}{', ...' * (len(ids) > _SHOWN)}"
