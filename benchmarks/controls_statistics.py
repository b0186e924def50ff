"""From what the controls found to figures and verdicts, by the rules of controls_rules.md.

Shapes: R seeds, L levels, S resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from controls_plan import CHANCE, CLONING, CONTROLS, SEEDS, ControlRun

from vlm_rewards.offline_rl.evaluation.statistics import interquartile_mean

Found = Mapping[str, Mapping[str, Any]]
NUM_RESAMPLES = 2000

CLAIMS = (
    ("the live reward helps", "model", "offline-equal", "trained"),
    ("only a right reward helps", "model", "shuffled-truth", "trained"),
    ("truth is a better reward than the model", "truth", "model", "trained"),
    ("false positives hurt more than false negatives", "truth:0:0.5", "truth:0.05:0.1", "trained"),
    ("fewer false positives give a better agent", "truth:0.005:0.1", "truth:0.05:0.1", "trained"),
    ("offline RL beats cloning at equal updates", "offline-equal", "filtered BC", "trained"),
    ("the live reward helps on goals never trained on", "model", "offline-equal", "held_out"),
)
"""What is claimed, the two controls whose difference decides, and the goals that are asked for. "filtered BC" stands for the one of
`CLONING` with the highest figure."""


def outcomes_of(found: Found, family: str, control: str, goals: str, outcome: str = "success") -> dict[int, np.ndarray]:
    """Returns [L] float64 of 0 and 1, a seed's episodes, by seed.

    Args:
        found: What was found, by path of the run.
        family: Family of the goals.
        control: Name of the control.
        goals: "trained" or "held_out".
        outcome: "success", "mission" or "model"; see `controls_runs.outcomes`.
    """
    rows = {}
    for seed in (0,) if control in CHANCE else SEEDS:
        own = found.get(ControlRun(family=family, control=control, seed=seed).path)
        if own is not None and own[goals] is not None:
            rows[seed] = np.array([int(digit) for digit in own[goals][outcome]], np.float64)
    return rows


def crossed_estimate(scores: np.ndarray, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> dict[str, float]:
    """Returns the interquartile mean over seeds of the mean over levels, with the 95% interval of seeds and levels drawn anew.

    Every resample draws R seeds and L levels with replacement, the same levels for all its seeds: levels are a sample too, and all
    agents meet the same hard ones.

    Args:
        scores: [R, L] outcomes, or differences of outcomes.
        num_resamples: S.
        seed: Seed of the draws.
    """
    random = np.random.default_rng(seed)
    num_seeds, num_levels = scores.shape
    weights = random.multinomial(num_levels, np.full(num_levels, 1 / num_levels), size=num_resamples) / num_levels
    means = weights @ scores.T  # [S, R]: the mean over a resample's levels, by seed
    rows = random.integers(num_seeds, size=(num_resamples, num_seeds))
    drawn = interquartile_mean(np.take_along_axis(means, rows, axis=1)[..., None])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": float(interquartile_mean(scores.mean(axis=1)[:, None])), "low": float(low), "high": float(high)}


def figure_of(rows: Mapping[int, np.ndarray]) -> dict[str, Any] | None:
    """Returns the estimate of a control with its seeds and the lowest and highest seed; None without runs."""
    if not rows:
        return None
    scores = np.stack(list(rows.values()))
    by_seed = scores.mean(axis=1)
    spread = {"lowest": float(by_seed.min()), "highest": float(by_seed.max())}
    return {**crossed_estimate(scores), **spread, "seeds": list(rows)}


def difference_of(one: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray]) -> dict[str, Any] | None:
    """Returns the estimate of one control less another, on the seeds and levels that both have; None where they share no seed."""
    shared = [seed for seed in one if seed in other]
    if not shared:
        return None
    return {**crossed_estimate(np.stack([one[seed] - other[seed] for seed in shared])), "seeds": shared}


def summarize_controls(found: Found, families: Sequence[str]) -> dict[str, Any]:
    """Returns by family and control: `success`, `mission` (the level's own), `model` (its verdict), `held_out`, and the means of
    `false_positive_share` and `seconds`; controls without a run are left out."""
    result: dict[str, Any] = {}
    for family in families:
        result[family] = {}
        for control in (*CHANCE, *CONTROLS):
            runs = [found[path] for path in found if path.startswith(f"{family}/controls/{control.replace(':', '_')}-")]
            runs = [run for run in runs if run["control"] == control]
            if not runs:
                continue
            shares = [run["trained"]["false_positive_share"] for run in runs]
            known = [share for share in shares if share is not None]
            result[family][control] = {
                **{
                    outcome: figure_of(outcomes_of(found, family, control, "trained", outcome))
                    for outcome in ("success", "mission", "model")
                },
                "held_out": figure_of(outcomes_of(found, family, control, "held_out")),
                "false_positive_share": float(np.mean(known)) if known and control not in CHANCE else None,
                "updates": runs[0]["updates"],
                "seconds": float(np.mean([run["seconds"] for run in runs])),
            }
    return result


def judge_controls(found: Found, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the verdicts: records of `family`, `claim`, `difference` and `holds` (None where it is open or seeds are missing)."""
    verdicts = []
    for family, own in results.items():
        best = max(
            (name for name in CLONING if name in own), key=lambda name: own[name]["success"]["value"], default=None
        )
        for claim, one, other, goals in CLAIMS:
            second = best if other == "filtered BC" else other
            if second is None:
                continue
            rows = [outcomes_of(found, family, name, goals) for name in (one, second)]
            difference = difference_of(*rows)
            if difference is not None:
                whole = len(difference["seeds"]) == len(SEEDS)
                record = {"family": family, "claim": claim, "one": one, "other": second, "difference": difference}
                verdicts.append({**record, "holds": _holds(difference) if whole else None})
    return verdicts


def _holds(difference: Mapping[str, Any]) -> bool | None:
    if difference["low"] > 0:
        return True
    return False if difference["high"] <= 0 else None
