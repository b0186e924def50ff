"""`vlm-rewards calibrate`: chooses the temperature and one threshold per goal from labels and truth."""

import argparse

from vlm_rewards.command_line.options import add_settings, given_settings, path_or_url, say_where_it_runs
from vlm_rewards.command_line.words import Said
from vlm_rewards.labelers.calibration.settings import CalibrationSettings
from vlm_rewards.pipelines.calibrate.settings import CalibrateRun


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `calibrate` to its parser."""
    parser.add_argument("--labels", type=path_or_url, required=True, metavar="DIR", help="labels to calibrate; dense")
    parser.add_argument("--output", type=path_or_url, required=True, metavar="FILE", help="file to write, in JSON")
    add_settings(parser, CalibrateRun, CalibrationSettings)
    say_where_it_runs(parser, resumes=False)


def run(options: argparse.Namespace) -> Said:
    """Runs `calibrate` as its options say."""
    from vlm_rewards.pipelines.calibrate.calibration import calibrate
    from vlm_rewards.pipelines.calibrate.summary import describe, next_label

    given = given_settings(options, CalibrateRun, CalibrationSettings)
    calibration = calibrate(options.labels, output=options.output, beam_options=options.beam_options, **given)
    following: list[object] = [
        *next_label(options.labels, options.output, given.get("corpus"), given.get("embeddings"))
    ]
    return [*describe(calibration), f"  wrote {options.output}"], [following]
