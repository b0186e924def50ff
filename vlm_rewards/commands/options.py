"""The options of the commands that make and judge data: record, label, hindsight, calibrate, evaluate, diff, pretrain."""

import argparse
from pathlib import Path

FORMATS = ("parquet", "webdataset")


def add_output(command: argparse.ArgumentParser, what: str) -> None:
    """Adds --output, the folder for `what`."""
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


def add_record(command: argparse.ArgumentParser) -> None:
    """Gives the options of `record` to its parser."""
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
    add_output(command, "the corpus and its goals.jsonl")
    _run_options(command, workers="1; more are processes, which pay off from some thousand episodes on")


def add_label(command: argparse.ArgumentParser) -> None:
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
    _run_options(command)


def add_hindsight(command: argparse.ArgumentParser) -> None:
    """Gives the options of `hindsight` to its parser."""
    command.add_argument("--input", type=Path, required=True, metavar="PATH", help="the corpus that was labelled")
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="its labels")
    add_output(command, "the relabelled trajectories")
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


def add_calibrate(command: argparse.ArgumentParser) -> None:
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
    _run_options(command)


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """Gives the options of `evaluate` to its parser."""
    command.add_argument("--input", type=Path, required=True, metavar="PATH", help="the corpus, with ground truth")
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="its labels")
    add_output(command, "report.html, quality.json and the pictures")
    _run_options(command)


def add_diff(command: argparse.ArgumentParser) -> None:
    """Gives the options of `diff` to its parser."""
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


def add_pretrain(command: argparse.ArgumentParser) -> None:
    """Gives the options of `pretrain` to its parser."""
    command.add_argument("--size", required=True, choices=("s", "m", "l"), help="size of the model")
    add_output(command, "the model, in the format of transformers' CLIPModel")
    command.add_argument("--steps", type=int, metavar="N", help="training steps (default: the size's own, as shipped)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and data")
