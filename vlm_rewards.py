"""The command line, `vlm-rewards`: labels recorded trajectories with rewards from vision-language models.

Every subcommand imports only what it runs. Errors in what the user gave end with one line and status 2.
"""

import argparse
import contextlib
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

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
        ("evaluate", _add_evaluate, "measure labels against ground truth and write a report"),
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
        help="softmax (probability of the goal among its negatives) or cosine",
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
        help="a goal is achieved where its score is over this (default: 0.5 for softmax)",
    )
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


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--input", type=Path, required=True, metavar="PATH", help="the corpus, with ground truth")
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="its labels")
    _output(command, "report.html, quality.json and the pictures")
    _run_options(command)
    command.set_defaults(run=_evaluate)


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
    from pipelines.corpora import corpus_features, plan_units
    from pipelines.driver import available_cores
    from pipelines.label import estimate, label, plan_label
    from schemas.goals import read_goals, select_goals

    goals = read_goals(options.goals)
    if options.goal:
        goals = select_goals(goals, options.goal)
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
        temperature=options.temperature,
        threshold=options.threshold,
        precision=options.precision,
        batch_size=options.batch_size,
        device=options.device,
    )
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

    try:
        original, achieved, negative = (float(share) for share in options.ratio.split(":"))
    except ValueError as error:
        raise ValueError(
            f"--ratio must be three numbers such as 0.2:0.5:0.3, got {options.ratio!r}; mend it"
        ) from error
    settings = HindsightSettings(
        strategy=options.strategy,
        goals_per_episode=options.goals_per_episode,
        ratio=(original, achieved, negative),
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
    lines = [
        f"evaluated {quality['counts']['frames']:,} frames of {quality['counts']['episodes']:,} episodes",
        "  mean average precision:",
    ]
    for family, figures in [*quality["families"].items(), ("all goals", quality["overall"])]:
        score = figures["mean_average_precision"]
        shown = score if isinstance(score, str) else f"{score:.3f}"
        lines.append(
            f"    {family:<12} {shown}  ({figures['num_goals_with_positives']} of {figures['num_goals']} goals occur)"
        )
    return lines


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
