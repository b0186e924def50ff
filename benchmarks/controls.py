"""What live rewards are worth: agents beside controls with equal updates, other rewards, cloning, chance and the bot.

    python benchmarks/controls.py --output DIR [--families find,lift,place] [--controls NAMES] [--seeds 10] [--jobs 2] [--minutes N]

The rules were written before the runs: controls_rules.md. Writes claims.json, and tables.md for people. Every run takes 2 to 30
minutes of one core. What claims.json already holds is not made again, on this machine or another; a killed command resumes.
"""

import argparse
import hashlib
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from claims_runs import Plan
from controls_plan import (
    CHANCE,
    CONTROL_BUDGETS,
    CONTROLS,
    CORPUS_SEED,
    EVAL_SEED,
    SEEDS,
    ControlRun,
    plan_controls,
)
from controls_runs import do_controls, find
from controls_statistics import judge_controls, summarize_controls
from controls_tables import tables
from report_result import machine

from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import claimed

RULES = Path(__file__).with_name("controls_rules.md")


def measure_controls(
    budget_name: str,
    output: Path,
    *,
    families: Sequence[str],
    controls: Sequence[str] = (*CHANCE, *CONTROLS),
    num_seeds: int = len(SEEDS),
    jobs: int = 1,
    minutes: float = math.inf,
    command: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Makes the runs that are missing, and writes claims.json and tables.md.

    Args:
        budget_name: Name of a budget of `controls_plan.CONTROL_BUDGETS`.
        output: Folder; absent, empty, or of runs of the same budget and rules.
        families: Families to measure.
        controls: Names of `CHANCE` and `CONTROLS`.
        num_seeds: How many of the seeds, the first ones.
        jobs: Processes, of one thread each.
        minutes: No run is begun after so many.
        command: The command, for the result.
        say: Takes a line of progress.

    Returns:
        Contents of claims.json.

    Raises:
        ValueError: The folder is of runs of other settings, or a control is unknown.
    """
    budget = CONTROL_BUDGETS[budget_name]
    runs = plan_controls(families, controls, SEEDS[:num_seeds])
    rules = hashlib.sha256(RULES.read_bytes()).hexdigest()[:32]
    seeds = {"eval_seed": EVAL_SEED, "corpus_seed": CORPUS_SEED}
    fingerprint = Fingerprint({"budget": budget_name, "rules": rules, **seeds})
    with claimed(output, kind="controls", fingerprint=fingerprint, settings=seeds, renew=True) as folder:
        path = folder / "claims.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"runs": {}, "families": []}
        found: dict[str, Any] = dict(before["runs"])
        missing = [run for run in runs if run.path not in found]
        say(f"{len(runs) - len(missing)} of {len(runs)} runs are in {path} already")
        plan = Plan(work=folder.absolute() / "work", budget=budget, eval_seed=EVAL_SEED, corpus_seed=CORPUS_SEED)
        failures = do_controls(plan, missing, jobs=jobs, minutes=minutes, say=say) if missing else {}
        named = {run.path: run for run in missing}
        found |= {name: _named(named[name], own) for name, own in find(plan, missing).items()}
        every = [family for family in budget.levels if family in {*before["families"], *families}]
        results = summarize_controls(found, every)
        record = {
            "controls": results,
            "verdicts": judge_controls(found, results),
            "failures": failures,
            "families": every,
            "runs": found,
            "budget": {
                "name": budget_name,
                "rules": rules,
                **seeds,
                "seeds": list(SEEDS),
                "eval_episodes": budget.train.eval_episodes,
            },
            "command": command,
            "machine": machine(),
        }
        text = json.dumps(record, indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
        (folder / "tables.md").write_text(tables(json.loads(text)), encoding="utf-8")
    return record


def _named(run: ControlRun, own: dict[str, Any]) -> dict[str, Any]:
    return {"control": run.control, "seed": run.seed, **own}


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="empty, or of runs of the same budget and rules"
    )
    parser.add_argument(
        "--budget", choices=tuple(CONTROL_BUDGETS), default="full", help="small is a test of the command alone"
    )
    parser.add_argument("--families", default="find,lift,place", metavar="NAMES", help="some of %(default)s")
    parser.add_argument(
        "--controls", default=",".join((*CHANCE, *CONTROLS)), metavar="NAMES", help="some of %(default)s"
    )
    parser.add_argument(
        "--seeds", type=int, default=len(SEEDS), metavar="N", help="the first N of the seeds (default: all)"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="runs at a time, of one thread each (default: 2)"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="N", help="begin no run after so many")
    options = parser.parse_args()
    families = options.families.split(",")
    unknown = sorted(set(families) - set(CONTROL_BUDGETS[options.budget].levels))
    if unknown:
        parser.error(f"--families must be some of find, lift and place, got {unknown[0]!r}")
    started = time.perf_counter()
    record = measure_controls(
        options.budget,
        options.output,
        families=families,
        controls=options.controls.split(","),
        num_seeds=options.seeds,
        jobs=options.jobs,
        minutes=options.minutes,
        command=shlex.join(["python", "benchmarks/controls.py", *sys.argv[1:]]),
        say=lambda line: print(f"{time.perf_counter() - started:6.0f} s  {line}", flush=True),
    )
    for path, reason in record["failures"].items():
        print(f"failed: {path}: {reason}")
    print(f"written to {options.output / 'tables.md'}")


if __name__ == "__main__":
    main()
