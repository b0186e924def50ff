"""`vlm-rewards label`: labels every frame of a corpus for many goals."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_rewards.commands.options import add_output, add_run_options
from vlm_rewards.commands.words import Said, reasons, skipped

if TYPE_CHECKING:
    from vlm_rewards.schemas.calibrations import Calibration
    from vlm_rewards.schemas.goals import Goal


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `label` to its parser."""
    from vlm_rewards.labelers.scoring.formulas import FORMULAS
    from vlm_rewards.labelers.scoring.windows import OVER, REDUCTIONS
    from vlm_rewards.schemas.rules import REWARDS

    command.add_argument(
        "--input",
        type=Path,
        metavar="PATH",
        help="corpus: a folder or one shard; may be left out with a filled --embeddings",
    )
    command.add_argument(
        "--goals",
        type=Path,
        required=True,
        metavar="FILE",
        help="goals.jsonl: a goal a line with id, text and, optionally, family",
    )
    command.add_argument(
        "--goal", action="append", metavar="ID", help="label this goal of the file only; repeat for several"
    )
    command.add_argument(
        "--model",
        default="reference-s",
        metavar="MODEL",
        help="a shipped reference model (reference-s, reference-m, reference-l), the folder of a Hugging Face dual encoder, or "
        "its hub name",
    )
    add_output(command, "the labels")
    command.add_argument(
        "--embeddings",
        type=Path,
        metavar="DIR",
        help="keep the frames' embeddings here; frames that are here already are not read again",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="show units, frames, bytes and an estimate of the time; write nothing"
    )
    command.add_argument("--camera", metavar="NAME", help="camera to label (default: the only one)")
    command.add_argument(
        "--sparse", action="store_true", help="store only scores over the threshold, for thousands of goals"
    )
    reward = command.add_argument_group("the reward")
    reward.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="prompt with {goal} in it; repeat to average several (default: {goal})",
    )
    reward.add_argument(
        "--formula",
        default="softmax",
        metavar="NAME",
        help="; ".join(f"{name}: {formula.summary}" for name, formula in FORMULAS.items()),
    )
    reward.add_argument(
        "--negatives",
        choices=("auto", "explicit", "family", "all", "sampled"),
        default="auto",
        help="what stands beside a goal in the softmax: explicit: the texts of --negative and those that the goal names itself in "
        "the file; family, all, sampled: also the other goals of its family, all others, or K of them drawn once; auto: explicit "
        "if there are such texts for every goal, else family",
    )
    reward.add_argument(
        "--num-negatives", type=int, metavar="K", help="how many to draw a goal with --negatives sampled"
    )
    reward.add_argument("--negatives-seed", type=int, default=0, metavar="N", help="seed of that draw")
    reward.add_argument(
        "--negative",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text that is a negative of every goal; repeatable",
    )
    reward.add_argument("--temperature", type=float, metavar="T", help="of the softmax (default: the model's own)")
    reward.add_argument(
        "--threshold",
        type=float,
        metavar="B",
        help="a goal is achieved where its score is over this (default: 0.5 for softmax and sigmoid, 0 for shifted-softmax)",
    )
    reward.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="temperature, a threshold a goal and fire rates from vlm-rewards calibrate, instead of --temperature and --threshold",
    )
    reward.add_argument(
        "--baseline", metavar="TEXT", help="the baseline of goal-baseline, for goals that have none of their own"
    )
    reward.add_argument(
        "--alpha",
        type=float,
        metavar="A",
        help="how far goal-baseline projects, 0 to 1; 0 is the cosine (default: 0.5)",
    )
    reward.add_argument(
        "--hysteresis",
        type=float,
        default=0.0,
        metavar="H",
        help="a success that has begun lasts until the score is at or under threshold - H",
    )
    reward.add_argument(
        "--min-frames",
        type=int,
        default=1,
        metavar="N",
        help="frames in a row over the threshold that begin a success",
    )
    reward.add_argument(
        "--reward",
        choices=REWARDS,
        default="success",
        help="what a step is worth: 1 for a success in the frame after it; that frame's score; how much the score rose; or the "
        "success less --discount times how often the goal fires where it does not hold, as calibrated",
    )
    reward.add_argument("--discount", type=float, default=0.0, metavar="C", help="of --reward discounted")
    window = command.add_argument_group("windows of several frames")
    window.add_argument(
        "--window",
        type=int,
        default=1,
        metavar="N",
        help="frames that a score looks at, its own and the N - 1 before it",
    )
    window.add_argument("--window-over", choices=OVER, default="scores", help="what is taken together")
    window.add_argument("--window-reduce", choices=REDUCTIONS, default="mean", help="how it is taken together")
    model = command.add_argument_group("the model's run")
    model.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="auto: what is fastest on this processor, stated in the output",
    )
    model.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="frames a forward pass; part of the fingerprint"
    )
    model.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu, cuda or cuda:N")
    run = command.add_argument_group("the run")
    run.add_argument(
        "--max-unit-mib", type=int, default=256, metavar="MIB", help="larger shards are labelled in ranges of this size"
    )
    run.add_argument(
        "--max-failure-share",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="highest share of frames, and of shards, that may be unreadable",
    )
    add_run_options(command)


def run(options: argparse.Namespace) -> Said:
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
        f"labelled {manifest['rows']:,} frames for {len(goals)} goals, in {options.output / 'parts'}{skipped(summary)}"
    ]
    if manifest["failures"]:
        failed = manifest["failed_frames"]
        lost = f"{failed} frames at least" if failed else "an unknown number of frames"
        lines.append(f"  left out: {reasons(manifest)} ({lost}): see {options.output / 'failures'}")
    source = "CORPUS" if options.input is None else options.input
    of_labels = ["--input", source, "--labels", options.output, "--output"]
    following: list[list[object]] = [["hindsight", *of_labels, "relabelled/"]]
    if options.input is not None and corpus_features(plan_units(options.input)).has_achieved_goals:
        following.insert(0, ["evaluate", *of_labels, "report/"])
    return lines, following


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
