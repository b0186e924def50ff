"""The report's section of errors: where false positives fall, and what is taken for what."""

import html
from collections.abc import Mapping, Sequence

from vlm_rewards.pipelines.report.charts import line_key
from vlm_rewards.pipelines.report.heat_maps import NUM_STEPS
from vlm_rewards.pipelines.report.tables import Cell, Column, count, sortable_table

_MAX_PAIRS = 200
_CAUSES_SHOWN = 8


def stacked_bar(counts: Sequence[int], names: Sequence[str]) -> str:
    """Counts as parts of one bar, each as wide as its share, in the page's colours; empty where they are all 0."""
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
    """A swatch in the colour and hatching of the cause with this index."""
    return f'<i class="swatch k{place % _CAUSES_SHOWN}"></i>'


def cause_legend(names: Sequence[str]) -> str:
    """What the parts of a stacked bar are."""
    marks = "".join(
        f"<span class=mark>{cause_key(place)}{html.escape(name)}</span>" for place, name in enumerate(names)
    )
    return f'<p class="note legend">{marks}</p>'


def causes_table(groups: Mapping[str, Mapping]) -> str:
    """Where the false positives of each family fall: a stacked bar and the counts.

    Args:
        groups: By family, the first being all goals: `total`, and `causes` by name.
    """
    names = list(next(iter(groups.values()))["causes"])
    columns = [
        Column("Family", is_text=True),
        Column("where they fall", is_fixed=True),
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
    return sortable_table(columns, rows, "causes", "Where false positives fall, by family")


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], totals: Sequence[int], caption: str) -> str:
    """A square table of counts, coloured by their share of their row's total.

    Args:
        names: N rows, and the same columns.
        counts: N rows of N.
        totals: N, what a row's shares are of.
        caption: What it shows.
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
    """The goals that fire falsely, with what does hold there: (goal, the other, frames, share), most frames first."""
    by_id = {goal["id"]: goal for goal in goals}
    pairs = [
        (goal, by_id[other["goal"]], other["frames"], other["share"])
        for goal in goals
        for other in goal["confused_with"]
        if other["goal"] in by_id
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0]["id"], pair[1]["id"]))


def _pairs_table(goals: Sequence[Mapping]) -> str:
    pairs = confused_pairs(goals)
    if not pairs:
        return "<p class=note>No false positive falls in a frame where another goal holds.</p>"
    columns = [
        Column("Taken to hold", is_text=True),
        Column("What does hold", is_text=True),
        Column("frames", meaning="false positives of the first in frames where the second holds"),
        Column("share", meaning="of the first's false positives"),
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
    cut = f"<p class=note>The {_MAX_PAIRS} most frequent of {len(pairs):,}.</p>" if len(pairs) > _MAX_PAIRS else ""
    return sortable_table(columns, rows, "pairs", "Which goals are taken for which") + cut


def errors_section(quality: Mapping) -> str:
    """The page's section on false positives: causes by family, confusion of families and attributes, pairs of goals."""
    groups = {
        name: group["false_positives"]
        for name, group in {"all goals": quality["overall"], **quality["families"]}.items()
    }
    total = groups["all goals"]["total"]
    head = (
        "<section id=errors><h2>False positives</h2><p class=note>Frames in which the labels take a goal to hold that does not: "
        "the errors that an agent learns to exploit. Each counts under the first cause that fits, from left to right.</p>"
    )
    if not total:
        return f"{head}<p>There is no false positive.</p></section>"
    families, attributes = quality["confusion"]["families"], quality["confusion"]["attributes"]
    matrices, notes = [], []
    if isinstance(families, str):
        notes.append(f"Confusion of families: {families}.")
    else:
        caption = "<b>Families</b>: rows fire falsely, columns hold in the same frame"
        matrices.append(matrix(families["names"], families["holds"], families["false_positives"], caption))
    for name, table in attributes.items():
        if isinstance(table, str):
            notes.append(f"Confusion by {name}: {table}.")
        elif any(map(any, table["holds"])):
            caption = f"<b>{html.escape(name.capitalize())}</b>: rows fire falsely, columns are what holds instead"
            matrices.append(matrix(table["values"], table["holds"], [sum(row) for row in table["holds"]], caption))
        else:
            notes.append(f"Confusion by {name}: no false positive differs from what holds in its {name} alone.")
    shades = (
        "<p class=note>A number is a count of frames, its shade the share of its row's total. Families: the false positives of the "
        "row's goals, by what family holds in the same frame, which may be several. Attributes: the false positives in whose frame "
        "a goal holds that differs from the row's in this attribute alone.</p>"
    )
    return (
        f"{head}{causes_table(groups)}<h3>What is taken for what</h3>{shades}<div class=matrices>{''.join(matrices)}</div>"
        f"{''.join(f'<p class=note>{html.escape(note)}</p>' for note in notes)}"
        f"<h3>Pairs of goals</h3>{_pairs_table(quality['goals'])}</section>"
    )
