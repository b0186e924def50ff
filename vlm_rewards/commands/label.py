"""`vlm-rewards label`: labels every frame of a corpus for many goals."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlm_rewards.command_line.goal_lists import add_goals, explaining_instructions, read_goal_lists
from vlm_rewards.command_line.options import add_output, add_settings, given_settings, path_or_url, say_where_it_runs
from vlm_rewards.command_line.words import Said, reasons, skipped
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.settings import LabelRun
from vlm_rewards.schemas.files.remote_paths import location_of

if TYPE_CHECKING:
    from vlm_rewards.schemas.calibrations import Calibration
    from vlm_rewards.schemas.goals import Goal


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `label` to its parser."""
    parser.add_argument(
        "--input",
        type=path_or_url,
        metavar="PATH",
        help="corpus: a folder, one shard or a URL such as s3://bucket/corpus; may be left out with a filled --embeddings",
    )
    add_goals(parser)
    add_output(parser, "the labels")
    parser.add_argument(
        "--dry-run", action="store_true", help="show units, frames, bytes and an estimate of the time; write nothing"
    )
    parser.add_argument(
        "--calibration",
        type=path_or_url,
        metavar="FILE",
        help="temperature, one threshold per goal and fire rates from vlm-rewards calibrate, instead of --temperature and "
        "--threshold",
    )
    add_settings(parser, LabelerSettings, LabelRun)
    say_where_it_runs(parser, resumes=True)


def run(options: argparse.Namespace) -> Said:
    """Runs `label` as its options say."""
    from vlm_rewards.pipelines.engine.settings import available_cores
    from vlm_rewards.pipelines.label.shared_labelers import shared_labeler
    from vlm_rewards.schemas.calibrations import read_calibration
    from vlm_rewards.schemas.formats.passed_over import passed_over_lines

    given = given_settings(options, LabelerSettings)
    goals, encoder, told = read_goal_lists(options, given)
    calibration = None if options.calibration is None else read_calibration(options.calibration)
    if calibration is not None:
        given |= _operating_point(given, calibration, goals)
    labeler = LabelerSettings(goals=goals, **given)
    if encoder is not None:
        with explaining_instructions(options):
            shared_labeler(labeler, encoder)
    if calibration is not None:
        calibration.check_labeler(shared_labeler(labeler).labeler.fingerprint)
    of_run = {**given_settings(options, LabelRun), "beam_options": tuple(options.beam_options)}
    if options.dry_run:
        from vlm_rewards.pipelines.label.planning import estimate, plan_label

        run = LabelRun(**of_run)
        plan = plan_label(options.input, labeler, options.output, run)
        guess = estimate(plan, run.workers or available_cores())
        frames = "an unknown number of" if guess.frames is None else f"{guess.frames:,}"
        seconds = "unknown" if guess.seconds is None else f"about {guess.seconds:,.0f} s"
        return [
            f"would label {guess.units} units with {frames} frames ({guess.num_bytes / 1e6:,.1f} MB) for {len(goals)} goals; "
            f"{guess.done_units} units are done before",
            *told,
            f"  model: {labeler.model}{'' if 'model' in given else ', since none was named'}",
            f"  measured: {guess.frames_per_s:,.0f} frames/s and worker; time: {seconds}; nothing was written",
            *(f"  note: {note}" for note in plan.notes),
            *(f"  {line}" for line in passed_over_lines(plan.passed_over)),
        ], []
    from vlm_rewards.pipelines.label.labelling import label

    summary = label(options.input, labeler, output=options.output, **of_run)
    manifest, output = summary.manifest, location_of(options.output)
    lines = [
        f"labelled {manifest['rows']:,} frames for {len(goals)} goals, in {output / 'parts'}{skipped(summary)}",
        *told,
    ]
    if "model" not in given:
        lines.append(
            f"  model: {labeler.model}, since none was named: it knows every word of these goals, and of no other world"
        )
    lines += [f"  note: {note}" for note in manifest["notes"]]
    lines += [f"  {line}" for line in passed_over_lines(manifest["passed_over"])]
    if manifest["failures"]:
        failed = manifest["failed_frames"]
        lost = f"{failed} frames at least" if failed else "an unknown number of frames"
        lines.append(f"  left out: {reasons(manifest)} ({lost}): see {output / 'failures'}")
    if manifest["fingerprint"].get("precision") == "bfloat16":
        lines.append(
            "  computed in bfloat16: scores differ from float32 by some hundredths; --precision float32 is exact everywhere"
        )
    source = "CORPUS" if options.input is None else options.input
    of_labels = ["--input", source, "--labels", options.output, "--output"]
    following: list[list[object]] = [["hindsight", *of_labels, "relabelled/"]]
    if summary.has_ground_truth:
        following.insert(0, ["evaluate", *of_labels, "report/"])
    return lines, following


def _operating_point(given: Mapping[str, Any], calibration: "Calibration", goals: Sequence["Goal"]) -> dict[str, Any]:
    """Temperature, thresholds and fire rates, as calibrated."""
    for name in ("temperature", "threshold"):
        if name in given:
            raise ValueError(
                f"--{name} must be left out with --calibration, which holds it, got {given[name]:g}; leave one of the two out"
            )
    defaults = {field.name: field.default for field in dataclasses.fields(LabelerSettings)}
    chosen = {name: given.get(name, defaults[name]) for name in ("formula", "reward", "hysteresis")}
    return calibration.operating_point([goal.id for goal in goals], **chosen)
