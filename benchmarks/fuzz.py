"""Feeds readers inputs that a coverage-guided fuzzer (atheris) makes, and keeps what they must not do.

python benchmarks/fuzz.py [--minutes M] [--targets NAME ...] [--findings FOLDER] [--output FOLDER]

    for each kind of input of tests/fuzz_targets.py, in turn, until the time is over:
        a fork ── atheris: seeds, then inputs that reach new branches of vlm_rewards ── faults ──► findings/<kind>/

A fault does not end the process: the fuzzer's next input follows. A fault is kept once per exception and line of code that
raised it. An input that ends the process (a crash inside a library) is kept as well, and the fuzzer starts again.
`tests/fuzz` replays all that was kept. Memory and processor time per input are bounded, see `fuzz_targets.limits`.

Only code of vlm_rewards is instrumented: coverage inside libraries does not guide the fuzzer. Needs the extra `fuzz` (Linux).

Exit status: 0 no fault, 1 faults were found.
"""

import argparse
import collections
import gzip
import hashlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
FINDINGS = ROOT / "tests" / "fuzz" / "findings"
TURN_S = 60.0
MAX_INPUT_BYTES = 1 << 17
_INSTRUMENTED = [
    "vlm_rewards.schemas.pictures",
    "vlm_rewards.schemas.goals",
    "vlm_rewards.schemas.calibrations",
    "vlm_rewards.schemas.videos",
    "vlm_rewards.schemas.folders",
    "vlm_rewards.schemas.files",
    "vlm_rewards.schemas.formats",
]
with atheris.instrument_imports(include=_INSTRUMENTED):
    import fuzz_targets


def _child(name: str, seconds: float, state: Path, findings: Path, seed: int) -> None:
    """Fuzzes one kind of input; ends the process. `state` holds the number of inputs, and the input at hand."""
    log = os.open(state / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    counter = (state / "count").open("r+b")
    count = mmap.mmap(counter.fileno(), 8)
    at_hand = (state / "at_hand").open("r+b", buffering=0)
    seen: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        target = fuzz_targets.make_target(name, Path(folder))
        seeds = Path(folder, "seeds")
        seeds.mkdir()
        kept = fuzz_targets.read_findings(findings / name)
        for number, data in enumerate([*target.seeds, *kept]):
            (seeds / f"{number:04d}").write_bytes(data)

        def test_one_input(data: bytes) -> None:
            count[:] = struct.pack("<q", struct.unpack("<q", count[:])[0] + 1)
            at_hand.seek(0)
            at_hand.truncate()
            at_hand.write(data)
            try:
                with fuzz_targets.limits():
                    target.check(data)
            except Exception as error:
                where = _where(error)
                seen[where] += 1
                if seen[where] == 1:
                    _keep(findings / name, data, where, error)

        words = [f"-max_total_time={int(seconds)}", f"-max_len={MAX_INPUT_BYTES}", "-timeout=120", "-rss_limit_mb=0"]
        words += [f"-seed={seed}", "-len_control=0", "-print_final_stats=0", str(seeds)]
        atheris.Setup([sys.argv[0], *words], test_one_input)
        atheris.Fuzz()


def _where(error: BaseException) -> str:
    """Names an exception and the innermost lines of ours that it came through."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    frames = [frame for frame in traceback.extract_tb(root.__traceback__) if str(ROOT) in frame.filename]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-2:]]
    return f"{type(error).__name__} {type(root).__name__} {' '.join(places)}"


def _keep(folder: Path, data: bytes, where: str, error: BaseException | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(data).hexdigest()[:16]
    (folder / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
    told = where if error is None else "".join(traceback.format_exception(error))
    (folder / f"{name}.txt").write_text(told)
    print(f"{folder.name}: {where}", flush=True)


def _fuzz(name: str, seconds: float, findings: Path, seed: int) -> tuple[int, int]:
    """Fuzzes one kind of input in a process of its own, again after it was ended; returns inputs and ends."""
    until = time.monotonic() + seconds
    inputs = ends = 0
    while (left := until - time.monotonic()) > 1:
        with tempfile.TemporaryDirectory(prefix="fuzz-state-") as folder:
            state = Path(folder)
            (state / "count").write_bytes(bytes(8))
            (state / "at_hand").touch()
            pid = os.fork()
            if pid == 0:
                _child(name, left, state, findings, seed)
                os._exit(0)  # not reached: the fuzzer ends the process
            status = _wait(pid, left + 240)
            done = struct.unpack("<q", (state / "count").read_bytes())[0]
            inputs += done
            if status == 0:
                break
            if done == 0:
                text = (state / "log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{name} cannot be fuzzed: the process ended with status {status}: {text}")
            ends += 1
            seed += 1
            tail = (state / "log").read_text(errors="replace")[-3000:]
            where = f"the process ended with status {status}\n{tail}"
            _keep(findings / name, (state / "at_hand").read_bytes(), where, None)
    return inputs, ends


def _wait(pid: int, seconds: float) -> int:
    """Waits for a process, which is killed when it takes longer; returns its exit status, negative for a signal."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzzes; returns the exit status."""
    from report_result import RESULTS, machine, write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON")
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the fuzzer (default: %(default)s)")
    parser.add_argument(
        "--targets", nargs="+", choices=fuzz_targets.TARGETS, default=list(fuzz_targets.TARGETS), help="kinds of input"
    )
    parser.add_argument(
        "--findings", type=Path, default=FINDINGS, help="where faults are kept (default: tests/fuzz/findings)"
    )
    options = parser.parse_args(argv)
    before = set(options.findings.rglob("*.gz"))
    counts = {name: {"inputs": 0, "ends_of_process": 0} for name in options.targets}
    until, seed = time.monotonic() + 60 * options.minutes, options.seed
    turn_s = min(TURN_S, 60 * options.minutes / len(counts))
    while time.monotonic() < until:
        random.Random(seed).shuffle(options.targets)
        for name in options.targets:
            seconds = min(turn_s, until - time.monotonic())
            if seconds > 1:
                inputs, ends = _fuzz(name, seconds, options.findings, seed)
                counts[name]["inputs"] += inputs
                counts[name]["ends_of_process"] += ends
                print(json.dumps({name: counts[name]}), flush=True)
        seed += 1
    faults = sorted(str(path.relative_to(options.findings)) for path in set(options.findings.rglob("*.gz")) - before)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "minutes": options.minutes,
        "seed": options.seed,
        "inputs": sum(count["inputs"] for count in counts.values()),
        "new_faults": faults,
        "targets": counts,
    }
    write_result(options.output, "fuzz", record)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
