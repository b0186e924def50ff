"""The pictures of figures.json: every one from the numbers in it alone, as PNG and SVG.

Models are told apart by colour and by marker, wordings that a model has read from those that it has not by a filled or open
marker, so that neither colour vision nor a screen is needed.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from wordings import NEW_WORDING, READ, UNKNOWN_WORDS, UNTRAINED_WORDS

# Okabe and Ito's palette.
COLOURS = ("#d55e00", "#009e73", "#0072b2", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P")
DASHES: tuple[Any, ...] = ((0, (1.2, 1.6)), (0, (5, 1.6)), "-", "-.", "--", ":")
GREY = "#8a8f98"
_DPI = 100
_PALETTE = 64
STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#4a4f57",
    "legend.frameon": False,
    "svg.fonttype": "none",  # words stay words, and the file small
    "svg.hashsalt": "vlm-rewards",  # the same numbers, the same bytes
}


def draw_figures(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws precision_recall, size, wordings, formulas, negatives and overview.

    Args:
        results: What figures.json holds.
        folder: Where to; made if it is not there.

    Returns:
        The files: a PNG and an SVG each, of the overview a PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    families = list(results["ladder"])
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, figure in (
            ("precision_recall", _precision_recall_figure(results, families)),
            ("size", _size_figure(results)),
            (
                "wordings",
                _rows_figure(_wording_rows(results, "lift"), results, families, "by wording (rows: that of Lift)"),
            ),
            ("formulas", _rows_figure(_formula_rows(results), results, families, "by formula")),
            ("negatives", _negatives_figure(results, families)),
        ):
            paths += [save_png(figure, folder / f"{name}.png"), save_svg(figure, folder / f"{name}.svg")]
        paths.append(save_png(_overview_figure(results), folder / "overview.png"))
    return paths


def save_png(figure: Figure, path: Path) -> Path:
    """Saves with a palette: line drawings need few colours, and the files are kept with the code."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    picture = Image.open(buffer).convert("RGB").quantize(_PALETTE, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    return path


def save_svg(figure: Figure, path: Path) -> Path:
    """Saves with coordinates of a tenth of a point and without what says nothing, which halves the file."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", buffer.getvalue())
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    family = "font-family: 'DejaVu Sans', sans-serif; "  # said once, for the whole picture
    text = text.replace(family, "").replace("<svg ", f'<svg style="{family}" ', 1)
    text = re.sub(r"<[^>]+>", _rounded_tag, text)  # not what stands between tags: these are words
    path.write_text(re.sub(r"\s*\n\s*", "\n", text), encoding="utf-8")
    return path


def _rounded_tag(tag: re.Match[str]) -> str:
    rounded = re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag[0])
    return rounded.replace("; ", ";").replace(": ", ":").replace(" \n", "\n")


def models_by_size(results: Mapping[str, Any]) -> list[str]:
    """The models, the smallest image tower first."""
    return sorted(results["models"], key=lambda model: results["models"][model]["image_parameters"])


def _caption(results: Mapping[str, Any]) -> str:
    corpus, bootstrap = results["corpus"], results["bootstrap"]
    return (
        f"{corpus['episodes']:,} held-out episodes, {corpus['frames']:,} frames; bars: {100 * bootstrap['interval']:.0f} % "
        f"bootstrap intervals, episodes drawn {bootstrap['resamples']:,} times"
    )


def _legend_of_models(results: Mapping[str, Any]) -> list[Line2D]:
    return [
        Line2D([], [], color=COLOURS[index], marker=MARKERS[index], linestyle="none", label=_short(results, model))
        for index, model in enumerate(models_by_size(results))
    ]


def _short(results: Mapping[str, Any], model: str) -> str:
    return f"{model} ({results['models'][model]['image_parameters'] / 1e6:.2f} M)"


def _precision_recall_figure(results: Mapping[str, Any], families: Sequence[str]) -> Figure:
    figure = Figure(figsize=(10.2, 3.7), layout="constrained")
    panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for family, axes in zip(families, panels, strict=True):
        draw_curves(axes, results, family)
        axes.set_title(family.capitalize())
    for axes in panels[1:]:
        axes.set_ylabel("")
    figure.suptitle("Precision and recall of the reward as its threshold sweeps, goals of a family pooled", fontsize=11)
    return figure


def draw_curves(axes: Axes, results: Mapping[str, Any], family: str) -> None:
    """Precision against recall, a step-wise curve a model; a marker at the default threshold, a line at chance."""
    for index, model in enumerate(models_by_size(results)):
        curve = results["precision_recall"][model][family]
        recall, precision = curve["recall"], curve["precision"]
        axes.step(
            [0.0, *recall],
            [precision[0], *precision],
            where="pre",
            color=COLOURS[index],
            linestyle=DASHES[index],
            linewidth=1.8,
            label=f"{model}, AP {curve['average_precision']:.3f}",
        )
        own = curve["at_threshold"]
        if own["precision"] is not None:
            axes.plot(
                own["recall"], own["precision"], MARKERS[index], color=COLOURS[index], markersize=6, clip_on=False
            )
    chance = curve["share_of_positives"]
    axes.axhline(chance, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    axes.text(0.01, chance + 0.012, f"chance {chance:.4f}", color="#5d636c", fontsize=7.5)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.08), fontsize=8, title=f"marker: threshold {own['threshold']:g}")


def _size_figure(results: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    draw_sizes(figure.subplots(), results)
    figure.suptitle("Mean average precision against size", fontsize=11)
    figure.supxlabel(_caption(results), fontsize=7, color="#5d636c")
    return figure


def draw_sizes(axes: Axes, results: Mapping[str, Any]) -> None:
    """Mean average precision against the image tower's parameters, a line a family, with intervals."""
    order = models_by_size(results)
    sizes = [results["models"][model]["image_parameters"] for model in order]
    families = list(results["ladder"])
    for index, family in enumerate(families):
        rows = [results["size"][model][family] for model in order]
        means = [row["mean"] for row in rows]
        below, above = _bars(rows)
        axes.errorbar(
            sizes,
            means,
            yerr=[below, above],
            color=COLOURS[len(families) - 1 - index],
            linestyle=DASHES[index],
            marker=MARKERS[index],
            capsize=4,
            linewidth=1.6,
            label=family.capitalize(),
        )
        if family == families[-1]:
            for size, mean, high in zip(sizes, means, above, strict=True):
                axes.annotate(
                    f"{mean:.5f}",
                    (size, mean),
                    xytext=(7, -13 if high < 0.01 else -4),
                    textcoords="offset points",
                    fontsize=8,
                )
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{model}\n{size / 1e6:.2f} M" for model, size in zip(order, sizes, strict=True)])
    axes.minorticks_off()
    axes.set(xlabel="parameters of the image tower", ylabel="mean average precision")
    axes.set_xlim(sizes[0] / 1.4, sizes[-1] * 1.7)
    axes.legend(loc="lower right")


def _bars(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Lengths of the error bars; a percentile interval need not hold the mean itself."""
    below = [max(row["mean"] - row["interval"][0], 0.0) for row in rows]
    return below, [max(row["interval"][1] - row["mean"], 0.0) for row in rows]


_FILLS = {READ: "full", NEW_WORDING: "none", UNTRAINED_WORDS: "left"}
Row = tuple[str, Mapping[str, Mapping[str, Any]]]  # a title, and by model what was found by family


def _wording_rows(results: Mapping[str, Any], family: str) -> list[Row]:
    """Rows named by the wording of this family."""
    rows = []
    for row in _by_model(results["wordings"]):
        own = next(iter(row.values()))
        pattern = own["families"][family]["pattern"].replace("{kind}", "...").replace("{other}", "...")
        title = own["name"] if pattern == "{goal}" else pattern  # the only pattern that shows no words
        rows.append((f"{own['style']}:  {title}", {model: found["families"] for model, found in row.items()}))
    return rows


def _formula_rows(results: Mapping[str, Any]) -> list[Row]:
    missing = {family: {"class": UNKNOWN_WORDS, "words": []} for family in results["ladder"]}
    return [
        (next(iter(row.values()))["name"], {model: found.get("families", missing) for model, found in row.items()})
        for row in _by_model(results["formulas"])
    ]


def _by_model(lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Mapping[str, Any]]]:
    """From a list a model to a list of what was found by model."""
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _rows_figure(rows: Sequence[Row], results: Mapping[str, Any], families: Sequence[str], title: str) -> Figure:
    figure = Figure(figsize=(10.6, 1.6 + 0.32 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for family, axes in zip(families, panels, strict=True):
        draw_rows(axes, rows, results, family)
        axes.set_title(family.capitalize())
    classes = {
        own.get("class") for _, by_model in rows for families_of in by_model.values() for own in families_of.values()
    }
    handles = _legend_of_models(results)
    for name, fill in _FILLS.items():
        if name in classes:
            handles.append(
                Line2D([], [], color="#4a4f57", marker="o", fillstyle=fill, linestyle="none", label=_KEYS[name])
            )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, handletextpad=0.2)
    figure.suptitle(f"Mean average precision {title}. {_caption(results)}", fontsize=9)
    return figure


_KEYS = {READ: "wording read in training", NEW_WORDING: "new wording", UNTRAINED_WORDS: "has untrained words"}


def draw_rows(axes: Axes, rows: Sequence[Row], results: Mapping[str, Any], family: str) -> None:
    """A row a title and a mark a model, with its interval; what was not measured says why."""
    models = models_by_size(results)
    for place, (_, by_model) in enumerate(rows):
        for index, model in enumerate(models):
            own = by_model[model][family]
            height = place + 0.24 * (index - (len(models) - 1) / 2)
            if "mean" in own:
                below, above = _bars([own])
                axes.errorbar(
                    own["mean"],
                    height,
                    xerr=[below, above],
                    color=COLOURS[index],
                    marker=MARKERS[index],
                    markersize=4.5,
                    markerfacecoloralt="white",
                    fillstyle=_FILLS.get(own.get("class", READ), "full"),
                    linewidth=1,
                    clip_on=False,
                )
            elif index == 0:
                words = ", ".join(own["words"])
                text = f"not measured: unknown {words}" if words else "not for these models"
                axes.text(0.01, place, text, fontsize=7.5, color="#5d636c", va="center")
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.set(xlim=(0, 1.02), ylim=(len(rows) - 0.45, -0.55), xlabel="mean average precision")
    axes.grid(axis="x", color="#e3e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _negatives_figure(results: Mapping[str, Any], families: Sequence[str]) -> Figure:
    figure = Figure(figsize=(10.6, 4.1), layout="constrained")
    panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for family, axes in zip(families, panels, strict=True):
        draw_negatives(axes, results, family)
        axes.set_title(family.capitalize())
    for axes in panels[1:]:
        axes.set_ylabel("")
    handles = [*_legend_of_models(results), *_legend_of_neutral()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    seeds = results["budget"]["negative_seeds"]
    figure.suptitle(
        f"Mean average precision by the goals beside a goal in its softmax; sampled ones: mean and range of {seeds} draws",
        fontsize=10,
    )
    return figure


def _legend_of_neutral() -> list[Line2D]:
    return [
        Line2D([], [], color="#4a4f57", linestyle="-", label="and the neutral caption"),
        Line2D([], [], color="#4a4f57", linestyle=":", label="goals alone"),
    ]


def draw_negatives(axes: Axes, results: Mapping[str, Any], family: str) -> None:
    """Mean average precision against the number of goals in the softmax, with and without the neutral caption."""
    models = models_by_size(results)
    names = [row["negatives"] for row in results["negatives"][models[0]]["goals and neutral"]]
    for index, model in enumerate(models):
        for kind, style in (("goals", ":"), ("goals and neutral", "-")):
            rows = results["negatives"][model][kind]
            draws = [row["families"][family] for row in rows]
            places = [names.index(row["negatives"]) for row in rows]
            means = [sum(values) / len(values) for values in draws]
            axes.plot(
                places,
                means,
                color=COLOURS[index],
                linestyle=style,
                marker=MARKERS[index],
                markersize=4,
                fillstyle="none" if kind == "goals" else "full",
                linewidth=1.3,
                clip_on=False,
            )
            ranges = [
                (place, min(values), max(values))
                for place, values in zip(places, draws, strict=True)
                if len(values) > 1
            ]
            axes.vlines(*zip(*ranges, strict=True), color=COLOURS[index], linewidth=1.1)
    words = {"0": "none", "family": "fam-\nily", "all": "all"}
    axes.set_xticks(range(len(names)), [words.get(name, name) for name in names])
    axes.set(ylim=(0, 1.03), xlabel="other goals as negatives", ylabel="mean average precision")
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.7)
    axes.set_axisbelow(True)


def _overview_figure(results: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(11.5, 8.6), layout="constrained")
    family = list(results["ladder"])[-1]
    panels = figure.subplots(2, 2)
    draw_curves(panels[0, 0], results, family)
    panels[0, 0].set_title(f"a  {family.capitalize()}: precision and recall")
    draw_sizes(panels[0, 1], results)
    panels[0, 1].set_title("b  Size")
    draw_rows(panels[1, 0], _wording_rows(results, family), results, family)
    panels[1, 0].set_title(f"c  {family.capitalize()}: the goal's wording")
    draw_negatives(panels[1, 1], results, family)
    panels[1, 1].set_title(f"d  {family.capitalize()}: negatives")
    panels[1, 1].legend(handles=[*_legend_of_models(results), *_legend_of_neutral()], loc="lower right", fontsize=8)
    figure.suptitle(f"Reference models as rewards. {_caption(results)}", fontsize=10)
    return figure
