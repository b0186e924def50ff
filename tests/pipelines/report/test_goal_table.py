import json
import re

from vlm_rewards.pipelines.report.charts import recall_levels
from vlm_rewards.pipelines.report.goal_table import FIRST_ROWS, MAX_HTML_GOALS, goal_table

UNDEFINED = "undefined: no positives"


def _goal(name: str, precision: float | str, family: str = "a") -> dict:
    positives = 0 if isinstance(precision, str) else 3
    figures = dict.fromkeys(("precision", "recall", "f1", "false_positive_rate"), 0.5)
    return {
        "id": name,
        "text": f"text of {name}",
        "family": family,
        "positives": positives,
        "average_precision": precision,
        "best_threshold": precision if isinstance(precision, str) else {"threshold": 0.9, **figures},
        "curve": {"recall": [1.0], "precision": [0.5], "thresholds": [0.1]},
        "threshold": 0.5,
        "at_threshold": {"true_positives": 1, "false_positives": 2, **figures},
        "epic_distance": {"score": 0.4, "success": 0.5},
        "calibration": "undefined: scores of cosine are not probabilities",
        "episodes": {"achieved": 1, "num_episodes": 2, "average_precision": 1.0, "kendall_tau": -0.5},
        "value_order": {"difference": "undefined: no failures"},
    }


def _data(table: str) -> dict:
    found = re.search(r'<script type="application/json" id="goal-data">(.*?)</script>', table)
    assert found is not None
    return json.loads(found[1])


def test_goals_come_lowest_average_precision_first_and_undefined_last() -> None:
    goals = [_goal("best", 0.9), _goal("none", UNDEFINED), _goal("worst", 0.1)]
    table = goal_table(goals, ["a"], 1)
    assert re.findall(r'<th scope=row data-key="([^"]+)"', table) == ["text of worst", "text of best", "text of none"]
    none = table[table.index("text of none") :]
    assert none.count(">no positives</span>") == 3  # average precision, and the best threshold with its F1
    assert "scores of cosine are not probabilities" in none


def test_the_page_knows_every_goal_by_text_threshold_and_family() -> None:
    table = goal_table([_goal("b", 0.9), _goal("a", 0.1, "</script>")], ["a", "</script>"], 1)
    assert _data(table) == {
        "texts": ["text of b", "text of a"],  # in the order of the goals, not of the table
        "thresholds": ["0.5", "0.5"],
        "families": ["a", "</script>"],
    }


def test_a_family_without_a_row_of_its_own_has_a_grey_bar() -> None:
    table = goal_table([_goal("b", 0.5), _goal("a", 0.25, "rare")], ["a", "rare"], 1)
    assert re.findall(r'<i style="width:(\d+)%;background:([^"]+)"', table) == [
        ("25", "var(--muted)"),
        ("50", "var(--c0)"),
    ]


def test_some_hundred_goals_are_html() -> None:
    goals = [_goal(f"g{n}", n / MAX_HTML_GOALS) for n in range(MAX_HTML_GOALS)]
    table = goal_table(goals, ["a"], 1)
    assert table.count("<th scope=row") == MAX_HTML_GOALS
    assert "noscript" not in table
    assert "table" not in _data(table)


def test_of_more_goals_the_first_rows_are_html_and_all_are_data() -> None:
    goals = [_goal(f"g{n}", n / 2000) for n in range(MAX_HTML_GOALS)] + [_goal("none", UNDEFINED)]
    table = goal_table(goals[::-1], ["a"], 1)
    assert table.count("<th scope=row") == FIRST_ROWS
    assert "Without scripts, the 100 goals of lowest average precision are listed, of 501." in table
    assert "All of them are in quality.json" in table
    data = _data(table)
    assert data["texts"][:2] == ["text of none", "text of g499"]
    rows = data["table"]
    assert rows["order"][:2] == [500, 499]  # the worst goal is the last here
    assert rows["order"][-1] == 0
    assert rows["ids"][1] == "g499"
    assert rows["family"] == [0] * 501
    # Columns: positives, false positives, average precision, EPIC, threshold, P, R, F1, FPR, best threshold, its F1, ...
    # An average precision of 0.2495 is 0.249, as in the HTML: in binary it is a little less than that.
    columns = rows["columns"]
    assert [column["digits"] for column in columns] == [0, 0, 3, 2, 0, 2, 2, 2, 0, 0, 2, 0, 0, 2, 2, 0]
    assert [column["values"][1] for column in columns[:11]] == [3, 2, 249, 40, "0.5", 50, 50, 50, "50%", "0.9", 50]
    assert columns[14]["values"][1] == -50
    # Undefined figures are numbers of reasons.
    reasons = [rows["reasons"][columns[place]["values"][0][0]] for place in (2, 9, 11, 15)]
    assert [re.sub("<[^>]*>", "", reason) for reason in reasons] == [
        "no positives",
        "no positives",
        "scores of cosine are not probabilities",
        "no failures",
    ]


def test_a_curve_is_a_digit_per_level_of_recall() -> None:
    goal = {"average_precision": 0.5, "curve": {"recall": [0.5, 0.75], "precision": [1.0, 0.5]}}
    # Levels are the middles of 32 parts: 16 at precision 1 (20 of 20, "k"), 8 at a half, and none beyond a recall of 0.75.
    assert recall_levels(goal) == "k" * 16 + "a" * 8
    assert recall_levels({"average_precision": UNDEFINED}) == ""


def test_a_goal_takes_some_two_hundred_bytes() -> None:
    goals = [_goal(f"place-the-grey-ball-{n}", n / 2000) for n in range(2000)]
    goals = [{**goal, "text": f"the robot has put the grey ball number {goal['id']} on the table"} for goal in goals]
    html_rows = FIRST_ROWS * 2500
    assert len(goal_table(goals, ["a"], 1)) < 2000 * 260 + html_rows  # 100 of 260 bytes are text and id
