import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from vlm_rewards.labelers.calibration.counts import NEVER
from vlm_rewards.pipelines.report.heat_maps import (
    MAX_COLUMNS,
    NUM_STEPS,
    ScoreGrid,
    cell_values,
    contrast,
    heat_filters,
    heat_legend,
    heat_row,
    heat_styles,
    join_frames,
    levels,
    oklab,
    overview_picture,
    ramp,
    runs,
    score_range,
)

NONE = float("nan")
UNSTORED = -float("inf")


def grid(scores: list, truth: list | None = None, over: list | None = None) -> ScoreGrid:
    values = np.array(scores, np.float32)
    marks = [np.zeros(values.shape, bool) if part is None else np.array(part, bool) for part in (truth, over)]
    return ScoreGrid(values, *marks)


def test_oklab_of_white_black_and_red() -> None:
    # Ottosson's own values: white is (1, 0, 0), black (0, 0, 0), sRGB red (0.628, 0.225, 0.126).
    assert oklab(["#ffffff", "#000000", "#ff0000"]) == pytest.approx(
        np.array([[1, 0, 0], [0, 0, 0], [0.628, 0.225, 0.126]]), abs=1e-3
    )


@pytest.mark.parametrize("dark", [False, True])
def test_the_scale_is_perceptually_uniform(dark: bool) -> None:
    lab = oklab(ramp(dark))
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert len(lab) == NUM_STEPS
    assert steps.max() / steps.min() < 1.1  # rounding to 8 bits a channel
    # Lightness alone tells the order, so colour vision is not needed: from the page's ground to the other end.
    lightness = np.diff(lab[:, 0]) * (1 if dark else -1)
    assert (lightness > 0.03).all()


def test_shaded_cells_have_text_that_can_be_read() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)  # (1 + 0.05) / (0 + 0.05)
    styles = heat_styles()
    for dark in (False, True):
        for step, colour in enumerate(ramp(dark)):
            ink = re.search(f"--h{step}:{colour};--t{step}:(#[0-9a-f]+)", styles)
            assert ink is not None
            assert contrast(colour, ink[1]) > 4.0
    assert f".s{NUM_STEPS - 1}{{background:var(--h{NUM_STEPS - 1});color:var(--t{NUM_STEPS - 1})}}" in styles


def test_filters_hold_the_scale() -> None:
    red = re.findall(r'<feFuncR type="discrete" tableValues="([^"]+)"', heat_filters())
    assert [len(values.split()) for values in red] == [NUM_STEPS, NUM_STEPS]
    assert float(red[0].split()[0]) == pytest.approx(int(ramp(False)[0][1:3], 16) / 255, abs=1e-3)


def test_levels_are_equal_parts_of_the_range() -> None:
    scores = np.array([0.0, 0.24, 0.25, 0.99, 1.0, 2.0, -1.0, UNSTORED, NONE], np.float32)
    # Four parts of [0, 1]: the last includes 1; what is beyond is at the ends; not stored is the lowest, no label is -1.
    assert levels(scores, 0.0, 1.0, 4).tolist() == [0, 0, 1, 3, 3, 3, 0, 0, -1]
    assert levels(np.array([0.5, NONE], np.float32), 0.5, 0.5, 4).tolist() == [0, -1]


def test_runs_of_equal_values() -> None:
    assert runs(np.array([2, 2, -1, 2])) == [(0, 2, 2), (2, 1, -1), (3, 1, 2)]
    assert runs(np.array([True])) == [(0, 1, 1)]


def test_score_range_covers_known_scores_and_thresholds() -> None:
    assert score_range([(0.25, 0.5), ()], [0.75]) == (0.25, 0.75)
    assert score_range([], [0.5, 0.25]) == (0.25, 0.5)
    # A goal that never fires has the largest float32 as its threshold, which would leave every score one colour.
    assert score_range([(0.25, 0.5)], [NEVER, 0.75]) == (0.25, 0.75)
    assert score_range([()], [NEVER]) == (0.0, 1.0)  # sparse labels of goals that never fire hold no score


def test_short_episodes_have_a_column_a_frame() -> None:
    short = grid([[0.5]] * MAX_COLUMNS)
    joined, span = join_frames(short)
    assert span == 1
    np.testing.assert_array_equal(joined.scores, short.scores)


def test_long_episodes_join_frames_to_their_highest_score() -> None:
    num_frames = MAX_COLUMNS + 1
    scores = np.zeros((num_frames, 1), np.float32)
    scores[3] = 0.75
    scores[[4, 5]] = NONE
    scores[6] = NONE
    truth = np.zeros((num_frames, 1), bool)
    truth[7] = True
    joined, span = join_frames(ScoreGrid(scores, truth, scores > 0.5))
    assert span == 2
    assert len(joined.scores) == (num_frames + 1) // 2
    # Columns of frames 2-3, 4-5 and 6-7: the highest; no label at all; that of the frame which has one.
    np.testing.assert_array_equal(joined.scores[1:4, 0], [0.75, NONE, 0.0])
    assert joined.over[:4, 0].tolist() == [False, True, False, False]
    assert joined.truth[:4, 0].tolist() == [False, False, False, True]


def test_a_row_has_cells_by_colour_and_bars_above_and_below() -> None:
    drawn = heat_row(
        np.array([1.0, 1.0, 0.0, NONE], np.float32),
        np.array([0, 1, 1, 0], bool),
        np.array([1, 1, 0, 0], bool),
        0.0,
        1.0,
    )
    paths = dict(re.findall(r'<path class="(\w+)" d="([^"]+)"/>', drawn))
    # Strokes along the middles of 12, 3 and 3 units: cells at 11, what is taken to hold at 1.5, what holds at 20.5.
    assert paths == {
        "h15": "M0 11h2",
        "h0": "M2 11h1",
        "none": "M3 11h1",
        "over": "M0 1.5h2",
        "truth": "M1 20.5h2",
    }
    assert 'viewBox="0 0 4 22"' in drawn


def test_values_of_cells_for_the_reader() -> None:
    scores = np.array([0.12345, 1e-7, UNSTORED, NONE], np.float32)
    marks = np.array([[1, 0, 1, 1], [1, 0, 0, 0]], bool)
    assert cell_values(scores, *marks) == "0.123to 1e-07 _t -t"


def _pixels(markup: str) -> np.ndarray:
    data = re.search(r"base64,([^\"]+)", markup)
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))


def test_the_overview_is_a_pixel_a_goal_and_frame() -> None:
    # Two frames of three goals, so three rows of two pixels.
    markup = overview_picture(
        grid([[0.0, 0.5, 1.0], [1.0, UNSTORED, 0.25]], truth=[[0, 1, 0], [0, 1, 1]]), 0.0, 1.0, "<all>"
    )
    assert _pixels(markup).tolist() == [[0, 255], [128, 0], [255, 64]]
    assert 'alt="&lt;all&gt;"' in markup
    assert '<path class="truth" d="M0 1.75h2M1 2.75h1"/>' in markup  # goal 1 in both frames, goal 2 in the second


def test_frames_without_a_label_are_transparent_in_the_overview() -> None:
    assert _pixels(overview_picture(grid([[1.0], [NONE]]), 0.0, 1.0, "")).tolist() == [[[255, 255], [0, 0]]]


def test_the_legend_shows_the_threshold_that_all_goals_have() -> None:
    # Half way between 0.2 and 0.6: at 8 of 16 steps.
    assert '<path class="tick" d="M8.00 0v1"/>' in heat_legend(0.2, 0.6, 0.4, sparse=False)
    assert "tick" not in heat_legend(0.2, 0.6, None, sparse=False)
    assert "do not store" in heat_legend(0.2, 0.6, 0.4, sparse=True)
    assert ">0<svg" in heat_legend(1e-9, 1.0, None, sparse=False)
