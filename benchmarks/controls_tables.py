"""The tables of `controls.py` as Markdown: every figure beside its controls, and what holds."""

from collections.abc import Mapping
from typing import Any

_HEAD = (
    "control",
    "updates",
    "seeds",
    "success in truth",
    "the level's own mission",
    "goals never trained on",
    "lowest and highest seed there",
    "rewarded wrongly",
    "minutes per run",
)


def tables(record: Mapping[str, Any]) -> str:
    """Returns the page.

    Args:
        record: Contents of claims.json.
    """
    budget, wanted = record["budget"], len(record["budget"]["seeds"])
    lines = [
        "# Controls",
        "",
        f"Made by `{record['command']}` by the rules of `benchmarks/controls_rules.md`, which were written before the runs. "
        f"{budget['eval_episodes']} held-out levels; interquartile means over seeds with 95% intervals in which seeds and levels "
        f"are drawn anew. {wanted} seeds are a result; fewer are preliminary, and nothing is concluded from them.",
    ]
    if budget["name"] != "full":
        lines += ["", "**This is a test of the command: its budget is too small for any of this to mean something.**"]
    for family, own in record["controls"].items():
        rows = [
            (
                name,
                f"{figures['updates']:,}",
                str(len(figures["success"]["seeds"])) if figures["updates"] else "",
                told(figures["success"]),
                told(figures["mission"]),
                told(figures["held_out"]),
                _spread(figures["held_out"]),
                "" if figures["false_positive_share"] is None else f"{figures['false_positive_share']:.1%}",
                f"{figures['seconds'] / 60:.1f}",
            )
            for name, figures in own.items()
        ]
        lines += ["", f"## {family.capitalize()}", "", *_table(_HEAD, rows)]
    words = {True: "holds", False: "does not hold", None: "open"}
    rows = [
        (
            row["family"],
            row["claim"],
            f"{row['one']} less {row['other']}",
            told(row["difference"]),
            words[row["holds"]]
            if len(row["difference"]["seeds"]) >= wanted
            else f"preliminary: {len(row['difference']['seeds'])} seeds",
        )
        for row in record["verdicts"]
    ]
    if rows:
        lines += ["", "## Claims", "", *_table(("family", "claim", "difference of", "difference", "verdict"), rows)]
    if record["failures"]:
        lines += ["", "## Failed", "", *(f"- `{path}`: {reason}" for path, reason in record["failures"].items())]
    return "\n".join(lines) + "\n"


def told(figure: Mapping[str, Any] | None) -> str:
    """Returns an estimate in words: 0.81 [0.78, 0.84]."""
    return "" if figure is None else f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _spread(figure: Mapping[str, Any] | None) -> str:
    return "" if figure is None else f"{figure['lowest']:.2f} to {figure['highest']:.2f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
