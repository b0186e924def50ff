import re

from vlm_rewards.pipelines.report.calibration import calibration_section, order_chart, reliability_chart

UNDEFINED = "undefined: scores of cosine are not probabilities"
CALIBRATION = {
    "expected_calibration_error": 0.125,
    "mean_score": [0.0, 0.75],
    "frequency": [0.0, 0.5],
    "frames": [99, 9],
}


def _points(chart: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle class="\w+" cx="([\d.]+)" cy="([\d.]+)"', chart)]


def test_a_bin_is_a_dot_at_its_score_and_frequency_with_a_bar_of_its_frames() -> None:
    chart = reliability_chart(CALIBRATION, 0, "<find>")
    # The square is 200 wide from 48 and 200 high from 8: (0, 0) at (48, 208); (0.75, 0.5) at (198, 108).
    assert _points(chart) == [(48.0, 208.0), (198.0, 108.0)]
    assert 'points="48.0,208.0 198.0,108.0"' in chart
    bars = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', chart)
    # Bins 0 and 12 of 16; heights go as log(1 + frames): log 100 is twice log 10, so 38 and 19.
    assert bars == [("48.5", "232.0", "11.5", "38.0"), ("198.5", "251.0", "11.5", "19.0")]
    assert "<title>score 0.750: holds in 0.500 of 9 frames</title>" in chart
    assert 'aria-label="Reliability of &lt;find&gt;: expected calibration error 0.125"' in chart


def test_families_without_probabilities_are_named_with_the_reason() -> None:
    groups = {name: {"pooled": {"calibration": UNDEFINED}} for name in ("find", "<lift>")}
    section = calibration_section({"overall": {"pooled": {"calibration": CALIBRATION}}, "families": groups})
    assert section.count('<svg class="chart"') == 1
    assert f"find, &lt;lift&gt;: {UNDEFINED}." in section


def test_at_most_twelve_curves_are_drawn() -> None:
    groups = {f"f{n}": {"pooled": {"calibration": CALIBRATION}} for n in range(20)}
    section = calibration_section({"overall": {"pooled": {"calibration": CALIBRATION}}, "families": groups})
    assert section.count('<svg class="chart"') == 12
    assert "The calibration error of 9 more is in the summary." in section


def test_long_names_are_cut_to_what_fits_in_any_font() -> None:
    order = {"successes": {"mean": 0.5}, "failures": {"mean": 0.0}}
    names = ["a" * 31, "b" * 32, "\u6c34" * 15, "\u6c34" * 16]  # Chinese characters are twice as wide
    rows = re.findall(r'<text class="row"[^>]*>([^<]*)</text>', order_chart(dict.fromkeys(names, order)))
    assert rows == ["a" * 31, "b" * 30 + "…", "\u6c34" * 15, "\u6c34" * 15 + "…"]


def test_value_order_has_a_dot_for_successes_and_a_ring_for_failures() -> None:
    def order(success: float | str, failure: float | str) -> dict:
        return {"successes": {"mean": success}, "failures": {"mean": failure}}

    chart = order_chart({"all goals": order(1.0, -1.0), "find": order(0.0, "undefined: no failures")})
    # -1 is at 20, 1 at 320; rows are 30 apart. The ring is drawn before the dot.
    assert _points(chart) == [(20.0, 29.0), (320.0, 29.0), (170.0, 59.0)]
    assert re.findall(r'<circle class="(\w+)"', chart) == ["own", "mark", "mark"]
    assert chart.count('class="curve"') == 1
