"""`vlm-rewards calibrate`: chooses the temperature and one threshold per goal from labels and truth."""

import argparse
from pathlib import Path

from vlm_rewards.commands.options import add_run_options
from vlm_rewards.commands.words import Said


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `calibrate` to its parser."""
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="labels to calibrate; dense")
    command.add_argument("--input", type=Path, metavar="PATH", help="the corpus that was labelled, with ground truth")
    command.add_argument(
        "--marks",
        type=Path,
        metavar="FILE",
        help="instead, a CSV of frames that a person marked: episode_id, frame_index, goal, achieved (0 or 1)",
    )
    command.add_argument(
        "--embeddings", type=Path, metavar="DIR", help="kept embeddings of the labels: to choose the temperature, too"
    )
    command.add_argument(
        "--objective",
        choices=("f1", "precision", "fpr", "quantile"),
        default="f1",
        help="f1: the best F1 of each goal; precision: the most recall with this precision, estimated; fpr: the most recall while "
        "false positives stay under a level, with stated confidence; quantile: a share of all frames fires, without any truth",
    )
    command.add_argument(
        "--precision", type=float, metavar="P", help="wanted share of right frames among those that fire"
    )
    command.add_argument(
        "--level", type=float, metavar="A", help="highest false-positive rate, over episodes, of --objective fpr"
    )
    command.add_argument("--confidence", type=float, metavar="C", help="with which the level holds (default: 0.95)")
    command.add_argument("--quantile", type=float, metavar="Q", help="share of frames that do not fire")
    command.add_argument(
        "--min-examples",
        type=int,
        default=10,
        metavar="N",
        help="f1, precision: goals that hold in fewer episodes than this take the threshold of their family",
    )
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="the file to write, in JSON")
    add_run_options(command)


def run(options: argparse.Namespace) -> Said:
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
