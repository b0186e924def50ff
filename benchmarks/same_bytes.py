"""Proof of a refactor: two commits write the same bytes.

    python benchmarks/same_bytes.py OLD NEW [--allow GLOB]... [--keep FOLDER]

    OLD ──► git archive ──► wheel ──► site/bin/vlm-rewards ──► the commands of STAGES ──► old/work/ ──┐
    NEW ──► git archive ──► wheel ──► site/bin/vlm-rewards ──► the commands of STAGES ──► new/work/ ──┴──► comparison

Builds the wheel of each commit, installs it into a folder of its own, and runs the same commands with each, only through the
installed `vlm-rewards`. Then compares every file that the two runs wrote; `output_comparison.py` says how, and what may differ
(measured seconds and little else). Prints both commit ids, the files compared whole, those compared in part with what was left out,
and those that differ.

Both sides run at the same path, one after the other, so that a path in a file is the same text. Dependencies come from the
environment of the running interpreter, through an interpreter that reads no .pth file there: an editable install of vlm-rewards in
that environment cannot stand in for the wheel, nor for a module that the wheel lacks. What is imported is checked before the first
command and printed. A comparison takes about 200 s of processor time, two commands at a time.

Exit status: 0 every file is equal or allowed to differ, 1 files differ or a commit cannot be built or run, 2 wrong arguments.
"""

import argparse
import os
import resource
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from output_comparison import compare_folders, describe

ROOT = Path(__file__).resolve().parent.parent
LEVELS = "--env BabyAI-GoToLocal-v0 --env BabyAI-PutNextLocal-v0"
POLICY = "--policy bot:0.3,noisy-bot:0.4,random:0.3"
LABEL = "label --goals corpus/goals.jsonl --model reference-s --precision float32 --workers 1"
FORMULA = "--formula goal-baseline --baseline room --threshold 0.9"
HINDSIGHT = "hindsight --workers 1"
OFFLINE = "--algorithm iql --steps 20 --checkpoint-every 10 --batch-size 64"
ONLINE = "--num-envs 4 --steps 120 --warmup-steps 40 --checkpoint-every 60 --batch-size 64 --eval-episodes 4"
STAGES = (
    (
        f"record {LEVELS} {POLICY} --episodes 24 --episodes-per-shard 8 --output corpus",
        f"record {LEVELS} {POLICY} --episodes 8 --episodes-per-shard 4 --workers 2 --format webdataset --output corpus-tar",
    ),
    (
        f"{LABEL} --input corpus --embeddings embeddings --output labels",
        f"{LABEL} --input corpus-tar --output labels-tar",
    ),
    (
        "calibrate --labels labels --input corpus --embeddings embeddings --workers 1 --output calibration.json",
        f"{HINDSIGHT} --input corpus --labels labels --format parquet --output relabelled",
        f"{HINDSIGHT} --input corpus-tar --labels labels-tar --format webdataset --output relabelled-tar",
    ),
    (
        f"train --input relabelled {OFFLINE} --output agent",
        f"{LABEL} --embeddings embeddings --calibration calibration.json --output labels-calibrated",
        f"{LABEL} --embeddings embeddings {FORMULA} --output labels-formula",
    ),
    (
        f"finetune --agent agent --env BabyAI-GoToLocal-v0 {ONLINE} --output agent-online",
        "evaluate --input corpus --labels labels --workers 1 --output report",
        "diff labels labels-calibrated --input corpus --workers 1 --output diff",
    ),
)
"""What each side runs, in an empty folder: one stage after the other, the commands of a stage two at a time.

Frames are encoded by one worker: several share a cache, and how often a frame is found there depends on their timing. Recording to
WebDataset has two workers, which are processes, and so starts the package's own worker program.
"""


class _CommandError(Exception):
    """A program ended with another status than 0."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compares two commits.

    Args:
        argv: Arguments without the program's name; by default the process's own.

    Returns:
        The exit status: 0 equal, 1 different.

    Raises:
        SystemExit: Status 2, for wrong arguments.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help="a commit: the state before the refactor")
    parser.add_argument("new", metavar="NEW", help="a commit: the state after it")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="GLOB", help="files that may differ; repeat for several"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="an absent or empty folder that keeps all outputs and logs"
    )
    options = parser.parse_args(argv)
    commits = {}
    for side, name in (("OLD", options.old), ("NEW", options.new)):
        commit = resolve_commit(name)
        if commit is None:
            parser.error(f"{side} is not a commit of {ROOT}: got {name!r}. Give a commit id, a branch or a tag.")
        commits[side] = commit
    keep = options.keep.absolute() if options.keep else None
    if keep is not None and (keep.is_file() or (keep.is_dir() and any(keep.iterdir()))):
        parser.error(f"--keep needs an absent or empty folder: got {keep}. Give another folder.")
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as name:
        folder = keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return _compare_commits(commits, folder, options.allow)
        except _CommandError as error:
            print(f"same_bytes.py: error: {error}", file=sys.stderr)
            return 1


def resolve_commit(name: str) -> str | None:
    """Returns the full id of a commit of this repository, or None where git knows no commit of that name."""
    words = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _compare_commits(commits: dict[str, str], folder: Path, allowed: Sequence[str]) -> int:
    started = time.monotonic()
    python = _make_interpreter(folder / "python")
    for side, commit in commits.items():
        print(f"{side} {commit}", flush=True)
        _run_side(commit, folder / "side", python)
        (folder / "side").rename(folder / side.lower())
    found = compare_folders(folder / "old" / "work", folder / "new" / "work")
    lines = [*(f"{side} {commit}" for side, commit in commits.items()), *describe(found, allowed)]
    (folder / "comparison.txt").write_text("\n".join(lines) + "\n")
    print(*lines, f"took {time.monotonic() - started:.0f} s, {_processor_seconds():.0f} s of processor time", sep="\n")
    return int(any(one.differs and not one.is_allowed(allowed) for one in found))


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _make_interpreter(folder: Path) -> Path:
    """Makes a virtual environment that imports this environment's packages, but none of its editable installs.

    A folder that is named in a .pth file is put on sys.path without running the .pth files in it, and these are what make an
    editable install importable.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    own = Path(_run(where, folder, {}).strip())
    (own / "environment.pth").write_text("".join(f"{path}\n" for path in packages))
    return python


def _run_side(commit: str, folder: Path, python: Path) -> None:
    source, site, work, logs = (folder / name for name in ("source", "site", "work", "logs"))
    for path in (source, work, logs):
        path.mkdir(parents=True)
    archive = folder / "source.tar"
    _run(["git", "-C", str(ROOT), "archive", "--output", str(archive), commit], folder, {})
    _run(["tar", "-xf", str(archive), "-C", str(source)], folder, {})
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)], folder, {})
    (wheel,) = folder.glob("*.whl")
    _run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], folder, {})
    shutil.rmtree(source)
    environment = {"PYTHONPATH": str(site)}
    _check_imports(wheel, site, lambda code: _run([str(python), "-c", code], work, environment))

    def run_command(command: str) -> None:
        words = shlex.split(command)
        started = time.monotonic()
        output = _run([str(site / "bin" / "vlm-rewards"), *words], work, environment)
        (logs / f"{Path(words[-1]).stem}.txt").write_text(output)
        print(f"  {time.monotonic() - started:4.1f} s  vlm-rewards {command}", flush=True)

    with ThreadPoolExecutor(2) as pool:
        for stage in STAGES:
            list(pool.map(run_command, stage))


def _check_imports(wheel: Path, site: Path, run_code: Callable[[str], str]) -> None:
    """Imports every top-level name of the wheel, prints where from, and refuses one that is not in `site`."""
    with zipfile.ZipFile(wheel) as file:
        roots = {name.split("/")[0] for name in file.namelist() if name.endswith(".py")}
    for name in sorted(root.removesuffix(".py") for root in roots):
        path = run_code(f"import {name}; print({name}.__file__)").strip()
        if not Path(path).resolve().is_relative_to(site.resolve()):
            raise _CommandError(f"{name} is not imported from the wheel: got {path}, expected a file in {site}.")
        print(f"  imported {path}", flush=True)


def _run(words: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    """Runs a program in a folder and returns what it printed, standard error included."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        words,
        cwd=folder,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise _CommandError(f"{shlex.join(words)} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
