"""The paper's claims about agents, measured: figures 3, 4 (right) and 5 of Baumli et al. 2023, and offline training beside BC.

    python benchmarks/claims.py --budget small|full --output DIR [--jobs 2] [--only figure3,figure4,figure5,offline]
                                [--minutes N] [--eval-seed N] [--tell-again]

    record ──► label, hindsight ──► train bc, filtered-bc, iql ──► success on held-out levels           offline
                                               └─ iql ──► finetune, the model's reward alone ──► VLM return     figure 3
                                                                 by model                        and success    figure 4
                                                                 by wording                                     figure 5

Writes claims.json, a picture of each as PNG and SVG, and claims.html, one page with all of it. A run is a folder under work/; what
is finished is not done again, and a command that was killed resumes. What an earlier command has measured stays in the results:
claims.json and settings.json alone are enough to resume from, on this machine or another.

Corpora, levels of the evaluation and seeds of the agents are others than those that settings were chosen on. The budget `full` was
changed after first results, so that an effect can show, and so were rules of the verdicts.
"""

import argparse
import json
import math
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from claims_budgets import BUDGETS, CORPUS_SEED, EVAL_SEED, EXPERIMENTS, POLICY, Budget, plan_runs
from claims_drawing import draw_claims
from claims_page import write_page
from claims_runs import Plan, check_found, do_everything, is_whole, known_runs
from claims_statistics import judge, summarize
from report_result import machine

from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import claimed


def measure(
    budget: Budget,
    output: Path,
    *,
    only: Sequence[str] = EXPERIMENTS,
    jobs: int = 1,
    minutes: float = math.inf,
    eval_seed: int = EVAL_SEED,
    command: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures, and writes claims.json, the pictures and claims.html.

    Args:
        budget: How much.
        output: Folder; absent, empty, or of runs of the same settings and seed.
        only: Of `EXPERIMENTS`.
        jobs: Processes, of one thread each.
        minutes: After so many no run is begun. What was measured by then is told, without verdicts where seeds are missing.
        eval_seed: Of the held-out levels.
        command: That this is the result of, for the page.
        say: Takes a line of progress.

    Returns:
        What claims.json holds.

    Raises:
        ValueError: The folder is of runs of other settings or another seed, a corpus cannot be made, or all runs failed.
    """
    fingerprint = Fingerprint({"runs": json.loads(json.dumps(budget.settings_of_runs())), "eval_seed": eval_seed})
    with claimed(
        Path(output), kind="claims", fingerprint=fingerprint, settings={"eval_seed": eval_seed}, renew=True
    ) as folder:
        before = _read_record(folder / "claims.json")
        only = [name for name in EXPERIMENTS if name in {*before.get("only", ()), *only}]
        runs = plan_runs(budget, only)
        known = known_runs(before, runs)
        missing = {run: online for run, online in runs.items() if not is_whole(known.get(run), online)}
        say(f"{len(runs) - len(missing)} of {len(runs)} runs are in {folder / 'claims.json'} already")
        plan = Plan(work=folder.absolute() / "work", budget=budget, eval_seed=eval_seed)
        new, failures = do_everything(plan, missing, jobs, say, minutes) if missing else ({}, {})
        found = known | new
        check_found(found, failures, folder / "work")
        results = summarize(found, budget, only)
        record = {
            **results,
            "verdicts": judge(results, budget),
            "failures": {run.path: reason for run, reason in failures.items()},
            "waiting": [
                run.path for run, online in runs.items() if not is_whole(found.get(run), online) and run not in failures
            ],
            "runs": {run.path: own for run, own in found.items()},
            "is_evidence": budget.is_evidence,
            "budget": budget.to_json(),
            "only": only,
            "eval_seed": eval_seed,
            "corpus": {"seed": CORPUS_SEED, "policy": POLICY, "episodes": budget.episodes},
            "command": command,
            "machine": machine(),
        }
        return _publish(record, folder)


def tell_again(budget: Budget, output: Path) -> dict[str, Any]:
    """Writes verdicts, pictures and page anew from claims.json, whatever settings it was measured with.

    Args:
        budget: Budget that it was measured with.
        output: Folder with claims.json.

    Returns:
        Contents of claims.json.

    Raises:
        ValueError: The folder holds no claims.json.
    """
    record = _read_record(output / "claims.json")
    if not record:
        raise ValueError(f"there must be a claims.json to tell again, got none in {output}. Measure first.")
    return _publish({**record, "verdicts": judge(record, budget)}, output)


def _publish(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    text = json.dumps(record, indent=1, allow_nan=False)  # in this order, which is that of the pictures and tables
    (folder / "claims.json").write_text(text + "\n", encoding="utf-8")
    record = json.loads(text)
    pictures = draw_claims(record, folder / "figures")
    write_page(record, pictures, folder / "claims.html")
    return record


def _read_record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def parse_only(text: str) -> tuple[str, ...]:
    """Experiments from a list with commas.

    Raises:
        ValueError: One is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise ValueError(f"--only must name some of {', '.join(EXPERIMENTS)}, got {unknown[0]!r}; choose among them")
    return names


def main() -> None:
    """Measures the budget that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=tuple(BUDGETS), required=True, help="small is a test of the command alone")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="empty, or of runs of the same settings"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="runs at a time, of one thread each (default: 2)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        metavar="N",
        help="begin no run after so many, tell what was measured, and resume with the same command later",
    )
    parser.add_argument("--only", default=",".join(EXPERIMENTS), metavar="NAMES", help="some of %(default)s")
    parser.add_argument(
        "--eval-seed",
        type=int,
        default=EVAL_SEED,
        metavar="N",
        help=f"of the held-out levels (default: {EVAL_SEED}); settings are chosen on those of 0",
    )
    parser.add_argument(
        "--tell-again", action="store_true", help="make no run: write verdicts, pictures and page anew from claims.json"
    )
    options = parser.parse_args()
    if options.tell_again:
        tell_again(BUDGETS[options.budget], options.output)
        return
    try:
        only = parse_only(options.only)
    except ValueError as error:
        parser.error(str(error))
    command = ["python", "benchmarks/claims.py", "--budget", options.budget, "--output", str(options.output)]
    command += ["--jobs", str(options.jobs), "--only", ",".join(only), "--eval-seed", str(options.eval_seed)]
    started = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {line}", flush=True)

    record = measure(
        BUDGETS[options.budget],
        options.output,
        only=only,
        jobs=options.jobs,
        minutes=options.minutes,
        eval_seed=options.eval_seed,
        command=shlex.join(command),
        say=say,
    )
    for row in record["verdicts"]:
        held = {True: "holds", False: "does not hold", None: "cannot be told"}[row["holds"]]
        held = held if record["is_evidence"] else "no evidence"
        say(f"{row['experiment']}, {row['family']}: {held}: {row['claim']}: {row['told']}")
    if not record["is_evidence"]:
        say("this budget is no evidence: it has too few seeds and steps, and shows that the command works")
    if record["waiting"]:
        say(f"{len(record['waiting'])} runs are still to be made: the same command makes them")
    say(f"written to {options.output / 'claims.html'}")


if __name__ == "__main__":
    main()
