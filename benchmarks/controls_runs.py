"""Makes the runs of `controls.py`, each in a process of one thread; what each found stays in its folder and in claims.json.

    work/FAMILY/corpus, work/FAMILY/MODEL/...     as in `claims_runs`
    work/FAMILY/controls/NAME-SEED/               agent, online, rollouts; found.json says what was found

A run that is interrupted resumes from its last checkpoint; of a finished one the replay and the checkpoints are removed.
"""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from claims_budgets import OWN_TEXT, Run, goals_in_wording
from claims_runs import Plan, label_family, quiet, record_family, start_process, write_found
from controls_chance import play_chance
from controls_plan import CHANCE, CONTROLS, ControlRun, finetune_settings, train_settings

from vlm_rewards.offline_rl.evaluation.episode_records import Evaluation
from vlm_rewards.offline_rl.evaluation.rollout import rollout
from vlm_rewards.offline_rl.runs.folders import read_metrics
from vlm_rewards.offline_rl.runs.saved_agents import load_agent
from vlm_rewards.offline_rl.training.finetune import finetune
from vlm_rewards.offline_rl.training.held_out_goals import split_goals
from vlm_rewards.offline_rl.training.train import train

FOUND = "found.json"
WITHOUT_CORPUS = ("random", "bot")
"""Policies that are played without a recorded corpus."""


def do_control(plan: Plan, run: ControlRun) -> None:
    """Makes one run, if it was not made before; writes found.json."""
    folder = plan.work / run.path
    if (folder / FOUND).is_file():
        return
    with quiet(folder):
        found = _play_chance(plan, run) if run.control in CHANCE else _make_agent(plan, run, folder)
        write_found(folder / FOUND, found)
        for name in ("agent/replay", "agent/checkpoints", "online/checkpoints"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for path in folder.glob("online/buffer-*"):
            path.unlink()


def labels_of(plan: Plan, family: str) -> Run:
    """Returns the run of `claims_budgets` whose labels all controls of a family learn from."""
    return Run(family=family, model=plan.budget.model, wording=OWN_TEXT, algorithm="iql", seed=0)


def _make_agent(plan: Plan, run: ControlRun, folder: Path) -> dict[str, Any]:
    budget, control = plan.budget, CONTROLS[run.control]
    held_out = split_goals(goals_in_wording(run.family, OWN_TEXT), budget.held_out_kinds).held_out
    settings = dataclasses.replace(train_settings(budget, run), hold_out=tuple(goal.id for goal in held_out))
    agent = folder / "agent"
    train(plan.work / labels_of(plan, run.family).labels / "relabelled", output=agent, **vars(settings))
    seconds = max(row["seconds"] for row in read_metrics(agent))
    if control.reward is not None:
        how = finetune_settings(budget, run, control.reward)
        finetune(agent, output=folder / "online", **vars(how))
        agent = folder / "online"
        seconds += max(row["seconds"] for row in read_metrics(agent))
    played = {
        name: rollout(
            agent,
            output=folder / f"rollout-{name}",
            envs=(budget.levels[run.family],),
            episodes=settings.eval_episodes,
            videos=0,
            held_out_goals=name == "held_out",
            seed=plan.eval_seed,
        )
        for name in ("trained", "held_out")
    }
    return {
        "seconds": seconds,
        "updates": load_agent(agent).agent.num_updates,
        **{name: outcomes(evaluation) for name, evaluation in played.items()},
    }


def _play_chance(plan: Plan, run: ControlRun) -> dict[str, Any]:
    started = time.monotonic()
    goals = goals_in_wording(run.family, OWN_TEXT)
    trained = split_goals(goals, plan.budget.held_out_kinds).trained
    evaluation = play_chance(
        run.control,
        plan.budget.levels[run.family],
        trained,
        corpus=plan.work / run.family / "corpus",
        num_episodes=plan.budget.train_of(run.family).eval_episodes,
        seed=plan.eval_seed,
    )
    return {
        "seconds": round(time.monotonic() - started, 3),
        "updates": 0,
        "trained": outcomes(evaluation),
        "held_out": None,
    }


def outcomes(evaluation: Evaluation) -> dict[str, Any]:
    """Returns what became of every episode, in their order: a text of 0 and 1 each for truth, the level's own mission and the
    model, and the share of the rewarded episodes that were rewarded wrongly."""
    records = evaluation.episodes
    share = evaluation.false_positive_share
    return {
        "success": "".join(str(int(bool(record.success))) for record in records),
        "mission": "".join(str(int(bool(record.mission_done))) for record in records),
        "model": "".join(str(int(record.vlm_success)) for record in records),
        "false_positive_share": share.mean if share.num else None,
        "levels": [record.level_seed for record in records[:3]],  # enough to see that two runs played the same ones
    }


def find(plan: Plan, runs: Sequence[ControlRun]) -> dict[str, dict[str, Any]]:
    """Returns what was found, by path of the run."""
    paths = {run.path: plan.work / run.path / FOUND for run in runs}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}


def do_controls(
    plan: Plan, runs: Sequence[ControlRun], *, jobs: int, minutes: float, say: Callable[[str], None]
) -> dict[str, str]:
    """Records, labels and makes what is missing.

    Args:
        plan: What is measured.
        runs: Runs that are to be made.
        jobs: Processes.
        minutes: No run is begun after so many.
        say: Takes a line of progress.

    Returns:
        By path of the run that failed the reason.
    """
    until = time.time() + 60 * minutes
    failures = {}
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=start_process, initargs=(os.getpid(),)
    ) as pool:
        runs = [run for run in runs if not (plan.work / run.path / FOUND).is_file()]
        families = list(dict.fromkeys(run.family for run in runs if run.control not in WITHOUT_CORPUS))
        for future in [pool.submit(record_family, plan, family) for family in families]:
            future.result()
        say(f"recorded {len(families)} corpora")
        learns = list(dict.fromkeys(run.family for run in runs if run.control in CONTROLS))
        model = plan.budget.model
        for future in [pool.submit(label_family, plan, family, model, [labels_of(plan, family)]) for family in learns]:
            future.result()
        say(f"labelled and relabelled {len(learns)} of them")
        futures = {pool.submit(_do_until, plan, run, until): run for run in runs}
        for number, future in enumerate(as_completed(futures), start=1):
            run, error = futures[future], future.exception()
            if error is not None:
                failures[run.path] = str(error)
            say(f"{number} of {len(runs)}: {run.path}{'' if error is None else f' failed: {error}'}")
    return failures


def _do_until(plan: Plan, run: ControlRun, until: float) -> None:
    if time.time() < until:
        torch.set_num_threads(1)
        do_control(plan, run)
