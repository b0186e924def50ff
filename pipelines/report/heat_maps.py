"""Heat maps of the report: scores as colours, one row per goal, one column per frame. Pure functions from arrays to HTML.

    one goal, large                                  all goals of a family, small
          ▂▂▂▂▂▂▂▂▂▂▂          labelled a success    ┌──────────────┐ one pixel per goal and frame, stretched;
    ┌───┬───┬───┬───┬───┬───┐                        │ grey picture │ the page's filter turns grey into colour
    │   │ ▒ │ █ │ █ │ ▒ │   │  colour: the score     └──────────────┘ lines: the ground truth
    └───┴───┴───┴───┴───┴───┘
              ▔▔▔▔▔▔▔▔▔▔▔      holds

Colours are equal steps in OKLab, from the page's background to the far end of lightness, in one hue: each step is as visible as any
other, the scale needs no colour vision, and orange is free for the ground truth.

Shapes: F frames of an episode, C columns of one or several frames, G goals.
"""

import base64
import html
import io
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from vlm_rewards.labelers.calibration.counts import NEVER

NUM_STEPS = 16
MAX_COLUMNS = 512
_LIGHT = ("#f1f4f6", "#b5d5e7", "#5aa3cc", "#1f66a6", "#0a2656")
_DARK = ("#24292f", "#1e4c74", "#2c83b8", "#7cc2e6", "#f2fbff")
_INKS = ("#1d2024", "#fbfbf9")
_OVER_Y, _CELLS_Y, _TRUTH_Y, ROW_HEIGHT = 1.5, 11, 20.5, 22  # middles of strokes 3, 12 and 3 high
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


class ScoreGrid(NamedTuple):
    """Scores, ground truth and successes of an episode.

    Attributes:
        scores: [F, G] float32; NaN in frames without a label, -inf where sparse labels hold no score.
        truth: [F, G] bool, whether the goal holds.
        over: [F, G] bool, whether the labels' own rule calls the goal achieved.
    """

    scores: np.ndarray
    truth: np.ndarray
    over: np.ndarray

    def select(self, goals: Sequence[int]) -> "ScoreGrid":
        """Returns the grid of these goals, in this order."""
        return ScoreGrid(*(part[:, list(goals)] for part in self))


def oklab(colours: Sequence[str]) -> np.ndarray:
    """Converts colours such as "#0072b2" to OKLab: [N, 3], lightness 0 to 1, and two opponent axes.

    Source: Ottosson, "A perceptual color space for image processing", 2020.
    """
    return np.cbrt(_linear(colours) @ _TO_LMS.T) @ _TO_LAB.T


def _linear(colours: Sequence[str]) -> np.ndarray:
    encoded = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def ramp(dark: bool) -> list[str]:
    """Returns the scale's colours from the lowest to the highest score, in equal steps of OKLab, for a light or a dark page."""
    points = oklab(_DARK if dark else _LIGHT)
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    places = np.linspace(0, lengths[-1], NUM_STEPS)
    lab = np.stack([np.interp(places, lengths, points[:, axis]) for axis in range(3)], axis=1)
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [f"#{''.join(f'{round(255 * part):02x}' for part in colour)}" for colour in encoded.tolist()]


def heat_styles() -> str:
    """Returns the scale as CSS: variables --h0 to --h15, light and dark; classes of strokes (h0 ...) and table cells (s0 ...)."""

    def variables(dark: bool) -> str:
        inks = [max(_INKS, key=lambda ink: contrast(ink, colour)) for colour in ramp(dark)]
        return (
            ":root{"
            + "".join(f"--h{i}:{c};--t{i}:{t};" for i, (c, t) in enumerate(zip(ramp(dark), inks, strict=True)))
            + "}"
        )

    rules = "".join(
        f".h{i}{{stroke:var(--h{i})}}.s{i}{{background:var(--h{i});color:var(--t{i})}}" for i in range(NUM_STEPS)
    )
    return f"{variables(False)}@media (prefers-color-scheme:dark){{{variables(True)}}}{rules}"


def contrast(one: str, other: str) -> float:
    """Returns the contrast ratio of two colours, 1 to 21, as WCAG 2 defines it."""
    linear = _linear([one, other]) @ np.array([0.2126, 0.7152, 0.0722])
    return float((linear.max() + 0.05) / (linear.min() + 0.05))


def heat_filters() -> str:
    """Returns the filters that turn a grey picture into the scale's colours: `heat-light` and `heat-dark`."""

    def channel(name: str, dark: bool, place: int) -> str:
        values = " ".join(f"{int(colour[place : place + 2], 16) / 255:.3f}" for colour in ramp(dark))
        return f'<feFunc{name} type="discrete" tableValues="{values}"/>'

    filters = "".join(
        f'<filter id="heat-{scheme}" color-interpolation-filters="sRGB" x="0" y="0" width="1" height="1">'
        f"<feComponentTransfer>{''.join(channel(name, dark, i) for name, i in (('R', 1), ('G', 3), ('B', 5)))}"
        "</feComponentTransfer></filter>"
        for scheme, dark in (("light", False), ("dark", True))
    )
    return f'<svg class="filters" width="0" height="0" aria-hidden="true">{filters}</svg>'


def score_range(ends: Sequence[Sequence[float]], thresholds: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of the scale: the lowest and highest of all known scores and of the thresholds of goals that can fire.

    Where there are none, as in sparse labels of goals that never fire, the scale is from 0 to 1.

    Args:
        ends: Lowest and highest known score per episode; empty without one.
        thresholds: Thresholds of the goals.
    """
    values = [*(threshold for threshold in thresholds if threshold < NEVER), *itertools.chain(*ends)]
    return (min(values), max(values)) if values else (0.0, 1.0)


def join_frames(grid: ScoreGrid) -> tuple[ScoreGrid, int]:
    """Joins neighbouring frames to at most 512 columns.

    A column has the highest score of its frames; the goal holds or is achieved in it if it does in one of its frames.

    Returns:
        The grid, [C, G] each, and the number of frames per column.
    """
    num_frames = len(grid.scores)
    span = math.ceil(num_frames / MAX_COLUMNS)
    starts = np.arange(0, num_frames, span)
    scores, truth, over = grid
    return ScoreGrid(
        np.fmax.reduceat(scores, starts), np.logical_or.reduceat(truth, starts), np.logical_or.reduceat(over, starts)
    ), span


def levels(scores: np.ndarray, low: float, high: float, num_levels: int) -> np.ndarray:
    """Converts scores to whole numbers from 0 to num_levels - 1, equal parts of [low, high]; -1 without a label."""
    share = (np.where(np.isfinite(scores), scores, low) - low) / (high - low) if high > low else np.zeros_like(scores)
    level = np.minimum((share.clip(0, 1) * num_levels).astype(np.int64), num_levels - 1)
    return np.where(np.isnan(scores), -1, level)


def runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns (start, length, value) of each run of equal values in a list of whole numbers or of bool."""
    values = np.asarray(values).astype(np.int64)
    starts = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
    lengths = np.diff(starts, append=len(values))
    return list(zip(starts.tolist(), lengths.tolist(), values[starts].tolist(), strict=True))


def heat_row(scores: np.ndarray, truth: np.ndarray, over: np.ndarray, low: float, high: float) -> str:
    """Draws one goal's scores as cells, with a bar above where they are labelled a success and one below where the goal holds.

    Args:
        scores: [C] float32, as in `ScoreGrid`.
        truth: [C] bool.
        over: [C] bool.
        low: Score of the lowest colour.
        high: Score of the highest.
    """
    cells: dict[int, str] = {}
    for start, length, level in runs(levels(scores, low, high, NUM_STEPS)):
        cells[level] = cells.get(level, "") + f"M{start} {_CELLS_Y}h{length}"
    drawn = "".join(
        f'<path class="{"none" if level < 0 else f"h{level}"}" d="{path}"/>' for level, path in sorted(cells.items())
    )
    for name, y, marks in (("over", _OVER_Y, over), ("truth", _TRUTH_Y, truth)):
        bars = "".join(f"M{start} {y}h{length}" for start, length, is_marked in runs(marks) if is_marked)
        drawn += f'<path class="{name}" d="{bars}"/>' if bars else ""
    return f'<svg viewBox="0 0 {len(scores)} {ROW_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'


def cell_values(scores: np.ndarray, truth: np.ndarray, over: np.ndarray) -> str:
    """Returns what the page's script reads of a row: one word per cell, the score, t if the goal holds and o if it is achieved.

    A cell without a label is "-"; a cell whose score is not in sparse labels is "_".
    """
    words = []
    for score, holds, achieved in zip(scores.tolist(), truth, over, strict=True):
        known = "-" if math.isnan(score) else "_" if math.isinf(score) else f"{score:.3g}"
        words.append(f"{known}{'t' if holds else ''}{'o' if achieved else ''}")
    return " ".join(words)


def overview_picture(grid: ScoreGrid, low: float, high: float, alt: str) -> str:
    """Draws the scores of all goals of a grid as an `img` of C by G pixels, with lines where the goals hold.

    The grey of a pixel is the score, 0 for low and 255 for high; frames without a label are transparent.
    """
    grey = levels(grid.scores.T, low, high, 256)
    pixels = np.stack([grey.clip(0), np.where(grey < 0, 0, 255)], axis=2).astype(np.uint8)
    if (grey >= 0).all():
        pixels = pixels[:, :, 0]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    num_goals, num_columns = grey.shape
    lines = "".join(
        f"M{start} {goal}.75h{length}"
        for goal in np.flatnonzero(grid.truth.any(axis=0)).tolist()
        for start, length, holds in runs(grid.truth[:, goal])
        if holds
    )
    return (
        f'<img class="scores" alt="{html.escape(alt)}" src="{source}"><svg viewBox="0 0 {num_columns} {num_goals}" '
        f'preserveAspectRatio="none" aria-hidden="true"><path class="truth" d="{lines}"/></svg>'
    )


def heat_legend(low: float, high: float, threshold: float | None, sparse: bool) -> str:
    """Returns the scale with its ends, the threshold if all goals share one, and the marks."""
    boxes = "".join(f'<path class="h{step}" d="M{step} .5h1"/>' for step in range(NUM_STEPS))
    tick = ""
    if threshold is not None and high > low:
        place = NUM_STEPS * (threshold - low) / (high - low)
        tick = f'<path class="tick" d="M{place:.2f} 0v1"/>'
    scale = (
        f'<span class="scale">{_end(low, high - low)}<svg viewBox="0 0 {NUM_STEPS} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="Colours from a score of {_end(low, high - low)} to {high:.3g}">{boxes}{tick}</svg>{high:.3g}</span>'
    )
    ends = "score, the tick is the threshold" if tick else "score"
    lowest = (
        '<span class="mark">the lowest colour also: a score that sparse labels do not store</span>' if sparse else ""
    )
    return (
        f'<p class="legend"><span class="mark">{scale} {ends}</span>{lowest}<span class="mark"><i class="over"></i>above: '
        'labelled a success</span><span class="mark"><i class="truth"></i>below: the goal holds (ground truth)</span>'
        '<span class="mark"><i class="none"></i>no label</span></p>'
    )


def _end(value: float, width: float) -> str:
    return "0" if abs(value) < 0.0005 * width else f"{value:.3g}"
