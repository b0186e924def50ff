"""The report's sections on calibration, and on episodes and time: how scores relate to frequencies, episodes and time."""

import html
import itertools
import math
import unicodedata
from collections.abc import Mapping

from vlm_rewards.pipelines.report.charts import colour, line_key
from vlm_rewards.pipelines.report.tables import Cell, Column, count, figure, number_text, sortable_table

_MAX_CHARTS = 12
_MAX_ORDERS = 24
_SIDE, _LEFT, _TOP = 200, 48, 8
_COUNTS_TOP, _COUNTS_BOTTOM = 232, 270
_MARGIN = 12  # left of the axis labels
_ROW, _NAMES, _LINE = 30, 10, 300
_NAME_CHARS = 31


def reliability_chart(calibration: Mapping, index: int, name: str) -> str:
    """Draws how often the goals hold against their mean score, one dot per bin, and below it the number of frames per bin.

        1 ┤         ╱●     on the diagonal a score is a probability;
          │     ● ╱        below it the scores are too high,
          │   ╱●           above it too low
        0 ●──┴──┴──┤
          █ ▁ ▁ ▂ ▅        frames, on a logarithmic scale

    Args:
        calibration: `mean_score`, `frequency` and `frames`, of the occupied bins of 16 equal ones.
        index: Index of the family, for its colour; -1 for all goals.
        name: Name of the family.
    """
    error = calibration["expected_calibration_error"]
    parts = [
        f'<svg class="chart" viewBox="{-_MARGIN} 0 {_MARGIN + _LEFT + _SIDE + 14} 314" role="img" '
        f'aria-label="Reliability of {html.escape(name)}: expected calibration error {error:.3f}">'
        f'<path class="iso" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/><path class="axis" d="M{_x(0)} {_y(1)}V{_y(0)}H{_x(1)}"/>'
    ]
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{_LEFT - 6}" y="{_y(tick) + 4:.0f}" text-anchor="end">{tick:g}</text>')
        anchor = "start" if tick == 0 else "end" if tick == 1 else "middle"
        parts.append(f'<text x="{_x(tick):.0f}" y="{_y(0) + 16:.0f}" text-anchor="{anchor}">{tick:g}</text>')
    middle = _y(0.5)
    parts.append(
        f'<text x="3" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 3 {middle:.0f})">share that holds</text>'
    )
    bins = list(zip(calibration["mean_score"], calibration["frequency"], calibration["frames"], strict=True))
    points = " ".join(f"{_x(score):.1f},{_y(frequency):.1f}" for score, frequency, _ in bins)
    parts.append(f'<polyline class="curve" points="{points}" stroke="{colour(index)}"/>')
    most = max(frames for *_, frames in bins)
    for score, frequency, frames in bins:
        height = (_COUNTS_BOTTOM - _COUNTS_TOP) * math.log1p(frames) / math.log1p(most)
        title = f"<title>score {score:.3f}: holds in {frequency:.3f} of {frames:,} frames</title>"
        parts.append(
            f'<circle class="mark" cx="{_x(score):.1f}" cy="{_y(frequency):.1f}" r="4" fill="{colour(index)}">{title}</circle>'
            f'<rect x="{_x(min(int(16 * score), 15) / 16) + 0.5:.1f}" y="{_COUNTS_BOTTOM - height:.1f}" '
            f'width="{_SIDE / 16 - 1:.1f}" height="{height:.1f}" fill="{colour(index)}" opacity="0.55">{title}</rect>'
        )
    parts.append(
        f'<path class="axis" d="M{_x(0)} {_COUNTS_BOTTOM}H{_x(1)}"/><text x="{_x(0.5):.0f}" y="{_COUNTS_BOTTOM + 17}" '
        f'text-anchor="middle">score</text><text x="{_x(0.5):.0f}" y="{_COUNTS_BOTTOM + 37}" text-anchor="middle">'
        f"up to {most:,} frames</text></svg>"
    )
    return "".join(parts)


def _x(score: float) -> float:
    return _LEFT + _SIDE * score


def _y(share: float) -> float:
    return _TOP + _SIDE * (1 - share)


def calibration_section(quality: Mapping) -> str:
    """Returns the page's section of reliability curves: all goals, and each family."""
    groups = _groups(quality)
    shown = [
        (index, name, group)
        for index, (name, group) in enumerate(groups.items(), -1)
        if not isinstance(group["pooled"]["calibration"], str)
    ]
    undefined = {
        name: group["pooled"]["calibration"]
        for name, group in groups.items()
        if isinstance(group["pooled"]["calibration"], str)
    }
    charts = "".join(
        f"<figure><figcaption>{line_key(index)}<b>{html.escape(name)}</b> ECE "
        f"{number_text(group['pooled']['calibration']['expected_calibration_error'])}</figcaption>"
        f"{reliability_chart(group['pooled']['calibration'], index, name)}</figure>"
        for index, name, group in shown[:_MAX_CHARTS]
    )
    more = (
        f"<p class=note>The calibration error of {len(shown) - _MAX_CHARTS} more is in the summary.</p>"
        if len(shown) > _MAX_CHARTS
        else ""
    )
    reasons: dict[str, list[str]] = {}
    for name, reason in undefined.items():
        reasons.setdefault(reason, []).append(name)
    notes = "".join(
        f"<p class=note>{html.escape(', '.join(names[:8]))}{f' and {len(names) - 8} more' if len(names) > 8 else ''}: "
        f"{html.escape(reason)}.</p>"
        for reason, names in reasons.items()
    )
    return (
        "<section id=calibration><h2>Calibration</h2><p class=note>Is a score of 0.8 right in 80% of the frames? Frames are sorted "
        "into 16 bins by score; a dot shows in what share of its bin the goal holds. On the diagonal, scores are probabilities. "
        "Below it they are too high, above it too low. ECE, the expected calibration error, is the mean distance from the "
        "diagonal over all frames; 0 is best. The bars show the number of frames per bin, on a logarithmic scale.</p>"
        f"<div class=reliability>{charts}</div>{more}{notes}</section>"
    )


def episodes_section(quality: Mapping) -> str:
    """Returns the page's section on whole episodes: which succeed by the highest score, and whether scores rise with time."""
    groups = _groups(quality)
    columns = [
        Column("Family", is_text=True),
        Column("pairs", "episodes", "pairs of a goal and an episode"),
        Column("achieve", "episodes", "pairs in which the goal holds in some frame"),
        Column("AP", "by highest score", "pooled: all pairs in one ranking by highest score"),
        Column("mean AP", "by highest score", "mean over goals"),
        Column(
            "τ",
            "by return",
            "Kendall's tau between the returns of the labels and the true returns, all pairs in one ranking",
        ),
        Column("mean τ", "by return", "mean over goals"),
        Column(
            "succeed", "value order", "mean Spearman correlation of score and time in episodes that achieve the goal"
        ),
        Column("do not", "value order", "the same in episodes that do not: a score that rises here has another reason"),
        Column("rise", "value order", "the first minus the second"),
    ]
    rows = []
    for index, (name, group) in enumerate(groups.items(), -1):
        episodes, order, pooled = group["episodes"], group["value_order"], group["episodes"]["pooled"]
        cells = [
            Cell(line_key(index) + html.escape(name), name),
            count(pooled["num_episodes"]),
            count(pooled["achieved"]),
            figure(pooled["average_precision"]),
            figure(episodes["mean_average_precision"]),
            figure(pooled["kendall_tau"]),
            figure(episodes["mean_kendall_tau"]),
            *(figure(order[kind]["mean"], 2) for kind in ("successes", "failures")),
            figure(order["difference"], 2),
        ]
        rows.append(("", cells))
    order = quality["overall"]["value_order"]
    more = f" The chart shows the first {_MAX_ORDERS} rows of the table." if len(groups) > _MAX_ORDERS else ""
    counted = "; ".join(
        f"{order[kind]['episodes']:,} that {words}{_left_out(order[kind])}"
        for kind, words in (("successes", "succeed"), ("failures", "do not"))
    )
    return (
        "<section id=episodes><h2>Episodes and time</h2><p class=note>An agent is rewarded episode by episode. AP: does the "
        "highest score rank episodes that achieve a goal above the others? &tau;: does the sum of rewards rank episodes as the "
        "true sum does? Value order: do scores rise with time before a success (1: always), and only there?</p>"
        f"<div class=curves><div>{order_chart({name: group['value_order'] for name, group in groups.items()})}</div>"
        f"{sortable_table(columns, rows, 'families', 'Figures of episodes')}</div>"
        f"<p class=note>Value order is a mean over pairs of a goal and an episode: {counted}.{more}</p></section>"
    )


def _left_out(order: Mapping) -> str:
    reasons = {"constant": "of constant scores", "sparse": "of sparse labels", "short": "too short"}
    left_out = ", ".join(f"{order[why]:,} {words}" for why, words in reasons.items() if order[why])
    return f" (left out: {left_out})" if left_out else ""


def _groups(quality: Mapping) -> dict[str, Mapping]:
    return {"all goals": quality["overall"], **quality["families"]}


def order_chart(orders: Mapping[str, Mapping]) -> str:
    """Draws value order, from -1 to 1: a dot for episodes that succeed, a ring for those that do not, one line per family.

    Args:
        orders: `successes` and `failures` with their `mean`, by family; the first is all goals. At most 24 are drawn.
    """
    drawn = list(orders.items())[:_MAX_ORDERS]
    height = _ROW * len(drawn) + 66
    bottom = height - 46
    parts = [f'<svg class="chart order" viewBox="0 0 {_LINE + 40} {height}" role="img" aria-label="Value order">']
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x = _order_x(tick)
        parts.append(f'<path class="{"iso" if tick else "zero"}" d="M{x:g} 8V{bottom}"/>')
        parts.append(
            f'<text x="{x:g}" y="{bottom + 18}" text-anchor="middle">{f"{tick:g}".replace("-", "&minus;")}</text>'
        )
    parts.append(
        f'<text x="{_order_x(0):g}" y="{bottom + 39}" text-anchor="middle">correlation of score and time</text>'
    )
    for row, (name, order) in enumerate(drawn):
        y = 8 + _ROW * row + 21
        success, failure = order["successes"]["mean"], order["failures"]["mean"]
        parts.append(f'<text class="row" x="{_order_x(-1) + 6:g}" y="{y - 9}">{html.escape(_short(name))}</text>')
        if not isinstance(success, str) and not isinstance(failure, str):
            parts.append(
                f'<path class="curve" d="M{_order_x(failure):.1f} {y}H{_order_x(success):.1f}" stroke="{colour(row - 1)}"/>'
            )
        for kind, value, words in (("own", failure, "do not succeed"), ("mark", success, "succeed")):
            if not isinstance(value, str):
                paint = "fill" if kind == "mark" else "stroke"
                parts.append(
                    f'<circle class="{kind}" cx="{_order_x(value):.1f}" cy="{y}" r="4.5" {paint}="{colour(row - 1)}">'
                    f"<title>{html.escape(name)}: {value:.3f} where episodes {words}</title></circle>"
                )
    return "".join([*parts, "</svg>"]) + (
        '<p class="note legend"><span class=mark><i class=dot></i>episodes that succeed</span>'
        "<span class=mark><i class=ring></i>episodes that do not</span></p>"
    )


def _order_x(value: float) -> float:
    return _NAMES + 10 + _LINE * (value + 1) / 2


def _short(name: str) -> str:
    """Returns the name, cut to what fits above its line in any font; a wide character, such as a Chinese one, counts twice."""
    widths = [2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in name]
    if sum(widths) <= _NAME_CHARS:
        return name
    return name[: sum(total < _NAME_CHARS for total in itertools.accumulate(widths))] + "…"
