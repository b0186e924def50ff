"""Options that several commands share."""

import argparse
from pathlib import Path

FORMATS = ("parquet", "webdataset")


def add_output(command: argparse.ArgumentParser, what: str) -> None:
    """Adds --output, the folder for `what`."""
    command.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help=f"folder for {what}; empty, or of this run"
    )


def add_run_options(command: argparse.ArgumentParser, workers: str = "one a core") -> None:
    """Adds --workers, and says what options after `--` are."""
    command.set_defaults(takes_beam_options=True)
    command.epilog = (
        "Options after a bare -- go to Apache Beam and choose where this runs, for example:\n"
        "  -- --runner=FnApiRunner --direct_running_mode=multi_processing --direct_num_workers=8\n"
        "  -- --runner=apache_beam.runners.dask.dask_runner.DaskRunner --dask_client_address=tcp://HOST:8786\n"
        "Run the same command again after an interruption: it does what is missing, and nothing else."
    )
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help=f"workers on this machine (default: {workers})",
    )


def add_camera_option(command: argparse.ArgumentParser) -> None:
    """Adds --camera, of environments."""
    command.add_argument(
        "--camera", metavar="NAME", help="whose frames the environments show (default: the labels', which it must be)"
    )


def add_frames_option(command: argparse.ArgumentParser) -> None:
    """Adds --frames."""
    command.add_argument(
        "--frames",
        metavar="WHERE",
        help="where environments other than BabyAI's have their frames: observation, render, or a key of a Dict observation "
        "(default: as the agent's own; else observation)",
    )


def add_evaluation_options(command: argparse.ArgumentParser, what: str, *, required: bool = False) -> None:
    """Adds --env and how an agent is evaluated there."""
    command.add_argument(
        "--env", action="append", default=None if required else [], required=required, metavar="NAME", help=what
    )
    command.add_argument("--eval-episodes", type=int, default=100, metavar="N", help="episodes of an evaluation")
    command.add_argument(
        "--eval-temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="of the policy there; 0: always the most likely action",
    )


def add_agent_run_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of every training run."""
    command.add_argument("--threads", type=int, default=1, metavar="N", help="threads of torch; part of the run")
    command.add_argument(
        "--device", default="cpu", metavar="NAME", help="where the agent learns: cpu, cuda or cuda:N; part of the run"
    )
    command.add_argument("--wandb-project", metavar="NAME", help="log to Weights & Biases as well")
    command.epilog = "Run the same command again after an interruption: it goes on from its last checkpoint."
