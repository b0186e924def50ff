"""The report's section on errors: what causes false positives, and which goals are mistaken for which."""

import html
from collections.abc import Mapping, Sequence

from vlm_rewards.pipelines.report.charts import line_key
from vlm_rewards.pipelines.report.heat_maps import NUM_STEPS
from vlm_rewards.pipelines.report.tables import Cell, Column, count, sortable_table

_MAX_PAIRS = 200
_CAUSES_SHOWN = 8


def stacked_bar(counts: Sequence[int], names: Sequence[str]) -> str:
    """Draws counts as parts of one bar, each as wide as its share, in the page's colours; empty if all counts are 0."""
    total = sum(counts)
    if not total:
        return '<span class="stack none"></span>'
    parts = "".join(
        f'<i class=k{place % _CAUSES_SHOWN} style="flex:{number}" '
        f'title="{html.escape(name)}: {number:,} ({number / total:.0%})"></i>'
        for place, (number, name) in enumerate(zip(counts, names, strict=True))
        if number
    )
    return f"<span class=stack>{parts}</span>"


def cause_key(place: int) -> str:
    """Returns a swatch in the colour and hatching of the cause with this index."""
    return f'<i class="swatch k{place % _CAUSES_SHOWN}"></i>'


def cause_legend(names: Sequence[str]) -> str:
    """Returns the key of a stacked bar."""
    marks = "".join(
        f"<span class=mark>{cause_key(place)}{html.escape(name)}</span>" for place, name in enumerate(names)
    )
    return f'<p class="note legend">{marks}</p>'


def causes_table(groups: Mapping[str, Mapping]) -> str:
    """Returns the table of the causes of false positives, one row per family: a stacked bar and the counts.

    Args:
        groups: `total`, and `causes` by name, by family; the first is all goals.
    """
    names = list(next(iter(groups.values()))["causes"])
    columns = [
        Column("Family", is_text=True),
        Column("causes", is_fixed=True),
        Column("false positives"),
        *(Column(name, markup=cause_key(place)) for place, name in enumerate(names)),
    ]
    rows = [
        (
            "",
            [
                Cell(line_key(index) + html.escape(family), family),
                Cell(stacked_bar(list(group["causes"].values()), names)),
                count(group["total"]),
                *(count(number) for number in group["causes"].values()),
            ],
        )
        for index, (family, group) in enumerate(groups.items(), -1)
    ]
    return sortable_table(columns, rows, "causes", "Causes of false positives, by family")


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], totals: Sequence[int], caption: str) -> str:
    """Returns a square table of counts, shaded by their share of the row's total.

    Args:
        names: Names of the N rows, and of the N columns.
        counts: N rows of N counts.
        totals: Totals of the N rows.
        caption: Title of the table.
    """
    heads = "".join(f"<th scope=col class=number>{html.escape(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th>{''.join(_shaded(number, total) for number in row)}"
        f"<td class=number>{total:,}</td></tr>"
        for name, row, total in zip(names, counts, totals, strict=True)
    )
    return (
        f'<figure class=confusion><figcaption>{caption}</figcaption><div class="scroll tall" tabindex=0><table class=matrix><thead>'
        f"<tr><td></td>{heads}<th scope=col class=number>total</th></tr></thead><tbody>{rows}</tbody></table></div></figure>"
    )


def _shaded(number: int, total: int) -> str:
    part = number / total if total else 0.0
    step = min(int(part * NUM_STEPS), NUM_STEPS - 1)
    return f'<td class="number s{step}" title="{part:.0%}">{number:,}</td>'


def confused_pairs(goals: Sequence[Mapping]) -> list[tuple[Mapping, Mapping, int, float]]:
    """Lists goals labelled a success while another holds: (goal, the other, frames, share), most frames first."""
    by_id = {goal["id"]: goal for goal in goals}
    pairs = [
        (goal, by_id[other["goal"]], other["frames"], other["share"])
        for goal in goals
        for other in goal["confused_with"]
        if other["goal"] in by_id
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0]["id"], pair[1]["id"]))


def _pairs_table(goals: Sequence[Mapping], sampled: Mapping | None) -> str:
    pairs = confused_pairs(goals)
    if not pairs:
        return "<p class=note>No false positive falls in a frame where another goal holds.</p>"
    columns = [
        Column("Labelled a success", is_text=True),
        Column("What holds instead", is_text=True),
        Column("frames", meaning="false positives of the first goal in frames in which the second holds"),
        Column("share", meaning="share of the first goal's false positives"),
    ]
    rows = [
        (
            "",
            [
                Cell(html.escape(goal["text"]), goal["text"]),
                Cell(html.escape(other["text"]), other["text"]),
                count(frames),
                Cell(f"{share:.0%}", share),
            ],
        )
        for goal, other, frames, share in pairs[:_MAX_PAIRS]
    ]
    notes = ""
    if len(pairs) > _MAX_PAIRS:
        notes = f"The {_MAX_PAIRS} most frequent of {len(pairs):,} pairs; quality.json lists up to five per goal. "
    if sampled is not None:
        notes += (
            f"Counted in {sampled['frames']:,} of the {sampled['of']:,} frames with a false positive, drawn at random: so many "
            "goals have too many pairs to count in all frames."
        )
    return sortable_table(columns, rows, "pairs", "Which goals are mistaken for which") + (
        f"<p class=note>{notes}</p>" if notes else ""
    )


def errors_section(quality: Mapping) -> str:
    """Returns the page's section on false positives: causes, confusion of families and attributes, pairs of goals."""
    groups = {
        name: group["false_positives"]
        for name, group in {"all goals": quality["overall"], **quality["families"]}.items()
    }
    total = groups["all goals"]["total"]
    head = (
        "<section id=errors><h2>False positives</h2><p class=note>A false positive is a frame that is labelled a success although "
        "the goal does not hold: an agent learns to exploit these errors. Each is counted under the first cause that fits, from "
        "left to right.</p>"
    )
    if not total:
        return f"{head}<p>There is no false positive.</p></section>"
    families, attributes = quality["confusion"]["families"], quality["confusion"]["attributes"]
    matrices, notes = [], []
    if isinstance(families, str):
        notes.append(f"Confusion of families: {families}.")
    else:
        caption = "<b>Families</b>: rows are labelled a success, columns hold in the same frame"
        matrices.append(matrix(families["names"], families["holds"], families["false_positives"], caption))
    for name, table in attributes.items():
        if isinstance(table, str):
            notes.append(f"Confusion by {name}: {table}.")
        elif any(map(any, table["holds"])):
            caption = f"<b>{html.escape(name.capitalize())}</b>: rows are labelled a success, columns hold instead"
            matrices.append(matrix(table["values"], table["holds"], [sum(row) for row in table["holds"]], caption))
        else:
            notes.append(f"Confusion by {name}: no false positive differs from what holds in its {name} alone.")
    shades = (
        "<p class=note>Numbers are counts of frames; the darker, the larger the share of the row's total. Families: false "
        "positives of the row's goals in frames in which a goal of the column holds; a frame can count in several columns. "
        "Attributes: false positives in frames in which a goal holds that differs from the labelled one in this attribute "
        "alone.</p>"
    )
    return (
        f"{head}{causes_table(groups)}<h3>What is mistaken for what</h3>{shades}<div class=matrices>{''.join(matrices)}</div>"
        f"{''.join(f'<p class=note>{html.escape(note)}</p>' for note in notes)}"
        f"<h3>Pairs of goals</h3>{_pairs_table(quality['goals'], quality['confusion'].get('sampled_frames'))}</section>"
    )
