"""The commands that make and judge data: record, label, hindsight, calibrate, evaluate, diff, pretrain.

Each runs what its options say, which it imports only then, and returns the lines to say and the commands that may follow. The
options are in `vlm_rewards.commands.options`.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_rewards.pipelines.engine.driver import RunSummary
    from vlm_rewards.schemas.calibrations import Calibration
    from vlm_rewards.schemas.goals import Goal

Said = tuple[list[str], list[list[object]]]
"""Lines to say, and the words of the commands that may follow."""


def run_record(options: argparse.Namespace) -> Said:
    """Runs `record` as its options say."""
    from vlm_rewards.pipelines.record.recording import RecordSettings, record

    settings = RecordSettings(
        envs=tuple(options.env),
        policy=options.policy,
        noise=options.noise,
        episodes=options.episodes,
        seed=options.seed,
        tile_size=options.tile_size,
        episodes_per_shard=options.episodes_per_shard,
        format=options.format,
    )
    summary = record(settings, options.output, beam_options=options.beam_options, workers=options.workers or 1)
    manifest = summary.manifest
    lines = [
        f"recorded {manifest['episodes']:,} episodes, {manifest['rows']:,} frames, in {options.output / 'parts'}"
        f"{_skipped(summary)}",
        f"  goals that the ground truth covers: {options.output / 'goals.jsonl'}",
    ]
    goals = options.output / "goals.jsonl"
    return lines, [["label", "--input", options.output, "--goals", goals, "--output", "labels/"]]


def _skipped(summary: "RunSummary") -> str:
    num_units, num_skipped = summary.num_units, summary.num_skipped
    if num_skipped == num_units:
        return f" (all {num_units} units were done before: nothing to do)"
    return f" ({num_skipped} of {num_units} units were done before)" if num_skipped else ""


def run_label(options: argparse.Namespace) -> Said:
    """Runs `label` as its options say."""
    from vlm_rewards.labelers.scoring.negatives import NegativeSettings
    from vlm_rewards.labelers.scoring.windows import WindowSettings
    from vlm_rewards.labelers.settings import LabelerSettings
    from vlm_rewards.pipelines.engine.driver import available_cores
    from vlm_rewards.pipelines.label.encoding import shared_labeler
    from vlm_rewards.pipelines.label.labelling import estimate, label, plan_label
    from vlm_rewards.schemas.calibrations import read_calibration
    from vlm_rewards.schemas.formats.corpora import corpus_features, plan_units
    from vlm_rewards.schemas.goals import read_goals, select_goals

    goals = read_goals(options.goals)
    if options.goal:
        goals = select_goals(goals, options.goal)
    calibration = None if options.calibration is None else read_calibration(options.calibration)
    labeler = LabelerSettings(
        model=options.model,
        goals=goals,
        templates=tuple(options.template or ("{goal}",)),
        negatives=NegativeSettings(
            kind=options.negatives,
            k=options.num_negatives,
            seed=options.negatives_seed,
            explicit=tuple(options.negative),
        ),
        formula=options.formula,
        **_operating_point(options, calibration, goals),
        baseline=options.baseline,
        alpha=options.alpha,
        hysteresis=options.hysteresis,
        min_frames=options.min_frames,
        reward=options.reward,
        discount=options.discount,
        window=WindowSettings(frames=options.window, over=options.window_over, reduce=options.window_reduce),
        precision=options.precision,
        batch_size=options.batch_size,
        device=options.device,
    )
    if calibration is not None:
        calibration.check_labeler(shared_labeler(labeler).labeler.fingerprint)
    common = {
        "source": options.input,
        "output": options.output,
        "labeler": labeler,
        "camera": options.camera,
        "sparse": options.sparse,
        "embeddings": options.embeddings,
        "max_unit_bytes": options.max_unit_mib << 20,
    }
    if options.dry_run:
        plan = plan_label(**common)
        guess = estimate(plan, options.workers or available_cores())
        frames = "an unknown number of" if guess.frames is None else f"{guess.frames:,}"
        seconds = "unknown" if guess.seconds is None else f"about {guess.seconds:,.0f} s"
        return [
            f"would label {guess.units} units with {frames} frames ({guess.num_bytes / 1e6:,.1f} MB) for {len(goals)} goals; "
            f"{guess.done_units} units are done before",
            f"  measured: {guess.frames_per_s:,.0f} frames/s and worker; time: {seconds}; nothing was written",
        ], []
    summary = label(
        **common,
        max_failure_share=options.max_failure_share,
        beam_options=options.beam_options,
        workers=options.workers,
    )
    manifest = summary.manifest
    lines = [
        f"labelled {manifest['rows']:,} frames for {len(goals)} goals, in {options.output / 'parts'}{_skipped(summary)}"
    ]
    if manifest["failures"]:
        failed = manifest["failed_frames"]
        lost = f"{failed} frames at least" if failed else "an unknown number of frames"
        lines.append(f"  left out: {_reasons(manifest)} ({lost}): see {options.output / 'failures'}")
    source = "CORPUS" if options.input is None else options.input
    of_labels = ["--input", source, "--labels", options.output, "--output"]
    following: list[list[object]] = [["hindsight", *of_labels, "relabelled/"]]
    if options.input is not None and corpus_features(plan_units(options.input)).has_achieved_goals:
        following.insert(0, ["evaluate", *of_labels, "report/"])
    return lines, following


def _reasons(manifest: dict) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in manifest["failures"].items())


def _operating_point(
    options: argparse.Namespace, calibration: "Calibration | None", goals: Sequence["Goal"]
) -> dict[str, Any]:
    """Temperature, thresholds and fire rates, as given or as calibrated."""
    if calibration is None:
        return {"temperature": options.temperature, "threshold": options.threshold}
    for name in ("temperature", "threshold"):
        value = getattr(options, name)
        if value is not None:
            raise ValueError(
                f"--{name} must be left out with --calibration, which holds it, got {value:g}; leave one of the two out"
            )
    return calibration.operating_point(
        [goal.id for goal in goals], formula=options.formula, reward=options.reward, hysteresis=options.hysteresis
    )


def run_hindsight(options: argparse.Namespace) -> Said:
    """Runs `hindsight` as its options say."""
    from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
    from vlm_rewards.pipelines.hindsight.relabelling import hindsight
    from vlm_rewards.schemas.formats.corpora import corpus_features, plan_units
    from vlm_rewards.schemas.relabelled import parse_goal_shares

    settings = HindsightSettings(
        strategy=options.strategy,
        goals_per_episode=options.goals_per_episode,
        ratio=parse_goal_shares("--ratio", options.ratio),
        balance=options.balance,
        seed=options.seed,
    )
    summary = hindsight(
        source=options.input,
        labels=options.labels,
        output=options.output,
        settings=settings,
        format_name=options.format,
        max_failure_share=options.max_failure_share,
        beam_options=options.beam_options,
        workers=options.workers,
    )
    manifest = summary.run.manifest
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in summary.usage["kinds"].items())
    lines = [
        f"relabelled {manifest['episodes']:,} episodes with {kinds} goals, in {options.output / 'parts'}"
        f"{_skipped(summary.run)}",
        f"  how often each goal was achieved and used: {options.output / 'goal_statistics.json'}, "
        f"{options.output / 'goal_usage.json'}",
    ]
    if manifest["failures"]:
        lines.append(f"  left out: {_reasons(manifest)}: see {options.output / 'failures'}")
    lines.append(f"  read it: vlm_rewards.offline_rl.replay.transitions.read_relabelled({str(options.output)!r})")
    following: list[list[object]] = [["train", "--input", options.output, "--output", "agent/"]]
    if corpus_features(plan_units(options.input)).has_achieved_goals:
        of_labels = ["--input", options.input, "--labels", options.labels, "--output"]
        following.insert(0, ["evaluate", *of_labels, "report/"])
    return lines, following


def run_calibrate(options: argparse.Namespace) -> Said:
    """Runs `calibrate` as its options say."""
    from vlm_rewards.labelers.calibration.thresholds import CalibrationSettings
    from vlm_rewards.pipelines.calibrate.calibration import calibrate
    from vlm_rewards.pipelines.calibrate.summary import describe, next_label

    calibration = calibrate(
        labels=options.labels,
        output=options.output,
        settings=CalibrationSettings(
            objective=options.objective,
            precision=options.precision,
            level=options.level,
            confidence=options.confidence,
            quantile=options.quantile,
            min_examples=options.min_examples,
        ),
        corpus=options.input,
        marks=options.marks,
        embeddings=options.embeddings,
        beam_options=options.beam_options,
        workers=options.workers,
    )
    following: list[object] = [*next_label(options.labels, options.output, options.input, options.embeddings)]
    return [*describe(calibration), f"  wrote {options.output}"], [following]


def run_evaluate(options: argparse.Namespace) -> Said:
    """Runs `evaluate` as its options say."""
    from vlm_rewards.pipelines.evaluate.evaluation import evaluate

    quality = evaluate(options.input, options.labels, options.output, beam_options=options.beam_options)
    lines = [*_figures(quality), f"  report: {options.output / 'report.html'} (open it in a browser)"]
    of_labels = ["--input", options.input, "--labels", options.labels, "--output"]
    return lines, [["hindsight", *of_labels, "relabelled/"]]


def _figures(quality: dict) -> list[str]:
    groups = [*quality["families"].items(), ("all goals", quality["overall"])]
    width = max(len(name) for name, _ in groups)
    lines = [
        f"evaluated {quality['counts']['frames']:,} frames of {quality['counts']['episodes']:,} episodes",
        "  average precision, and at the thresholds F1, false-positive rate and EPIC distance (0 is best), means over goals:",
    ]
    for name, group in groups:
        macro = group["macro"]
        precision = group["mean_average_precision"]
        shown = precision  # or why there is none
        if not isinstance(precision, str):
            values = {"F1": macro["f1"], "FPR": macro["false_positive_rate"], "EPIC": macro["epic_distance"]["success"]}
            told = [f"{key} {'undefined' if isinstance(x, str) else format(x, '.3g')}" for key, x in values.items()]
            shown = f"{precision:.3f}  {', '.join(told)}"
        occur = f"{group['num_goals_with_positives']} of {group['num_goals']} goals occur"
        lines.append(f"    {name:<{width}}  {shown}  ({occur})")
    causes = quality["overall"]["false_positives"]
    if causes["total"]:
        most = sorted(causes["causes"].items(), key=lambda item: -item[1])[:3]
        told = [f"{count / causes['total']:.0%} {cause}" for cause, count in most if count]
        lines.append(f"  {causes['total']:,} false positives: {', '.join(told)}")
    return lines


def run_diff(options: argparse.Namespace) -> Said:
    """Runs `diff` as its options say."""
    from vlm_rewards.pipelines.diff.comparison import DIFF_NAME, diff
    from vlm_rewards.pipelines.diff.summary import summary_lines

    result = diff(
        options.a,
        options.b,
        options.output,
        corpus=options.input,
        tolerance=options.tolerance,
        beam_options=options.beam_options,
        workers=options.workers,
    )
    return [*summary_lines(result), f"  all of it: {options.output / DIFF_NAME}"], []


def run_pretrain(options: argparse.Namespace) -> Said:
    """Runs `pretrain` as its options say."""
    import dataclasses

    from vlm_rewards.labelers.reference_models.pretraining import SIZES, pretrain

    settings = SIZES[options.size]
    if options.steps is not None:
        settings = dataclasses.replace(settings, steps=options.steps)

    def show(state: dict[str, float]) -> None:
        step, seconds = state["step"], state["seconds"]
        left = (settings.steps - step) * seconds / max(step, 1)
        print(
            f"pretrain: {step:,.0f} of {settings.steps:,} steps ({100 * step / settings.steps:.0f} %), loss {state['loss']:.3f}, "
            f"{step / max(seconds, 1e-9):.1f} steps/s, {left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    card = pretrain(settings, options.output, seed=options.seed, progress=show)
    label = ["label", "--model", options.output, "--input", "corpus/", "--goals", "corpus/goals.jsonl"]
    return [f"trained {card['name']} in {card['seconds']:,} s: {options.output}"], [[*label, "--output", "labels/"]]
