"""The report's table of goals: one row per goal, as HTML for some hundred goals, as data for thousands.

    up to 500 goals     every row is HTML; it works without scripts
    more                the first 100 rows are HTML; the page's script (goals.js) makes all rows from data, when they are needed

The data hold what the cells show, a column at a time, in the order of the goals:

    123         a figure of three digits, 0.123, or a count, as the column says
    "1.2%"      a text, shown as it is
    [0]         an undefined figure; the number is that of its reason

The texts and thresholds of all goals are in the page in any case: the heat maps read them out.
"""

import html
import itertools
import json
from collections.abc import Mapping, Sequence

from vlm_rewards.pipelines.report.charts import colour, recall_levels, sparkline
from vlm_rewards.pipelines.report.tables import (
    AT_THRESHOLD,
    CALIBRATION_ERROR,
    EPISODES,
    RANKING,
    RISE,
    Cell,
    Column,
    calibration_error,
    count,
    figure,
    share,
    sortable_table,
    threshold,
    threshold_text,
)

MAX_HTML_GOALS = 500
FIRST_ROWS = 100

_COLUMNS = (
    Column("Goal", is_text=True),
    Column("Family", is_text=True),
    Column("hold", "frames", "frames in which the goal holds"),
    Column("false pos.", "frames", "frames in which the labels say that the goal holds and it does not"),
    RANKING[0],
    Column("curve", "ranking", "precision against recall", is_fixed=True),
    RANKING[1],
    Column("value", "at the labels' threshold", "the labels' threshold of this goal"),
    *AT_THRESHOLD,
    Column("value", "at the best threshold", "the threshold with the highest F1 on these frames"),
    Column("F1", "at the best threshold", "the highest F1 of any threshold on these frames"),
    CALIBRATION_ERROR,
    Column("achieve", "episodes", "episodes in which the goal holds in some frame"),
    *EPISODES,
    RISE,
)
_AVERAGE_PRECISION, _CURVE = 4, 5  # places of the columns that are drawn


def goal_table(goals: Sequence[Mapping], families: Sequence[str], num_coloured: int) -> str:
    """Returns the table of all goals, lowest average precision first, with a filter above it and its data below it.

    Args:
        goals: Rows of `labelers.quality.figures.quality_table`.
        families: Names of all families.
        num_coloured: Number of families, from the first, that have a colour in the report.
    """
    colours = {name: colour(place) if place < num_coloured else "var(--muted)" for place, name in enumerate(families)}
    order = sorted(range(len(goals)), key=lambda place: _rank(goals[place]))
    is_html = len(goals) <= MAX_HTML_GOALS
    rows = [
        (f' data-family="{html.escape(goal["family"])}"', _cells(goal, colours[goal["family"]]))
        for goal in (goals[place] for place in (order if is_html else order[:FIRST_ROWS]))
    ]
    note = (
        ""
        if is_html
        else f"<noscript><p class=note>Without scripts, the {FIRST_ROWS} goals of lowest average precision are listed, of "
        f"{len(goals):,}. All of them are in quality.json, beside this file.</p></noscript>"
    )
    table = sortable_table(_COLUMNS, rows, "goals", "Figures of every goal", sorted_by=_AVERAGE_PRECISION)
    return (
        '<div class=filter hidden><input type=search placeholder="Filter goals" aria-label="Filter goals"><select '
        'aria-label="Family"><option value="">all families</option></select><output class=muted></output></div>'
        f"{note}{table}{_data(goals, families, num_coloured, None if is_html else order)}"
    )


def _rank(goal: Mapping) -> tuple[bool, float]:
    return goal["positives"] == 0, goal["average_precision"] if goal["positives"] else 0.0


def _cells(goal: Mapping, ink: str) -> list[Cell]:
    name, precision = html.escape(goal["text"]), figure(goal["average_precision"])
    bar = ""
    if isinstance(precision.datum, int):
        bar = f'<span class=bar><i style="width:{precision.datum / 10:g}%;background:{ink}"></i></span>'
    first, second = _figures(goal)
    return [
        Cell(f"{name}<span class=id>{html.escape(goal['id'])}</span>", goal["text"]),
        Cell(html.escape(goal["family"]), goal["family"]),
        *first,
        precision._replace(markup=precision.markup + bar),
        Cell(sparkline(goal)),
        *second,
    ]


def _figures(goal: Mapping) -> tuple[list[Cell], list[Cell]]:
    """Returns the figures before and after those that are drawn."""
    own, best, episodes = goal["at_threshold"], goal["best_threshold"], goal["episodes"]
    at_best = [threshold(best["threshold"]), figure(best["f1"], 2)] if isinstance(best, Mapping) else [figure(best)] * 2
    return [count(goal["positives"]), count(own["false_positives"])], [
        figure(goal["epic_distance"]["score"], 2),
        threshold(goal["threshold"]),
        *(figure(own[key], 2) for key in ("precision", "recall", "f1")),
        share(own["false_positive_rate"]),
        *at_best,
        figure(calibration_error(goal["calibration"])),
        count(episodes["achieved"]),
        figure(episodes["average_precision"], 2),
        figure(episodes["kendall_tau"], 2),
        figure(goal["value_order"]["difference"], 2),
    ]


def _data(goals: Sequence[Mapping], families: Sequence[str], num_coloured: int, order: Sequence[int] | None) -> str:
    """Returns the goals' texts and thresholds; and, where there is an order, what the rows of the table show."""
    data: dict[str, object] = {
        "texts": [goal["text"] for goal in goals],
        "thresholds": [threshold_text(goal["threshold"]) for goal in goals],
        "families": families,
    }
    if order is not None:
        place = {name: number for number, name in enumerate(families)}
        reasons: dict[str, int] = {}
        columns = []
        for cells in zip(*map(_data_cells, goals), strict=True):
            values = [
                [reasons.setdefault(cell.markup, len(reasons))] if cell.key is None else cell.datum for cell in cells
            ]
            columns.append({"digits": max(cell.digits for cell in cells), "values": values})
        data["table"] = {
            "order": order,
            "coloured": num_coloured,
            "ids": [goal["id"] for goal in goals],
            "family": [place[goal["family"]] for goal in goals],
            "curves": [recall_levels(goal) for goal in goals],
            "columns": columns,
            "reasons": list(reasons),
        }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="goal-data">{text}</script>'


def _data_cells(goal: Mapping) -> list[Cell]:
    first, second = _figures(goal)
    return list(itertools.chain(first, [figure(goal["average_precision"])], second))
