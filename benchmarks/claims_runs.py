"""Does the runs of `claims.py`, each in a process of one thread, and keeps what each found in its own folder.

    work/FAMILY/corpus                            recorded once
    work/FAMILY/MODEL/embeddings                  once a model
    work/FAMILY/MODEL/WORDING/labels, relabelled
    work/FAMILY/MODEL/WORDING/ALGORITHM-SEED/     agent, rollout, online; offline.json and online.json say what was found

What is found there is not done again, and what was interrupted resumes. Of a finished run the replay, the buffer and the
checkpoints are removed: they are most of its bytes.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from claims_budgets import BATCH_SIZE, CORPUS_SEED, POLICY, Budget, Run, goals_in_wording
from report_result import machine

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.evaluation.episode_records import flatten_summary
from vlm_rewards.offline_rl.evaluation.rollout import RolloutSettings, rollout
from vlm_rewards.offline_rl.runs.folders import read_metrics
from vlm_rewards.offline_rl.training.finetune import finetune
from vlm_rewards.offline_rl.training.held_out_goals import split_goals
from vlm_rewards.offline_rl.training.train import train
from vlm_rewards.pipelines.hindsight.relabelling import hindsight
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.record.recording import RecordSettings, record
from vlm_rewards.schemas.folders import write_atomically

EVALUATION = "evaluation"
HELD_OUT = "evaluation of held-out goals"
SHARPENED = "evaluation at the lower temperature"
_POLL_S = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done, for a process that is to do a part of it.

    Args:
        work: Folder.
        budget: How much.
        eval_seed: Of the held-out levels.
        corpus_seed: Of the corpora.
    """

    work: Path
    budget: Budget
    eval_seed: int
    corpus_seed: int = CORPUS_SEED


def record_family(plan: Plan, family: str) -> None:
    """Records a family's corpus."""
    settings = RecordSettings(
        envs=(plan.budget.levels[family],),
        policy=POLICY,
        episodes=plan.budget.episodes[family],
        seed=plan.corpus_seed,
        episodes_per_shard=50,
    )
    with quiet(plan.work / family):
        record(output=plan.work / family / "corpus", workers=1, **vars(settings))


def label_family(plan: Plan, family: str, model: str, runs: Sequence[Run]) -> None:
    """Labels and relabels a family's corpus by one model, in the wording of each of the runs."""
    corpus = plan.work / family / "corpus"
    for run in runs:
        folder = plan.work / run.labels
        goals = goals_in_wording(family, run.wording)
        with quiet(folder):
            label(
                corpus,
                LabelerSettings(model=model, goals=goals, batch_size=BATCH_SIZE),
                output=folder / "labels",
                embeddings=plan.work / family / model / "embeddings",
                workers=1,
            )
            hindsight(corpus, folder / "labels", output=folder / "relabelled", workers=1)


def do_run(plan: Plan, run: Run, finetuned: bool) -> None:
    """Trains an agent, measures it and, where asked for, fine-tunes it; writes offline.json and online.json."""
    folder, budget = plan.work / run.path, plan.budget
    level = budget.levels[run.family]
    with quiet(folder):
        if not (folder / "offline.json").is_file():
            write_found(folder / "offline.json", _train(plan, run, level))
        if finetuned and not (folder / "online.json").is_file():
            settings = dataclasses.replace(budget.finetune_of(run.family), seed=run.seed, eval_seed=plan.eval_seed)
            finetune(folder / "agent", output=folder / "online", **vars(settings))
            write_found(folder / "online.json", summarize_finetuning(read_metrics(folder / "online")))
        if (folder / "online.json").is_file() or run.algorithm != "iql":  # another figure may yet fine-tune it
            _remove_bulk(folder)


def _train(plan: Plan, run: Run, level: str) -> dict[str, Any]:
    folder, budget = plan.work / run.path, plan.budget
    goals = goals_in_wording(run.family, run.wording)
    held_out = split_goals(goals, budget.held_out_kinds).held_out if budget.held_out_kinds else ()
    settings = dataclasses.replace(
        budget.train_of(run.family),
        algorithm=run.algorithm,
        algorithm_settings=budget.algorithms[run.algorithm],
        seed=run.seed,
        hold_out=tuple(goal.id for goal in held_out),
    )
    train(plan.work / run.labels / "relabelled", output=folder / "agent", **vars(settings))
    found: dict[str, Any] = {"seconds": max(row["seconds"] for row in read_metrics(folder / "agent"))}
    for kind, name, temperature in (
        (EVALUATION, "rollout", settings.eval_temperature),
        (SHARPENED, "rollout-sharpened", budget.low_temperature),
        (HELD_OUT, "rollout-held-out", settings.eval_temperature),
    ):
        if held_out or kind != HELD_OUT:
            played = RolloutSettings(
                envs=(level,),
                episodes=settings.eval_episodes,
                videos=0,
                temperature=temperature,
                held_out_goals=kind == HELD_OUT,
                seed=plan.eval_seed,
            )
            found[kind] = flatten_summary(rollout(folder / "agent", output=folder / name, **vars(played)).summary())
    return found


def summarize_finetuning(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the figures need of a fine-tuning run's records.

    Args:
        records: Of `offline_rl.runs.folders.read_metrics`.

    Returns:
        `evaluations` and, with goals never trained on, `held_out`: records by step; `regret`, see `regret_of`; `seconds` in all,
        `seconds_scoring` spent waiting for the model while learning, `seconds_evaluating` (None where a record does not tell);
        `frames` scored and `encoded` by it.
    """
    evaluations = [dict(record) for record in records if record["kind"] == EVALUATION]
    scoring = [record for record in records if record["kind"] == "scoring"][-1]
    evaluating = [row.get("seconds_evaluating") for row in records if row["kind"] in (EVALUATION, HELD_OUT)]
    return {
        "evaluations": evaluations,
        "held_out": [dict(record) for record in records if record["kind"] == HELD_OUT],
        "regret": regret_of([record for record in records if record["kind"] == "episodes"]),
        "seconds": max(record["seconds"] for record in records),
        "seconds_scoring": scoring["seconds_waited"],
        "seconds_evaluating": None if None in evaluating else sum(evaluating),
        "frames": scoring["frames"],
        "encoded": scoring["encoded"],
    }


def regret_of(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean of 1 - success over the episodes of fine-tuning, as far as the records tell.

    A record holds the mean over the last 100 episodes and the number of episodes so far; it stands for the episodes since the
    record before. Exact where a hundred or fewer ended in between, but for those that both records count.

    Args:
        records: Of kind "episodes", in order; none where no episode ended.
    """
    total, missed = 0, 0.0
    for row in records:
        missed += (row["episodes"] - total) * (1 - row["success"])
        total = row["episodes"]
    return missed / total if total else None


def known_runs(record: Mapping[str, Any], runs: Mapping[Run, bool]) -> dict[Run, dict[str, Any]]:
    """What a claims.json already tells of some runs, by run; of one that is fine-tuned perhaps no more than its offline part.

    Args:
        record: What claims.json holds; empty where there is none.
        runs: By run, whether it is fine-tuned.
    """
    told = record.get("runs", {})
    return {run: told[run.path] for run in runs if run.path in told}


def is_whole(found: Mapping[str, Any] | None, finetuned: bool) -> bool:
    """Whether what was found of a run, if anything, is all that was asked for."""
    return found is not None and (found["online"] is not None or not finetuned)


def do_everything(
    plan: Plan,
    runs: Mapping[Run, bool],
    jobs: int,
    say: Callable[[str], None],
    minutes: float = math.inf,
) -> tuple[dict[Run, dict[str, Any]], dict[Run, str]]:
    """Records, labels, trains and fine-tunes what is missing.

    Args:
        plan: What.
        runs: By run, whether it is fine-tuned.
        jobs: Processes.
        say: Takes a line of progress.
        minutes: After so many from now no run is begun; those that were are finished.

    Returns:
        By run what was found, `offline` and `online` (None where it was not asked for, or is not there), and by run that failed
        the reason. Runs that are whole in neither are still to be made, or to be fine-tuned.

    Raises:
        ValueError: A corpus cannot be recorded or labelled.
    """
    until = time.time() + 60 * minutes
    missing = {run: online for run, online in runs.items() if not is_whole(_found(plan, run), online)}
    failures = _do_missing(plan, missing, jobs, say, until) if missing and time.time() < until else {}
    every = {run: _found(plan, run) for run in runs}
    return {run: own for run, own in every.items() if own is not None}, failures


def _found(plan: Plan, run: Run) -> dict[str, Any] | None:
    paths = [plan.work / run.path / name for name in ("offline.json", "online.json")]
    offline, online = (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None for path in paths)
    return None if offline is None else {"offline": offline, "online": online}


def _do_missing(
    plan: Plan, runs: Mapping[Run, bool], jobs: int, say: Callable[[str], None], until: float
) -> dict[Run, str]:
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=start_process, initargs=(os.getpid(),)
    )
    try:
        families = dict.fromkeys(run.family for run in runs)
        for future in [pool.submit(record_family, plan, family) for family in families]:
            future.result()
        say(f"recorded {len(families)} corpora")
        labels = {run.labels: run for run in runs}
        pairs = dict.fromkeys((run.family, run.model) for run in runs)
        tasks = [
            pool.submit(label_family, plan, *pair, [run for run in labels.values() if (run.family, run.model) == pair])
            for pair in pairs
        ]
        for future in tasks:
            future.result()
        say(f"labelled and relabelled them {len(labels)} times")
        longest_first = sorted(runs.items(), key=lambda item: not item[1])
        futures = {pool.submit(_do_run_until, plan, run, online, until): run for run, online in longest_first}
        return _follow(futures, plan, runs, say)
    finally:
        pool.shutdown(cancel_futures=True)


def _do_run_until(plan: Plan, run: Run, finetuned: bool, until: float) -> None:
    if time.time() < until:
        do_run(plan, run, finetuned)


def check_found(found: Mapping[Run, object], failures: Mapping[Run, str], work: Path) -> None:
    """Refuses to report on nothing.

    Raises:
        ValueError: All runs failed, or none was made.
    """
    if found:
        return
    if not failures:
        raise ValueError("a run must be made before anything can be told, got none; give more --minutes")
    raise ValueError(
        f"a run must succeed, got {len(failures)} failures, the first: {next(iter(failures.values()))}; see log.txt of the runs in "
        f"{work}, and run the same command again"
    )


def _follow(
    futures: Mapping[Future, Run], plan: Plan, runs: Mapping[Run, bool], say: Callable[[str], None]
) -> dict[Run, str]:
    """Waits for the runs, with the time that is left; by run that failed the reason."""
    failures: dict[Run, str] = {}
    waiting, started = set(futures), time.monotonic()
    before = share_done(plan, runs)
    while waiting:
        over, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        for future in over:
            error = future.exception()
            if error is not None:
                failures[futures[future]] = str(error)
                say(f"failed: {futures[future].path}: {error}")
        done = share_done(plan, runs)
        left = seconds_left(before, done, time.monotonic() - started)
        say(
            f"{len(futures) - len(waiting)} of {len(futures)} runs, {done:.0%} of the steps"
            f"{'' if left is None else f', about {left / 60:.0f} min left'}"
        )
    return failures


def seconds_left(before: float, done: float, seconds: float) -> float | None:
    """Time left by the pace since the start: shares done before and now, and the seconds between; None where nothing was done."""
    return (1 - done) / (done - before) * seconds if done > before else None


def share_done(plan: Plan, runs: Mapping[Run, bool]) -> float:
    """The share of all gradient and environment steps that is done."""
    total, done = 0, 0
    for run, online in runs.items():
        folder = plan.work / run.path
        train_steps = plan.budget.train_of(run.family).steps
        own = plan.budget.finetune_of(run.family).steps * online
        total += train_steps + own
        done += train_steps if (folder / "offline.json").is_file() else _last_step(folder / "agent")
        done += own if (folder / "online.json").is_file() else min(_last_step(folder / "online"), own)
    return done / total


def _last_step(folder: Path) -> int:
    records = read_metrics(folder)
    return records[-1]["step"] if records else 0


def _remove_bulk(folder: Path) -> None:
    for path in (folder / "agent" / "replay", folder / "agent" / "checkpoints", folder / "online" / "checkpoints"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("online/buffer-*.npz"):
        path.unlink()


@contextlib.contextmanager
def quiet(folder: Path) -> Iterator[None]:
    """Progress bars and warnings go to log.txt of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", buffering=1) as log, contextlib.redirect_stderr(log):
        yield


def write_found(path: Path, found: Mapping[str, Any]) -> None:
    """Writes what a run has found, with the machine it ran on."""
    told = {**found, "machine": machine()}  # runs of one result may be of several
    write_atomically(path, json.dumps(told, indent=1, allow_nan=False) + "\n")


def start_process(parent: int) -> None:
    """One thread, and an end when the command has ended, killed or not."""
    torch.set_num_threads(1)

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.stdout = sys.stderr  # the command's own lines are its progress
