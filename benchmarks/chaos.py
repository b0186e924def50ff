"""Kills commands with SIGKILL at random moments, starts them again, and compares every output file with an unbroken run.

python benchmarks/chaos.py [--kills N] [--minutes M] [--seed S] [--stages NAME ...] [--output FOLDER]

    unbroken run of each stage ──► reference/
    for each stage, until it was killed its share of N times:
        remove its outputs
        start ── SIGKILL of the process group after a random time ── check: what has a final name is whole ── start ── ... ── done
        compare every file with reference/

The random moments are uniform over the length of the stage's last run that ended by itself, and a tenth more. A stage that ends
before its moment is compared and begins anew. The libraries are imported once; each start is a fork of that process, in a
process group of its own, so that what a command starts dies with it.

What is compared in part is what clocks measured, see RULES of `output_comparison`, and what begins anew with each start of a
process: the cache of frames of `label`, whose counts are `cached_frames` and `encoded_frames` of a marker; that of live scores,
whose counts are the records of kind "scoring" of metrics.jsonl and `live.judge` of a checkpoint, whose .sha256 must be its own;
and the TensorBoard files, one per start, which repeat metrics.jsonl.

Not checked for being whole after a kill: metrics.jsonl and TensorBoard files, which grow in place (`read_metrics` leaves out a
line that was cut short), and the counters in progress/, which nothing reads afterwards. Checkpoints and buffers that later ones
replace are not in the unbroken run: they must be as their .sha256 says, or load. While an export in place is not finished, its
journal keeps every reader away from the corpus, which is what is checked then; without a journal all files are the old ones, or
all the new ones.

Exit status: 0 no difference, 1 a file differs, has a final name and is not whole, or a stage fails.
"""

import argparse
import dataclasses
import filecmp
import hashlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import output_comparison
from output_comparison import Rule, compare_files, compare_folders, read_checkpoint, read_json, read_json_lines
from report_result import RESULTS, machine, write_result

from vlm_rewards.schemas.folders import LOCK, is_leftover
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.formats.exports.publishing import JOURNAL, JOURNAL_FOLDER

IMPORTED = (
    "apache_beam",
    "minigrid",
    "torch",
    "vlm_rewards.cli",
    "vlm_rewards.labelers.encoders.dual_encoder",
    "vlm_rewards.offline_rl.training.finetune",
    "vlm_rewards.offline_rl.training.train",
    "vlm_rewards.pipelines.calibrate.calibration",
    "vlm_rewards.pipelines.export.exporting",
    "vlm_rewards.pipelines.hindsight.relabelling",
    "vlm_rewards.pipelines.label.labelling",
    "vlm_rewards.pipelines.record.recording",
)

DIGEST = ".sha256"
GROWING = ("metrics.jsonl", "events.out.tfevents*")
START_LIMIT_S = 600.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """A command that is killed.

    Args:
        name: Name in the results.
        words: The command line, in a folder that holds the outputs of the stages before.
        outputs: What it writes.
        copied: Folder that `outputs[0]` is a fresh copy of before each first start; for exports in place.
    """

    name: str
    words: str
    outputs: tuple[str, ...]
    copied: str | None = None


STAGES = (
    Stage(
        "record",
        "record --env BabyAI-GoToObj-v0 --policy bot:0.5,random:0.5 --max-steps 8 --episodes 8 --episodes-per-shard 1 "
        "--frame-size 56 --workers 1 --output corpus",
        ("corpus",),
    ),
    Stage(
        "label",
        "label --input corpus --goals corpus/goals.jsonl --model reference-s --precision float32 --engine torch --batch-size 16 "
        "--workers 1 --decoders 0 --embeddings embeddings --output labels",
        ("labels", "embeddings"),
    ),
    Stage("hindsight", "hindsight --input corpus --labels labels --workers 1 --output relabelled", ("relabelled",)),
    Stage(
        "calibrate",
        "calibrate --labels labels --input corpus --embeddings embeddings --workers 1 --output calibration.json",
        ("calibration.json",),
    ),
    Stage("export", "export --input corpus --labels labels --to parquet --output exported", ("exported",)),
    Stage(
        "export in place",
        "export --input mine --labels labels --to parquet --in-place",
        ("mine",),
        copied="corpus/parts",
    ),
    Stage(
        "train",
        "train --input relabelled --algorithm iql --steps 20 --checkpoint-every 4 --log-every 5 --batch-size 16 "
        "--num-actions 7 --output agent",
        ("agent",),
    ),
    Stage(
        "finetune",
        "finetune --agent agent --env BabyAI-GoToObj-v0 --num-envs 4 --steps 80 --warmup-steps 20 --checkpoint-every 20 "
        "--log-every 20 --batch-size 16 --updates-per-step 0.25 --eval-episodes 0 --output online",
        ("online",),
    ),
)


@dataclasses.dataclass
class Tally:
    """What happened to a stage.

    Args:
        kills: Kills while it ran.
        starts: Starts, the unbroken run not counted.
        finished: Runs that ended after their kills, each compared with the unbroken run.
        resumed: Finished runs that had been killed at least once.
        compared: Files compared at the ends of runs.
        checked: Files with a final name that were checked after kills.
        problems: Differences and files that were not whole.
    """

    kills: int = 0
    starts: int = 0
    finished: int = 0
    resumed: int = 0
    compared: int = 0
    checked: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def _metrics(path: Path) -> list[dict]:
    return [record for record in read_json_lines(path) if record["kind"] != "scoring"]


_JUDGE = frozenset({"live.judge.counts", "live.judge.seconds", "live.judge.seconds_waited"})
_METRICS = next(rule for rule in output_comparison.RULES if rule.glob == "*/metrics.jsonl")
_MARKER = frozenset({"seconds", "counts.cached_frames", "counts.encoded_frames"})
RULES = (
    Rule(glob="*/markers/*.json", read=read_json, volatile=_MARKER),
    Rule(glob="*/metrics.jsonl", read=_metrics, volatile=_METRICS.volatile),
    Rule(glob="*/checkpoints/*.pt", read=read_checkpoint, volatile=_JUDGE),
)
"""What is compared in part, before the rules of `output_comparison`."""


class StageError(Exception):
    """A command ended by itself with another status than 0."""


def start(words: Sequence[str], folder: Path, log: Path, kill_after: float | None) -> float | None:
    """Runs a command in a fork, in a process group of its own.

    Args:
        words: The command line without the program's name.
        folder: Folder that it runs in.
        log: File for what it prints.
        kill_after: Seconds after which its whole group gets SIGKILL; None to let it end.

    Returns:
        Seconds that it took to end by itself; None if it was killed.
    """
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(words, folder, log)
    limit = START_LIMIT_S if kill_after is None else kill_after
    while time.monotonic() - started < limit:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            _kill_group(pid)
            if status != 0:
                text = log.read_text(errors="replace")[-3000:]
                raise StageError(f"{' '.join(words)} must end with status 0, got {status}: {text}")
            return time.monotonic() - started
        time.sleep(0.002)
    _kill_group(pid)
    _, status = os.waitpid(pid, 0)
    if kill_after is None:
        raise StageError(f"{' '.join(words)} must end within {START_LIMIT_S:.0f} s. See {log}")
    return None if os.WIFSIGNALED(status) else time.monotonic() - started


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _become(words: Sequence[str], folder: Path, log: Path) -> None:
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(out, number)
        from vlm_rewards.cli import main

        sys.argv = ["vlm-rewards", *words]
        status = main(list(words))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Chaos:
    """The folders of a run and what is killed in them.

    Args:
        folder: An empty folder.
        seed: Seed of the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.work, self.reference, self.log = folder / "work", folder / "reference", folder / "log"
        for made in (self.work, self.reference):
            made.mkdir()
        self._random = random.Random(seed)
        self._seconds: dict[str, float] = {}

    def run_unbroken(self, stage: Stage) -> None:
        """Runs a stage to its end and keeps its outputs as the reference."""
        self._clear(stage)
        seconds = start(stage.words.split(), self.work, self.log, None)
        assert seconds is not None
        self._seconds[stage.name] = seconds
        for name in stage.outputs:
            _copy(self.work / name, self.reference / stage.name / name)

    def run_killed(self, stage: Stage, tally: Tally, kills: int, stop_at: float) -> None:
        """Runs a stage once from its beginning to its end, with kills at random moments on the way.

        Args:
            stage: The stage.
            tally: Counts, added to.
            kills: Kills after which it is left to end.
            stop_at: Time, by the monotonic clock, after which it is left to end.
        """
        self._clear(stage)
        before = tally.kills
        while True:
            may_kill = tally.kills < kills and time.monotonic() < stop_at
            moment = self._random.uniform(0, 1.1 * self._seconds[stage.name]) if may_kill else None
            tally.starts += 1
            seconds = start(stage.words.split(), self.work, self.log, moment)
            if seconds is not None:
                break
            tally.kills += 1
            self.check_names(stage, tally)
        if tally.kills == before:
            self._seconds[stage.name] = seconds
        else:
            tally.resumed += 1
        tally.finished += 1
        for name in stage.outputs:
            self._compare(stage, name, tally)

    def _clear(self, stage: Stage) -> None:
        for name in stage.outputs:
            path = self.work / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
        if stage.copied is not None:
            _copy(self.work / stage.copied, self.work / stage.outputs[0])

    def _compare(self, stage: Stage, name: str, tally: Tally) -> None:
        old, new = self.reference / stage.name / name, self.work / name
        if old.is_file():
            found = [compare_files(name, old, new)]
        else:
            found = [one for one in compare_folders(old.parent, new.parent) if one.path.startswith(f"{name}/")]
        for one in found:
            if "events.out.tfevents" in one.path:
                continue
            tally.compared += 1
            if one.differs and one.path.endswith(DIGEST):
                one = dataclasses.replace(one, differs=bool(_digest_problem(self.work / one.path)))
            if one.differs:
                tally.problems.append(f"{stage.name}, kill {tally.kills}: {one.path}: {one.detail}")

    def check_names(self, stage: Stage, tally: Tally) -> None:
        """Checks after a kill that every file with a final name is the one of the unbroken run."""
        for name in stage.outputs:
            if (self.work / name / JOURNAL_FOLDER / JOURNAL).exists():
                tally.checked += 1
                try:
                    open_corpus(self.work / name)
                except ValueError as error:
                    if "was interrupted" in str(error):
                        continue
                tally.problems.append(f"{stage.name}, kill {tally.kills}: a corpus with a journal can be opened")
                continue
            untouched: list[str] = []
            new = 0
            for path in _files(self.work / name):
                below = path.relative_to(self.work)
                if any(is_leftover(Path(part)) or part == JOURNAL_FOLDER for part in below.parts) or path.name.endswith(
                    LOCK
                ):
                    continue
                if any(path.match(pattern) for pattern in GROWING) or path.parent.name == "progress":
                    continue
                tally.checked += 1
                problem = self._problem(self.reference / stage.name / below, path, below)
                original = (
                    None if stage.copied is None else self.work / stage.copied / path.relative_to(self.work / name)
                )
                if (
                    problem
                    and original is not None
                    and original.is_file()
                    and filecmp.cmp(original, path, shallow=False)
                ):
                    untouched.append(str(below))
                elif problem:
                    tally.problems.append(f"{stage.name}, after kill {tally.kills}: {below}: {problem}")
                else:
                    new += 1
            if untouched and new:
                tally.problems.append(
                    f"{stage.name}, after kill {tally.kills}: {untouched} are old, {new} files are new"
                )

    def _problem(self, reference: Path, path: Path, below: Path) -> str:
        if path.name.endswith(DIGEST):
            return _digest_problem(path)
        if reference.is_file():
            found = compare_files(str(below), reference, path)
            return found.detail if found.differs else ""
        digest = path.with_name(path.name + DIGEST)
        if digest.is_file():
            return _digest_problem(digest)
        if path.suffix == ".pt":
            read_checkpoint(path)
            return ""
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                _ = [arrays[name] for name in arrays.files]
            return ""
        return "the unbroken run has no file of this name"


def _digest_problem(path: Path) -> str:
    """Returns what is wrong with a .sha256 file: nothing where its file is gone, which it may outlive."""
    file = path.with_name(path.name.removesuffix(DIGEST))
    said = path.read_text().strip()
    if len(said) != 64:
        return f"it must hold 64 digits, got {len(said)}"
    if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != said:
        return "it is not the digest of its file"
    return ""


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def _copy(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    if old.is_dir():
        shutil.copytree(old, new)
    else:
        shutil.copy2(old, new)


def main(argv: Sequence[str] | None = None) -> int:
    """Kills the stages; returns the exit status."""
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON")
    parser.add_argument("--kills", type=int, default=240, help="kills of all stages together (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=60, help="after this time no run is killed (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: %(default)s)")
    parser.add_argument(
        "--stages", nargs="+", choices=names, default=names, help="stages to kill; those before run unbroken"
    )
    options = parser.parse_args(argv)
    output_comparison.RULES = (*RULES, *output_comparison.RULES)
    for name in IMPORTED:
        importlib.import_module(name)
    last = max(names.index(name) for name in options.stages)
    tallies = {name: Tally() for name in options.stages}
    stop_at = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos = Chaos(Path(folder), options.seed)
        for stage in STAGES[: last + 1]:
            chaos.run_unbroken(stage)
            print(f"{stage.name}: unbroken", flush=True)
        share = -(-options.kills // len(tallies))
        while any(tally.kills < share for tally in tallies.values()) and time.monotonic() < stop_at:
            for stage in (stage for stage in STAGES if stage.name in tallies):
                tally = tallies[stage.name]
                if tally.kills < share and time.monotonic() < stop_at:
                    chaos.run_killed(stage, tally, share, stop_at)
                    print(f"{stage.name}: {tally}", flush=True)
    problems = [problem for tally in tallies.values() for problem in tally.problems]
    write_result(
        options.output,
        "chaos",
        {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "seed": options.seed,
            "kills": sum(tally.kills for tally in tallies.values()),
            "resumed": sum(tally.resumed for tally in tallies.values()),
            "differences": len(problems),
            "stages": {name: dataclasses.asdict(tally) for name, tally in tallies.items()},
        },
    )
    print(*problems, sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
