"""Charts of the report: inline SVG in the page's colours, and the precision-recall pictures as PNG.

Families differ in colour and in dashes, so the charts need neither colour vision nor a screen.

The text in a chart has a place of its own, wide enough for any font: 0.76 of the font size per character, which is what a wide font
takes with the text spacing of WCAG 1.4.12.
"""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# Okabe and Ito's palette, darkened where it is too pale on white; in the page these are the variables --c0 to --c7.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5568c", "#a87000", "#2b8cbe", "#6b4fa0", "#7a6a53")
_DASHES = ((), (7, 3), (2, 2.5), (9, 3, 2, 3))
_WIDTH, _HEIGHT = 464, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 406, 14, 328
CURVES = ("precision_recall.png", "precision_recall_goals.png")
MAX_BARS = 400
_SPARK_WIDTH, _SPARK_HEIGHT, _SPARK_POINTS = 64, 20, 32
_MAX_PANELS = 24


def colour(index: int) -> str:
    """Returns the page's colour of the family with this index; -1 stands for all goals."""
    return "var(--ink)" if index < 0 else f"var(--c{index % len(_COLOURS)})"


def _dash(index: int) -> tuple[float, ...]:
    return () if index < 0 else _DASHES[index % len(_DASHES)]


def line_key(index: int) -> str:
    """Returns a short piece of the family's line, for tables and legends."""
    dash = ",".join(f"{length:g}" for length in _dash(index))
    return (
        f'<svg class="key" viewBox="0 0 22 8" aria-hidden="true"><line x1="0" y1="4" x2="22" y2="4" '
        f'stroke="{colour(index)}" stroke-width="{3 if index < 0 else 2.4}" stroke-dasharray="{dash}"/></svg>'
    )


def _x(recall: float) -> float:
    return _LEFT + recall * (_RIGHT - _LEFT)


def _y(precision: float) -> float:
    return _BOTTOM - precision * (_BOTTOM - _TOP)


def curve_chart(pooled: Mapping[str, Mapping]) -> str:
    """Draws precision against recall, one step-wise curve per group, above lines of equal F1.

    Args:
        pooled: `labelers.quality.figures.quality_figures` by name; the first is all goals together.
    """
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Precision against recall: {html.escape(", ".join(pooled))}">'
    ]
    for f1 in (0.2, 0.4, 0.6, 0.8):
        recalls = np.geomspace(f1 / (2 - f1), 1, 40)
        points = " ".join(f"{_x(recall):.1f},{_y(f1 * recall / (2 * recall - f1)):.1f}" for recall in recalls)
        parts.append(f'<polyline class="iso" points="{points}"/>')
        parts.append(f'<text class="f1" x="{_RIGHT + 4}" y="{_y(f1 / (2 - f1)) + 4:.1f}">F1 {f1:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>')
    for tick in np.linspace(0, 1, 6):
        parts.append(f'<text x="{_x(tick):.1f}" y="{_BOTTOM + 23}" text-anchor="middle">{tick:.1f}</text>')
        parts.append(f'<text x="{_LEFT - 7}" y="{_y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    parts.append(f'<text x="{_x(0.5)}" y="{_BOTTOM + 45}" text-anchor="middle">recall</text>')
    middle = _y(0.5)
    parts.append(f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">precision</text>')
    marks = []
    for index, name, figures in drawn_curves(pooled):
        dash = ",".join(f"{length:g}" for length in _dash(index))
        path = step_path(
            [_x(r) for r in figures["curve"]["recall"]], [_y(p) for p in figures["curve"]["precision"]], _LEFT
        )
        title = f"<title>{html.escape(name)}: average precision {figures['average_precision']:.3f}</title>"
        parts.append(
            f'<path class="curve" d="{path}" stroke="{colour(index)}" stroke-dasharray="{dash}">{title}</path>'
        )
        for kind, place in (("mark", figures["best_threshold"]), ("own", figures["at_threshold"])):
            if (
                isinstance(place, Mapping)
                and not isinstance(place["precision"], str)
                and not isinstance(place["recall"], str)
            ):
                fill = f'fill="{colour(index)}"' if kind == "mark" else f'stroke="{colour(index)}"'
                marks.append(
                    f'<circle class="{kind}" cx="{_x(place["recall"]):.1f}" cy="{_y(place["precision"]):.1f}" r="4.5" {fill}/>'
                )
    return "".join([*parts, *marks, "</svg>"])


def drawn_curves(pooled: Mapping[str, Mapping]) -> list[tuple[int, str, Mapping]]:
    """Returns index, name and figures of what a chart can hold: all goals, and the eight families that hold in most frames."""
    defined = [
        (index, name, figures)
        for index, (name, figures) in enumerate(pooled.items(), -1)
        if not isinstance(figures["average_precision"], str)
    ]
    families = sorted(defined, key=lambda entry: (entry[0] >= 0, -entry[2]["positives"]))[: 1 + len(_COLOURS)]
    return sorted(families, key=lambda entry: entry[0])


def step_path(xs: Sequence[float], ys: Sequence[float], start: float, digits: int = 1) -> str:
    """Returns the path whose area is the average precision: each precision reaches from the previous recall to its own."""
    path = ""
    for x, y in zip(xs, ys, strict=True):
        path += f"{'V' if path else f'M{start:.{digits}f} '}{y:.{digits}f}H{x:.{digits}f}"
    return path


def sparkline(figures: Mapping) -> str:
    """Returns a goal's precision-recall curve as a small picture; empty without positives."""
    if isinstance(figures["average_precision"], str):
        return ""
    curve = figures["curve"]
    path = step_path(
        [_SPARK_WIDTH * recall for recall in curve["recall"]],
        [_SPARK_HEIGHT + 2 - _SPARK_HEIGHT * precision for precision in curve["precision"]],
        0,
        digits=0,
    )
    return (
        '<svg class="spark" viewBox="-1 0 66 24" aria-hidden="true"><rect x="0" y="2" width="64" height="20"/>'
        f'<path d="{path}"/></svg>'
    )


def recall_levels(figures: Mapping) -> str:
    """Returns a goal's precision at 32 levels of recall as text: "0" to "k", in steps of 0.05; empty without positives.

    The text ends where the curve does, as it does where sparse labels lack the scores of positives.
    """
    if isinstance(figures["average_precision"], str):
        return ""
    recall, precision = figures["curve"]["recall"], figures["curve"]["precision"]
    entries = np.searchsorted(recall, (np.arange(_SPARK_POINTS) + 0.5) / _SPARK_POINTS)
    return "".join(
        np.base_repr(round(_SPARK_HEIGHT * precision[entry]), 36).lower() for entry in entries[entries < len(recall)]
    )


def skyline(goals: Sequence[Mapping], index: int) -> str:
    """Draws the average precision of a family's goals, from the highest to the lowest, one bar per goal.

    Of more than 400 goals, 400 are drawn: evenly spaced in their order, the highest and the lowest among them.
    """
    scored = sorted(
        ((goal["average_precision"], goal["text"]) for goal in goals if goal["positives"]), key=lambda pair: -pair[0]
    )
    places = (
        np.linspace(0, len(scored) - 1, MAX_BARS).round().astype(int) if len(scored) > MAX_BARS else range(len(scored))
    )
    width = 1000 / max(len(places), 1)
    bars = [
        f'<rect x="{place * width:.2f}" y="{100 - 100 * value:.1f}" width="{width * 0.86:.2f}" height="{100 * value:.1f}">'
        f"<title>{html.escape(text)}: {value:.3f}</title></rect>"
        for place, (value, text) in enumerate(scored[number] for number in places)
    ]
    return (
        f'<div class="frame"><svg viewBox="0 0 1000 100" preserveAspectRatio="none" fill="{colour(index)}" role="img" '
        f'aria-label="Average precision of {len(scored):,} goals, highest first">{"".join(bars)}</svg></div>'
    )


def is_thinned(goals: Sequence[Mapping]) -> bool:
    """Returns whether `skyline` draws some of these goals only."""
    return sum(goal["positives"] > 0 for goal in goals) > MAX_BARS


def save_curves(pooled: Mapping[str, Mapping], goals: Sequence[Mapping], output: Path) -> None:
    """Draws precision_recall.png, one curve per family, and precision_recall_goals.png, one panel per family with every goal.

    Of more than 24 families, the 24 whose goals hold in most frames have a panel; the title says so.

    Args:
        pooled: Figures as for `curve_chart`.
        goals: Figures of the goals.
        output: Folder to write to.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure  # only the driver draws; workers need not load it

    def plain(name: str) -> str:
        short = name if len(name) <= 32 else f"{name[:31]}…"
        return short.replace("$", r"\$")  # else matplotlib reads mathematics between two of them

    def frame(axes: object, title: str) -> None:
        axes.set(xlim=(0, 1.005), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)  # type: ignore[attr-defined]
        axes.spines[["top", "right"]].set_visible(False)  # type: ignore[attr-defined]

    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    for index, name, figures in drawn_curves(pooled):
        axes.plot(
            *_steps(figures).T,
            label=f"{plain(name)}: AP {figures['average_precision']:.3f}",
            color="#1d2024" if index < 0 else _COLOURS[index % len(_COLOURS)],
            linestyle=(0, _dash(index)) if _dash(index) else "-",
            linewidth=2.2 if index < 0 else 1.7,
        )
    frame(axes, "Scores against ground truth, goals pooled")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    figure.savefig(output / CURVES[0], dpi=150)

    families = [(index, name) for index, name in enumerate(pooled, -1) if index >= 0]
    shown = sorted(sorted(families, key=lambda family: -pooled[family[1]]["positives"])[:_MAX_PANELS])
    members: dict[str, list[Mapping]] = {name: [] for _, name in shown}
    for goal in goals:
        if goal["family"] in members:
            members[goal["family"]].append(goal)
    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.9 * rows), layout="constrained")
    if len(shown) < len(families):
        figure.suptitle(f"The {len(shown)} families that hold in most frames, of {len(families):,}")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for (index, name), panel in zip(shown, panels, strict=False):
        drawn = (goal for goal in members[name] if not isinstance(goal["average_precision"], str))
        curves = [steps for goal in drawn if len(steps := _steps(goal))]
        opacity = max(0.12, 4 / (len(members[name]) + 4))
        panel.add_collection(
            LineCollection(curves, colors=_COLOURS[index % len(_COLOURS)], linewidths=0.7, alpha=opacity)
        )
        if not isinstance(pooled[name]["average_precision"], str):
            panel.plot(*_steps(pooled[name]).T, color="#1d2024", linewidth=2)
        frame(panel, f"{plain(name)}: {len(members[name]):,} goals, and pooled")
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    figure.savefig(output / CURVES[1], dpi=130)


def _steps(figures: Mapping) -> np.ndarray:
    """Returns [N, 2] corners of the curve that `step_path` draws, from recall 0 on."""
    recall, precision = figures["curve"]["recall"], figures["curve"]["precision"]
    starts = [0.0, *recall][: len(recall)]
    corners = [[x, y] for start, stop, y in zip(starts, recall, precision, strict=True) for x in (start, stop)]
    return np.array(corners, dtype=float).reshape(-1, 2)
