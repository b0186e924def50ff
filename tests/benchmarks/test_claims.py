import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from claims import measure, parse_only, tell_again
from claims_budgets import (
    BUDGETS,
    EVAL_SEED,
    INSTRUCTION,
    OWN_TEXT,
    UNREAD_INSTRUCTION,
    Budget,
    Run,
    goals_in_wording,
    plan_runs,
)
from claims_drawing import draw_claims
from claims_runs import check_found, is_whole, known_runs, regret_of, seconds_left, summarize_finetuning
from claims_statistics import above, compare_algorithms, estimate, judge, summarize, summarize_runs, told

from vlm_rewards.offline_rl.algorithms.iql import IqlSettings
from vlm_rewards.offline_rl.training.finetune import FinetuneSettings
from vlm_rewards.offline_rl.training.train import TrainSettings

LEVEL = "BabyAI-GoToObj-v0"
SMALL_NETWORK = {"width": 32, "channels": 8}
MICRO = Budget(
    levels={"find": LEVEL},
    seeds=(7,),
    episodes={"find": 12},
    train=TrainSettings(steps=10, batch_size=16, num_actions=7, log_every=5, eval_episodes=4),
    finetune=FinetuneSettings(
        envs=(LEVEL,),
        steps=60,
        num_envs=4,
        batch_size=16,
        warmup_steps=16,
        updates_per_step=0.25,
        hindsight_goals=2,
        capacity=500,
        eval_episodes=4,
        eval_every=40,
        log_every=20,
    ),
    algorithms={"bc": SMALL_NETWORK, "iql": SMALL_NETWORK, "cal-ql": {"depth_of_thought": 3}},
    model="reference-s",
    wording_model="reference-s",
    models=("reference-s",),
    figure4_families=("find",),
    figure5_families=("find",),
    held_out_kinds=("green box",),
    num_resamples=20,
)
TWO_SEEDS = dataclasses.replace(MICRO, seeds=(0, 1), algorithms={"bc": {}, "iql": {}}, held_out_kinds=())


def run_of(algorithm: str, seed: int, **fields: str) -> Run:
    return Run(
        **{"family": "find", "model": "reference-s", "wording": OWN_TEXT, **fields}, algorithm=algorithm, seed=seed
    )


def offline_of(success: float) -> dict[str, Any]:
    return {"offline": {"seconds": 60.0, "evaluation": {"success": success}}, "online": None}


def online_of(success: list[float], vlm_return: list[float], **figures: Any) -> dict[str, Any]:
    steps, words = (0, 20, 100), ("end of offline training", "first online step", "end")
    evaluations = [
        {
            "step": step,
            "when": when,
            "success": one,
            "vlm_return": other,
            "vlm_success": other,
            "false_positive_rate": 0.01,
            "false_positive_share": None,
        }
        for step, when, one, other in zip(steps, words, success, vlm_return, strict=True)
    ]
    online = {
        "evaluations": evaluations,
        "held_out": [],
        "regret": 0.5,
        "seconds": 1200.0,
        "seconds_scoring": 300.0,
        "seconds_evaluating": 200.0,
        "frames": 100,
        "encoded": 30,
    }
    return {**offline_of(success[0]), "online": {**online, **figures}}


def test_figures_share_runs_and_each_is_done_once() -> None:
    budget = dataclasses.replace(MICRO, levels={"find": LEVEL, "lift": "BabyAI-PickupDist-v0"}, seeds=(1, 2))
    plan = plan_runs(budget)
    # offline: 3 algorithms x 2 families x 2 seeds; figures 3 and 4 add none; figure 5 one wording of find x 2 seeds
    assert len(plan) == 12 + 2
    assert sum(plan.values()) == 4 + 2  # IQL alone is fine-tuned
    assert len({run.path for run in plan}) == len(plan)
    only = plan_runs(budget, ("offline",))
    assert len(only) == 12
    assert not any(only.values())
    assert {run.algorithm for run in plan_runs(budget, ("figure3",))} == {"iql", "bc"}  # which it is compared with
    assert list(plan_runs(budget, ("figure5",)))[2].path == "find/reference-s/pick-up-the/iql-1"


def test_goals_keep_their_names_in_every_wording() -> None:
    own, asked = goals_in_wording("lift", OWN_TEXT), goals_in_wording("lift", INSTRUCTION)
    assert len(own) == 18
    assert {goal.prompts for goal in own} == {()}
    assert [(goal.id, goal.text, goal.instructions) for goal in own] == [
        (goal.id, goal.text, goal.instructions) for goal in asked
    ]
    assert "pick up the red ball" in {goal.prompts[0] for goal in asked}
    assert "pick the red ball up" in {goal.prompts[0] for goal in goals_in_wording("lift", UNREAD_INSTRUCTION)}


def test_budgets_are_checked_and_the_reported_one_has_seeds_enough() -> None:
    assert BUDGETS["full"].is_evidence
    assert not BUDGETS["small"].is_evidence
    assert BUDGETS["full"].train.eval_episodes >= 200
    assert FinetuneSettings(envs=(LEVEL,)).eval_seed != EVAL_SEED
    with pytest.raises(ValueError, match="algorithms must hold bc and iql, got bc; add iql"):
        dataclasses.replace(MICRO, algorithms={"bc": {}})
    with pytest.raises(ValueError, match="wordings must be names of wordings.WORDINGS"):
        dataclasses.replace(MICRO, wordings=(OWN_TEXT, "sing of the ..."))
    with pytest.raises(ValueError, match="a family must have a level, got place without"):
        dataclasses.replace(MICRO, figure4_families=("place",))


def test_what_a_run_depends_on_is_apart_from_which_runs_there_are() -> None:
    settings = MICRO.settings_of_runs()
    more = dataclasses.replace(MICRO, seeds=(7, 8), models=("reference-s", "reference-l"), wordings=(OWN_TEXT,))
    assert more.settings_of_runs() == settings
    assert dataclasses.replace(MICRO, algorithms={**MICRO.algorithms, "filtered-bc": {}}).settings_of_runs() == settings
    assert dataclasses.replace(MICRO, episodes={"find": 13}).settings_of_runs() != settings
    assert dataclasses.replace(MICRO, algorithms={"bc": {}, "iql": SMALL_NETWORK}).settings_of_runs() != settings
    assert settings["algorithms"]["iql"]["expectile"] == IqlSettings().expectile  # also what is not at hand
    assert set(settings["reference_weights"]) == {"reference-s", "reference-m", "reference-l"}
    assert dataclasses.replace(MICRO, family_train={"find": {"steps": 11}}).settings_of_runs() != settings


def test_experiments_are_read_from_a_list() -> None:
    assert parse_only("figure4, offline") == ("figure4", "offline")
    with pytest.raises(ValueError, match="--only must name some of offline, figure3, figure4, figure5, got 'figure9'"):
        parse_only("offline,figure9")


def test_regret_weighs_records_by_their_episodes() -> None:
    # 10 episodes of which half succeeded, then 30 more at 0.9: (10 * 0.5 + 30 * 0.1) / 40
    records = [{"episodes": 10, "success": 0.5}, {"episodes": 40, "success": 0.9}]
    assert regret_of(records) == pytest.approx(8 / 40)
    assert regret_of([]) is None


def test_time_left_follows_the_pace_since_the_start() -> None:
    # a quarter of all was done in 60 s, a half had been done before: the last quarter takes 60 s
    assert seconds_left(0.5, 0.75, 60.0) == pytest.approx(60.0)
    assert seconds_left(0.5, 0.5, 60.0) is None


def test_nothing_is_not_reported_on() -> None:
    check_found({run_of("iql", 0): {}}, {}, Path("work"))
    with pytest.raises(ValueError, match=r"a run must succeed, got 1 failures, the first: it diverged; see log.txt"):
        check_found({}, {run_of("iql", 0): "it diverged"}, Path("work"))
    with pytest.raises(
        ValueError, match="a run must be made before anything can be told, got none; give more --minutes"
    ):
        check_found({}, {}, Path("work"))


def test_a_run_is_summarized_from_its_records() -> None:
    records = [
        {"kind": "evaluation", "step": 0, "seconds": 1.0, "success": 0.2, "seconds_evaluating": 1.0},
        {
            "kind": "evaluation of held-out goals",
            "step": 0,
            "seconds": 2.0,
            "success": 0.1,
            "seconds_evaluating": 0.75,
        },
        {"kind": "episodes", "step": 5, "seconds": 3.0, "episodes": 4, "success": 0.75},
        {"kind": "scoring", "step": 5, "seconds": 3.0, "seconds_waited": 0.5, "frames": 10, "encoded": 5},
        {"kind": "scoring", "step": 9, "seconds": 6.0, "seconds_waited": 1.5, "frames": 20, "encoded": 8},
    ]
    found = summarize_finetuning(records)
    assert [row["success"] for row in found["evaluations"]] == [0.2]
    assert [row["success"] for row in found["held_out"]] == [0.1]
    assert (found["regret"], found["seconds"], found["seconds_scoring"]) == (0.25, 6.0, 1.5)
    assert found["seconds_evaluating"] == 1.75
    assert (found["frames"], found["encoded"]) == (20, 8)


def test_estimates_of_equal_seeds_have_no_width_and_are_apart_only_if_no_point_is_shared() -> None:
    assert estimate([0.5, 0.5], 50) == {"value": 0.5, "low": 0.5, "high": 0.5, "scores": [0.5, 0.5]}
    assert above({"low": 0.61, "high": 0.7}, {"low": 0.5, "high": 0.6})
    assert not above({"low": 0.6, "high": 0.7}, {"low": 0.5, "high": 0.6})
    assert told({"value": 0.812, "low": 0.78, "high": 0.84}) == "0.81 (0.78 to 0.84)"
    assert told(None) == "unknown"
    # of eight seeds the lowest two and the highest two are left out: (0.3 + 0.4 + 0.5 + 0.6) / 4
    assert estimate([0.0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.9, 1.0], 50)["value"] == pytest.approx(0.45)


def test_algorithms_are_compared_by_family_and_over_all() -> None:
    budget = dataclasses.replace(TWO_SEEDS, levels={"find": LEVEL, "lift": "BabyAI-PickupDist-v0"})
    found = {
        run_of(algorithm, seed, family=family): offline_of(success)
        for family, shift in (("find", 0.0), ("lift", 0.2))
        for algorithm, success in (("bc", 0.3 + shift), ("iql", 0.6 + shift))
        for seed in (0, 1)
    }
    result = compare_algorithms(found, budget)
    assert result["find"]["bc"]["success"]["value"] == pytest.approx(0.3)
    assert result["find"]["bc"]["held_out"] is None
    # seeds 0 and 1 of two families: 0.6, 0.8, 0.6, 0.8, of which the middle half is 0.6 and 0.8
    assert result["all"]["iql"]["success"]["value"] == pytest.approx(0.7)
    verdicts = judge({"offline": result}, budget)
    assert [(row["family"], row["holds"]) for row in verdicts] == [("find", True), ("lift", True), ("all", True)]
    assert verdicts[0]["told"] == "IQL 0.60 (0.60 to 0.60), BC 0.30 (0.30 to 0.30)"
    # a family where a seed is missing has its own figure and none over all
    del found[run_of("iql", 1, family="lift")]
    assert set(compare_algorithms(found, budget)["all"]) == {"bc"}


def test_fine_tuning_is_summarized_by_hand() -> None:
    found = {
        run_of("iql", 0): online_of([0.4, 0.2, 0.8], [0.5, 0.3, 0.9]),
        run_of("iql", 1): online_of([0.4, 0.4, 1.0], [0.5, 0.5, 0.5], seconds=2400.0),
    }
    figure = summarize_runs(found, 50)
    assert figure is not None
    assert figure["steps"] == [0, 20, 100]
    assert figure["success"]["value"] == pytest.approx([0.4, 0.3, 0.9])
    assert (figure["success"]["low"][2], figure["success"]["high"][2]) == pytest.approx((0.8, 1.0))
    assert figure["end_of_offline"]["value"] == pytest.approx(0.4)
    assert figure["first_online"]["value"] == pytest.approx(0.3)
    assert figure["dip"]["scores"] == pytest.approx([0.2, 0.0])
    # trapezoids over 0, 20, 100: (20 * 0.3 + 80 * 0.5) / 100 and (20 * 0.4 + 80 * 0.7) / 100
    assert figure["area"]["scores"] == pytest.approx([0.46, 0.64])
    assert figure["end"]["value"] == pytest.approx(0.9)
    assert figure["fall"]["scores"] == pytest.approx([0.0, 0.0])  # the peak is the end
    assert figure["excess"]["scores"] == pytest.approx([0.0, -0.6])  # the second's return stood still
    # the first return is success + 0.1; the second is constant, so that it has no correlation
    assert figure["correlation"]["scores"] == pytest.approx([1.0])
    assert 0 < figure["pooled_correlation"] < 1
    assert figure["false_positive_rate"]["value"] == pytest.approx([0.01] * 3)
    assert figure["false_positive_share"]["value"] == [None] * 3
    assert figure["held_out"] is figure["held_out_start"] is figure["held_out_end"] is None
    assert figure["scoring_share"] == pytest.approx([0.25, 0.125])
    assert figure["scoring_share_of_learning"] == pytest.approx([0.3, 300 / 2200])
    for own in found.values():
        own["online"]["held_out"] = online_of([0.1, 0.2, 0.3], [0.1, 0.2, 0.4])["online"]["evaluations"]
        del own["online"]["seconds_evaluating"]  # as in a result of before it was recorded
    figure = summarize_runs(found, 50)
    assert figure is not None
    assert figure["held_out"]["success"]["value"] == pytest.approx([0.1, 0.2, 0.3])
    assert (figure["held_out_start"]["value"], figure["held_out_end"]["value"]) == pytest.approx((0.1, 0.3))
    assert figure["scoring_share_of_learning"] == [None, None]
    assert figure["encoded_share"] == pytest.approx([0.3, 0.3])
    assert summarize_runs({run_of("bc", 0): offline_of(0.1)}, 50) is None


def test_verdicts_of_fine_tuning_follow_their_rules() -> None:
    def verdicts(
        success: list[float],
        bc: float,
        returns: list[float] | None = None,
        other: list[float] | None = None,
        **figures: Any,
    ) -> dict[str, bool | None]:
        found = {
            run_of("iql", seed): online_of(own, returns or [x / 2 for x in own], **figures)
            for seed, own in ((0, success), (1, other or success))
        }
        found |= {run_of("bc", seed): offline_of(bc) for seed in (0, 1)}
        rows = judge(summarize(found, TWO_SEEDS, ("figure3",)), TWO_SEEDS)
        return {
            row["claim"].split(" ")[0] + " " + row["claim"].split(" ")[1]: row["holds"]
            for row in rows
            if row["experiment"] == "figure3"
        }

    good = verdicts([0.4, 0.5, 0.95], bc=0.3)
    assert good == dict.fromkeys(good, True)
    assert len(good) == 6
    bad = verdicts([0.4, 0.6, 0.5], bc=0.5, seconds=1801.0, seconds_scoring=901.0)
    assert bad["Fine-tuning with"] is False  # not above BC
    assert bad["Success in"] is False  # 0.50 of 0.90
    assert bad["VLM return"] is True
    assert bad["The reward"] is False  # a fall of 0.1 from the peak
    assert bad["A run"] is False
    assert bad["Waiting for"] is False
    hacked = verdicts([0.4, 0.4, 0.4], bc=0.3, returns=[0.4, 0.7, 0.95])
    assert hacked["The reward"] is False  # success stands still, and the return grows
    told_apart = [[0.4, 0.5, 0.5], [0.4, 0.6, 0.5]]
    assert verdicts(told_apart[0], bc=0.3, other=told_apart[1])["The reward"] is None  # falls of 0 and 0.1
    diluted = verdicts([0.4, 0.5, 0.95], bc=0.3, seconds_scoring=500.0, seconds_evaluating=201.0)
    assert diluted["Waiting for"] is False  # 500 of 1,200 s, but of 999 s without evaluations
    flat = verdicts([0.95, 0.95, 0.95], bc=0.3)
    assert flat["VLM return"] is None  # a constant has no correlation
    assert flat["Fine-tuning with"] is False  # not above where it began


def test_nothing_is_judged_before_its_last_seed() -> None:
    found = {run_of("iql", seed): online_of([0.4, 0.5, 0.95], [0.2, 0.3, 0.5]) for seed in (0, 1)}
    found[run_of("bc", 0)] = offline_of(0.3)
    rows = judge(summarize(found, TWO_SEEDS, ("figure3",)), TWO_SEEDS)
    assert {row["experiment"] for row in rows} == {"offline", "figure3"}
    of_agents_alone = [row for row in rows if row["claim"].startswith("VLM return")]  # BC has no part in it
    assert [row["holds"] for row in of_agents_alone] == [True]
    others = [row for row in rows if row not in of_agents_alone]
    assert {row["holds"] for row in others} == {None}
    assert all(row["told"].endswith("; so far of 1 of 2 seeds") for row in others)
    found[run_of("iql", 1)] = online_of([0.5, 0.5, 0.5], [0.2, 0.3, 0.5])  # a constant has no correlation
    rows = judge(summarize(found, TWO_SEEDS, ("figure3",)), TWO_SEEDS)
    (row,) = [row for row in rows if row["claim"].startswith("VLM return")]
    assert (row["holds"], row["told"].endswith("; 1 runs have none, being constant")) == (None, True)


def test_a_baseline_beside_the_comparison_does_not_hold_it_back() -> None:
    budget = dataclasses.replace(TWO_SEEDS, algorithms={"bc": {}, "filtered-bc": {}, "iql": {}})
    found = {run_of(name, seed): offline_of(x) for name, x in (("bc", 0.3), ("iql", 0.6)) for seed in (0, 1)}
    found[run_of("filtered-bc", 0)] = offline_of(0.4)
    row = judge({"offline": compare_algorithms(found, budget)}, budget)[0]
    assert row["holds"] is True
    assert row["told"].endswith("filtered BC 0.40 (0.40 to 0.40) of 1 seeds so far")


def test_sizes_and_wordings_are_judged_by_their_ends() -> None:
    budget = dataclasses.replace(TWO_SEEDS, wording_model="large", models=("small", "large"))

    def verdicts(ends: dict[tuple[str, str], float]) -> list[bool | None]:
        found = {
            run_of("iql", seed, model=model, wording=wording): online_of([0.1, 0.1, end], [0.1, 0.1, end])
            for (model, wording), end in ends.items()
            for seed in (0, 1)
        }
        return [row["holds"] for row in judge(summarize(found, budget, ("figure4", "figure5")), budget)]

    small, large, asked = ("small", OWN_TEXT), ("large", OWN_TEXT), ("large", INSTRUCTION)
    assert verdicts({small: 0.4, large: 0.8, asked: 0.6}) == [True, True]
    assert verdicts({small: 0.9, large: 0.8, asked: 0.8}) == [False, False]
    assert verdicts({large: 0.8}) == [None, None]  # nothing to compare with
    three = dataclasses.replace(budget, models=("small", "middle", "large"))
    found = {
        run_of("iql", seed, model=model): online_of([0.1, 0.1, end], [0.1, 0.1, end])
        for model, end in (("small", 0.4), ("large", 0.8))
        for seed in (0, 1)
    }
    (row,) = judge(summarize(found, three, ("figure4",)), three)
    assert row["holds"] is None
    assert row["told"] == "small 0.40 (0.40 to 0.40), large 0.80 (0.80 to 0.80); without middle so far"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    folder = tmp_path_factory.mktemp("claims") / "output"
    lines: list[str] = []
    record = measure(MICRO, folder, jobs=1, eval_seed=3, command="python benchmarks/claims.py", say=lines.append)
    return folder, record, lines


def test_one_command_measures_everything(measured: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, record, lines = measured
    assert json.loads((folder / "claims.json").read_text()) == record
    assert record["only"] == ["offline", "figure3", "figure4", "figure5"]
    assert (record["is_evidence"], record["eval_seed"]) == (False, 3)
    assert set(record["offline"]["find"]) == {"bc", "iql"}
    figure = record["figure3"]["find"]
    assert figure["steps"][0] == 0
    assert figure["steps"][-1] == 60
    assert (
        figure["end_of_offline"]["scores"] == record["offline"]["find"]["iql"]["success"]["scores"]
    )  # the same levels
    assert figure["held_out_end"] is not None
    assert record["figure4"]["find"]["reference-s"] == figure
    assert record["figure5"]["find"][OWN_TEXT] == figure
    assert set(record["figure5"]["find"]) == {OWN_TEXT, INSTRUCTION}
    assert {row["experiment"] for row in record["verdicts"]} == {"offline", "figure3", "figure4", "figure5"}
    assert record["waiting"] == []
    # a run that fails is said and left out, and the others are reported
    (path, reason), *others = record["failures"].items()
    assert others == []
    assert path == "find/reference-s/the-goal-s-own-text/cal-ql-7"
    assert "depth_of_thought" in reason
    assert any(re.search(r"4 of 4 runs, \d+% of the steps", line) for line in lines)
    assert not list(folder.glob("work/**/replay"))
    assert not list(folder.glob("work/**/checkpoints"))


def test_what_is_finished_is_not_done_again_and_the_rest_goes_on(
    measured: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, record, _ = measured
    agents = {path: path.stat().st_mtime_ns for path in folder.glob("work/**/agent.pt")}
    told = json.loads((folder / "claims.json").read_text())
    del told["runs"][run_of("bc", 7).path]
    (folder / "claims.json").write_text(json.dumps(told))
    (folder / "work" / run_of("bc", 7).path / "offline.json").unlink()
    again = measure(
        MICRO, folder, only=("offline",), jobs=1, eval_seed=3, command=record["command"], say=lambda line: None
    )
    changed = {path for path, time in agents.items() if path.stat().st_mtime_ns != time}
    assert {path.parent.parent.name for path in changed} <= {"bc-7"}
    assert again["figure3"] == record["figure3"]  # an earlier command's
    assert again["offline"]["find"]["bc"]["success"] == record["offline"]["find"]["bc"]["success"]
    with pytest.raises(ValueError, match="eval_seed"):
        measure(MICRO, folder, jobs=1, eval_seed=4, say=lambda line: None)


def test_what_claims_json_tells_needs_no_work_folder(
    measured: tuple[Path, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    folder, record, _ = measured
    for name in ("settings.json", "claims.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with_failure = {**record, "runs": {run_of("bc", 7).path: record["runs"][run_of("bc", 7).path]}, "only": []}
    runs = {run_of("bc", 7): False, run_of("iql", 7): True}
    assert list(known_runs(with_failure, runs)) == [run_of("bc", 7)]
    assert not is_whole(known_runs(record, {run_of("bc", 7): True})[run_of("bc", 7)], True)  # it was never fine-tuned
    assert known_runs({}, runs) == {}
    before = json.loads((tmp_path / "claims.json").read_text())
    lines: list[str] = []
    again = measure(MICRO, tmp_path, only=("figure3",), jobs=1, eval_seed=3, say=lines.append)
    assert "3 of 4 runs are in" in lines[0]
    assert again["runs"] == before["runs"]
    assert again["failures"] == record["failures"]  # tried again
    assert not list(tmp_path.glob("work/**/agent.pt"))


def test_verdicts_and_page_are_told_again_without_a_run(
    measured: tuple[Path, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    _, record, _ = measured
    changed = {**record, "verdicts": [], "command": "python benchmarks/claims.py --as-it-was"}
    (tmp_path / "claims.json").write_text(json.dumps(changed))
    assert tell_again(MICRO, tmp_path)["verdicts"] == record["verdicts"]
    assert "--as-it-was" in (tmp_path / "claims.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"there must be a claims.json to tell again, got none in .*empty. Measure"):
        tell_again(MICRO, tmp_path / "empty")


def test_after_its_minutes_no_run_is_begun_and_the_rest_is_told(
    measured: tuple[Path, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    folder, record, _ = measured
    told_before = {**record, "runs": {run_of("iql", 7).path: record["runs"][run_of("iql", 7).path]}}
    (tmp_path / "settings.json").write_bytes((folder / "settings.json").read_bytes())
    (tmp_path / "claims.json").write_text(json.dumps(told_before))
    again = measure(MICRO, tmp_path, jobs=1, minutes=0, eval_seed=3, say=lambda line: None)
    assert sorted(again["waiting"]) == sorted(run.path for run in plan_runs(MICRO) if run != run_of("iql", 7))
    assert again["failures"] == {}
    assert again["figure3"] == record["figure3"]
    assert "Runs that are still to be made: 3" in (tmp_path / "claims.html").read_text(encoding="utf-8")
    assert not (tmp_path / "work").exists()
    at_hand = {**again, "is_evidence": True}
    draw_claims(at_hand, tmp_path / "drawn")
    assert "3 runs are still to be made" in (tmp_path / "drawn" / "figure3.svg").read_text(encoding="utf-8")


def test_the_page_and_the_pictures_show_it(measured: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, record, _ = measured
    page = (folder / "claims.html").read_text(encoding="utf-8")
    assert "This is no evidence" in page
    assert "Runs that failed: 1; the rest is left out" in page
    assert "python benchmarks/claims.py" in page
    assert "Levels of the evaluation are of seed 3" in page
    assert record["runs"][run_of("iql", 7).path]["online"]["machine"]["processor"] in page
    for row in record["verdicts"]:
        assert row["told"] in page
    assert page.count("data:image/svg+xml;base64,") == 4
    assert not re.search(r"(src|href)=['\"]?https?:", page)  # nothing is loaded
    assert not math.isnan(record["figure3"]["find"]["end"]["value"])
    for name in record["only"]:
        assert Image.open(folder / "figures" / f"{name}.png").size[0] >= 300
        words = " ".join(ElementTree.parse(folder / "figures" / f"{name}.svg").getroot().itertext())
        assert "No evidence" in words
        assert "in truth" in words
