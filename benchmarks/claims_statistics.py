"""From what runs found to what is claimed: interquartile means over seeds with 95 % stratified bootstrap intervals, and verdicts.

Two figures are called apart where their intervals share no point. Every verdict is computed here from the numbers by a fixed rule.
Some of these rules were changed after the first results of the budget `full` were seen.

Shapes: R runs (seeds), K families, P evaluations of a run.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from claims_budgets import OWN_TEXT, Budget, Run
from claims_runs import EVALUATION, HELD_OUT, SHARPENED

from vlm_rewards.offline_rl.evaluation.statistics import (
    area_under_curve,
    bootstrap_estimate,
    correlation,
    interquartile_mean,
)

Found = Mapping[Run, Mapping[str, Any]]
Figure = dict[str, Any]

TARGETS = {"find": 0.90, "lift": 0.80}
"""Ground-truth success that fine-tuning is to reach; of Place there is no number, only that it is above BC and offline."""
CORRELATION_TARGET = 0.9
SECONDS_TARGET = 1800
SCORING_TARGET = 0.5
HACKING_MARGIN = 0.05
"""Of success: how far it may fall from its peak, and the return may grow past it, before the reward counts as hacked."""
CURVES = ("success", "vlm_success", "vlm_return", "false_positive_rate", "false_positive_share")


def estimate(scores: Sequence[float] | np.ndarray, num_resamples: int) -> Figure:
    """An interquartile mean with its interval: `value`, `low`, `high` and the `scores` themselves, [R] or [R, K]."""
    values = np.asarray(scores, dtype=np.float64)
    found = bootstrap_estimate(values, num_resamples=num_resamples)
    return {**found._asdict(), "scores": values.tolist()}


def estimate_of_known(scores: Iterable[float | None], num_resamples: int) -> Figure | None:
    """`estimate` of the scores that are not None; None where all are."""
    known = [score for score in scores if score is not None]
    return estimate(known, num_resamples) if known else None


def above(one: Figure, other: Figure) -> bool:
    """Whether the whole interval of one is above that of the other."""
    return one["low"] > other["high"]


def compare_algorithms(found: Found, budget: Budget) -> Figure:
    """Success at the end of offline training.

    Returns:
        By family, and under "all" over families, by algorithm: `success`, the same at the `Budget.low_temperature` as `sharpened`,
        and `held_out` for goals never trained on.
    """
    result: Figure = {}
    for family in budget.levels:
        result[family] = {}
        for algorithm in budget.algorithms:
            runs = select(found, family=family, model=budget.model, wording=OWN_TEXT, algorithm=algorithm)
            if runs:
                rows = [own["offline"] for own in runs.values()]
                apart, sharp = ([row.get(kind, {}).get("success") for row in rows] for kind in (HELD_OUT, SHARPENED))
                result[family][algorithm] = {
                    "success": estimate([row[EVALUATION]["success"] for row in rows], budget.num_resamples),
                    "sharpened": estimate_of_known(sharp, budget.num_resamples),
                    "held_out": estimate_of_known(apart, budget.num_resamples),
                    "seconds": float(np.mean([row["seconds"] for row in rows])),
                }
    scores = {
        algorithm: [result[family].get(algorithm, {}).get("success", {}).get("scores", []) for family in budget.levels]
        for algorithm in budget.algorithms
    }
    result["all"] = {
        algorithm: {"success": estimate(np.transpose(columns), budget.num_resamples)}
        for algorithm, columns in scores.items()
        if {len(column) for column in columns} == {len(budget.seeds)}
    }
    return result


def select(found: Found, **fields: object) -> dict[Run, Mapping[str, Any]]:
    """The runs that have these fields, by seed."""
    chosen = [run for run in found if all(getattr(run, name) == value for name, value in fields.items())]
    return {run: found[run] for run in sorted(chosen)}


def summarize_runs(runs: Mapping[Run, Mapping[str, Any]], num_resamples: int) -> Figure | None:
    """What fine-tuning did, over the seeds of one setting.

    Returns:
        `steps` [P]; the curves of `CURVES`, each with `value`, `low`, `high` [P]; `held_out`, the same of goals never trained on,
        or None; `seeds`, each one's curves; and estimates: `end_of_offline`, `first_online`, `dip` (from the end of offline down
        to the lowest evaluation after it, at least 0), `area` (under the curve of success, as a mean height), `end`, `fall` (of
        success, from the evaluation with the highest interquartile mean to the end), `excess` (by how much more the return than
        success rose from beginning to end), `regret` (see `claims_runs.regret_of`), `held_out_start`, `held_out_end`,
        `correlation` (of VLM return and success over a run's evaluations, runs without one left out), `pooled_correlation` (over
        all evaluations of all runs); and, each a number a run, `seconds`, `scoring_share`, `scoring_share_of_learning` (evaluations
        left out; None where their time was not recorded), `encoded_share`. None of no fine-tuned runs.
    """
    tuned = {run: own["online"] for run, own in runs.items() if own["online"] is not None}
    if not tuned:
        return None
    rows = [own["evaluations"] for own in tuned.values()]
    steps = [record["step"] for record in rows[0]]
    assert all([record["step"] for record in row] == steps for row in rows), "all seeds are evaluated at the same steps"
    success = np.array([[record["success"] for record in row] for row in rows])
    returns = np.array([[record["vlm_return"] for record in row] for row in rows])
    first = next((p for p, record in enumerate(rows[0]) if record["when"] == "first online step"), None)
    own_correlations = [correlation(one, other) for one, other in zip(returns, success, strict=True)]
    peak = int(np.argmax(interquartile_mean(success.T[..., None])))
    excess = returns - success
    apart = [own["held_out"] for own in tuned.values() if own["held_out"]]
    dips = np.maximum(success[:, 0] - success[:, 1:].min(axis=1), 0)
    areas = [area_under_curve(np.array(steps), row) for row in success]

    def of(values: Sequence[float] | np.ndarray) -> Figure:
        return estimate(values, num_resamples)

    return {
        "steps": steps,
        **_curves(rows, num_resamples),
        "held_out": _curves(apart, num_resamples) if apart else None,
        "seeds": {
            str(run.seed): {name: [record[name] for record in row] for name in CURVES}
            for run, row in zip(tuned, rows, strict=True)
        },
        "end_of_offline": of(success[:, 0]),
        "first_online": None if first is None else of(success[:, first]),
        "dip": of(dips),
        "area": of(areas),
        "end": of(success[:, -1]),
        "fall": of(success[:, peak] - success[:, -1]),
        "excess": of(excess[:, -1] - excess[:, 0]),
        "regret": estimate_of_known([own["regret"] for own in tuned.values()], num_resamples),
        "held_out_start": estimate_of_known([row[0]["success"] for row in apart], num_resamples),
        "held_out_end": estimate_of_known([row[-1]["success"] for row in apart], num_resamples),
        "correlation": estimate_of_known(own_correlations, num_resamples),
        "pooled_correlation": correlation(returns.ravel(), success.ravel()),
        "seconds": [own["seconds"] for own in tuned.values()],
        "scoring_share": [own["seconds_scoring"] / own["seconds"] for own in tuned.values()],
        "scoring_share_of_learning": [_share_of_learning(own) for own in tuned.values()],
        "encoded_share": [own["encoded"] / max(own["frames"], 1) for own in tuned.values()],
    }


def _share_of_learning(online: Mapping[str, Any]) -> float | None:
    evaluating = online.get("seconds_evaluating")
    return None if evaluating is None else online["seconds_scoring"] / (online["seconds"] - evaluating)


def _curves(rows: Sequence[Sequence[Mapping[str, Any]]], num_resamples: int) -> Figure:
    """The curves of `CURVES` over runs' evaluations."""
    return {name: _curve([[record[name] for record in row] for row in rows], num_resamples) for name in CURVES}


def _curve(rows: Sequence[Sequence[float | None]], num_resamples: int) -> dict[str, list[float | None]]:
    """Interquartile mean and interval of every column, None where no run knows it."""
    points = [estimate_of_known(column, num_resamples) for column in zip(*rows, strict=True)]
    return {name: [None if point is None else point[name] for point in points] for name in ("value", "low", "high")}


def summarize(found: Found, budget: Budget, only: Sequence[str]) -> Figure:
    """The numbers of every experiment that was asked for: `offline`, `figure3` by family, `figure4` by family and model, `figure5`
    by family and wording."""
    results: Figure = {}
    if "offline" in only or "figure3" in only:
        results["offline"] = compare_algorithms(found, budget)

    @functools.cache  # figures share runs
    def of(family: str, model: str, wording: str) -> Figure | None:
        runs = select(found, family=family, model=model, wording=wording, algorithm="iql")
        return summarize_runs(runs, budget.num_resamples)

    def by(names: Sequence[str], family: str, key: str) -> Figure:
        fixed = {"model": budget.wording_model, "wording": OWN_TEXT}
        figures = {name: of(family, **{**fixed, key: name}) for name in names}
        return {name: figure for name, figure in figures.items() if figure is not None}

    if "figure3" in only:
        results["figure3"] = {
            family: figure for family in budget.levels if (figure := of(family, budget.model, OWN_TEXT)) is not None
        }
    if "figure4" in only:
        results["figure4"] = {family: by(budget.models, family, "model") for family in budget.figure4_families}
    if "figure5" in only:
        results["figure5"] = {family: by(budget.wordings, family, "wording") for family in budget.figure5_families}
    return results


def judge(results: Figure, budget: Budget) -> list[Figure]:
    """What is claimed and whether it holds here: records of `experiment`, `family`, `claim`, `holds` (None where it cannot be told)
    and `told`, the numbers behind it."""
    offline = results.get("offline", {})
    verdicts: list[Figure] = []

    def add(rows: Sequence[Figure], *ends: Figure) -> None:
        num_seeds = min(len(end["scores"]) for end in ends)
        verdicts.extend(_of_all_seeds(row, num_seeds, len(budget.seeds)) for row in rows)

    for family, own in offline.items():
        if {"bc", "iql"} <= set(own):
            add(_judge_offline(family, own), own["bc"]["success"], own["iql"]["success"])
    for family, figure in results.get("figure3", {}).items():
        bc = [offline[family]["bc"]["success"]] if "bc" in offline[family] else []
        add(_judge_finetuning(family, figure, offline[family]), figure["end"], *bc)
        if figure["held_out_end"] is not None:
            add([_judge_held_out(family, figure)], figure["held_out_end"])
        add([_judge_correlation(family, figure)], figure["end"])
    for family, by_model in results.get("figure4", {}).items():
        if by_model:
            ends = [own["end"] for own in by_model.values()]
            add([_judge_sizes(family, by_model, budget.models)], *ends)
    for family, by_wording in results.get("figure5", {}).items():
        if by_wording:
            ends = [own["end"] for own in by_wording.values()]
            add([_judge_wording(family, by_wording, wording) for wording in budget.wordings[1:]], *ends)
    return verdicts


def _of_all_seeds(row: Figure, num_seeds: int, wanted: int) -> Figure:
    """The verdict as it is where no seed is missing; else none, with how many there are."""
    if num_seeds >= wanted:
        return row
    return {**row, "holds": None, "told": f"{row['told']}; so far of {num_seeds} of {wanted} seeds"}


def verdict(experiment: str, family: str, claim: str, holds: bool | None, told: str) -> Figure:
    """One record of `judge`."""
    return {"experiment": experiment, "family": family, "claim": claim, "holds": holds, "told": told}


def told(figure: Figure | None) -> str:
    """An estimate in words: 0.81 (0.78 to 0.84)."""
    return "unknown" if figure is None else f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _judge_offline(family: str, own: Figure) -> list[Figure]:
    iql, bc = own["iql"]["success"], own["bc"]["success"]
    filtered = ""
    if "filtered-bc" in own:
        third = own["filtered-bc"]["success"]
        num_seeds = len(third["scores"])
        filtered = (
            f", filtered BC {told(third)}{f' of {num_seeds} seeds so far' if num_seeds < len(bc['scores']) else ''}"
        )
    claim = "IQL beats BC on the same relabelled data, with intervals apart"
    verdicts = [verdict("offline", family, claim, above(iql, bc), f"IQL {told(iql)}, BC {told(bc)}{filtered}")]
    sharp = {name: one["sharpened"] for name, one in own.items() if one.get("sharpened") is not None}
    if {"bc", "iql"} <= set(sharp):
        best = {name: max(own[name]["success"], sharp[name], key=lambda one: one["value"]) for name in sharp}
        verdicts.append(
            verdict(
                "offline",
                family,
                "IQL beats BC with each sampled at the better of two temperatures, with intervals apart",
                above(best["iql"], best["bc"]),
                ", ".join(f"{name} {told(figure)}" for name, figure in best.items()),
            )
        )
    return verdicts


def _judge_finetuning(family: str, figure: Figure, offline: Figure) -> list[Figure]:
    end, start = figure["end"], figure["end_of_offline"]
    bc = offline["bc"]["success"] if "bc" in offline else None
    target, fall, excess = TARGETS.get(family), figure["fall"], figure["excess"]
    verdicts = [
        verdict(
            "figure3",
            family,
            "Fine-tuning with the model's reward alone, and so with more updates, ends above offline training and above BC in "
            "truth, with intervals apart",
            None if bc is None else above(end, start) and above(end, bc),
            f"end {told(end)}, offline {told(start)}, BC {told(bc)}",
        )
    ]
    if target is not None:
        claim = f"Success in truth at the end is at least {target:.2f}"
        verdicts.append(verdict("figure3", family, claim, end["value"] >= target, f"end {told(end)}"))
    slowest, share = max(figure["seconds"]), max(figure["scoring_share"])
    known = [one for one in figure["scoring_share_of_learning"] if one is not None]
    alone = f", and at most {max(known):.0%} without evaluations, in the {len(known)} that recorded it" if known else ""
    return [
        *verdicts,
        verdict(
            "figure3",
            family,
            f"The reward is not hacked: success does not fall by more than {HACKING_MARGIN:g} from its peak, nor does the return "
            "grow by more than that past it",
            _within((fall, excess), HACKING_MARGIN),
            f"fall {told(fall)}, growth of return less that of success {told(excess)}",
        ),
        verdict(
            "figure3",
            family,
            f"A run takes at most {SECONDS_TARGET // 60} minutes",
            slowest <= SECONDS_TARGET,
            f"the longest {slowest / 60:.1f} minutes, evaluation among them, in one thread",
        ),
        verdict(
            "figure3",
            family,
            f"Waiting for live scores takes less than {SCORING_TARGET:.0%} of a run",
            max([share, *known]) < SCORING_TARGET,
            f"at most {share:.0%} of a run{alone}; at most {max(figure['encoded_share']):.0%} of the frames went through the model",
        ),
    ]


def _within(figures: Sequence[Figure], margin: float) -> bool | None:
    """Whether all are at most a margin: True or False only where the whole intervals say so."""
    if any(figure["low"] > margin for figure in figures):
        return False
    return True if all(figure["high"] <= margin for figure in figures) else None


def _judge_held_out(family: str, figure: Figure) -> Figure:
    start, end = figure["held_out_start"], figure["held_out_end"]
    return verdict(
        "figure3",
        family,
        "Fine-tuning raises success on goals that neither training nor fine-tuning asked for, with intervals apart",
        above(end, start),
        f"end {told(end)}, offline {told(start)}",
    )


def _judge_correlation(family: str, figure: Figure) -> Figure:
    own, pooled = figure["correlation"], figure["pooled_correlation"]
    constant = len(figure["end"]["scores"]) - (0 if own is None else len(own["scores"]))
    without = f"; {constant} runs have none, being constant" if constant else ""
    return verdict(
        "figure3",
        family,
        f"VLM return and success in truth rise together: correlation over a run at least {CORRELATION_TARGET:g}",
        None if own is None or constant else own["value"] >= CORRELATION_TARGET,
        f"over runs {told(own)}, pooled {'unknown' if pooled is None else f'{pooled:.2f}'}{without}",
    )


def _judge_sizes(family: str, by_model: Figure, models: Sequence[str]) -> Figure:
    measured = [model for model in models if model in by_model]
    ends = [by_model[model]["end"] for model in measured]
    missing = [model for model in models if model not in by_model]
    rising = all(smaller["value"] <= larger["value"] for smaller, larger in itertools.pairwise(ends))
    known = ", ".join(f"{model} {told(end)}" for model, end in zip(measured, ends, strict=True))
    return verdict(
        "figure4",
        family,
        "A larger reward model gives a better agent: success rises with size, the largest apart from the smallest",
        None if missing or len(ends) < 2 else rising and above(ends[-1], ends[0]),
        f"{known}; without {', '.join(missing)} so far" if missing else known,
    )


def _judge_wording(family: str, by_wording: Figure, wording: str) -> Figure:
    description, instruction = (by_wording[name]["end"] if name in by_wording else None for name in (OWN_TEXT, wording))
    return verdict(
        "figure5",
        family,
        f"A description of the success state beats the instruction \N{LEFT DOUBLE QUOTATION MARK}{wording}"
        f"\N{RIGHT DOUBLE QUOTATION MARK}",
        above(description, instruction) if description and instruction else None,
        f"description {told(description)}, instruction {told(instruction)}",
    )
