"""The pictures of claims.json: every one from the numbers in it alone, as PNG and SVG.

Lines are interquartile means over seeds, shaded areas their 95 % intervals. What is compared is told apart by colour, by marker and
by dashes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from drawing import COLOURS, DASHES, GREY, MARKERS, STYLE, save_png, save_svg
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from wordings import WORDINGS

_ALGORITHMS = {"bc": "BC", "filtered-bc": "filtered BC", "iql": "IQL", "cal-ql": "Cal-QL", "cql": "CQL"}
_TRUTH, _MODEL, _FALSE = COLOURS[2], COLOURS[4], COLOURS[0]
_DARK = "#4a4f57"
_HELD_OUT = {"color": COLOURS[5], "marker": "v", "linestyle": DASHES[3]}
_RETURN = {
    "color": _MODEL,
    "marker": "s",
    "linestyle": DASHES[1],
    "linewidth": 2.2,
    "markersize": 7,
    "fillstyle": "none",
}


def draw_claims(record: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Draws a picture of every experiment that was measured.

    Args:
        record: What claims.json holds.
        folder: Where to; made if it is not there.

    Returns:
        The PNG by experiment; the SVG is beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = {"offline": _offline, "figure3": _figure3, "figure4": _figure4, "figure5": _figure5}
    paths = {}
    with matplotlib.rc_context(STYLE):
        for name in record["only"]:
            if any(record.get(name, {}).values()):
                figure = draw[name](record)
                paths[name] = save_png(figure, folder / f"{name}.png")
                save_svg(figure, folder / f"{name}.svg")
    return paths


def algorithm_name(algorithm: str) -> str:
    """An algorithm as the literature writes it."""
    return _ALGORITHMS.get(algorithm, algorithm)


def wording_name(name: str) -> str:
    """A wording of `wordings.WORDINGS` with its style; of a model's name, that name."""
    styles = {wording.name: wording.style for wording in WORDINGS}
    return f"{styles[name]}: {name}" if name in styles else name


def seeds_told(record: Mapping[str, Any], scores: Sequence[Any]) -> str:
    """How many seeds a figure is of where some are missing, to stand behind it: " (3 of 5 seeds)"; else nothing."""
    wanted = len(record["budget"]["seeds"])
    return "" if len(scores) >= wanted else f" ({len(scores)} of {wanted} seeds)"


def _title(record: Mapping[str, Any], text: str) -> str:
    seeds = len(record["budget"]["seeds"])
    told = f"{seeds} seeds, interquartile means and 95 % intervals"
    for name, words in (("waiting", "are still to be made"), ("failures", "failed")):
        if record[name]:
            told += f"; {len(record[name])} runs {words}"
    return f"{text}\n{told if record['is_evidence'] else f'No evidence: a test of the command with {seeds} seeds'}"


def _panels(figure: Figure, names: Sequence[str], rows: int = 1) -> np.ndarray:
    panels = figure.subplots(rows, len(names), sharey="row", squeeze=False)
    for name, axes in zip(names, panels[0], strict=True):
        axes.set_title(name.capitalize())
    return panels


def _grid(axes: Axes) -> None:
    axes.grid(color="#e3e6ea", linewidth=0.7)
    axes.set_axisbelow(True)


def _offline(record: Mapping[str, Any]) -> Figure:
    families = [family for family, own in record["offline"].items() if own]
    names = [name for name in record["budget"]["algorithms"] if any(name in record["offline"][f] for f in families)]
    figure = Figure(figsize=(2.7 * len(families) + 0.8, 1.5 + 0.42 * len(names)), layout="constrained")
    for family, axes in zip(families, _panels(figure, families)[0], strict=True):
        for place, name in enumerate(names):
            own = record["offline"][family].get(name, {}).get("success")
            if own is not None:
                seeds = np.ravel(own["scores"])
                axes.plot(seeds, np.full(len(seeds), place + 0.22), "|", color=GREY, markersize=6)
                _error_bar(axes, own, place, place)
        axes.set_yticks(range(len(names)), [algorithm_name(name) for name in names])
        axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel="success in truth")
        axes.tick_params(axis="y", length=0)
        _grid(axes)
    figure.suptitle(_title(record, "Offline training on one mixed corpus (grey: each seed)"), fontsize=10)
    return figure


def _error_bar(axes: Axes, own: Mapping[str, Any], place: float, index: int) -> None:
    axes.errorbar(
        own["value"],
        place,
        xerr=[[max(own["value"] - own["low"], 0)], [max(own["high"] - own["value"], 0)]],
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        capsize=3,
        linewidth=1.4,
    )


def _curve(
    axes: Axes, steps: Sequence[int], curve: Mapping[str, Sequence[float | None]], *, shaded: bool = True, **style: Any
) -> None:
    """A line and its interval, shaded or drawn; points that no run knows are left out."""
    known = [index for index, value in enumerate(curve["value"]) if value is not None]
    x = np.array([steps[index] for index in known]) / 1000
    columns = {name: np.array([curve[name][index] for index in known], dtype=float) for name in curve}
    axes.plot(x, columns["value"], **{"linewidth": 1.7, "markersize": 4, **style})
    if shaded:
        axes.fill_between(x, columns["low"], columns["high"], color=style["color"], alpha=0.18, linewidth=0)
    else:
        for bound in ("low", "high"):
            axes.plot(x, columns[bound], color=style["color"], linewidth=0.9, linestyle=style["linestyle"])


def _figure3(record: Mapping[str, Any]) -> Figure:
    families = list(record["figure3"])
    figure = Figure(figsize=(3.3 * len(families) + 0.9, 8.4), layout="constrained")
    panels = _panels(figure, families, rows=3)
    for column, family in enumerate(families):
        own, offline = record["figure3"][family], record["offline"][family]
        top, middle, bottom = panels[:, column]
        top.set_title(f"{family.capitalize()}{seeds_told(record, own['end']['scores'])}")
        if "bc" in offline:
            bc = offline["bc"]["success"]
            top.axhspan(bc["low"], bc["high"], color=GREY, alpha=0.25, linewidth=0)
            top.axhline(bc["value"], color=_DARK, linewidth=1, linestyle=":")
        _curve(top, own["steps"], own["vlm_return"], shaded=False, **_RETURN)
        _curve(top, own["steps"], own["success"], color=_TRUTH, marker="o", linestyle="-")
        if own["held_out"] is not None:
            _curve(top, own["steps"], own["held_out"]["success"], **_HELD_OUT)
        top.set(ylim=(-0.02, 1.04))
        _curve(middle, own["steps"], own["false_positive_share"], color=_FALSE, marker="^", linestyle="-")
        _curve(middle, own["steps"], own["false_positive_rate"], color=COLOURS[3], marker="D", linestyle=DASHES[0])
        middle.set(xlabel="environment steps (thousands)")
        middle.set_ylim(bottom=0, top=max(middle.get_ylim()[1], 0.1))
        _scatter(bottom, own)
        for axes in panels[:, column]:
            _grid(axes)
    panels[0, 0].set_ylabel("VLM return and success")
    panels[1, 0].set_ylabel("false positives")
    panels[2, 0].set_ylabel("VLM return")
    figure.legend(
        handles=_figure3_keys(any(record["figure3"][family]["held_out"] for family in families)),
        loc="outside lower center",
        ncols=3,
        fontsize=8,
    )
    figure.suptitle(_title(record, "Fine-tuning with the model's reward alone"), fontsize=10)
    return figure


def _scatter(axes: Axes, own: Mapping[str, Any]) -> None:
    """VLM return against success, a point an evaluation, and the correlation over the runs."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for index, seed in enumerate(own["seeds"].values()):
        marker, colour = MARKERS[index % len(MARKERS)], COLOURS[index % len(COLOURS)]
        axes.plot(seed["success"], seed["vlm_return"], marker, color=colour, markersize=4, alpha=0.8, clip_on=False)
    correlation = own["correlation"]
    if correlation is not None:
        text = f"r = {correlation['value']:.2f} ({correlation['low']:.2f} to {correlation['high']:.2f})"
        axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=8.5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel="success in truth")


def _figure3_keys(held_out: bool) -> list[Line2D]:
    return [
        Line2D([], [], color=_TRUTH, marker="o", label="success in truth"),
        Line2D([], [], label="VLM return", **_RETURN),
        *([Line2D([], [], label="success, goals never trained on", **_HELD_OUT)] if held_out else []),
        Line2D([], [], color=_DARK, linestyle=":", label="BC, offline"),
        Line2D([], [], color=_FALSE, marker="^", label="false positives, of rewarded episodes"),
        Line2D(
            [], [], color=COLOURS[3], marker="D", linestyle=DASHES[0], label="false positives, of unachieved frames"
        ),
        Line2D([], [], color=GREY, linestyle=":", label="return equals success (points: evaluations by seed)"),
    ]


def _figure4(record: Mapping[str, Any]) -> Figure:
    return _compared(record, record["figure4"], "Success in truth by reward model")


def _figure5(record: Mapping[str, Any]) -> Figure:
    return _compared(record, record["figure5"], "Success in truth by the wording that the reward model reads")


def _compared(record: Mapping[str, Any], by_family: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    families = [family for family, own in by_family.items() if own]
    figure = Figure(figsize=(3.3 * len(families) + 0.9 + 1.6 * (len(families) < 2), 3.9), layout="constrained")
    names = list(dict.fromkeys(name for family in families for name in by_family[family]))
    for family, axes in zip(families, _panels(figure, families)[0], strict=True):
        for index, name in enumerate(names):
            if name in by_family[family]:
                own = by_family[family][name]
                _curve(axes, own["steps"], own["success"], **_style(index))
        axes.set(ylim=(-0.02, 1.04), xlabel="environment steps (thousands)")
        _grid(axes)
    figure.axes[0].set_ylabel("success in truth")
    keys = [
        Line2D([], [], label=f"{wording_name(name)}{_fewest_seeds(record, by_family, name)}", **_style(index))
        for index, name in enumerate(names)
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys) if len(families) > 1 else 2, fontsize=8.5)
    figure.suptitle(_title(record, title), fontsize=10)
    return figure


def _fewest_seeds(record: Mapping[str, Any], by_family: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return seeds_told(record, min((own[name]["end"]["scores"] for own in by_family.values() if name in own), key=len))


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index], "marker": MARKERS[index], "linestyle": DASHES[index]}
