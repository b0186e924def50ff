"""Tables of the report: every figure with its key to sort by, an undefined one with its reason.

A cell has what it shows and, separately, what it sorts by. An undefined figure has no key and sorts last in both directions. The
page's script turns the column heads into buttons that sort; without scripts the tables keep the order in which they are written.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vlm_rewards.labelers.calibration.counts import NEVER
from vlm_rewards.pipelines.report.charts import line_key


class Column(NamedTuple):
    """A column of a sortable table.

    Attributes:
        head: Name of the column.
        group: Name over this column and its neighbours of the same group.
        meaning: One sentence, shown when the pointer rests on the head.
        is_text: Whether the column sorts as text.
        is_fixed: Whether the column cannot be sorted.
        markup: HTML before the name.
    """

    head: str
    group: str = ""
    meaning: str = ""
    is_text: bool = False
    is_fixed: bool = False
    markup: str = ""


class Cell(NamedTuple):
    """A cell of a sortable table.

    Attributes:
        markup: HTML that the cell shows.
        key: Text or number that the cell sorts by; None for an undefined figure.
        datum: Value that a page of thousands of goals stores instead of the HTML; see `pipelines.report.goal_table`.
        digits: Digits after the decimal point of a whole number in `datum`.
    """

    markup: str
    key: float | str | None = None
    datum: int | str | None = None
    digits: int = 0


def number_text(value: float | str, digits: int = 3) -> str:
    """Returns a number as HTML, or the reason why it is undefined."""
    if isinstance(value, str):
        reason = value.removeprefix("undefined: ")
        return f'<span class=undefined title="{html.escape(value)}">{html.escape(reason)}</span>'
    return _rounded(value, digits).replace("-", "&minus;")


def _rounded(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}"  # z: no minus before a number that rounds to 0


def plural(number: int, name: str) -> str:
    """Returns a number and a name, with an s unless the number is 1."""
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def figure(value: float | str, digits: int = 3) -> Cell:
    """Makes a cell of a figure, or of the reason why it is undefined."""
    if isinstance(value, str):
        return Cell(number_text(value))
    return Cell(number_text(value, digits), value, int(_rounded(value, digits).replace(".", "")), digits)


def share(value: float | str) -> Cell:
    """Makes a cell of a share, which may be very small: a percentage with two significant digits, or why it is undefined."""
    if isinstance(value, str):
        return Cell(number_text(value))
    percent = 100 * value
    text = f"{percent:.0f}%" if percent >= 10 or percent == 0 else f"{percent:.2g}%"
    return Cell(text, value, text)


def count(value: int) -> Cell:
    """Makes a cell of a whole number."""
    return Cell(f"{value:,}", value, value)


def threshold_text(value: float) -> str:
    """Returns a threshold with as many digits as tell it from 1."""
    if value >= NEVER:
        return "never fires"
    return f"{value:.4g}" if value < 0.99 else f"{value:.6f}".rstrip("0").rstrip(".")


def threshold(value: float) -> Cell:
    """Makes a cell of a threshold."""
    return Cell(threshold_text(value), value, threshold_text(value))


def sortable_table(
    columns: Sequence[Column],
    rows: Iterable[tuple[str, Sequence[Cell]]],
    name: str,
    caption: str,
    *,
    sorted_by: int | None = None,
) -> str:
    """Returns a table in a frame that scrolls; a click on a column head sorts it.

    Args:
        columns: Columns with their heads.
        rows: Per row, its attributes in HTML, such as a family to filter by, and its cells.
        name: Class of the table.
        caption: Name of the table for screen readers.
        sorted_by: Column by which the rows are sorted as given, lowest first.
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


RANKING = (
    Column("AP", "ranking", "average precision: area under the precision-recall curve"),
    Column("EPIC", "ranking", "EPIC distance of the score from the truth: 0 is perfect, 0.71 uncorrelated, 1 reversed"),
)
AT_THRESHOLD = (
    Column("P", "at the labels' threshold", "precision: share of the labelled successes in which the goal holds"),
    Column("R", "at the labels' threshold", "recall: share of the frames in which the goal holds that are labelled so"),
    Column("F1", "at the labels' threshold", "harmonic mean of precision and recall"),
    Column(
        "FPR",
        "at the labels' threshold",
        "false-positive rate: share of the frames in which the goal does not hold that are labelled a success",
    ),
)
EPISODES = (
    Column("AP", "episodes", "average precision of 'the episode achieves the goal', by the episode's highest score"),
    Column("τ", "episodes", "Kendall's tau between the returns of the labels and the true returns"),
)
CALIBRATION_ERROR = Column(
    "ECE", "calibration", "expected calibration error: mean gap between the score and how often the goal holds"
)
RISE = Column(
    "rise",
    "over time",
    "value order: how much more scores rise with time in episodes that succeed than in others",
)


def family_table(quality: Mapping) -> str:
    """Returns the table of all goals and of the families, one row each."""
    groups = {"all goals": quality["overall"], **quality["families"]}
    columns = [
        Column("Family", is_text=True),
        Column("goals", "that hold", "goals that hold in some frame, of all"),
        Column("frames", "that hold", "pairs of a goal and a frame in which it holds"),
        Column("mean AP", "ranking", "mean over goals of average precision"),
        RANKING[1],
        *AT_THRESHOLD,
        Column("mean F1", "at the labels' threshold", "mean over goals of F1"),
        CALIBRATION_ERROR,
        *(column._replace(head=f"mean {column.head}") for column in EPISODES),
        RISE,
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
    """Returns the expected calibration error, or the reason why it is undefined."""
    return calibration if isinstance(calibration, str) else calibration["expected_calibration_error"]


def plain_table(rows: Iterable[Sequence[str]], heads: Sequence[str]) -> str:
    """Returns a table of escaped text; every column but the first holds numbers."""
    classes = ["", *[" class=number"] * (len(heads) - 1)]
    head = "".join(f"<th scope=col{kind}>{html.escape(text)}</th>" for kind, text in zip(classes, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(classes, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<div class=scroll tabindex=0><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
