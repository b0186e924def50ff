"""The command line, `vlm-rewards`: labels recorded trajectories with rewards from vision-language models.

Every subcommand imports only what it runs. Errors in what the user gave end with one line and status 2.
"""

import argparse
import contextlib
import json
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.calibrations import Calibration
    from schemas.goals import Goal

FORMATS = ("parquet", "webdataset")
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name; by default the process's own.

    Returns:
        The exit status: 0 done, 2 something given cannot be used, 130 interrupted.
    """
    arguments, beam_options = _split_beam_options(list(sys.argv[1:] if argv is None else argv))
    options = build_parser().parse_args(arguments)
    options.beam_options = beam_options
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # errors reach the user once, below
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if not hasattr(options, "takes_beam_options") and beam_options:
        print(f"vlm-rewards {options.command}: error: this command takes no options after '--'", file=sys.stderr)
        return 2
    with _ending_at_once_on_signals(options.command):
        try:
            options.run(options)
        except BrokenPipeError:  # whoever read our lines has seen enough; the work is done
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if os.environ.get("VLM_REWARDS_TRACEBACK"):
                raise
            message = "\n".join([str(error), *getattr(error, "__notes__", [])])
            print(f"vlm-rewards {options.command}: error: {message}", file=sys.stderr)
            return 2
    return 0


@contextlib.contextmanager
def _ending_at_once_on_signals(command: str) -> Iterator[None]:
    """Ends the process on Ctrl-C and SIGTERM without waiting for units that are half done; worker processes end with it.

    Not by KeyboardInterrupt: a runner takes an exception that is raised in the middle of its work for an error of that work.
    """

    def stop(number: int, frame: object) -> None:
        message = f"vlm-rewards {command}: interrupted; what is finished is kept: run the same command again to go on\n"
        os.write(2, message.encode())
        os._exit(INTERRUPTED)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _split_beam_options(argv: list[str]) -> tuple[list[str], list[str]]:
    if "--" in argv:
        cut = argv.index("--")
        return argv[:cut], argv[cut + 1 :]
    return argv, []


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except where there is none, and keeps paragraphs."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.required:
            return action.help
        return super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="vlm-rewards",
        description="Labels recorded trajectories with rewards from vision-language models, for many language goals at once.",
        epilog="vlm-rewards COMMAND --help explains a command. Start with: vlm-rewards demo --output demo/",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, add, summary in (
        ("record", _add_record, "record BabyAI trajectories with ground truth for every goal"),
        ("label", _add_label, "label every frame of a corpus for many goals"),
        ("hindsight", _add_hindsight, "relabel trajectories with the goals they did achieve"),
        ("calibrate", _add_calibrate, "choose the temperature and a threshold a goal from labels and truth"),
        ("evaluate", _add_evaluate, "measure labels against ground truth and write a report"),
        ("diff", _add_diff, "compare two folders of labels: what changed, and what it does to quality"),
        ("train", _add_train, "train an agent offline on relabelled trajectories"),
        ("finetune", _add_finetune, "fine-tune an agent in a live environment that the same model rewards"),
        ("rollout", _add_rollout, "play an agent on held-out levels: success with intervals, and videos"),
        ("pretrain", _add_pretrain, "train a small reference model"),
        ("demo", _add_demo, "do all of it, once, on fresh trajectories"),
    ):
        command = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", formatter_class=_Help
        )
        add(command)
    return parser


def _output(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help=f"folder for {what}; empty, or of this run"
    )


def _run_options(command: argparse.ArgumentParser, workers: str = "one a core") -> None:
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


def _add_record(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--env",
        action="append",
        required=True,
        metavar="NAME",
        help="BabyAI level from Gymnasium's registry; repeat for several",
    )
    command.add_argument(
        "--policy",
        default="noisy-bot",
        metavar="POLICY",
        help="bot, noisy-bot, random, or shares of them such as bot:0.2,noisy-bot:0.5,random:0.3",
    )
    command.add_argument(
        "--noise", type=float, default=0.3, metavar="P", help="probability of a random action of noisy-bot, 0 to 1"
    )
    command.add_argument(
        "--episodes", type=int, default=400, metavar="N", help="episodes in all, shared evenly by the levels"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same bytes")
    command.add_argument(
        "--tile-size",
        type=int,
        default=8,
        metavar="PX",
        help="pixels a grid cell: 8 gives 56x56 frames, 32 gives 224x224",
    )
    command.add_argument(
        "--episodes-per-shard", type=int, default=20, metavar="N", help="episodes in one file of the corpus"
    )
    command.add_argument("--format", choices=FORMATS, default="parquet", help="container of the corpus")
    _output(command, "the corpus and its goals.jsonl")
    _run_options(command, workers="1; more are processes, which pay off from some thousand episodes on")
    command.set_defaults(run=_record)


def _add_label(command: argparse.ArgumentParser) -> None:
    from labelers.formulas import FORMULAS
    from labelers.windows import OVER, REDUCTIONS
    from schemas.rules import REWARDS

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
    _output(command, "the labels")
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
    _run_options(command)
    command.set_defaults(run=_label)


def _add_hindsight(command: argparse.ArgumentParser) -> None:
    command.add_argument("--input", type=Path, required=True, metavar="PATH", help="the corpus that was labelled")
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="its labels")
    _output(command, "the relabelled trajectories")
    command.add_argument("--format", choices=FORMATS, default="parquet", help="container of the output")
    command.add_argument(
        "--strategy",
        choices=("first", "final", "future"),
        default="future",
        help="which achievement of a goal ends the episode: the first, one that still holds at the end, or one drawn at random",
    )
    command.add_argument("--goals-per-episode", type=int, default=4, metavar="K", help="most goals an episode gets")
    command.add_argument(
        "--ratio",
        default="0.2:0.5:0.3",
        metavar="O:H:N",
        help="shares of original, hindsight and negative goals among them",
    )
    command.add_argument(
        "--balance",
        type=float,
        default=1.0,
        metavar="X",
        help="a goal is drawn with weight 1/(episodes that achieved it)^X; 0: no balance",
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws")
    command.add_argument(
        "--max-failure-share", type=float, default=0.01, metavar="SHARE", help="highest share of episodes that may fail"
    )
    _run_options(command)
    command.set_defaults(run=_hindsight)


def _add_calibrate(command: argparse.ArgumentParser) -> None:
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
    _run_options(command)
    command.set_defaults(run=_calibrate)


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--input", type=Path, required=True, metavar="PATH", help="the corpus, with ground truth")
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="its labels")
    _output(command, "report.html, quality.json and the pictures")
    _run_options(command)
    command.set_defaults(run=_evaluate)


def _add_diff(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", type=Path, metavar="A", help="a folder of finished labels")
    command.add_argument("b", type=Path, metavar="B", help="another, of the same episodes; sharded as it may be")
    command.add_argument(
        "--input", type=Path, metavar="PATH", help="the corpus, with ground truth: compares the quality of both, too"
    )
    command.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="X",
        help="a score has changed where it differs by more than X",
    )
    command.add_argument(
        "--output",
        type=Path,
        default=Path("diff"),
        metavar="DIR",
        help="folder for diff.json; empty, or of an earlier diff",
    )
    _run_options(command)
    command.set_defaults(run=_diff)


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("--input", type=Path, required=True, metavar="DIR", help="relabelled trajectories")
    _output(command, "the agent, its replay, checkpoints and metrics")
    command.add_argument(
        "--algorithm",
        default="iql",
        metavar="NAME",
        help="bc, filtered-bc, iql, cql, cal-ql; rlpd, sac-cal-ql for continuous actions",
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the algorithm, such as expectile=0.8; repeatable",
    )
    command.add_argument("--steps", type=int, default=20_000, metavar="N", help="gradient steps")
    command.add_argument("--batch-size", type=int, default=256, metavar="N", help="transitions a step")
    command.add_argument(
        "--mix", default="0.2:0.5:0.3", metavar="O:H:N", help="shares of original, hindsight and negative goals"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and draws")
    command.add_argument(
        "--embeddings", type=Path, metavar="DIR", help="the agent sees these kept embeddings of label instead of frames"
    )
    command.add_argument(
        "--hold-out",
        action="append",
        default=[],
        metavar="GOAL",
        help="a goal's id, or a kind of object such as 'green box', that is never trained on and evaluated apart; repeatable",
    )
    command.add_argument(
        "--num-actions",
        type=int,
        metavar="N",
        help="discrete actions of the environment (default: as many as were recorded)",
    )
    _evaluation_options(command, "evaluate the trained agent in this level; repeatable")
    command.add_argument("--checkpoint-every", type=int, default=2000, metavar="N", help="steps between checkpoints")
    _agent_run_options(command)
    command.set_defaults(run=_train)


def _add_finetune(command: argparse.ArgumentParser) -> None:
    command.add_argument("--agent", type=Path, required=True, metavar="DIR", help="agent of vlm-rewards train")
    _output(command, "the agent, its checkpoints and metrics")
    command.add_argument(
        "--steps", type=int, default=50_000, metavar="N", help="environment steps, of all environments together"
    )
    command.add_argument("--num-envs", type=int, default=8, metavar="N", help="environments")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of levels, actions and batches")
    command.add_argument("--batch-size", type=int, default=256, metavar="N", help="transitions an update")
    command.add_argument(
        "--updates-per-step",
        type=float,
        default=0.25,
        metavar="X",
        help="updates an environment step; below 1 is possible",
    )
    command.add_argument(
        "--warmup-steps", type=int, default=1000, metavar="N", help="environment steps before the first update"
    )
    command.add_argument(
        "--offline-share", type=float, default=0.5, metavar="SHARE", help="share of a batch that is of the corpus"
    )
    command.add_argument(
        "--hindsight-goals",
        type=int,
        default=4,
        metavar="K",
        help="other goals that an ended episode is stored under; 0: none",
    )
    command.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of the policy while it explores")
    command.add_argument(
        "--keep-going", action="store_true", help="a success does not end the episode (the paper ends it)"
    )
    command.add_argument("--asynchronous", action="store_true", help="score beside the environments; with --keep-going")
    _evaluation_options(command, "level to fine-tune and evaluate in; repeatable", required=True)
    command.add_argument(
        "--eval-every", type=int, default=10_000, metavar="N", help="environment steps between evaluations"
    )
    command.add_argument(
        "--checkpoint-every", type=int, default=10_000, metavar="N", help="environment steps between checkpoints"
    )
    _agent_run_options(command)
    command.set_defaults(run=_finetune)


def _add_rollout(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--agent", type=Path, required=True, metavar="DIR", help="agent of vlm-rewards train or finetune"
    )
    _output(command, "rollout.json, index.html and the videos")
    command.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="level; repeatable (default: the agent's own)"
    )
    command.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes of held-out levels")
    command.add_argument("--videos", type=int, default=8, metavar="N", help="of the first episodes")
    command.add_argument(
        "--temperature", type=float, default=0.3, metavar="T", help="of the policy; 0: always the most likely action"
    )
    command.add_argument(
        "--held-out-goals", action="store_true", help="ask only for goals that the agent never trained on"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the levels")
    command.set_defaults(run=_rollout)


def _evaluation_options(command: argparse.ArgumentParser, what: str, *, required: bool = False) -> None:
    command.add_argument(
        "--env", action="append", default=None if required else [], required=required, metavar="NAME", help=what
    )
    command.add_argument("--eval-episodes", type=int, default=100, metavar="N", help="episodes of an evaluation")
    command.add_argument(
        "--eval-temperature",
        type=float,
        default=0.3,
        metavar="T",
        help="of the policy there; 0: always the most likely action",
    )


def _agent_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=int, default=1, metavar="N", help="threads of torch; part of the run")
    command.add_argument("--wandb-project", metavar="NAME", help="log to Weights & Biases as well")
    command.epilog = "Run the same command again after an interruption: it goes on from its last checkpoint."


def _add_pretrain(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", required=True, choices=("s", "m", "l"), help="size of the model")
    _output(command, "the model, in the format of transformers' CLIPModel")
    command.add_argument("--steps", type=int, metavar="N", help="training steps (default: the size's own, as shipped)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and data")
    command.set_defaults(run=_pretrain)


def _add_demo(command: argparse.ArgumentParser) -> None:
    _output(command, "the corpus, labels, relabelled trajectories and report")
    command.add_argument("--episodes", type=int, default=320, metavar="N", help="episodes to record")
    command.add_argument("--model", default="reference-l", metavar="MODEL", help="see vlm-rewards label --help")
    command.set_defaults(run=_demo)


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def _next(options: argparse.Namespace, *command: object) -> None:
    if not getattr(options, "in_demo", False):  # the demo's own next step follows
        _say(f"  next: {shlex.join(['vlm-rewards', *(str(word) for word in command)])}")


def _record(options: argparse.Namespace) -> None:
    from pipelines.record import RecordSettings, record

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
    _say(
        f"recorded {manifest['episodes']:,} episodes, {manifest['rows']:,} frames, in {options.output / 'parts'}"
        f"{_skipped(summary)}",
        f"  goals that the ground truth covers: {options.output / 'goals.jsonl'}",
    )
    _next(options, "label", "--input", options.output, "--goals", options.output / "goals.jsonl", "--output", "labels/")


def _skipped(summary: object) -> str:
    num_units, num_skipped = summary.num_units, summary.num_skipped  # type: ignore[attr-defined]
    if num_skipped == num_units:
        return f" (all {num_units} units were done before: nothing to do)"
    return f" ({num_skipped} of {num_units} units were done before)" if num_skipped else ""


def _label(options: argparse.Namespace) -> None:
    from labelers.labeler import LabelerSettings
    from labelers.negatives import NegativeSettings
    from labelers.windows import WindowSettings
    from pipelines.corpora import corpus_features, plan_units
    from pipelines.driver import available_cores
    from pipelines.encode import shared_labeler
    from pipelines.label import estimate, label, plan_label
    from schemas.calibrations import read_calibration
    from schemas.goals import read_goals, select_goals

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
        _say(
            f"would label {guess.units} units with {frames} frames ({guess.num_bytes / 1e6:,.1f} MB) for {len(goals)} goals; "
            f"{guess.done_units} units are done before",
            f"  measured: {guess.frames_per_s:,.0f} frames/s and worker; time: {seconds}; nothing was written",
        )
        return None
    summary = label(
        **common,
        max_failure_share=options.max_failure_share,
        beam_options=options.beam_options,
        workers=options.workers,
    )
    manifest = summary.manifest
    _say(
        f"labelled {manifest['rows']:,} frames for {len(goals)} goals, in {options.output / 'parts'}{_skipped(summary)}"
    )
    _say_failures(manifest, options.output)
    if options.input is None:
        return _next(options, "hindsight", "--input", "CORPUS", "--labels", options.output, "--output", "relabelled/")
    if corpus_features(plan_units(options.input)).has_achieved_goals:
        _next(options, "evaluate", "--input", options.input, "--labels", options.output, "--output", "report/")
    return _next(options, "hindsight", "--input", options.input, "--labels", options.output, "--output", "relabelled/")


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


def _say_failures(manifest: dict, output: Path) -> None:
    if manifest["failures"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["failures"].items())
        lost = (
            f"{manifest['failed_frames']} frames at least"
            if manifest["failed_frames"]
            else "an unknown number of frames"
        )
        _say(f"  left out: {reasons} ({lost}): see {output / 'failures'}")


def _hindsight(options: argparse.Namespace) -> None:
    from labelers.hindsight import HindsightSettings
    from pipelines.corpora import corpus_features, plan_units
    from pipelines.hindsight import hindsight

    settings = HindsightSettings(
        strategy=options.strategy,
        goals_per_episode=options.goals_per_episode,
        ratio=_three_shares("--ratio", options.ratio),
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
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in summary.usage["kinds"].items())
    _say(
        f"relabelled {summary.run.manifest['episodes']:,} episodes with {kinds} goals, in {options.output / 'parts'}"
        f"{_skipped(summary.run)}",
        f"  how often each goal was achieved and used: {options.output / 'goal_statistics.json'}, "
        f"{options.output / 'goal_usage.json'}",
    )
    if summary.run.manifest["failures"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.run.manifest["failures"].items())
        _say(f"  left out: {reasons}: see {options.output / 'failures'}")
    if corpus_features(plan_units(options.input)).has_achieved_goals:
        _next(options, "evaluate", "--input", options.input, "--labels", options.labels, "--output", "report/")
    _say(f"  read it: from offline_rl.transitions import read_relabelled; read_relabelled({str(options.output)!r})")


def _calibrate(options: argparse.Namespace) -> None:
    from labelers.calibration import CalibrationSettings
    from pipelines.calibrate import calibrate
    from pipelines.calibration_summary import describe, next_label

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
    _say(*describe(calibration), f"  wrote {options.output}")
    _next(options, *next_label(options.labels, options.output, options.input, options.embeddings))


def _evaluate(options: argparse.Namespace) -> None:
    from pipelines.evaluate import evaluate

    quality = evaluate(options.input, options.labels, options.output, beam_options=options.beam_options)
    _say(*_figures(quality), f"  report: {options.output / 'report.html'} (open it in a browser)")
    _next(options, "hindsight", "--input", options.input, "--labels", options.labels, "--output", "relabelled/")


def _average_title(quality: dict) -> str:
    return "  mean average precision" + (
        " (a lower bound: scores over the threshold only):" if quality["sparse"] else ":"
    )


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


def _diff(options: argparse.Namespace) -> None:
    from pipelines.diff import DIFF_NAME, diff
    from pipelines.diff_summary import summary_lines

    result = diff(
        options.a,
        options.b,
        options.output,
        corpus=options.input,
        tolerance=options.tolerance,
        beam_options=options.beam_options,
        workers=options.workers,
    )
    _say(*summary_lines(result), f"  all of it: {options.output / DIFF_NAME}")


def _train(options: argparse.Namespace) -> None:
    from offline_rl.train import TrainSettings, resolve_held_out, train

    settings = TrainSettings(
        algorithm=options.algorithm,
        algorithm_settings=_assignments(options.set),
        steps=options.steps,
        batch_size=options.batch_size,
        mix=_three_shares("--mix", options.mix),
        seed=options.seed,
        exclude_goals=resolve_held_out(options.input, options.hold_out),
        num_actions=options.num_actions,
        threads=options.threads,
        envs=tuple(options.env),
        eval_episodes=options.eval_episodes,
        eval_temperature=options.eval_temperature or None,
        checkpoint_every=options.checkpoint_every,
    )
    train(options.input, options.output, settings, embeddings=options.embeddings, wandb_project=options.wandb_project)
    _say(
        f"trained {options.algorithm} for {options.steps:,} steps: {options.output}", *_last_evaluation(options.output)
    )
    env = options.env[0] if options.env else "BabyAI-GoToLocal-v0"
    _next(options, "finetune", "--agent", options.output, "--env", env, "--output", "agent-online/")


def _finetune(options: argparse.Namespace) -> None:
    from offline_rl.finetune import FinetuneSettings, finetune

    settings = FinetuneSettings(
        envs=tuple(options.env),
        steps=options.steps,
        num_envs=options.num_envs,
        seed=options.seed,
        batch_size=options.batch_size,
        offline_share=options.offline_share,
        warmup_steps=options.warmup_steps,
        updates_per_step=options.updates_per_step,
        hindsight_goals=options.hindsight_goals,
        temperature=options.temperature,
        end_at_success=not options.keep_going,
        asynchronous=options.asynchronous,
        threads=options.threads,
        eval_episodes=options.eval_episodes,
        eval_every=options.eval_every,
        eval_temperature=options.eval_temperature or None,
        checkpoint_every=options.checkpoint_every,
    )
    finetune(options.agent, options.output, settings, wandb_project=options.wandb_project)
    _say(f"fine-tuned for {options.steps:,} environment steps: {options.output}", *_last_evaluation(options.output))
    _next(options, "rollout", "--agent", options.output, "--output", "rollout/")


def _rollout(options: argparse.Namespace) -> None:
    from offline_rl.rollout import RolloutSettings, rollout

    settings = RolloutSettings(
        envs=tuple(options.env),
        episodes=options.episodes,
        videos=options.videos,
        temperature=options.temperature or None,
        held_out_goals=options.held_out_goals,
        seed=options.seed,
    )
    evaluation = rollout(options.agent, options.output, settings)
    success, rewarded = evaluation.success, evaluation.vlm_success
    _say(
        f"played {len(evaluation.episodes):,} episodes of held-out levels",
        f"  achieved in truth:     {success.mean:.2f} ({success.low:.2f} to {success.high:.2f})",
        f"  rewarded by the model: {rewarded.mean:.2f} ({rewarded.low:.2f} to {rewarded.high:.2f})",
        f"  videos: {options.output / 'index.html'} (open it in a browser)",
    )


def _last_evaluation(folder: Path) -> list[str]:
    from offline_rl.runs import read_metrics

    lines = []
    for record in [record for record in read_metrics(folder) if record["kind"].startswith("evaluation")][-2:]:
        if record.get("success") is not None:
            lines.append(
                f"  {record['kind']} ({record['when']}): success {record['success']:.2f} ({record['success_low']:.2f} to "
                f"{record['success_high']:.2f}) in {record['episodes']} held-out episodes"
            )
    return lines


def _assignments(texts: Sequence[str]) -> dict[str, object]:
    """NAME=VALUE options as numbers, booleans or texts by name."""
    values: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be NAME=VALUE, got {text!r}; write, for example, expectile=0.8")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def _three_shares(option: str, text: str) -> tuple[float, float, float]:
    try:
        original, achieved, negative = (float(share) for share in text.split(":"))
    except ValueError as error:
        raise ValueError(f"{option} must be three numbers such as 0.2:0.5:0.3, got {text!r}; mend it") from error
    return original, achieved, negative


def _pretrain(options: argparse.Namespace) -> None:
    import dataclasses

    from labelers.pretrain import SIZES, pretrain

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
    _say(f"trained {card['name']} in {card['seconds']:,} s: {options.output}")
    label = ["label", "--model", options.output, "--input", "corpus/", "--goals", "corpus/goals.jsonl"]
    _next(options, *label, "--output", "labels/")


def _demo(options: argparse.Namespace) -> None:
    corpus, labels = options.output / "corpus", options.output / "labels"
    entries = {path.name for path in options.output.iterdir()} if options.output.is_dir() else set()
    strange = entries - {"corpus", "labels", "relabelled", "report"}
    if strange or options.output.is_file():
        found = f"{options.output} with {min(strange)!r}" if strange else f"the file {options.output}"
        raise ValueError(
            f"the output must be an empty folder or one of an earlier demo, got {found}; give another folder"
        )
    levels = ("BabyAI-GoToLocal-v0", "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0")
    record = ["record", "--policy", "bot:0.2,noisy-bot:0.5,random:0.3", "--episodes", str(options.episodes)]
    for level in levels:
        record += ["--env", level]
    steps = (
        [*record, "--output", corpus],
        ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", "--model", options.model, "--output", labels],
        ["hindsight", "--input", corpus, "--labels", labels, "--output", options.output / "relabelled"],
        ["evaluate", "--input", corpus, "--labels", labels, "--output", options.output / "report"],
    )
    for step in steps:
        arguments = [str(argument) for argument in step]
        _say("", f"$ vlm-rewards {shlex.join(arguments)}")
        parsed = build_parser().parse_args(arguments)
        parsed.beam_options, parsed.in_demo = [], True
        parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
