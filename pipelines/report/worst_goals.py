"""The report's section of the worst goals: their figures, the causes of their false positives, and pictures of both errors."""

import html
from collections.abc import Mapping

from vlm_rewards.pipelines.report.charts import line_key
from vlm_rewards.pipelines.report.errors import cause_legend, stacked_bar
from vlm_rewards.pipelines.report.pictures import ShownEpisode, example_card
from vlm_rewards.pipelines.report.tables import number_text, plural, share, threshold_text
from vlm_rewards.schemas.goals import Goal


def worst_section(quality: Mapping, shown: Mapping[tuple[str, str], ShownEpisode], goals: Mapping[str, Goal]) -> str:
    """Returns the page's section of the goals with the worst labels, the worst first.

    Args:
        quality: Contents of quality.json.
        shown: Episodes read by `pictures.gather`.
        goals: The labels' goals by id.
    """
    worst = quality["worst_goals"]
    rows = {row["id"]: row for row in quality["goals"]}
    colours = {name: place for place, name in enumerate(quality["families"])}
    names = list(quality["overall"]["false_positives"]["causes"])
    entries = "".join(
        _entry(rank, entry, rows[entry["goal"]], colours.get(rows[entry["goal"]]["family"]), goals, shown)
        for rank, entry in enumerate(worst["goals"], 1)
    )
    any_false = any(rows[entry["goal"]]["false_positives"]["total"] for entry in worst["goals"])
    return (
        f"<section id=worst><h2>The worst goals</h2><p class=note>Order: {html.escape(worst['rule'])}. Pictures: the false "
        "positives with the highest scores, then the missed frames with the lowest.</p>"
        f"{cause_legend(names) if any_false else ''}{entries or '<p>No goal holds in any frame.</p>'}</section>"
    )


def _entry(
    rank: int,
    entry: Mapping,
    row: Mapping,
    index: int | None,
    goals: Mapping[str, Goal],
    shown: Mapping[tuple[str, str], ShownEpisode],
) -> str:
    own, errors = row["at_threshold"], row["false_positives"]
    figures = {
        "AP": number_text(row["average_precision"]),
        "precision": number_text(own["precision"], 2),
        "recall": number_text(own["recall"], 2),
        "F1": number_text(own["f1"], 2),
        "false-positive rate": share(own["false_positive_rate"]).markup,
        "threshold": threshold_text(row["threshold"]),
        "holds in": plural(row["positives"], "frame"),
        "missed": f"{row['positives'] - own['true_positives']:,}",
        "false positives": f"{errors['total']:,}",
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items())
    confused = "; ".join(
        f"{goals[other['goal']].text} ({plural(other['frames'], 'frame')}, {other['share']:.0%})"
        for other in row["confused_with"]
    )
    where = ""
    if errors["total"]:
        where = (
            f"<p class=note>Causes of the false positives</p>{stacked_bar(list(errors['causes'].values()), list(errors['causes']))}"
            f"<p class=note>What holds instead: {html.escape(confused or 'no other goal')}</p>"
        )
    pictures = "".join(
        f"<div><p class=note>{title}</p><div class=cards>"
        f"{''.join(example_card(example, shown, goals, names_goal=False) for example in entry[kind])}</div></div>"
        for kind, title in (("false_positives", "false positives"), ("false_negatives", "missed"))
        if entry[kind]
    )
    key = "" if index is None else line_key(index)
    return (
        f"<article class=worst><h3><span class=muted>{rank}</span> {html.escape(row['text'])} <span class=muted>"
        f"{key}{html.escape(row['family'])}</span></h3><div class=case><div><dl class=facts>{listed}</dl>{where}</div>"
        f"<div class=kinds>{pictures}</div></div></article>"
    )
