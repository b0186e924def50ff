import re

from vlm_rewards.labelers.calibration.counts import NEVER
from vlm_rewards.pipelines.report.tables import (
    MAX_TABLE_GOALS,
    Cell,
    Column,
    figure,
    goal_table,
    number_text,
    plain_table,
    plural,
    share,
    sortable_table,
    threshold_text,
)

UNDEFINED = "undefined: no positives"


def test_an_undefined_figure_shows_its_reason_and_has_no_key() -> None:
    cell = figure(UNDEFINED)
    assert cell.key is None
    assert cell.markup == '<span class=undefined title="undefined: no positives">no positives</span>'
    assert figure("undefined: <b>").markup == '<span class=undefined title="undefined: &lt;b&gt;">&lt;b&gt;</span>'
    assert share(UNDEFINED) == cell
    assert figure(0.0) == Cell("0.000", 0.0)
    assert number_text(-0.25, 2) == "&minus;0.25"


def test_shares_keep_two_significant_digits() -> None:
    shown = {0.0: "0%", 0.000076: "0.0076%", 0.0123: "1.2%", 0.25: "25%", 1.0: "100%"}
    assert {value: share(value).markup for value in shown} == shown


def test_thresholds_near_1_keep_their_digits() -> None:
    assert [threshold_text(value) for value in (0.5, 0.123456, 0.999712)] == ["0.5", "0.1235", "0.999712"]
    assert threshold_text(NEVER) == "never fires"


def test_plural() -> None:
    assert [plural(number, "frame") for number in (0, 1, 1200)] == ["0 frames", "1 frame", "1,200 frames"]


def test_cells_carry_what_they_sort_as() -> None:
    columns = [
        Column("Goal", is_text=True),
        Column("AP", "ranking", "a <mean>"),
        Column("curve", "ranking", is_fixed=True),
    ]
    rows = [
        (' data-family="a&amp;b"', [Cell("<b>x</b>", 'x"'), figure(1 / 3), Cell("~")]),
        ("", [Cell("y", "y"), figure(UNDEFINED), Cell("")]),
    ]
    table = sortable_table(columns, rows, "goals", "All & every", sorted_by=1)
    assert "<tr><td colspan=1></td><th colspan=2 scope=colgroup class=group>ranking</th></tr>" in table
    assert "<th scope=col data-text>Goal</th>" in table
    assert '<th scope=col class=number aria-sort=ascending title="a &lt;mean&gt;">AP</th>' in table
    assert "<th scope=col data-fixed>curve</th>" in table
    assert '<tr data-family="a&amp;b"><th scope=row data-key="x&quot;"><b>x</b></th>' in table
    assert '<td class=number data-key="0.333333333">0.333</td><td>~</td></tr>' in table
    assert '<td class=number data-key=""><span class=undefined' in table
    assert 'aria-label="All &amp; every"' in table


def test_plain_tables_escape_their_text() -> None:
    assert "<td>&lt;i&gt;</td><td class=number>1</td>" in plain_table([("<i>", "1")], ("what", "how much"))


def _goal(name: str, precision: float | str) -> dict:
    positives = 0 if isinstance(precision, str) else 3
    figures = dict.fromkeys(("precision", "recall", "f1", "false_positive_rate"), 0.5)
    return {
        "id": name,
        "text": f"text of {name}",
        "family": "a",
        "positives": positives,
        "average_precision": precision,
        "best_threshold": precision if isinstance(precision, str) else {"threshold": 0.9, **figures},
        "curve": {"recall": [1.0], "precision": [0.5], "thresholds": [0.1]},
        "threshold": 0.5,
        "at_threshold": {"true_positives": 1, "false_positives": 2, **figures},
        "epic_distance": {"score": 0.4, "success": 0.5},
        "calibration": "undefined: scores of cosine are not probabilities",
        "episodes": {"achieved": 1, "num_episodes": 2, "average_precision": 1.0, "kendall_tau": 0.5},
        "value_order": {"difference": "undefined: no failures"},
    }


def test_goals_come_lowest_average_precision_first_and_undefined_last() -> None:
    goals = [_goal("best", 0.9), _goal("none", UNDEFINED), _goal("worst", 0.1)]
    table = goal_table({"goals": goals, "families": {"a": {}}})
    assert re.findall(r'<th scope=row data-key="([^"]+)"', table) == ["text of worst", "text of best", "text of none"]
    none = table[table.index("text of none") :]
    assert none.count(">no positives</span>") == 3  # average precision, and the best threshold with its F1
    assert "scores of cosine are not probabilities" in none


def test_of_very_many_goals_the_worst_are_listed() -> None:
    goals = [_goal(f"g{n}", n / 2000) for n in range(MAX_TABLE_GOALS + 5)]
    table = goal_table({"goals": goals[::-1], "families": {"a": {}}})
    assert table.count("<th scope=row") == MAX_TABLE_GOALS
    assert "The 1,000 goals of lowest average precision, of 1,005" in table
    assert "text of g1000" not in table
