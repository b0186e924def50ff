"""Chooses the temperature of a calibration: the lowest log loss, if that holds on episodes that did not choose it.

    kept embeddings ──► log losses of two halves of a subsample, at a grid of temperatures ──► best ──► finer grid ──► best

Each half is judged at the temperature that the other half alone chose; the labels' own stays where that is no better.
"""

import dataclasses
from collections.abc import Callable, Sequence

from vlm_rewards.labelers.calibration.settings import CalibrationSettings
from vlm_rewards.labelers.calibration.worth import mean_log_loss, refined_grid, temperature_grid
from vlm_rewards.pipelines.calibrate.evidence import EmbeddingScores, Evidence, LossUnit
from vlm_rewards.pipelines.evaluate.known_truth import TruthSource
from vlm_rewards.schemas.formats.label_parts.reader import Labels
from vlm_rewards.schemas.manifests import Unit


def temperature_of(labels: Labels) -> float | None:
    """Returns the temperature of the labels; None where their formula has none."""
    temperature = labels.metadata.fingerprint.parts.get("temperature")
    return float(temperature) if isinstance(temperature, int | float) else None


def choose_temperature(
    labels: Labels,
    settings: CalibrationSettings,
    rescored: EmbeddingScores | None,
    truth: TruthSource,
    units: Sequence[Unit],
    share: float,
    run: Callable[[Sequence[Unit], Callable[[Unit], Evidence]], Evidence],
) -> tuple[float | None, dict[str, object]]:
    """Chooses the temperature, and describes the search.

    Args:
        labels: The labels.
        settings: Objective of the calibration.
        rescored: Kept embeddings to score again; None keeps the temperature.
        truth: Source of truth.
        units: All units of the labels.
        share: Share of episodes, by their ids, to choose it with.
        run: Function that gathers the evidence of all units.

    Raises:
        ValueError: There is no frame to choose it with.
    """
    own = temperature_of(labels)
    if own is None:
        return None, {"outcome": "none: the formula has no temperature"}
    if rescored is None:
        return own, {"outcome": "kept: no embeddings to score again"}
    if settings.objective == "quantile":
        return own, {"outcome": "kept: a quantile knows no truth to choose it by"}
    # The probability is what the log loss is of, also for scores that are made of it.
    probability = dataclasses.replace(
        rescored, labeler=dataclasses.replace(rescored.labeler, formula="softmax", threshold=0.5)
    )
    grid = tuple(temperature_grid(own))
    work = LossUnit(
        scores=probability,
        truth=truth,
        temperatures=grid,
        share=share,
    )
    coarse = run(units, work)
    losses = _losses_by_temperature(work, coarse)
    shown = int(coarse.counts["episodes_with_a_goal"])
    if shown < settings.min_examples:
        return own, {
            "outcome": f"kept: a goal holds in {shown} of the episodes to choose it by, fewer than {settings.min_examples}",
            "before": own,
            "frames": int(coarse.counts["frames"]),
            "episodes": int(coarse.counts["episodes"]),
        }
    choices: tuple[Callable[[float], float], ...] = (  # by all episodes, by the first half alone, by the second
        lambda temperature: sum(losses[temperature]),
        lambda temperature: losses[temperature][0],
        lambda temperature: losses[temperature][1],
    )
    tried = [(*grid, *refined_grid(min(grid, key=loss))) for loss in choices]
    work = dataclasses.replace(
        work, temperatures=tuple(dict.fromkeys(value for row in tried for value in row[len(grid) :]))
    )
    losses |= _losses_by_temperature(work, run(units, work))
    best, by_first, by_second = (min(row, key=loss) for row, loss in zip(tried, choices, strict=True))
    # Each half is judged at the temperature that the other half alone chose, its own refinement included.
    held_out = losses[by_second][0] + losses[by_first][1]
    helps = held_out < sum(losses[own])
    return best if helps else own, {
        "outcome": "kept: the best of those tried"
        if best == own
        else "changed"
        if helps
        else "kept: no better held out",
        "before": own,
        "log_loss_before": sum(losses[own]),
        "log_loss": sum(losses[best]),
        "log_loss_held_out": held_out,
        "frames": int(coarse.counts["frames"]),
        "episodes": int(coarse.counts["episodes"]),
        "tried": {f"{temperature:.6g}": sum(losses[temperature]) for temperature in sorted(tried[0])},
        # Refined steps may lie beyond the end, where a plateau or a lower loss may continue.
        "at_the_end_of_the_grid": not grid[0] < best < grid[-1],
    }


def _losses_by_temperature(work: LossUnit, evidence: Evidence) -> dict[float, tuple[float, float]]:
    """Returns, per temperature, the share of each half of the episodes in the mean log loss over all frames."""
    if not evidence.counts.get("frames"):
        raise ValueError(
            "frames to choose a temperature with must be at least one, got none in the subsample; leave out --embeddings, or give "
            "more episodes"
        )
    assert evidence.losses is not None
    assert evidence.loss_frames is not None
    first, second = (mean_log_loss(half, evidence.loss_frames.sum(axis=0)).tolist() for half in evidence.losses)
    return dict(zip(work.temperatures, zip(first, second, strict=True), strict=True))
