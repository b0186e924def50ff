"""Tables of the report: every figure with its key to sort by, an undefined one with its reason.

A cell carries what is shown and, apart from it, what it sorts as; an undefined figure has no key and sorts last, whichever way.
The page's script makes buttons of the heads; without it the tables are as they were written.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vlm_rewards.labelers.calibration.counts import NEVER
from vlm_rewards.pipelines.report.charts import colour, line_key, sparkline

MAX_TABLE_GOALS = 1000


class Column(NamedTuple):
    """A column of a table that can be sorted.

    Attributes:
        head: Its name.
        group: What stands over it and its neighbours of the same group.
        meaning: One sentence, shown where one points at the head.
        is_text: Whether it sorts as text.
        is_fixed: Whether there is nothing to sort by.
        markup: HTML before the name.
    """

    head: str
    group: str = ""
    meaning: str = ""
    is_text: bool = False
    is_fixed: bool = False
    markup: str = ""


class Cell(NamedTuple):
    """A cell: HTML, and the text or number it sorts as; None for an undefined figure."""

    markup: str
    key: float | str | None = None


def number_text(value: float | str, digits: int = 3) -> str:
    """The number as HTML, or the reason why there is none."""
    if isinstance(value, str):
        reason = value.removeprefix("undefined: ")
        return f'<span class=undefined title="{html.escape(value)}">{html.escape(reason)}</span>'
    return f"{value:.{digits}f}".replace("-", "&minus;")


def plural(number: int, name: str) -> str:
    """The number and the name, with an s unless it is one."""
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def figure(value: float | str, digits: int = 3) -> Cell:
    """A figure of a quality, or the reason why it is undefined."""
    return Cell(number_text(value, digits), None if isinstance(value, str) else value)


def share(value: float | str) -> Cell:
    """A share, which may be very small, as a percentage of two significant digits; or why it is undefined."""
    if isinstance(value, str):
        return Cell(number_text(value))
    percent = 100 * value
    return Cell(f"{percent:.0f}%" if percent >= 10 or percent == 0 else f"{percent:.2g}%", value)


def count(value: int) -> Cell:
    """A whole number."""
    return Cell(f"{value:,}", value)


def threshold_text(value: float) -> str:
    """A threshold, with the digits that tell it from 1."""
    if value >= NEVER:
        return "never fires"
    return f"{value:.4g}" if value < 0.99 else f"{value:.6f}".rstrip("0").rstrip(".")


def threshold(value: float) -> Cell:
    """A threshold."""
    return Cell(threshold_text(value), value)


def sortable_table(
    columns: Sequence[Column],
    rows: Iterable[tuple[str, Sequence[Cell]]],
    name: str,
    caption: str,
    *,
    sorted_by: int | None = None,
) -> str:
    """A table in a frame that scrolls by itself; a click on a head sorts it.

    Args:
        columns: What the heads say.
        rows: Attributes of the row in HTML, such as a family to filter by, and its cells.
        name: The table's class.
        caption: What it is, for readers who hear it.
        sorted_by: The column that the rows rise in as they are given.
    """
    groups: list[list] = []
    for column in columns:
        if groups and groups[-1][0] == column.group:
            groups[-1][1] += 1
        else:
            groups.append([column.group, 1])
    over = ""
    if any(group for group, _ in groups):
        over = "".join(
            f"<th colspan={width} scope=colgroup class=group>{html.escape(group)}</th>"
            if group
            else f"<td colspan={width}></td>"
            for group, width in groups
        )
        over = f"<tr>{over}</tr>"
    heads = "".join(_head(column, is_sorted=place == sorted_by) for place, column in enumerate(columns))
    body = "".join(
        f"<tr{attributes}>"
        + "".join(_cell(place, column, cell) for place, (column, cell) in enumerate(zip(columns, cells, strict=True)))
        + "</tr>"
        for attributes, cells in rows
    )
    return (
        f'<div class="scroll tall" tabindex=0 role=region aria-label="{html.escape(caption)}"><table class="sortable {name}">'
        f"<thead>{over}<tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(column: Column, *, is_sorted: bool) -> str:
    kind = "" if column.is_text or column.is_fixed else " class=number"
    sorts = " data-fixed" if column.is_fixed else " data-text" if column.is_text else ""
    meaning = f' title="{html.escape(column.meaning)}"' if column.meaning else ""
    sorts += " aria-sort=ascending" if is_sorted else ""
    return f"<th scope=col{kind}{sorts}{meaning}>{column.markup}{html.escape(column.head)}</th>"


def _cell(place: int, column: Column, cell: Cell) -> str:
    kind = "" if column.is_text or column.is_fixed else " class=number"
    if column.is_fixed:
        return f"<td{kind}>{cell.markup}</td>"
    key = "" if cell.key is None else html.escape(cell.key) if isinstance(cell.key, str) else f"{cell.key:.9g}"
    if place == 0:
        return f'<th scope=row data-key="{key}">{cell.markup}</th>'
    return f'<td{kind} data-key="{key}">{cell.markup}</td>'


_RANKING = [
    Column("AP", "ranking", "average precision: area under the precision-recall curve"),
    Column("EPIC", "ranking", "EPIC distance of the score from the truth: 0 is best, 0.71 uncorrelated, 1 worst"),
]
_AT_THRESHOLD = [
    Column("P", "at the labels' threshold", "precision: share of the frames taken to hold that do"),
    Column("R", "at the labels' threshold", "recall: share of the frames that hold that are taken to"),
    Column("F1", "at the labels' threshold", "harmonic mean of precision and recall"),
    Column(
        "FPR", "at the labels' threshold", "false-positive rate: share of the frames that do not hold taken to hold"
    ),
]
_EPISODES = [
    Column("AP", "episodes", "average precision of: the episode achieves the goal, by its highest score"),
    Column("τ", "episodes", "Kendall's tau between the labels' return and the ground truth's"),
]
_ECE = Column("ECE", "calibration", "expected calibration error: mean gap between score and frequency")


def family_table(quality: Mapping) -> str:
    """All goals and every family, a row each."""
    groups = {"all goals": quality["overall"], **quality["families"]}
    columns = [
        Column("Family", is_text=True),
        Column("goals", "that hold", "goals that hold in some frame, of all"),
        Column("frames", "that hold", "pairs of a goal and a frame in which it holds"),
        Column("mean AP", "ranking", "mean over goals of average precision"),
        *_RANKING[1:],
        *_AT_THRESHOLD,
        Column("mean F1", "at the labels' threshold", "mean over goals of F1"),
        _ECE,
        *(column._replace(head=f"mean {column.head}") for column in _EPISODES),
        Column(
            "rise",
            "over time",
            "value order: how much more scores rise with time in episodes that succeed than in others",
        ),
    ]
    rows = []
    for index, (name, group) in enumerate(groups.items(), -1):
        pooled, own = group["pooled"], group["pooled"]["at_threshold"]
        goals = f"{group['num_goals_with_positives']:,} of {group['num_goals']:,}"
        cells = [
            Cell(line_key(index) + html.escape(name), name),
            Cell(goals, group["num_goals_with_positives"]),
            count(pooled["positives"]),
            figure(group["mean_average_precision"]),
            figure(pooled["epic_distance"]["score"], 2),
            *(figure(own[key], 2) for key in ("precision", "recall", "f1")),
            share(own["false_positive_rate"]),
            figure(group["macro"]["f1"], 2),
            figure(calibration_error(pooled["calibration"])),
            figure(group["episodes"]["mean_average_precision"], 2),
            figure(group["episodes"]["mean_kendall_tau"], 2),
            figure(group["value_order"]["difference"], 2),
        ]
        rows.append(("", cells))
    return sortable_table(columns, rows, "families summary", "Figures of all goals and of every family")


def calibration_error(calibration: Mapping | str) -> float | str:
    """The expected calibration error, or why there is none."""
    return calibration if isinstance(calibration, str) else calibration["expected_calibration_error"]


def goal_table(quality: Mapping) -> str:
    """Every goal, a row each, lowest average precision first, with a filter over it."""
    families = list(quality["families"])
    columns = [
        Column("Goal", is_text=True),
        Column("Family", is_text=True),
        Column("hold", "frames", "frames in which the goal holds"),
        Column("false pos.", "frames", "frames taken to hold that do not, at the labels' threshold"),
        _RANKING[0],
        Column("curve", "ranking", "precision against recall", is_fixed=True),
        _RANKING[1],
        Column("value", "at the labels' threshold", "the labels' threshold of this goal"),
        *_AT_THRESHOLD,
        Column("value", "at the best threshold", "the threshold of highest F1 on these frames"),
        Column("F1", "at the best threshold", "the highest F1 that a threshold reaches on these frames"),
        _ECE,
        Column("achieve", "episodes", "episodes in which the goal holds at some frame"),
        *_EPISODES,
        Column(
            "rise",
            "over time",
            "value order: how much more scores rise with time in episodes that succeed than in others",
        ),
    ]
    ranked = sorted(
        quality["goals"],
        key=lambda goal: (goal["positives"] == 0, goal["average_precision"] if goal["positives"] else 0),
    )
    shown = ranked[:MAX_TABLE_GOALS]
    rows = [
        (f' data-family="{html.escape(goal["family"])}"', _goal_cells(goal, families.index(goal["family"])))
        for goal in shown
    ]
    options = "".join(f'<option value="{html.escape(name)}">{html.escape(name)}</option>' for name in families)
    cut = (
        f"<p class=note>The {len(shown):,} goals of lowest average precision, of {len(ranked):,}; all are in quality.json.</p>"
        if len(shown) < len(ranked)
        else ""
    )
    return (
        '<div class=filter hidden><input type=search placeholder="Filter goals" aria-label="Filter goals"><select '
        f'aria-label="Family"><option value="">all families</option>{options}</select><output class=muted></output></div>{cut}'
        f"{sortable_table(columns, rows, 'goals', 'Figures of every goal', sorted_by=4)}"
    )


def _goal_cells(goal: Mapping, index: int) -> list[Cell]:
    name, own, precision = html.escape(goal["text"]), goal["at_threshold"], figure(goal["average_precision"])
    best = goal["best_threshold"]
    at_best = (
        [threshold(best["threshold"]), figure(best["f1"], 2)]
        if isinstance(best, Mapping)
        else [figure(best), figure(best)]
    )
    bar = ""
    if precision.key is not None:
        bar = f'<span class=bar><i style="width:{100 * goal["average_precision"]:.0f}%;background:{colour(index)}"></i></span>'
    return [
        Cell(f"{name}<span class=id>{html.escape(goal['id'])}</span>", goal["text"]),
        Cell(html.escape(goal["family"]), goal["family"]),
        count(goal["positives"]),
        count(own["false_positives"]),
        Cell(precision.markup + bar, precision.key),
        Cell(sparkline(goal)),
        figure(goal["epic_distance"]["score"], 2),
        threshold(goal["threshold"]),
        *(figure(own[key], 2) for key in ("precision", "recall", "f1")),
        share(own["false_positive_rate"]),
        *at_best,
        figure(calibration_error(goal["calibration"])),
        count(goal["episodes"]["achieved"]),
        figure(goal["episodes"]["average_precision"], 2),
        figure(goal["episodes"]["kendall_tau"], 2),
        figure(goal["value_order"]["difference"], 2),
    ]


def plain_table(rows: Iterable[Sequence[str]], heads: Sequence[str]) -> str:
    """A table of escaped text; every column but the first is numbers."""
    classes = ["", *[" class=number"] * (len(heads) - 1)]
    head = "".join(f"<th scope=col{kind}>{html.escape(text)}</th>" for kind, text in zip(classes, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(classes, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<div class=scroll tabindex=0><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
