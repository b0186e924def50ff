"""The report of an evaluation: one HTML file that opens offline, with every picture and chart inside it.

    quality.json ──► tables and charts: tables, goal_table, calibration, errors                ┐
    corpus ──► pictures of chosen episodes and frames: pictures, worst_goals                   ├──► report.html
    labels ──► scores of the chosen episodes, goal by frame: strips, heat_maps                 ┘    (+ precision_recall*.png)

This module has the header, the curves, and what the labels were made with. page.html, page.css, page.js and goals.js are the frame
of the page.

The size of the page is bounded: the number of pictures and their bytes, of families with rows of their own (50), of strips and of
lines in them. Only the table of goals grows, by some 200 bytes per goal. Wherever the page shows some of many, it says so.
"""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from vlm_rewards.pipelines.report.calibration import calibration_section, episodes_section
from vlm_rewards.pipelines.report.charts import (
    MAX_BARS,
    curve_chart,
    drawn_curves,
    is_thinned,
    line_key,
    save_curves,
    skyline,
)
from vlm_rewards.pipelines.report.errors import errors_section
from vlm_rewards.pipelines.report.goal_table import goal_table
from vlm_rewards.pipelines.report.heat_maps import heat_filters, heat_styles
from vlm_rewards.pipelines.report.pictures import examples_section, gather, threshold_words
from vlm_rewards.pipelines.report.strips import strips_section
from vlm_rewards.pipelines.report.tables import (
    Cell,
    Column,
    calibration_error,
    family_table,
    figure,
    number_text,
    plain_table,
    share,
    sortable_table,
    threshold,
)
from vlm_rewards.pipelines.report.worst_goals import worst_section
from vlm_rewards.schemas.folders import write_atomically
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.label_parts.reader import Labels
from vlm_rewards.schemas.manifests import Unit

_MAX_VALUE_CHARS = 20_000
_MAX_TILES = 6
_MAX_FAMILIES = 50
_SECTIONS = {
    "summary": "Summary",
    "curves": "Precision and recall",
    "calibration": "Calibration",
    "episodes": "Episodes and time",
    "errors": "False positives",
    "worst": "Worst goals",
    "goals": "All goals",
    "strips": "Film strips",
    "examples": "Hits and misses",
    "run": "The run",
    "fingerprint": "Fingerprint",
    "definitions": "Definitions",
}


def write_report(quality: Mapping, corpus: Corpus, units: Sequence[Unit], labels: Labels, output: Path) -> None:
    """Writes report.html, precision_recall.png and precision_recall_goals.png.

    Args:
        quality: Contents of quality.json.
        corpus: Corpus to take pictures from.
        units: Units of the corpus.
        labels: Labels to take the scores below the film strips from.
        output: Folder to write to.
    """
    pooled = _pooled(quality)
    save_curves(pooled, quality["goals"], output)
    families = shown_families(quality["families"])
    others = [name for name in quality["families"] if name not in families]
    page = {**quality, "families": {name: quality["families"][name] for name in families}}
    shown = gather(page, corpus, units, labels)
    goals = {goal.id: goal for goal in labels.metadata.goals}
    sections = [
        _header(page, len(others)),
        _summary_section(page),
        _curves_section(page),
        calibration_section(page),
        episodes_section(page),
        errors_section(page),
        worst_section(page, shown, goals),
        _goals_section(page, [*families, *others]),
        strips_section(page, shown, labels, units),
        examples_section(page, shown, goals),
        run_section(page),
        fingerprint_section(page),
        _definitions_section(page),
    ]
    write_page(quality, output, heat_filters() + "\n".join(sections), heat_styles())


def write_page(quality: Mapping, output: Path, body: str, styles: str = "") -> None:
    """Writes report.html: the frame of the page around its body.

    Args:
        quality: Contents of quality.json.
        output: Folder to write to.
        body: HTML of the page.
        styles: CSS before that of every page.
    """
    frame = {
        name: Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page.js", "goals.js")
    }
    text = Template(frame["page.html"]).substitute(
        title=html.escape(f"Label quality: {Path(quality['labels']).name}"),
        styles=styles + frame["page.css"],
        script=frame["page.js"] + frame["goals.js"],
        body=body,
    )
    write_atomically(output / "report.html", text)


def shown_families(families: Mapping[str, Mapping]) -> list[str]:
    """Returns the names of the families that have rows of their own, in their order: of more than 50, those that hold most."""
    ranked = sorted(families, key=lambda name: -families[name]["pooled"]["positives"])
    chosen = set(ranked[:_MAX_FAMILIES])
    return [name for name in families if name in chosen]


def _pooled(quality: Mapping) -> dict[str, Mapping]:
    families = {name: family["pooled"] for name, family in quality["families"].items()}
    return {"all goals": quality["overall"]["pooled"], **families}


def tile(name: str, value: float | str, detail: str) -> str:
    """Returns a figure of the header with its name and what it is of."""
    shown = f"{value:,}" if isinstance(value, int) else number_text(value)
    words = " class=words" if isinstance(value, str) else ""
    return f"<div><dt>{html.escape(name)}</dt><dd{words}>{shown}<small>{html.escape(detail)}</small></dd></div>"


def _header(quality: Mapping, num_hidden_families: int) -> str:
    counts, overall = quality["counts"], quality["overall"]
    with_positives = f"{overall['num_goals_with_positives']:,} of {overall['num_goals']:,} goals ever hold"
    own = overall["pooled"]["at_threshold"]
    tiles = [tile("Mean AP, all goals", overall["mean_average_precision"], with_positives)]
    if len(quality["families"]) <= _MAX_TILES:
        tiles += [
            tile(f"Mean AP, {name}", family["mean_average_precision"], f"{family['num_goals_with_positives']:,} goals")
            for name, family in quality["families"].items()
        ]
    unlabelled = counts["unlabelled_frames"]
    tiles += [
        tile("Mean F1, all goals", overall["macro"]["f1"], "at the labels' threshold"),
        tile("False positives", own["false_positives"], f"of {overall['pooled']['negatives']:,} goals and frames"),
        tile("Calibration error", calibration_error(overall["pooled"]["calibration"]), "0 is best"),
        tile("Frames", counts["frames"], f"{unlabelled:,} more without a label" if unlabelled else "all labelled"),
        tile("Episodes", counts["episodes"], f"{counts['frames'] / counts['episodes']:.1f} frames each"),
    ]
    nav = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in _SECTIONS.items())
    return (
        f"<header><h1>How good are these labels?</h1><p class=muted>The labels <code>{html.escape(quality['labels'])}</code> "
        f"({html.escape(quality['formula'])}, threshold {threshold_words(quality)}) against the ground truth of "
        f"<code>{html.escape(quality['corpus'])}</code>.</p>"
        f"<dl class=tiles>{''.join(tiles)}</dl>{_warnings(quality, num_hidden_families)}</header>"
        f"<nav aria-label=Sections>{nav}</nav>"
    )


def _warnings(quality: Mapping, num_hidden_families: int) -> str:
    notes = []
    if quality["sparse"]:
        notes.append(
            "The labels are sparse: scores that are not over the threshold are unknown, so every average precision on this page "
            "covers only scores over the threshold. It is a lower bound."
        )
    for key, one, many in (
        (
            "goals_without_ground_truth",
            "labelled goal has no ground truth and is left out",
            "labelled goals have no ground truth and are left out",
        ),
        (
            "goals_without_positives",
            "goal never holds in this corpus; its figures are undefined",
            "goals never hold in this corpus; their figures are undefined",
        ),
        (
            "goals_without_labels",
            "goal of the ground truth is not labelled",
            "goals of the ground truth are not labelled",
        ),
    ):
        if missing := {**quality["overall"], **quality}[key]:
            notes.append(f"{len(missing):,} {one if len(missing) == 1 else many}: {_listing(missing)}.")
    if num_hidden_families:
        notes.append(
            f"There are {len(quality['families']) + num_hidden_families:,} families. The {len(quality['families'])} whose goals "
            "hold in most frames have rows, charts and pictures below; the table of all goals has every family, and quality.json "
            "has all figures."
        )
    return "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)


def _listing(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (
        f" and {len(names) - limit:,} more (see quality.json)" if len(names) > limit else ""
    )


def _summary_section(quality: Mapping) -> str:
    return (
        "<section id=summary><h2>Summary</h2><p class=note>Figures pool all goals of a family; columns named mean are means over "
        f"its goals. The labels' own threshold is {threshold_words(quality)}. Click a column head to sort; point at it for its "
        "meaning.</p>"
        f"{family_table(quality)}</section>"
    )


def _curves_section(quality: Mapping) -> str:
    pooled = _pooled(quality)
    groups = [quality["overall"], *quality["families"].values()]
    columns = [
        Column("Family", is_text=True),
        Column("mean", "average precision", "mean over the goals that hold in some frame"),
        Column("pooled", "average precision", "all scores of the family in one ranking: the area under its curve"),
        *(
            Column(name, "at the threshold of highest F1", meaning)
            for name, meaning in (
                ("value", "the threshold"),
                ("P", "precision"),
                ("R", "recall"),
                ("F1", "harmonic mean of precision and recall"),
                ("FPR", "false-positive rate"),
            )
        ),
    ]
    rows = []
    for index, ((name, figures), group) in enumerate(zip(pooled.items(), groups, strict=True), -1):
        best = figures["best_threshold"]
        if isinstance(best, Mapping):
            cells = [threshold(best["threshold"]), *(figure(best[key], 2) for key in ("precision", "recall", "f1"))]
            cells.append(share(best["false_positive_rate"]))
        else:
            cells = [figure(best)] * 5
        own = [figure(group["mean_average_precision"]), figure(figures["average_precision"])]
        rows.append(("", [Cell(line_key(index) + html.escape(name), name), *own, *cells]))
    num_drawn = sum(index >= 0 for index, *_ in drawn_curves(pooled))
    num_curves = sum(
        not isinstance(group["pooled"]["average_precision"], str) for group in quality["families"].values()
    )
    some = f" Drawn are the {num_drawn} families whose goals hold in most frames." if num_drawn < num_curves else ""
    return (
        "<section id=curves><h2>Precision and recall</h2><p class=note>One curve per family, of all scores of its goals in one "
        "ranking. Grey curves join points of equal F1. A filled dot marks the threshold with the highest F1, a ring the labels' "
        f"own threshold.{some}</p><div class=curves><div>{curve_chart(pooled)}</div>"
        f"{sortable_table(columns, rows, 'families', 'Average precision and best thresholds')}</div></section>"
    )


def _goals_section(quality: Mapping, families: Sequence[str]) -> str:
    members: dict[str, list[Mapping]] = {name: [] for name in families}
    for goal in quality["goals"]:
        members[goal["family"]].append(goal)
    skylines = "".join(
        f"<div class=label>{line_key(index)}{html.escape(name)}<br><span class=muted>mean "
        f"{number_text(family['mean_average_precision'])}</span></div>{skyline(members[name], index)}"
        for index, (name, family) in enumerate(quality["families"].items())
    )
    some = ""
    if any(is_thinned(members[name]) for name in quality["families"]):
        some = f" Of a family of more than {MAX_BARS} goals, {MAX_BARS} are drawn, evenly spaced in their order."
    return (
        "<section id=goals><h2>All goals</h2><p class=note>Average precision of each goal, one bar per goal, highest first in its "
        f"family. The lines are at 0.5 and 1.{some}</p><div class=skyline>{skylines}</div><p class=note>All figures of every goal, "
        "lowest average precision first. Click a column head to sort; undefined figures come last.</p>"
        f"{goal_table(quality['goals'], families, len(quality['families']))}</section>"
    )


def run_section(quality: Mapping) -> str:
    """Returns the section of the run that made the labels."""
    run = quality["run"]
    seconds, counts = run["seconds"], run["counts"]
    total = sum(seconds.values())
    encoded, cached = counts.get("encoded_frames", 0), counts.get("cached_frames", 0)
    figures = [
        ("frames labelled", f"{run['rows']:,}"),
        ("episodes", f"{run['episodes']:,}"),
        ("units of work", f"{run['units']:,}"),
        ("frames per second and worker", f"{run['rows'] / total:,.0f}" if total else "not measured"),
        ("frames encoded", f"{encoded:,}"),
        ("frames seen before, not encoded again", f"{cached:,} ({cached / max(encoded + cached, 1):.1%})"),
        ("size of the labels", f"{run['num_bytes'] / 1e6:,.1f} MB"),
        ("frames that failed", f"{run['failed_frames']:,}"),
        *[(f"failures: {reason}", f"{count:,}") for reason, count in run["failures"].items()],
        *[(f"unreadable in the evaluation: {reason}", f"{n:,}") for reason, n in quality.get("unreadable", {}).items()],
    ]
    stages = [
        (
            stage,
            f"{spent:,.2f}",
            f"{spent / max(total, 1e-9):.0%}",
            f"{run['rows'] / spent:,.0f}" if spent else "not measured",
        )
        for stage, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    failures = "".join(f"<li>{html.escape(failure)}</li>" for failure in run["first_failures"])
    listed = f"<h3>The first failures</h3><ul class=note>{failures}</ul>" if failures else ""
    stage_table = plain_table(stages, ("stage", "seconds", "share", "frames/s"))
    return (
        "<section id=run><h2>The run that made the labels</h2><p class=note>Seconds are summed over workers."
        f"</p><div class=two>{plain_table(figures, ('what', 'how much'))}{stage_table}</div>{listed}</section>"
    )


def fingerprint_section(quality: Mapping) -> str:
    """Returns the section of everything that the labels depend on."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_value(value)}</td></tr>"
        for name, value in quality["fingerprint"].items()
    )
    return (
        f"<section id=fingerprint><h2>Fingerprint</h2><p class=note>Everything that the labels depend on; the digest is "
        f"<code>{quality['fingerprint_digest']}</code>.</p><div class=scroll tabindex=0><table><thead><tr><th>part</th>"
        f"<th>value</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _value(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= 120:
        return f"<code>{html.escape(text)}</code>"
    full = json.dumps(value, ensure_ascii=False, indent=1)
    cut = f"\n... {len(full):,} characters in all: see quality.json" if len(full) > _MAX_VALUE_CHARS else ""
    return (
        f"<details><summary><code>{html.escape(text[:80])}...</code></summary>"
        f"<pre>{html.escape(full[:_MAX_VALUE_CHARS])}{cut}</pre></details>"
    )


def _definitions_section(quality: Mapping) -> str:
    bounds = quality["overall"]["mean_average_precision_bounds"]
    between = (
        ""
        if isinstance(bounds, str)
        else f". The exact mean over all goals is between {bounds[0]:.4f} and {bounds[1]:.4f}"
    )
    cause = "ties in a bin, and scores that sparse labels do not store," if quality["sparse"] else "ties in a bin"
    listed = "".join(
        f"<dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(text)}</dd>"
        for name, text in quality["definitions"].items()
    )
    return (
        f"<section id=definitions><h2>Definitions</h2><dl class=definitions>{listed}</dl><p>Figures are computed from finely "
        f"binned scores, so that corpora of any size fit in memory. So {cause} can change an average precision, within the bounds "
        f"that quality.json gives for every goal{between}. <b>Mean</b> figures are over the goals for which they are defined; "
        "<b>pooled</b> figures put all scores of all goals in one ranking. The <b>threshold with the highest F1</b> is chosen on "
        "these frames: expect less of it on others. All figures are in quality.json, beside this file.</p></section>"
    )
