"""The command line, `vlm-rewards`: labels recorded trajectories with rewards from vision-language models.

What the subcommands are is in `vlm_rewards.commands.data`, `vlm_rewards.commands.options` and `vlm_rewards.commands.agents`,
which import only what they run, when they run it. Errors in what the user gave end with one line and status 2.
"""

import argparse
import contextlib
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from vlm_rewards.commands import agents, data
from vlm_rewards.commands import options as commands_options

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
            lines, following = options.run(options)
            _say(*lines, *(f"  next: {_words(command)}" for command in following))
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
        if action.required or action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


class _Command(NamedTuple):
    name: str
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], data.Said]


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="vlm-rewards",
        description="Labels recorded trajectories with rewards from vision-language models, for many language goals at once.",
        epilog="vlm-rewards COMMAND --help explains a command. Start with: vlm-rewards demo --output demo/",
    )
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        summary = command.summary
        description = summary[0].upper() + summary[1:] + "."
        added = parsers.add_parser(command.name, help=summary, description=description, formatter_class=_Help)
        command.add_options(added)
        added.set_defaults(run=command.run)
    return parser


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def _words(command: Sequence[object]) -> str:
    return shlex.join(["vlm-rewards", *(str(word) for word in command)])


def _add_demo(command: argparse.ArgumentParser) -> None:
    commands_options.add_output(command, "all that it makes")
    command.add_argument("--episodes", type=int, default=320, metavar="N", help="episodes to record")
    command.add_argument("--model", default="reference-l", metavar="MODEL", help="see vlm-rewards label --help")
    command.add_argument("--steps", type=int, default=1500, metavar="N", help="gradient steps of train")
    command.add_argument("--online-steps", type=int, default=10_000, metavar="N", help="environment steps of finetune")
    command.add_argument("--eval-episodes", type=int, default=100, metavar="N", help="episodes that judge the agent")


def _demo(options: argparse.Namespace) -> data.Said:
    folders = ("corpus", "labels", "relabelled", "report", "agent", "agent-online", "rollout")
    entries = {path.name for path in options.output.iterdir()} if options.output.is_dir() else set()
    strange = entries - set(folders)
    if strange or options.output.is_file():
        found = f"{options.output} with {min(strange)!r}" if strange else f"the file {options.output}"
        raise ValueError(
            f"the output must be an empty folder or one of an earlier demo, got {found}; give another folder"
        )
    corpus, labels, relabelled, report, agent, online, rollout = (options.output / name for name in folders)
    levels = ("BabyAI-GoToLocal-v0", "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0")
    policies = "bot:0.2,noisy-bot:0.5,random:0.3"
    named = [word for level in levels for word in ("--env", level)]
    labelled = ["--input", corpus, "--labels", labels]
    # Live frames come eight at a time and fill up a batch of the labels' size: a small one is scored in less time.
    model = ["--model", options.model, "--batch-size", 16]
    offline = ["--num-actions", 7, "--steps", options.steps, "--checkpoint-every", 500]
    warmup = min(1000, options.online_steps // 2)
    live = ["--env", levels[0], "--steps", options.online_steps, "--warmup-steps", warmup, "--checkpoint-every", 2000]
    live += ["--eval-every", options.online_steps, "--eval-episodes", options.eval_episodes]
    play = ["--episodes", options.eval_episodes]
    steps: tuple[list[object], ...] = (
        ["record", "--policy", policies, "--episodes", options.episodes, *named, "--output", corpus],
        ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", *model, "--output", labels],
        ["hindsight", *labelled, "--output", relabelled],
        ["evaluate", *labelled, "--output", report],
        ["train", "--input", relabelled, *offline, "--output", agent],
        ["finetune", "--agent", agent, *live, "--output", online],
        ["rollout", "--agent", online, *play, "--output", rollout],
    )
    for step in steps:
        _say("", f"$ {_words(step)}")
        parsed = build_parser().parse_args([str(word) for word in step])
        parsed.beam_options = []
        lines, _ = parsed.run(parsed)
        _say(*lines)
    return [
        "",
        f"the agent in {levels[0]}, after minutes of training, judged by ground truth, which it never saw:",
        *agents.describe_fine_tuning(online),
        "open in a browser:",
        f"  {report / 'report.html'}: what the labels are worth",
        f"  {rollout / 'index.html'}: what the agent does",
    ], []


COMMANDS = (
    _Command(
        "record",
        "record BabyAI trajectories with ground truth for every goal",
        commands_options.add_record,
        data.run_record,
    ),
    _Command("label", "label every frame of a corpus for many goals", commands_options.add_label, data.run_label),
    _Command(
        "hindsight",
        "relabel trajectories with the goals they did achieve",
        commands_options.add_hindsight,
        data.run_hindsight,
    ),
    _Command(
        "calibrate",
        "choose the temperature and a threshold a goal from labels and truth",
        commands_options.add_calibrate,
        data.run_calibrate,
    ),
    _Command(
        "evaluate",
        "measure labels against ground truth and write a report",
        commands_options.add_evaluate,
        data.run_evaluate,
    ),
    _Command(
        "diff",
        "compare two folders of labels: what changed, and what it does to quality",
        commands_options.add_diff,
        data.run_diff,
    ),
    _Command("train", "train an agent offline on relabelled trajectories", agents.add_train, agents.run_train),
    _Command(
        "finetune",
        "fine-tune an agent in a live environment that the same model rewards",
        agents.add_finetune,
        agents.run_finetune,
    ),
    _Command(
        "rollout",
        "play an agent on held-out levels: success with intervals, and videos",
        agents.add_rollout,
        agents.run_rollout,
    ),
    _Command("pretrain", "train a small reference model", commands_options.add_pretrain, data.run_pretrain),
    _Command("demo", "do all of it, once, on fresh trajectories", _add_demo, _demo),
)


if __name__ == "__main__":
    sys.exit(main())
