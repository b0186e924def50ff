"""What a report of many goals costs: evaluation time and memory, page size, and seconds to open, filter and sort it.

python benchmarks/report_size.py [--output FOLDER]

Evaluates synthetic labels of 60 frames with 300, 3,000 and 10,000 goals, each in a process with one worker, and opens the
report in headless Chromium. In each frame 15 % of the goals hold, and 4 % of the others are labelled a success: far more than in a
real corpus, so that pairs of goals that occur together are many. Seconds in the browser are the median of three openings; the page
counts as open when its first frame after loading is drawn.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from report_result import machine, parse_arguments, write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from labelled_corpus import Labelled, write_corpus, write_labels

from vlm_rewards.schemas.goals import Goal

SIZES = (300, 3_000, 10_000)
NUM_EPISODES, FRAMES_PER_EPISODE = 6, 10
OPENINGS = 3
LIMITS = {"report_mb": 5.0, "load_s": 1.0, "filter_s": 1.0, "sort_s": 1.0}
_COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
_RELATIONS = ("next to", "on", "below", "left of", "right of", "inside")
_DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
_FILTER = "const box = document.querySelector('.filter input'); box.value = 'block 77'; box.dispatchEvent(new Event('input'));"
_SORT = "document.querySelectorAll('table.goals thead tr:last-child th button')[8].click();"


def write_inputs(folder: Path, num_goals: int) -> tuple[Path, Path]:
    """Writes a corpus with ground truth, and its labels.

    Returns:
        The folders of both.
    """
    goals = [
        Goal(
            f"{_RELATIONS[n % 6].replace(' ', '-')}-{n}",
            f"the {_COLOURS[n // 6 % 6]} block {n} is {_RELATIONS[n % 6]} the tray {n // 36}",
            _RELATIONS[n % 6],
            attributes={"colour": _COLOURS[n // 6 % 6], "tray": f"tray {n // 36 % 12}"},
        )
        for n in range(num_goals)
    ]
    rng = np.random.default_rng(0)
    episodes = []
    for number in range(NUM_EPISODES):
        truth = rng.random((FRAMES_PER_EPISODE, num_goals)) < 0.15
        scores = 1 / (1 + np.exp(-rng.normal(-3, 1.7, truth.shape) - 5 * truth))
        episodes.append(Labelled(f"episode-{number}", truth, scores.astype(np.float32), range(FRAMES_PER_EPISODE)))
    corpus = write_corpus(folder / "corpus", episodes, goals=goals, picture_size=64)
    return corpus, write_labels(folder / "labels", corpus, episodes, goals=goals)


def measure_evaluation(corpus: Path, labels: Path, output: Path) -> dict[str, float]:
    """Runs `vlm-rewards evaluate`.

    Returns:
        CPU seconds, seconds, peak memory in MiB and sizes in MB.
    """
    arguments = [str(Path(sys.executable).with_name("vlm-rewards")), "evaluate", "--workers", "1"]
    arguments += ["--input", str(corpus), "--labels", str(labels), "--output", str(output)]
    started = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"the command ended with status {status}: {' '.join(arguments)}")
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - started,
        "peak_mib": usage.ru_maxrss / 1024,
        "report_mb": (output / "report.html").stat().st_size / 1e6,
        "quality_mb": (output / "quality.json").stat().st_size / 1e6,
    }


def measure_page(report: Path) -> dict[str, float]:
    """Opens a report, filters and sorts its goals.

    Returns:
        Median seconds of each.
    """
    from playwright.sync_api import sync_playwright

    seconds: dict[str, list[float]] = {"load_s": [], "filter_s": [], "sort_s": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(OPENINGS):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            started = time.monotonic()
            page.goto(report.as_uri())
            page.evaluate(_DRAWN)
            seconds["load_s"].append(time.monotonic() - started)
            for name, action in (("filter_s", _FILTER), ("sort_s", _SORT)):
                started = time.monotonic()
                page.evaluate(f"() => {{ {action} }}")
                page.evaluate(_DRAWN)
                seconds[name].append(time.monotonic() - started)
            page.close()
        browser.close()
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measures every size and prints the table."""
    output = parse_arguments(__doc__).output
    results = {}
    print("  goals  evaluate CPU s  peak MiB  report MB  quality.json MB  open s  filter s  sort s", flush=True)
    for num_goals in SIZES:
        with tempfile.TemporaryDirectory() as name:
            corpus, labels = write_inputs(Path(name), num_goals)
            found = measure_evaluation(corpus, labels, Path(name) / "report")
            found |= measure_page(Path(name) / "report" / "report.html")
        results[num_goals] = found
        print(
            f"{num_goals:7,}  {found['cpu_s']:14.1f}  {found['peak_mib']:8.0f}  {found['report_mb']:9.2f}  "
            f"{found['quality_mb']:15.1f}  {found['load_s']:6.2f}  {found['filter_s']:8.2f}  {found['sort_s']:6.2f}",
            flush=True,
        )
    print(f"limits: {', '.join(f'{name} {limit:g}' for name, limit in LIMITS.items())}")
    write_result(output, "report_size", {"machine": machine(), "results": results, "limits": LIMITS})


if __name__ == "__main__":
    main()
