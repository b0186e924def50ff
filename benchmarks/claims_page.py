"""One HTML page of claims.json that opens offline: what is claimed, whether it holds here, pictures, tables and caveats."""

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from claims_drawing import algorithm_name, seeds_told, wording_name
from claims_statistics import told
from PIL import Image

_STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#8881;--yes:#0072b2;--no:#b34700}
@media(prefers-color-scheme:dark){:root{--yes:#56b4e9;--no:#f0985a}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{line-height:1.2}h2{margin-top:2.6rem;border-bottom:1px solid var(--line)}h3{margin:1.3rem 0 .2rem;font-size:1rem}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;font-weight:600;padding:.3rem 0}
td,th{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td:not(:first-child){white-space:nowrap}td:first-child{min-width:7rem}
figure{margin:1rem 0}figure .scroll{background:#fff;border:1px solid var(--line)}
figure img{display:block;min-width:min(40rem,var(--width));width:100%;max-width:var(--width);margin:auto;height:auto}
figcaption,small{font-size:.87rem;opacity:.85}
.warning{border:2px solid var(--no);padding:.7rem 1rem;font-weight:600}
.verdicts{list-style:none;padding:0;margin:.3rem 0}
.verdicts li{display:grid;grid-template-columns:7rem 8.5rem 1fr;gap:0 1rem;padding:.25rem 0;border-bottom:1px solid var(--line)}
.verdicts b.yes{color:var(--yes)}.verdicts b.no{color:var(--no)}
@media(max-width:40rem){.verdicts li{grid-template-columns:auto 1fr}.verdicts li span:last-child{grid-column:1/3}}
code,pre{font-size:.87rem}pre{overflow-x:auto;background:var(--soft);padding:.7rem}
"""

_NOTHING = "\N{EN DASH}"
_EXPERIMENTS = {"offline": "Offline", "figure3": "Figure 3", "figure4": "Figure 4", "figure5": "Figure 5"}
_SECTIONS = {
    "offline": (
        "Offline training",
        "Agents trained on one mixed corpus a family, labelled by the model and relabelled in hindsight. Success is ground truth "
        "on held-out levels, goals never trained on apart.",
        "Success in truth after offline training, by algorithm: interquartile mean over seeds, 95 % interval, and each seed in "
        "grey.",
    ),
    "figure3": (
        "Figure 3: VLM return and success in truth rise together",
        "The IQL agents go on in the environment with the model's reward and no other. VLM return and success are of the same "
        "episodes. Dip: from the end of offline training down to the lowest evaluation after it. Fall: from the evaluation with "
        "the highest mean down to the end. Area: mean height of the curve of success. Goals never trained on are about objects "
        "that no goal of training or fine-tuning was about. Regret: mean of 1 minus success over the episodes of fine-tuning, from "
        "records of the last 100 episodes each.",
        "Above: VLM return and success in truth over fine-tuning, success on goals never trained on, and what BC reaches offline. "
        "Middle: how often the reward is "
        "wrong, of rewarded episodes and of frames in which the goal does not hold. Below: return against success, a point an "
        "evaluation, a marker a seed.",
    ),
    "figure4": (
        "Figure 4, right: success by reward model",
        "Each model labels, relabels, trains and fine-tunes by itself, with the same budget.",
        "Success in truth over fine-tuning by reward model.",
    ),
    "figure5": (
        "Figure 5: success by wording",
        "The same goals, read by the reward model as a description of the success state or as an instruction; the agent is told "
        "the goal by the same embedding. The reference models were trained on captions that hold descriptions and the "
        "instruction 'pick up the ...' alike; 'pick the ... up' they never read. So the first comparison says little "
        "about wordings as such. Wordings are named by those of Lift; of Find they are 'go to the ...' and 'go and find the ...'.",
        "Success in truth over fine-tuning by wording.",
    ),
}


def write_page(record: Mapping[str, Any], pictures: Mapping[str, Path], path: Path) -> None:
    """Writes the page.

    Args:
        record: What claims.json holds.
        pictures: By experiment, the PNG, with its SVG beside it.
        path: The file.
    """
    sections = "".join(_section(name, record, pictures[name]) for name in record["only"] if name in pictures)
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>The paper's claims, measured</title><style>{_STYLE}</style><h1>The paper's claims, measured</h1>"
        "<p>Baumli et al. 2023, <i>Vision-Language Models as a Source of Rewards</i>, claim that an agent whose only reward is a "
        "vision-language model gets better in truth. Here are their figures about agents, for BabyAI levels and the shipped "
        "reference models. The fine-tuned agents had more gradient updates than the offline ones that they are compared with, and "
        f"a few controls with equal updates explain much of the difference: see the caveats.</p>{_warning(record)}"
        f"<h2>What is claimed, and whether it holds here</h2>{_verdicts(record)}"
        f"{sections}{_caveats(record)}{_how(record)}</html>\n",
        encoding="utf-8",
    )


def _warning(record: Mapping[str, Any]) -> str:
    warning = ""
    if not record["is_evidence"]:
        seeds = len(record["budget"]["seeds"])
        warning = (
            f"<p class=warning>This is no evidence. The budget has {seeds} seeds and few steps: it shows that the command works. "
            "No number below says anything about the claims.</p>"
        )
    if record["failures"]:
        rows = "".join(
            f"<li><code>{html.escape(run)}</code>: {html.escape(reason)}</li>"
            for run, reason in record["failures"].items()
        )
        warning += (
            f"<div class=warning>Runs that failed: {len(record['failures'])}; the rest is left out<ul>{rows}</ul></div>"
        )
    if record["waiting"]:
        paths = "".join(f"<li><code>{html.escape(path)}</code></li>" for path in record["waiting"])
        warning += f"<div class=warning>Runs that are still to be made: {len(record['waiting'])}<ul>{paths}</ul></div>"
    return warning


def _verdicts(record: Mapping[str, Any]) -> str:
    words = {True: ("yes", "holds"), False: ("no", "does not hold"), None: ("", "cannot be told")}
    if not record["is_evidence"]:
        words = dict.fromkeys(words, ("", "no evidence"))
    claims: dict[tuple[str, str], list[str]] = {}
    for row in record["verdicts"]:
        kind, word = words[row["holds"]]
        family = "All families" if row["family"] == "all" else row["family"].capitalize()
        line = f"<li><span>{family}</span><b class='{kind}'>{word}</b><span>{html.escape(row['told'])}</span>"
        claims.setdefault((row["experiment"], row["claim"]), []).append(line)
    items = "".join(
        f"<h3>{_EXPERIMENTS[experiment]}: {html.escape(claim)}</h3><ul class=verdicts>{''.join(lines)}</ul>"
        for (experiment, claim), lines in claims.items()
    )
    return (
        f"{items}<p><small>Interquartile means over seeds with 95 % stratified bootstrap intervals in brackets. Two figures are "
        "apart where their intervals share no point; where they are not apart, the claim is not shown, which is not its opposite."
        "</small></p>"
    )


def _section(name: str, record: Mapping[str, Any], picture: Path) -> str:
    title, text, caption = _SECTIONS[name]
    svg = base64.b64encode(picture.with_suffix(".svg").read_bytes()).decode()
    figure = (
        f"<figure><div class=scroll><img src='data:image/svg+xml;base64,{svg}' alt='{html.escape(caption)}' "
        f"style='--width:{_width(picture)}px'></div><figcaption>{html.escape(caption)}</figcaption></figure>"
    )
    make = {"offline": _offline_tables, "figure3": _figure3_tables}.get(name, _compared_tables)
    return f"<h2>{title}</h2><p>{text}</p>{figure}{make(record, name)}"


def _width(picture: Path) -> int:
    with Image.open(picture) as image:
        return round(1.1 * image.size[0])


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}' for cell in row)}" for row in rows)
    heads = "".join(f"<th>{html.escape(cell)}" for cell in head)
    return f"<div class=scroll><table><caption>{html.escape(caption)}</caption><tr>{heads}{cells}</table></div>"


def _offline_tables(record: Mapping[str, Any], name: str) -> str:
    families = {family: own for family, own in record[name].items() if own}
    head = ("", *("All families" if family == "all" else family.capitalize() for family in families))
    tables = ""
    low = record["budget"]["low_temperature"]
    for title, key in (
        ("Success in truth", "success"),
        (f"Success in truth, policies sampled at temperature {low:g}", "sharpened"),
        ("Success in truth on goals never trained on", "held_out"),
    ):
        rows = [
            (algorithm_name(algorithm), *(_maybe(record, own.get(algorithm, {}).get(key)) for own in families.values()))
            for algorithm in record["budget"]["algorithms"]
        ]
        if any(cell != _NOTHING for row in rows for cell in row[1:]):
            tables += _table(title, head, rows)
    return tables


def _figure3_tables(record: Mapping[str, Any], name: str) -> str:
    names = {
        "end_of_offline": "End of offline training",
        "first_online": "First online evaluation",
        "dip": "Dip",
        "area": "Area under the curve",
        "end": "End",
        "fall": "Fall from the peak to the end",
        "held_out_start": "End of offline training, goals never trained on",
        "held_out_end": "End, goals never trained on",
        "regret": "Regret",
        "correlation": "Correlation over a run",
    }
    figures = record[name]
    rows = [(title, *(_maybe(record, own[key]) for own in figures.values())) for key, title in names.items()]
    for key, title in (
        ("vlm_return", "VLM return at the end"),
        ("false_positive_share", "False positives at the end, of rewarded episodes"),
        ("false_positive_rate", "False positives at the end, of unachieved frames"),
    ):
        rows.append((title, *(_last(own[key]) for own in figures.values())))
    title = "False positives at the end, of rewarded episodes, goals never trained on"
    apart = [own["held_out"] for own in figures.values()]
    rows.append((title, *(_NOTHING if own is None else _last(own["false_positive_share"]) for own in apart)))
    rows.append(("Pooled correlation", *(_number(own["pooled_correlation"]) for own in figures.values())))
    rows.append(("Minutes a run, longest", *(f"{max(own['seconds']) / 60:.1f}" for own in figures.values())))
    rows.append(("Waiting for scores, at most", *(f"{max(own['scoring_share']):.0%}" for own in figures.values())))
    rows.append(
        ("The same, without evaluations", *(_largest(own["scoring_share_of_learning"]) for own in figures.values()))
    )
    return _table("Fine-tuning", ("", *(family.capitalize() for family in figures)), rows)


def _compared_tables(record: Mapping[str, Any], name: str) -> str:
    head = (
        "Model" if name == "figure4" else "Wording",
        "End of offline training",
        "End",
        "Area under the curve",
        "VLM return at the end",
        "False positives, of rewarded episodes",
        "False positives, of unachieved frames",
        "Correlation over a run",
    )
    return "".join(
        _table(
            family.capitalize(),
            head,
            [
                (
                    wording_name(key),
                    told(own["end_of_offline"]),
                    _maybe(record, own["end"]),
                    told(own["area"]),
                    _last(own["vlm_return"]),
                    _last(own["false_positive_share"]),
                    _last(own["false_positive_rate"]),
                    _maybe(record, own["correlation"]),
                )
                for key, own in by_name.items()
            ],
        )
        for family, by_name in record[name].items()
    )


def _maybe(record: Mapping[str, Any], figure: Mapping[str, Any] | None) -> str:
    return _NOTHING if figure is None else f"{told(dict(figure))}{seeds_told(record, figure['scores'])}"


def _largest(shares: Sequence[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return f"{max(known):.0%}" if known else _NOTHING


def _last(curve: Mapping[str, Sequence[float | None]]) -> str:
    last = {key: values[-1] for key, values in curve.items()}
    return _NOTHING if None in last.values() else told(last)


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _caveats(record: Mapping[str, Any]) -> str:
    budget = record["budget"]
    train, finetune = budget["train"], budget["finetune"]
    points = (
        f"{len(budget['seeds'])} seeds ({', '.join(map(str, budget['seeds']))}): an interval of so few runs is itself uncertain. A "
        "percentile interval of 5 seeds that says 95 % covers about 90 % (simulated). The corpus of a family and the levels of the "
        "evaluation are the same for all seeds and are not resampled, so intervals are of training alone.",
        f"{train['eval_episodes']} episodes an evaluation offline and {finetune['eval_episodes']} in fine-tuning, the same levels "
        f"every time and for every run. Policies are sampled at temperature {finetune['eval_temperature']:g} when they are "
        f"evaluated and at {finetune['temperature']:g} while they learn. What is reported is the last agent, never the best.",
        f"Levels of the evaluation are of seed {record['eval_seed']}, the corpora of seed {record['corpus']['seed']}; settings "
        "were chosen on levels of seed 0, on other corpora and other seeds of agents. The full budget and some rules of the "
        "verdicts were changed after first results. Reference models were trained and chosen on levels that are in none of these.",
        "No chance level is in these figures. Measured apart, fixed action probabilities that are blind to goal and frame reach "
        "0.52 on Find, 0.16 on Lift and 0.03 on Place. BC on Find is near that.",
        "An episode of an evaluation ends when its goal holds in truth, and the model's return is counted up to its first "
        "reward. A wrong reward that would have come after success is not seen, and VLM return and success share the episodes "
        "that end so.",
        f"Fine-tuning adds {_online_updates(finetune):,.0f} updates in a long run to those of offline training, half of each batch "
        "from the corpus. These runs have no control with equal updates. Measured apart, offline IQL on Lift with 6,750 updates "
        "instead of 3,000 reached 0.92 and 0.925 with two seeds, filtered BC 0.885 with one; on Find with 4,000 instead of 1,500, "
        "IQL reached 0.925 with one seed. A rise above offline training is not the effect of live rewards, nor is IQL below "
        "filtered BC at equal updates.",
        "On goals never trained on, the spread over seeds is larger than any effect: at 6,750 updates on Lift, offline IQL has "
        "0.35 with one seed and 0.745 with another.",
        "A correlation over a run is of few evaluations and of curves that both rise; it says that they rise together, not that "
        "the reward is right in an episode. The false positives beside it say how far it is not.",
        f"Sizes are compared on {', '.join(budget['figure4_families'])} alone, wordings on "
        f"{', '.join(budget['figure5_families'])} alone, by {budget['wording_model']}. In the budget that is reported these are "
        "where the reward's average precision differs by size or by wording; hardly anywhere else does it "
        "(benchmarks/results/figures.json).",
        "Goals are of one family a run, and the reward's negatives are the neutral caption alone. BabyAI is not the paper's "
        "Playhouse or Android, the agents are not Muesli, and the reference models are small CLIPs trained on this very renderer.",
        f"Times are of one thread a run, with other runs beside it on the same machine, on {_processors(record)}.",
    )
    return f"<h2>Caveats</h2><ul>{''.join(f'<li>{html.escape(point)}' for point in points)}</ul>"


def _online_updates(finetune: Mapping[str, Any]) -> float:
    return (finetune["steps"] - finetune["warmup_steps"]) * finetune["updates_per_step"]


def _processors(record: Mapping[str, Any]) -> str:
    """Where the runs were made, one after another and not all on one, perhaps."""
    parts = [part for own in record["runs"].values() for part in (own["offline"], own["online"]) if part]
    return " and ".join(sorted({part["machine"]["processor"] for part in parts}))


def _how(record: Mapping[str, Any]) -> str:
    kept = {name: record[name] for name in ("budget", "corpus", "eval_seed", "machine")}
    told_as = html.escape(json.dumps(kept, indent=1, sort_keys=True))
    return (
        f"<h2>How it was measured</h2><pre>{html.escape(record['command'])}</pre><p>Every number is in "
        f"<code>claims.json</code>.</p><details><summary>Budget, settings and machine</summary><pre>{told_as}</pre></details>"
    )
