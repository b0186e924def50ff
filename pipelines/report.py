"""The report of an evaluation: one HTML file that opens offline, with every picture and chart inside it.

    quality.json ──► tables, curves                              ┐
    corpus ──► pictures of chosen episodes and frames            ├──► report.html (+ precision_recall*.png beside it)
    labels ──► scores of the chosen episodes, frame by frame     ┘

Tables and curves are here, film strips and example frames in `report_pictures`, the SVG in `charts`, the page's frame with
its styles in report.html.
"""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from pipelines.charts import colour, curve_chart, line_key, save_curves, skyline, sparkline
from pipelines.label_parts import Labels
from pipelines.outputs import write_atomically
from pipelines.report_pictures import examples_section, gather, strips_section, threshold_words
from schemas.manifests import Unit

_MAX_VALUE_CHARS = 20_000


def write_report(quality: Mapping, units: Sequence[Unit], labels: Labels, output: Path) -> None:
    """Writes report.html, precision_recall.png and precision_recall_goals.png.

    Args:
        quality: What quality.json holds.
        units: The corpus's units, to take pictures from.
        labels: The labels, to take the scores under the film strips from.
        output: Folder to write to.
    """
    pooled = _pooled(quality)
    save_curves(pooled, quality["goals"], output)
    shown = gather(quality, units, labels)
    goals = {goal.id: goal for goal in labels.metadata.goals}
    sections = [
        _header(quality),
        _curves_section(quality, pooled),
        _goals_section(quality),
        strips_section(quality, shown, labels),
        examples_section(quality, shown, goals),
        _run_section(quality),
        _fingerprint_section(quality),
        _definitions_section(quality),
    ]
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    title = html.escape(f"Label quality: {Path(quality['labels']).name}")
    write_atomically(output / "report.html", template.substitute(title=title, body="\n".join(sections)))


def _pooled(quality: Mapping) -> dict[str, Mapping]:
    families = {name: family["pooled"] for name, family in quality["families"].items()}
    return {"all goals": quality["overall"]["pooled"], **families}


def _number(value: float | str | None, digits: int = 3) -> str:
    """The number, or why there is none."""
    if value is None:
        return "&ndash;"
    if isinstance(value, str):
        return f'<span class="muted">{html.escape(value)}</span>'
    return f"{value:.{digits}f}"


def _threshold(value: float) -> str:
    return f"{value:.4g}" if value < 0.99 else f"{value:.6f}".rstrip("0").rstrip(".")


def _tile(name: str, value: float | str, detail: str) -> str:
    shown = f"{value:,}" if isinstance(value, int) else _number(value)
    words = " class=words" if isinstance(value, str) else ""
    return f"<div><dt>{html.escape(name)}</dt><dd{words}>{shown}<small>{html.escape(detail)}</small></dd></div>"


def _header(quality: Mapping) -> str:
    counts, overall = quality["counts"], quality["overall"]
    with_positives = f"{overall['num_goals_with_positives']:,} of {overall['num_goals']:,} goals ever hold"
    tiles = [_tile("Mean AP, all goals", overall["mean_average_precision"], with_positives)]
    if len(quality["families"]) <= 6:
        tiles += [
            _tile(f"Mean AP, {name}", family["mean_average_precision"], f"{family['num_goals_with_positives']:,} goals")
            for name, family in quality["families"].items()
        ]
    unlabelled = counts["unlabelled_frames"]
    tiles.append(
        _tile("Frames", counts["frames"], f"{unlabelled:,} more without a label" if unlabelled else "all labelled")
    )
    tiles.append(_tile("Episodes", counts["episodes"], f"{counts['frames'] / counts['episodes']:.0f} frames each"))
    links = {
        "curves": "Precision and recall",
        "goals": "Goals",
        "strips": "Film strips",
        "examples": "Hits and misses",
        "run": "The run",
        "fingerprint": "Fingerprint",
        "definitions": "Definitions",
    }
    nav = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in links.items())
    return (
        f"<header><h1>How good are these labels?</h1><p class=muted>The labels <code>{html.escape(quality['labels'])}</code> "
        f"({html.escape(quality['formula'])}, threshold {threshold_words(quality)}) against the ground truth of "
        f"<code>{html.escape(quality['corpus'])}</code>.</p><nav>{nav}</nav>"
        f"<dl class=tiles>{''.join(tiles)}</dl>{_warnings(quality)}</header>"
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


def _curves_section(quality: Mapping, pooled: Mapping[str, Mapping]) -> str:
    groups = [quality["overall"], *quality["families"].values()]
    rows = []
    for index, ((name, figures), group) in enumerate(zip(pooled.items(), groups, strict=True), -1):
        best, own = figures["best_threshold"], figures["at_threshold"]
        cells = [_number(group["mean_average_precision"]), _number(figures["average_precision"])]
        if isinstance(best, Mapping):
            cells += [_threshold(best["threshold"]), *(_number(best[key], 2) for key in ("precision", "recall", "f1"))]
        else:
            cells += ["&ndash;"] * 4
        cells += [_number(own[key], 2) for key in ("precision", "recall", "f1")]
        numbers = "".join(f"<td class=number>{cell}</td>" for cell in cells)
        rows.append(f"<tr><td>{line_key(index)}{html.escape(name)}</td>{numbers}</tr>")
    return (
        "<section id=curves><h2>Precision and recall</h2><p class=note>All scores of a family's goals in one ranking, one "
        "curve a family. A filled dot marks the threshold of highest F1, a ring the threshold of the labels.</p>"
        f"<div class=curves><div>{curve_chart(pooled)}</div>"
        "<div class=scroll tabindex=0><table class=families><thead><tr><th rowspan=2>Family</th>"
        "<th rowspan=2 class=number>mean<br>AP</th><th rowspan=2 class=number>pooled<br>AP</th>"
        "<th colspan=4>at the best threshold</th>"
        f"<th colspan=3>at the labels' own</th></tr><tr><th class=number>value</th><th class=number>P</th>"
        "<th class=number>R</th><th class=number>F1</th><th class=number>P</th><th class=number>R</th>"
        f"<th class=number>F1</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></div></section>"
    )


def _goals_section(quality: Mapping) -> str:
    families = list(quality["families"])
    skylines = "".join(
        f"<div class=label>{line_key(index)}{html.escape(name)}<br><span class=muted>mean "
        f"{_number(quality['families'][name]['mean_average_precision'])}</span></div>"
        f"{skyline([goal for goal in quality['goals'] if goal['family'] == name], index)}"
        for index, name in enumerate(families)
    )
    ranked = sorted(
        quality["goals"],
        key=lambda goal: (goal["positives"] == 0, goal["average_precision"] if goal["positives"] else 0),
    )
    rows = "".join(_goal_row(goal, families.index(goal["family"])) for goal in ranked)
    heads = (
        "<th data-text>Goal</th><th data-text>Family</th><th class=number>Frames</th><th>AP</th>"
        "<th data-fixed>Curve</th><th class=number>Best threshold</th><th class=number>Best F1</th>"
        "<th class=number>Precision</th><th class=number>Recall</th><th class=number>F1</th>"
    )
    options = "".join(f'<option value="{html.escape(name)}">{html.escape(name)}</option>' for name in families)
    return (
        "<section id=goals><h2>Goals</h2><p class=note>Average precision of each goal, sorted within its family; the lines are "
        f"at 0.5 and 1.</p><div class=skyline>{skylines}</div><div class=filter hidden><input type=search "
        'placeholder="Filter goals" aria-label="Filter goals"><select aria-label="Family"><option value="">all families'
        f"</option>{options}</select><output class=muted></output></div><p class=note>Lowest average precision first. Frames: "
        f"in how many the goal holds. The last three columns are at the labels' own threshold, {threshold_words(quality)}.</p>"
        f'<div class="scroll tall" tabindex=0><table class=goals><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></section>"
    )


def _goal_row(goal: Mapping, index: int) -> str:
    name, family = html.escape(goal["text"]), html.escape(goal["family"])
    best, own, precision = goal["best_threshold"], goal["at_threshold"], goal["average_precision"]
    bar = ""
    if isinstance(precision, float):
        bar = f'<span class=bar><i style="width:{100 * precision:.0f}%;background:{colour(index)}"></i></span>'
    known = best if isinstance(best, Mapping) else {"threshold": None, "f1": None}

    def cell(value: float | None, digits: int = 2) -> str:
        data = "" if value is None else f"{value:.6g}"
        text = _number(value, digits) if digits else "&ndash;" if value is None else _threshold(value)
        return f'<td class=number data-value="{data}">{text}</td>'

    return (
        f'<tr data-family="{family}"><td data-value="{name}">{name}<span class=id>{html.escape(goal["id"])}</span></td>'
        f'<td data-value="{family}">{family}</td><td class=number data-value="{goal["positives"]}">{goal["positives"]:,}</td>'
        f'<td data-value="{precision if isinstance(precision, float) else ""}">{_number(precision)}{bar}</td>'
        f"<td>{sparkline(goal)}</td>{cell(known['threshold'], 0)}{cell(known['f1'])}"
        f"{cell(own['precision'])}{cell(own['recall'])}{cell(own['f1'])}</tr>"
    )


def _table(rows: Iterable[Sequence[str]], heads: Sequence[str]) -> str:
    """A table of escaped text; every column but the first is numbers."""
    classes = ["", *[" class=number"] * (len(heads) - 1)]
    head = "".join(f"<th{kind}>{html.escape(text)}</th>" for kind, text in zip(classes, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(classes, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<div class=scroll tabindex=0><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


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
    stage_table = _table(stages, ("stage", "seconds", "share", "frames/s"))
    return (
        "<section id=run><h2>The run that made the labels</h2><p class=note>From the markers of its units; seconds are summed "
        f"over workers.</p><div class=two>{_table(figures, ('what', 'how much'))}{stage_table}</div>{listed}</section>"
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
    return (
        "<section id=definitions><h2>Definitions</h2><p><b>Average precision (AP)</b> is the step-wise area under the "
        "precision-recall curve, sum of (R<sub>n</sub> &minus; R<sub>n&minus;1</sub>) P<sub>n</sub>, as scikit-learn defines it. "
        f"It is computed from finely binned scores, so that corpora of any size fit; {cause} can change it within bounds that "
        f"quality.json states for every goal{between}.</p><p><b>Mean AP</b> is the mean over goals that hold in at least one "
        "frame. <b>Pooled</b> figures put all scores of all goals in one ranking. <b>Best threshold</b> is the one of highest "
        "F1 on these very frames: on other frames it will do somewhat worse. A goal counts as achieved where its score is "
        "greater than the threshold. All figures are in quality.json beside this file.</p></section>"
    )
