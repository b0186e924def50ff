from vlm_rewards.labelers.calibration.counts import NEVER
from vlm_rewards.pipelines.report.tables import (
    Cell,
    Column,
    count,
    figure,
    number_text,
    plain_table,
    plural,
    share,
    sortable_table,
    threshold,
    threshold_text,
)

UNDEFINED = "undefined: no positives"


def test_an_undefined_figure_shows_its_reason_and_has_no_key() -> None:
    cell = figure(UNDEFINED)
    assert cell.key is None
    assert cell.markup == '<span class=undefined title="undefined: no positives">no positives</span>'
    assert figure("undefined: <b>").markup == '<span class=undefined title="undefined: &lt;b&gt;">&lt;b&gt;</span>'
    assert share(UNDEFINED) == cell
    assert figure(0.0) == Cell("0.000", 0.0, 0, 3)
    assert number_text(-0.25, 2) == "&minus;0.25"
    assert number_text(-0.0004) == "0.000"  # no minus before a zero


def test_shares_keep_two_significant_digits() -> None:
    shown = {0.0: "0%", 0.000076: "0.0076%", 0.0123: "1.2%", 0.25: "25%", 1.0: "100%"}
    assert {value: share(value).markup for value in shown} == shown


def test_thresholds_near_1_keep_their_digits() -> None:
    assert [threshold_text(value) for value in (0.5, 0.123456, 0.999712)] == ["0.5", "0.1235", "0.999712"]
    assert threshold_text(NEVER) == "never fires"


def test_cells_hold_what_a_page_of_many_goals_stores() -> None:
    # Figures as whole numbers in units of their last digit; shares and thresholds as the texts that are shown.
    cells = (figure(0.0625), figure(-0.25, 2), count(1234), share(0.0123), threshold(0.999712))
    assert [(cell.datum, cell.digits) for cell in cells] == [
        (62, 3),  # 0.0625 is 0.062 in the table: half to even
        (-25, 2),
        (1234, 0),
        ("1.2%", 0),
        ("0.999712", 0),
    ]


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
