"""The report where the truth is known of some pairs of a frame and a goal only: which truth, how many pairs, figures, episodes."""

import html
from collections.abc import Mapping
from pathlib import Path

from vlm_rewards.pipelines.report.page import fingerprint_section, run_section, tile, write_page
from vlm_rewards.pipelines.report.pictures import threshold_words
from vlm_rewards.pipelines.report.tables import Cell, Column, count, figure, plain_table, sortable_table

_COLUMNS = (
    Column("Goal", is_text=True),
    Column("holds", "known pairs", "frames of which it is known that the goal holds"),
    Column("does not", "known pairs", "frames of which it is known that the goal does not hold"),
    Column("AP", "known pairs", "average precision: how well scores rank the known frames, whatever the threshold"),
    Column("P", "known pairs", "precision: share of the labelled successes, of known frames, in which the goal holds"),
    Column("R", "known pairs", "recall: share of the known frames in which the goal holds that are labelled so"),
    Column("known", "episodes", "episodes whose success is known"),
    Column("accuracy", "episodes", "share of them in which the labels agree"),
)


def write_known_report(quality: Mapping, output: Path) -> None:
    """Writes report.html.

    Args:
        quality: Contents of quality.json.
        output: Folder to write to.
    """
    sections = [
        _header(quality),
        _episodes_section(quality),
        _goals_section(quality),
        _unknown_section(quality),
        run_section(quality),
        fingerprint_section(quality),
        _definitions_section(quality),
    ]
    write_page(quality, output, "\n".join(sections))


def _header(quality: Mapping) -> str:
    counts, pooled, truth = quality["counts"], quality["pooled"], quality["truth"]
    source = (
        f"the marks <code>{html.escape(truth['marks'])}</code>" if truth["marks"] else "what the recording itself says"
    )
    by_source = ", ".join(f"{name}: {number:,} episodes" for name, number in truth["episodes_by_source"].items())
    tiles = [
        tile(
            "Accuracy, episodes", pooled["episodes"]["accuracy"], f"of {pooled['episodes']['known']:,} known episodes"
        ),
        tile("Average precision", pooled["average_precision"], "of the known pairs, pooled"),
        tile("Precision", pooled["precision"], "of the known pairs, at the labels' threshold"),
        tile("Recall", pooled["recall"], "of the known pairs, at the labels' threshold"),
        tile("Known pairs", counts["known_pairs"], f"in {counts['known_positives']:,} of them the goal holds"),
        tile("Frames", counts["frames"], f"with a known pair, of {counts['episodes']:,} episodes"),
    ]
    return (
        f"<header><h1>How good are these labels?</h1><p class=muted>The labels <code>{html.escape(quality['labels'])}</code> "
        f"({html.escape(quality['formula'])}, threshold {threshold_words(quality)}) of <code>{html.escape(quality['corpus'])}"
        f"</code> against {source}: {html.escape(truth['rule'])}. Goal: {html.escape(truth['goal'])}. {html.escape(by_source)}."
        f"</p><dl class=tiles>{''.join(tiles)}</dl></header>"
    )


def _episodes_section(quality: Mapping) -> str:
    episodes = quality["pooled"]["episodes"]
    if not episodes["known"]:
        return ""
    rows = [
        ("success by the recording", *(f"{episodes[name]:,}" for name in ("true_positives", "false_negatives"))),
        ("failure by the recording", *(f"{episodes[name]:,}" for name in ("false_positives", "true_negatives"))),
    ]
    return (
        "<section id=episodes><h2>Episodes</h2><p class=note>Labels call an episode a success where they say that its goal is "
        f"achieved in any of its frames.</p>{plain_table(rows, ('episodes', 'success by the labels', 'failure by the labels'))}"
        "</section>"
    )


def _goals_section(quality: Mapping) -> str:
    rows = []
    for goal in quality["goals"]:
        own = goal["episodes"]
        name = f"{html.escape(goal['id'])} <small>{html.escape(goal['text'])}</small>"
        figures = [figure(goal[name]) for name in ("average_precision", "precision", "recall")]
        counts = [count(goal[name]) for name in ("known_positives", "known_negatives")]
        rows.append(("", [Cell(name, goal["id"]), *counts, *figures, count(own["known"]), figure(own["accuracy"])]))
    table = sortable_table(_COLUMNS, rows, "known", "Figures of every goal of which something is known")
    return (
        f"<section id=goals><h2>Goals</h2><p class=note>Of {quality['num_goals_unknown']:,} more labelled goals nothing is known."
        f"</p>{table}</section>"
    )


def _unknown_section(quality: Mapping) -> str:
    unknown = [(reason, f"{number:,}") for reason, number in quality["unknown_episodes"].items()]
    if not_whole := quality["counts"]["episodes_not_whole"]:
        unknown.append(("not all frames are labelled: no verdict of the episode", f"{not_whole:,}"))
    table = plain_table(unknown, ("why", "episodes")) if unknown else "<p class=note>None.</p>"
    return f"<section id=unknown><h2>Episodes that are left out</h2>{table}</section>"


def _definitions_section(quality: Mapping) -> str:
    listed = "".join(
        f"<dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(text)}</dd>"
        for name, text in quality["definitions"].items()
    )
    return f"<section id=definitions><h2>Definitions</h2><dl class=definitions>{listed}</dl></section>"
