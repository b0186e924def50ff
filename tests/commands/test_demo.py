"""`vlm-rewards demo` from the first command to the last, small, and again."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from vlm_rewards.cli import main
from vlm_rewards.command_line.parser import parse
from vlm_rewards.command_line.words import describe_fine_tuning
from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.demonstration import Demonstration
from vlm_rewards.offline_rl.runs.saved_agents import load_agent

COMMANDS = ["record", "label", "hindsight", "evaluate", "train", "finetune", "rollout"]


def test_the_demo_goes_to_the_end_and_a_second_time_does_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    demo = ["demo", "--output", str(folder), "--episodes", "12", "--model", "reference-s"]
    demo += ["--steps", "20", "--online-steps", "160", "--eval-episodes", "6"]
    assert main(demo) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^\$ vlm-rewards (\w+)", out, re.MULTILINE) == COMMANDS
    assert "next: " not in out  # the next command follows by itself
    end = out[out.index("judged by ground truth") :]
    assert re.search(r"before fine-tuning: success 0\.\d\d \(0\.\d\d to 0\.\d\d\) in 6 held-out episodes\n", end)
    assert re.search(r"after fine-tuning:  success 0\.\d\d \(0\.\d\d to 0\.\d\d\) in 6 held-out episodes\n", end)
    for page in (folder / "report" / "report.html", folder / "rollout" / "index.html"):
        assert f"  {page}: " in end
        assert page.is_file()

    before, after = (load_agent(folder / name).agent for name in ("agent", "agent-online"))
    assert after.num_updates > before.num_updates  # so short a run is not all warm-up
    weights = (folder / "agent-online" / "agent.pt").read_bytes()
    assert main(demo) == 0
    again = capsys.readouterr().out
    assert again.count("units were done before: nothing to do)") == 3  # record, label, hindsight
    assert again[again.index("judged by ground truth") :] == end
    assert (folder / "agent-online" / "agent.pt").read_bytes() == weights


def test_a_domain_without_a_reference_model_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = dataclasses.replace(BABYAI, name="modelless", default_model=None)
    monkeypatch.setattr("vlm_rewards.commands.demo.domain_named", lambda name: without)
    monkeypatch.setattr(
        "vlm_rewards.commands.demo.demonstration_of",
        lambda domain: Demonstration(envs=("BabyAI-GoToObj-v0",), model=None),
    )
    options = parse(["demo", "--domain", "modelless", "--output", str(tmp_path / "demo")])
    with pytest.raises(ValueError, match="got none, and modelless has no reference model. Give --model"):
        options.run(options)
    assert not (tmp_path / "demo").exists()


def test_the_end_says_whether_fine_tuning_has_shown_anything(tmp_path: Path) -> None:
    def describe(before: tuple[float, float, float], after: tuple[float, float, float]) -> list[str]:
        records = []
        for step, (success, low, high) in ((0, before), (8, (0.5, 0.4, 0.6)), (16, after)):
            figures = {"success": success, "success_low": low, "success_high": high, "episodes": 100}
            records.append({"step": step, "kind": "evaluation", "when": "", **figures})
            records.append({"step": step, "kind": "losses", "loss": 1.0})
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return describe_fine_tuning(tmp_path)

    # The first evaluation against the last: from 0.3 (0.2 to 0.4) to 0.7 (0.6 to 0.8) nothing overlaps.
    assert describe((0.3, 0.2, 0.4), (0.7, 0.6, 0.8)) == [
        "  before fine-tuning: success 0.30 (0.20 to 0.40) in 100 held-out episodes",
        "  after fine-tuning:  success 0.70 (0.60 to 0.80) in 100 held-out episodes",
    ]
    for after in ((0.35, 0.25, 0.45), (0.15, 0.05, 0.25), (0.5, 0.4, 0.6)):
        assert "the intervals overlap" in describe((0.3, 0.2, 0.4), after)[-1]
