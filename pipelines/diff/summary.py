"""Describes a diff in lines to print, from the contents of diff.json."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_rewards.labelers.calibration.counts import NEVER
from vlm_rewards.pipelines.diff.quality import FIGURES
from vlm_rewards.pipelines.evaluate.summary import first_ids
from vlm_rewards.schemas.formats.passed_over import passed_over_lines

_MAX_ROWS = 10
_MAX_CHARS = 60
_TITLES = {
    "average_precision": "average precision",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "false_positive_rate": "false-positive rate",
}


class LabelDiff(dict):
    """Contents of diff.json, by the same names; shown as the first lines of its summary, without the tables."""

    def __repr__(self) -> str:
        return "\n".join(_first_lines(self))


def summary_lines(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the summary.

    Args:
        result: What `pipelines.diff.comparison.diff` returns.
    """
    lines = _first_lines(result)
    if not result["identical"]:
        lines += _change_lines(result)
    if result["quality"] is not None:
        lines += _quality_lines(result)
    return lines


def _first_lines(result: Mapping[str, Any]) -> list[str]:
    counts, goals = result["counts"], result["goals"]
    lines = [
        f"compared {counts['frames']:,} frames of {counts['episodes']:,} episodes for {goals['common']:,} goals: "
        f"A {result['a']['labels']}, B {result['b']['labels']}"
    ]
    if result["identical"]:
        lines.append("  identical: every goal, threshold, frame and score is the same")
    lines += _settings_lines(result)
    for side in ("a", "b"):
        if frames := counts[f"frames_only_in_{side}"]:
            episodes = counts[f"episodes_only_in_{side}"]
            lines.append(f"  only in {side.upper()}: {frames:,} frames, {episodes:,} whole episodes among them")
    return lines


def _settings_lines(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"  {title} {name}: {_short(pair['a'])} in A, {_short(pair['b'])} in B"
        for title, part in (("fingerprint,", "fingerprint"), ("rule,", "rule"))
        for name, pair in result[part].items()
    ]
    for side in ("a", "b"):
        if only := result["goals"]["only_in"][side]:
            lines.append(f"  goals only in {side.upper()}: {len(only):,}, such as {only[0]}")
    if described := result["goals"]["described_differently"]:
        lines.append(
            f"  goals of one id but other texts or fields: {len(described):,}, such as {next(iter(described))}"
        )
    if thresholds := result["thresholds"]:
        name, pair = next(iter(thresholds.items()))
        a, b = (f"{value:g}" if value < NEVER else "never fires" for value in (pair["a"], pair["b"]))
        lines.append(f"  thresholds that differ: {len(thresholds):,}, such as {name}: {a} in A, {b} in B")
    if rates := result["fire_rates"]:
        name, pair = next(iter(rates.items()))
        a, b = ("none" if value is None else f"{value:g}" for value in (pair["a"], pair["b"]))
        lines.append(f"  fire rates that differ: {len(rates):,}, such as {name}: {a} in A, {b} in B")
    return lines


def _change_lines(result: Mapping[str, Any]) -> list[str]:
    counts, rows = result["counts"], result["changes"]
    sums = {name: sum(row[name] for row in rows) for name in rows[0] if isinstance(rows[0][name], int)}
    changed, share = sums["changed"], sums["changed"] / max(sums["compared"], 1)
    largest = max(_known(row["largest_change"]) for row in rows)
    lines = [
        f"  scores: {changed:,} of {sums['compared']:,} changed by more than {result['tolerance']:g} ({share:.2%}), the most by "
        f"{largest:.4g}, in {counts['changed_episodes']:,} episodes"
    ]
    unknown = sums["only_in_a"] + sums["only_in_b"] + sums["in_neither"]
    if unknown:
        lines.append(
            f"  unknown, under the threshold of sparse labels: {sums['only_in_b']:,} scores in A alone, {sums['only_in_a']:,} in B "
            f"alone, {sums['in_neither']:,} in both"
        )
    lines.append(
        f"  successes: {sums['gained_frames']:,} gained and {sums['lost_frames']:,} lost in {counts['flipped_episodes']:,} "
        f"episodes; {counts['episodes_with_other_goals']:,} episodes achieve other goals"
    )
    most = sorted(
        (row for row in rows if row["changed"] or row["gained_frames"] or row["lost_frames"]),
        key=lambda row: (-(row["gained_frames"] + row["lost_frames"]), -_known(row["mean_change"]), row["id"]),
    )
    if most:
        header = ["goal", "gained", "lost", "episodes", "changed", "mean", "largest", "rank corr."]
        table = [
            [
                row["id"],
                f"{row['gained_frames']:,}",
                f"{row['lost_frames']:,}",
                f"+{row['gained_episodes']:,} -{row['lost_episodes']:,}",
                f"{row['changed']:,}",
                *(_number(row[name]) for name in ("mean_change", "largest_change", "rank_correlation")),
            ]
            for row in most
        ]
        lines += [
            "",
            f"  goals that changed most, {min(len(most), _MAX_ROWS)} of {len(most):,}",
            *_table(header, table),
        ]
    if episodes := result["episodes"]:
        header = ["episode", "goals", "flipped", "changed", "largest", "gained and lost goals"]
        table = [
            [
                row["episode_id"],
                f"+{row['gained_goals']:,} -{row['lost_goals']:,}",
                f"{row['flipped']:,}",
                f"{row['changed']:,}",
                _number(row["largest_change"]),
                _cut(" ".join([*(f"+{goal}" for goal in row["gained"]), *(f"-{goal}" for goal in row["lost"])])),
            ]
            for row in episodes
        ]
        lines += ["", "  episodes that changed most", *_table(header, table)]
    return lines


def _quality_lines(result: Mapping[str, Any]) -> list[str]:
    quality = result["quality"]
    rows = [*quality["families"].items(), ("all goals", quality["overall"])]
    lines = ["", f"  quality on {quality['frames']:,} frames with ground truth: A -> B (B - A)"]
    if missing := quality["frames_without_truth"]:
        lines.append(f"  ({missing:,} frames that both label have none in this corpus)")
    if missing := quality["goals_without_ground_truth"]:
        lines.append(f"  ({len(missing):,} goals that both label have no ground truth: {first_ids(missing)})")
    lines += [f"  {line}" for line in passed_over_lines(quality["passed_over"])]
    if result["a"]["sparse"] or result["b"]["sparse"]:
        lines.append("  (the average precision of sparse labels is a lower bound: scores over the threshold only)")
    table = [
        [name, *(_pair(row["a"][figure], row["b"][figure], row["difference"][figure]) for figure in FIGURES)]
        for name, row in rows
    ]
    lines += _table(["family", *(_TITLES[figure] for figure in FIGURES)], table)
    moved = [row for row in quality["goals"] if isinstance(row["difference"]["average_precision"], float)]
    moved = [row for row in moved if row["difference"]["average_precision"]]
    moved.sort(key=lambda row: (-abs(row["difference"]["average_precision"]), row["id"]))
    if moved:
        header = ["goal", *(_TITLES[figure] for figure in ("average_precision", "f1"))]
        table = [
            [row["id"], *(_pair(row["a"][n], row["b"][n], row["difference"][n]) for n in ("average_precision", "f1"))]
            for row in moved
        ]
        lines += ["", f"  average precision moved most, {min(len(moved), _MAX_ROWS)} of {len(moved):,} goals"]
        lines += _table(header, table)
    return lines


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    shown = [header, *rows[:_MAX_ROWS]]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    return [
        "    "
        + "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in shown
    ]


def _known(value: float | str) -> float:
    return 0.0 if isinstance(value, str) else value


def _pair(a: float | str, b: float | str, difference: float | str) -> str:
    shown = f"{_number(a)} -> {_number(b)}"
    return f"{shown} ({difference:+.4f})" if isinstance(difference, float) else shown


def _number(value: float | str) -> str:
    return "undefined" if isinstance(value, str) else f"{value:.4f}"


def _short(value: object) -> str:
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 3] + "..."
