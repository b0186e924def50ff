"""Controls: figures and verdicts by hand, and the whole command once, small."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import controls
from claims_budgets import BUDGETS
from controls_chance import action_frequencies
from controls_plan import (
    CHANCE,
    CONTROL_BUDGETS,
    CONTROLS,
    SEEDS,
    ControlRun,
    online_updates,
    plan_controls,
    train_settings,
)
from controls_statistics import crossed_estimate, difference_of, judge_controls, summarize_controls
from controls_tables import tables

FULL = BUDGETS["full"]


def found_of(scores: dict[str, dict[int, str]], held_out: str = "01") -> dict[str, Any]:
    """What runs found whose episodes ended with these digits, by control and seed."""
    found = {}
    for control, by_seed in scores.items():
        for seed, digits in by_seed.items():
            played = {"success": digits, "mission": "0" * len(digits), "model": digits, "false_positive_share": None}
            found[ControlRun(family="lift", control=control, seed=seed).path] = {
                "control": control,
                "seed": seed,
                "seconds": 60.0,
                "updates": 5,
                "trained": played,
                "held_out": {**played, "success": held_out},
            }
    return found


def test_controls_have_the_updates_of_both_stages() -> None:
    def steps(control: str, family: str) -> int:
        return train_settings(FULL, ControlRun(family=family, control=control, seed=300)).steps

    # warm-up 1,000 of 10,000 and 15,000 steps; 8 environments: the step that ends at 1,008 is the first that learns
    assert online_updates(FULL.finetune_of("find")) == (10_000 - 1_000) // 8 * 2 == 2_250
    assert online_updates(FULL.finetune_of("lift")) == 3_500
    assert (steps("offline", "lift"), steps("offline-equal", "lift")) == (3_000, 6_500)
    assert steps("filtered-bc-slow", "lift") == 6_500
    assert steps("truth", "lift") == 3_000
    slow = train_settings(FULL, ControlRun(family="lift", control="filtered-bc-slow", seed=301))
    assert (slow.algorithm, dict(slow.algorithm_settings), slow.seed) == ("filtered-bc", {"learning_rate": 3e-4}, 301)


def test_runs_are_planned_seed_by_seed() -> None:
    runs = plan_controls(("find", "lift"), ("bot", "model", "truth:0:0.5"), (300, 301))
    assert [(run.control, run.family, run.seed) for run in runs[:4]] == [
        ("bot", "find", 0),
        ("bot", "lift", 0),
        ("model", "find", 300),
        ("model", "lift", 300),
    ]
    assert len(runs) == len({run.path for run in runs}) == 10
    assert runs[4].path == "find/controls/truth_0_0.5-300"
    assert len(plan_controls(("find",), (*CHANCE, *CONTROLS))) == 3 + len(CONTROLS) * 10
    with pytest.raises(ValueError, match="controls must be some of random, .*, got 'luck'"):
        plan_controls(("find",), ("luck",))


def test_intervals_hold_seeds_and_levels() -> None:
    same = np.tile([1.0, 0.0, 1.0, 0.0], (10, 1))  # every seed alike: what varies is which levels are drawn
    estimate = crossed_estimate(same)
    # four levels of 0 and 1: 2.5% of the resamples lie at 0 of 4 (1/16) and at 4 of 4
    assert (estimate["value"], estimate["low"], estimate["high"]) == (0.5, 0.0, 1.0)
    apart = np.repeat([[0.0], [1.0]], 4, axis=1)  # every level alike: what varies is which seeds are drawn
    estimate = crossed_estimate(apart)
    assert (estimate["value"], estimate["low"], estimate["high"]) == (0.5, 0.0, 1.0)
    constant = crossed_estimate(np.ones((3, 5)))
    assert constant == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    # of eight seeds the middle four: (0.25 + 0.5 + 0.5 + 0.75) / 4
    means = [0.0, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0]
    scores = np.array([[level < 4 * mean for level in range(4)] for mean in means], float)
    assert crossed_estimate(scores)["value"] == pytest.approx(0.5)


def test_intervals_cover_what_they_say() -> None:
    """Ten seeds on 100 levels, each with its own difficulty: 95% intervals of 150 experiments miss the truth some 8 times."""
    random = np.random.default_rng(0)
    missed = 0
    for _ in range(150):
        chance = np.clip(0.6 + 0.1 * random.normal(size=(10, 1)) + 0.25 * random.normal(size=(1, 100)), 0, 1)
        estimate = crossed_estimate((random.random((10, 100)) < chance).astype(float), num_resamples=300)
        missed += not estimate["low"] <= 0.597 <= estimate["high"]  # the mean of the clipped chances
    assert missed <= 15


def test_differences_are_of_the_same_seeds_and_levels() -> None:
    one = {300: np.array([1.0, 1, 0, 1]), 301: np.array([1.0, 0, 0, 1]), 302: np.zeros(4)}
    other = {300: np.array([0.0, 1, 0, 1]), 301: np.array([0.0, 0, 0, 1])}
    difference = difference_of(one, other)
    assert difference is not None
    assert difference["seeds"] == [300, 301]
    assert difference["value"] == pytest.approx(0.25)  # one level of four, with both seeds
    assert difference_of(one, {303: np.zeros(4)}) is None


def test_verdicts_follow_the_rules_and_need_every_seed() -> None:
    better, worse = "1" * 40 + "0" * 10, "1" * 20 + "0" * 30
    scores = {
        "model": dict.fromkeys(SEEDS, better),
        "offline-equal": dict.fromkeys(SEEDS, worse),
        "shuffled-truth": dict.fromkeys(SEEDS, better),
        "filtered-bc-equal": dict.fromkeys(SEEDS, worse[1:] + "1"),
        "filtered-bc-slow": dict.fromkeys(SEEDS, "0" * 50),
        "truth": dict.fromkeys(SEEDS[:9], better),
    }
    found = found_of(scores, held_out="01" * 25)
    results = summarize_controls(found, ("lift",))
    assert results["lift"]["model"]["success"]["value"] == pytest.approx(0.8)
    assert results["lift"]["model"]["success"]["seeds"] == list(SEEDS)
    assert results["lift"]["model"]["held_out"]["lowest"] == pytest.approx(0.5)
    verdicts = {row["claim"]: row for row in judge_controls(found, results)}
    assert verdicts["the live reward helps"]["holds"] is True
    assert verdicts["only a right reward helps"]["holds"] is False  # no difference at all: not above 0
    assert verdicts["the live reward helps on goals never trained on"]["holds"] is False
    cloning = verdicts["offline RL beats cloning at equal updates"]
    assert (cloning["other"], cloning["holds"]) == ("filtered-bc-equal", None)  # the best one; 0 is in the interval
    assert verdicts["truth is a better reward than the model"]["holds"] is None  # nine seeds
    assert "fewer false positives give a better agent" not in verdicts  # not measured


def test_the_command_measures_and_does_not_do_again_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, said = tmp_path / "controls", []
    names = ("random", "goal-blind", "bot", "offline-equal", "truth:0.05:0.1")
    how: dict[str, Any] = {"families": ("find",), "controls": names, "num_seeds": 1}
    record = controls.measure_controls("small", output, **how, say=said.append, command="python benchmarks/controls.py")
    assert record["failures"] == {}
    own = record["controls"]["find"]
    assert list(own) == ["random", "goal-blind", "bot", "offline-equal", "truth:0.05:0.1"]
    assert own["bot"]["success"]["value"] == own["bot"]["mission"]["value"] == 1.0
    assert own["random"]["success"]["value"] < 1
    assert own["offline-equal"]["updates"] == own["truth:0.05:0.1"]["updates"] == 60 + 50
    runs = record["runs"].values()
    assert len({tuple(run["trained"]["levels"]) for run in runs}) == 1  # all play the same levels
    assert {len(run["trained"]["success"]) for run in runs} == {20}
    page = (output / "tables.md").read_text(encoding="utf-8")
    assert "This is a test of the command" in page
    assert "| truth:0.05:0.1 | 110 | 1 |" in page
    assert not list(output.glob("work/**/replay"))
    frequencies = action_frequencies(output / "work" / "find" / "corpus", 7)
    assert (frequencies.sum(), len(frequencies)) == (pytest.approx(1), 7)
    # claims.json alone is enough to go on from
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("claims.json", "settings.json"):
        (elsewhere / name).write_bytes((output / name).read_bytes())
    again = controls.measure_controls("small", elsewhere, **how, say=said.append)
    assert again["runs"] == json.loads((output / "claims.json").read_text(encoding="utf-8"))["runs"]
    assert "5 of 5 runs are in" in said[-1]
    with pytest.raises(ValueError, match="must have the same fingerprint as this run, got other budget"):
        controls.measure_controls("full", elsewhere, **how, say=said.append)


def test_what_needs_no_corpus_records_none(tmp_path: Path) -> None:
    how: dict[str, Any] = {"families": ("find",), "controls": ("random", "bot"), "say": lambda line: None}
    record = controls.measure_controls("small", tmp_path / "controls", **how)
    assert set(record["controls"]["find"]) == {"random", "bot"}
    assert record["verdicts"] == []
    assert not (tmp_path / "controls" / "work" / "find" / "corpus").exists()


def test_a_successful_recording_is_needed_for_its_frequencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def units(self) -> list:
            return []

    monkeypatch.setattr("controls_chance.open_corpus", lambda path: Nothing())
    with pytest.raises(ValueError, match="a recorded episode must succeed, got none in nowhere"):
        action_frequencies(Path("nowhere"), 7)


def test_the_rules_name_every_control_and_their_numbers() -> None:
    rules = controls.RULES.read_text(encoding="utf-8")
    for name in CONTROLS:
        assert f"`{name}`" in rules
    for number in (SEEDS[0], SEEDS[-1], controls.EVAL_SEED, controls.CORPUS_SEED):
        assert str(number) in rules
    assert dataclasses.replace(CONTROL_BUDGETS["full"]) == FULL
    empty = {"controls": {}, "verdicts": [], "failures": {"find/controls/model-300": "no disk"}, "command": "c"}
    assert "- `find/controls/model-300`: no disk" in tables(
        {**empty, "budget": {"name": "full", "seeds": list(SEEDS), "eval_episodes": 200}}
    )
