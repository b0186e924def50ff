"""The report of an evaluation: one HTML file that opens offline, with every picture and chart inside it.

    quality.json ──► tables, charts: report_tables, report_calibration, report_errors          ┐
    corpus ──► pictures of chosen episodes and frames: report_pictures, report_worst           ├──► report.html
    labels ──► scores of the chosen episodes, goal by frame: report_strips, report_heat        ┘    (+ precision_recall*.png)

Here are the head, the curves and what the labels were made with; report.html, report.css and report.js are the page's frame.
"""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from vlm_rewards.pipelines.report.calibration import calibration_section, episodes_section
from vlm_rewards.pipelines.report.charts import curve_chart, line_key, save_curves, skyline
from vlm_rewards.pipelines.report.errors import errors_section
from vlm_rewards.pipelines.report.heat_maps import heat_filters, heat_styles
from vlm_rewards.pipelines.report.pictures import examples_section, gather, threshold_words
from vlm_rewards.pipelines.report.strips import strips_section
from vlm_rewards.pipelines.report.tables import (
    Cell,
    Column,
    calibration_error,
    family_table,
    figure,
    goal_table,
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
        quality: What quality.json holds.
        corpus: The corpus, to take pictures from.
        units: Its units.
        labels: The labels, to take the scores under the film strips from.
        output: Folder to write to.
    """
    pooled = _pooled(quality)
    save_curves(pooled, quality["goals"], output)
    shown = gather(quality, corpus, units, labels)
    goals = {goal.id: goal for goal in labels.metadata.goals}
    sections = [
        _header(quality),
        _summary_section(quality),
        _curves_section(quality, pooled),
        calibration_section(quality),
        episodes_section(quality),
        errors_section(quality),
        worst_section(quality, shown, goals),
        _goals_section(quality),
        strips_section(quality, shown, labels),
        examples_section(quality, shown, goals),
        _run_section(quality),
        _fingerprint_section(quality),
        _definitions_section(quality),
    ]
    frame = {
        name: Path(__file__).with_name(f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")
    }
    page = Template(frame["html"]).substitute(
        title=html.escape(f"Label quality: {Path(quality['labels']).name}"),
        styles=heat_styles() + frame["css"],
        script=frame["js"],
        body=heat_filters() + "\n".join(sections),
    )
    write_atomically(output / "report.html", page)


def _pooled(quality: Mapping) -> dict[str, Mapping]:
    families = {name: family["pooled"] for name, family in quality["families"].items()}
    return {"all goals": quality["overall"]["pooled"], **families}


def _tile(name: str, value: float | str, detail: str) -> str:
    shown = f"{value:,}" if isinstance(value, int) else number_text(value)
    words = " class=words" if isinstance(value, str) else ""
    return f"<div><dt>{html.escape(name)}</dt><dd{words}>{shown}<small>{html.escape(detail)}</small></dd></div>"


def _header(quality: Mapping) -> str:
    counts, overall = quality["counts"], quality["overall"]
    with_positives = f"{overall['num_goals_with_positives']:,} of {overall['num_goals']:,} goals ever hold"
    own = overall["pooled"]["at_threshold"]
    tiles = [_tile("Mean AP, all goals", overall["mean_average_precision"], with_positives)]
    if len(quality["families"]) <= _MAX_TILES:
        tiles += [
            _tile(f"Mean AP, {name}", family["mean_average_precision"], f"{family['num_goals_with_positives']:,} goals")
            for name, family in quality["families"].items()
        ]
    unlabelled = counts["unlabelled_frames"]
    tiles += [
        _tile("Mean F1, all goals", overall["macro"]["f1"], "at the labels' threshold"),
        _tile("False positives", own["false_positives"], f"of {overall['pooled']['negatives']:,} goals and frames"),
        _tile("Calibration error", calibration_error(overall["pooled"]["calibration"]), "0 is best"),
        _tile("Frames", counts["frames"], f"{unlabelled:,} more without a label" if unlabelled else "all labelled"),
        _tile("Episodes", counts["episodes"], f"{counts['frames'] / counts['episodes']:.1f} frames each"),
    ]
    nav = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in _SECTIONS.items())
    return (
        f"<header><h1>How good are these labels?</h1><p class=muted>The labels <code>{html.escape(quality['labels'])}</code> "
        f"({html.escape(quality['formula'])}, threshold {threshold_words(quality)}) against the ground truth of "
        f"<code>{html.escape(quality['corpus'])}</code>.</p>"
        f"<dl class=tiles>{''.join(tiles)}</dl>{_warnings(quality)}</header><nav aria-label=Sections>{nav}</nav>"
    )


def _warnings(quality: Mapping) -> str:
    notes = []
    if quality["sparse"]:
        notes.append(
            "The labels are sparse: scores that are not over the threshold are not known, so every average precision here "
            "is over the threshold only, a lower bound."
        )
    if missing := quality["goals_without_ground_truth"]:
        notes.append(f"{len(missing)} labelled goals have no ground truth and are left out: {_listing(missing)}.")
    if missing := quality["overall"]["goals_without_positives"]:
        notes.append(
            f"{len(missing)} goals never hold in this corpus; their figures are undefined: {_listing(missing)}."
        )
    if missing := quality["goals_without_labels"]:
        notes.append(f"{len(missing)} goals of the ground truth are not labelled: {_listing(missing)}.")
    return "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)


def _listing(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (
        f" and {len(names) - limit} more (see quality.json)" if len(names) > limit else ""
    )


def _summary_section(quality: Mapping) -> str:
    return (
        "<section id=summary><h2>Summary</h2><p class=note>Pooled over all goals of a family, except where a column is a mean over "
        f"goals. At the labels' own threshold, {threshold_words(quality)}. Click a head to sort; point at it for its meaning.</p>"
        f"{family_table(quality)}</section>"
    )


def _curves_section(quality: Mapping, pooled: Mapping[str, Mapping]) -> str:
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
    return (
        "<section id=curves><h2>Precision and recall</h2><p class=note>All scores of a family's goals in one ranking, one curve a "
        "family; the grey curves join points of equal F1. A filled dot marks the threshold of highest F1, a ring the labels' own."
        f"</p><div class=curves><div>{curve_chart(pooled)}</div>"
        f"{sortable_table(columns, rows, 'families', 'Average precision and best thresholds')}</div></section>"
    )


def _goals_section(quality: Mapping) -> str:
    skylines = "".join(
        f"<div class=label>{line_key(index)}{html.escape(name)}<br><span class=muted>mean "
        f"{number_text(family['mean_average_precision'])}</span></div>"
        f"{skyline([goal for goal in quality['goals'] if goal['family'] == name], index)}"
        for index, (name, family) in enumerate(quality["families"].items())
    )
    return (
        "<section id=goals><h2>All goals</h2><p class=note>Average precision of each goal, sorted within its family; the lines are "
        f"at 0.5 and 1.</p><div class=skyline>{skylines}</div><p class=note>Every figure of every goal, lowest average precision "
        "first. Click a head to sort; what is undefined comes last.</p>"
        f"{goal_table(quality)}</section>"
    )


def _run_section(quality: Mapping) -> str:
    run = quality["run"]
    seconds, counts = run["seconds"], run["counts"]
    total = sum(seconds.values())
    encoded, cached = counts.get("encoded_frames", 0), counts.get("cached_frames", 0)
    figures = [
        ("frames labelled", f"{run['rows']:,}"),
        ("episodes", f"{run['episodes']:,}"),
        ("units of work", f"{run['units']:,}"),
        ("frames a second and worker", f"{run['rows'] / total:,.0f}" if total else "not measured"),
        ("frames encoded", f"{encoded:,}"),
        ("frames seen before, not encoded again", f"{cached:,} ({cached / max(encoded + cached, 1):.1%})"),
        ("size of the labels", f"{run['num_bytes'] / 1e6:,.1f} MB"),
        ("frames that failed", f"{run['failed_frames']:,}"),
        *[(f"failures: {reason}", f"{count:,}") for reason, count in run["failures"].items()],
        *[(f"unreadable in the evaluation: {reason}", f"{n:,}") for reason, n in quality["unreadable"].items()],
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
        "<section id=run><h2>The run that made the labels</h2><p class=note>From the markers of its units; seconds are summed "
        f"over workers.</p><div class=two>{plain_table(figures, ('what', 'how much'))}{stage_table}</div>{listed}</section>"
    )


def _fingerprint_section(quality: Mapping) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_value(value)}</td></tr>"
        for name, value in quality["fingerprint"].items()
    )
    return (
        f"<section id=fingerprint><h2>Fingerprint</h2><p class=note>What every label depends on; digest "
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
        else f": the exact mean over all goals lies between {bounds[0]:.4f} and {bounds[1]:.4f}"
    )
    cause = "ties in a bin and the scores that sparse labels leave out" if quality["sparse"] else "ties in a bin"
    listed = "".join(
        f"<dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(text)}</dd>"
        for name, text in quality["definitions"].items()
    )
    return (
        f"<section id=definitions><h2>Definitions</h2><dl class=definitions>{listed}</dl><p>Figures come from finely binned "
        f"scores, so that corpora of any size fit; {cause} can change an average precision within bounds that quality.json states "
        f"for every goal{between}. <b>Mean</b> figures are over the goals that define them, <b>pooled</b> figures put all scores "
        "of all goals in one ranking. The <b>threshold of highest F1</b> is chosen on these very frames: on other frames it will "
        "do somewhat worse. All figures are in quality.json beside this file.</p></section>"
    )
