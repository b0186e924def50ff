"""Describes an evaluation in a few lines for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from vlm_rewards.schemas.formats.passed_over import passed_over_lines

_SHOWN = 3


class Quality(dict):
    """Contents of quality.json, by the same names; shown as its summary."""

    def __repr__(self) -> str:
        return "\n".join(summary_lines(self))


def summary_lines(quality: Mapping[str, Any]) -> list[str]:
    """Returns lines for the user: figures per family and for all goals, what the false positives are, and what is not read."""
    lines = _known_lines(quality) if "truth" in quality else _lines(quality)
    return [*lines, *(f"  {line}" for line in passed_over_lines(quality["passed_over"]))]


def _lines(quality: Mapping[str, Any]) -> list[str]:
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


def _known_lines(quality: Mapping[str, Any]) -> list[str]:
    """Returns lines for the user about known pairs: their number, figures of all and of each goal, episodes."""
    counts, truth = quality["counts"], quality["truth"]
    lines = [
        f"evaluated {counts['known_pairs']:,} known pairs of a frame and a goal ({counts['known_positives']:,} in which it holds) "
        f"in {counts['frames']:,} frames of {counts['episodes']:,} episodes",
        f"  truth: {truth['marks'] or 'what the recording says (' + ', '.join(truth['episodes_by_source']) + ')'}; everything else "
        "is unknown and counts nowhere",
    ]
    told = [
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else format(value, '.3f')}"
        for name in ("average_precision", "precision", "recall")
        for value in [quality["pooled"][name]]
    ]
    lines.append(f"  all known pairs: {', '.join(told)}")
    episodes = quality["pooled"]["episodes"]
    if episodes["known"]:
        agreeing = episodes["true_positives"] + episodes["true_negatives"]
        lines.append(
            f"  episodes: labels agree with the recording in {agreeing:,} of {episodes['known']:,} (accuracy "
            f"{episodes['accuracy']:.3f}): {episodes['true_positives']:,} successes found, {episodes['false_negatives']:,} missed; "
            f"{episodes['true_negatives']:,} failures found, {episodes['false_positives']:,} taken for successes"
        )
    lines += [f"  {number:,} episodes are unknown: {reason}" for reason, number in quality["unknown_episodes"].items()]
    if counts["episodes_not_whole"]:
        lines.append(f"  {counts['episodes_not_whole']:,} episodes lack labels of some frames: they have no verdict")
    return lines


def first_ids(ids: Sequence[str]) -> str:
    """Lists the first few of some ids."""
    return f"{', '.join(ids[:_SHOWN])}{', ...' * (len(ids) > _SHOWN)}"
