import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vlm_rewards.offline_rl.runs.folders import (
    Metrics,
    describe_settings,
    latest_checkpoint,
    read_metrics,
    save_checkpoint,
)


def test_checkpoints_come_back_and_only_two_are_kept(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    generator = torch.Generator().manual_seed(3)
    for step in (1, 20, 300):
        save_checkpoint(
            tmp_path, step, {"random": generator.get_state(), "step": step, "parts": [torch.ones(2) * step]}
        )
    found = latest_checkpoint(tmp_path)
    assert found is not None
    step, state = found
    assert (step, state["step"], state["parts"][0].tolist()) == (300, 300, [300.0, 300.0])
    assert torch.equal(state["random"], generator.get_state())
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    kept = ["step-000000020.pt", "step-000000300.pt"]
    assert names == sorted([*kept, *(f"{name}.sha256" for name in kept)])


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="a file must be as it was written, got .*step-000000007.pt"):
        latest_checkpoint(tmp_path)
    path.with_name(f"{path.name}.sha256").unlink()  # of a version that wrote none
    with pytest.raises(ValueError, match="a checkpoint must be readable, got .*step-000000007.pt"):
        latest_checkpoint(tmp_path)


def test_a_half_written_checkpoint_is_not_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 7, {"a": 1})
    (tmp_path / "checkpoints" / "step-000000009.pt.tmp-12ab").write_bytes(b"half")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 7


def test_records_reach_json_lines_and_tensorboard(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(1, "losses", {"q": 0.5, "words": "kept in the lines", "none": None})
    metrics.write(2, "evaluation", {"success": 0.25})
    metrics.close()
    first, second = read_metrics(tmp_path)
    assert (first["step"], first["kind"], first["q"], first["words"], first["none"]) == (
        1,
        "losses",
        0.5,
        "kept in the lines",
        None,
    )
    assert (second["kind"], second["success"]) == ("evaluation", 0.25)
    assert second["seconds"] >= first["seconds"] >= 0
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Scalars("losses/q")[0].value == 0.5
    assert board.Scalars("evaluation/success")[0].step == 2


def test_going_on_takes_back_what_will_be_measured_again(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    for step in (1, 2, 3):
        metrics.write(step, "losses", {"q": float(step)})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "kin')  # killed while writing
    metrics = Metrics(tmp_path, step=2)
    metrics.write(3, "losses", {"q": 30.0})
    metrics.close()
    assert [(record["step"], record["q"]) for record in read_metrics(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_beginning_again_takes_back_everything(tmp_path: Path) -> None:
    for value in (1.0, 2.0):  # the first was killed before its first checkpoint
        metrics = Metrics(tmp_path)
        metrics.write(0, "evaluation", {"success": value})
        metrics.close()
    assert [(record["step"], record["success"]) for record in read_metrics(tmp_path)] == [(0, 2.0)]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [scalar.value for scalar in board.Scalars("evaluation/success")] == [2.0]


def test_a_number_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    with pytest.raises(ValueError, match="losses must be finite numbers, got q nan at step 5; the run has diverged"):
        metrics.write(5, "losses", {"q": float("nan")})
    metrics.close()
    assert read_metrics(tmp_path) == []


def test_weights_and_biases_must_be_installed_to_be_used(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="wandb must be installed to log to the project 'demo'; pip install wandb"):
        Metrics(tmp_path, project="demo")


def test_metrics_file_is_plain_json(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(1, "losses", {"q": 1})
    metrics.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["q"] == 1


@pytest.mark.parametrize("line", [b"{broken", b"3", b"\xff"])
def test_a_broken_line_of_metrics_is_refused_by_number(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b'\n{"cut')
    with pytest.raises(
        ValueError, match=r"metrics.jsonl, line 2: a line of metrics must be a JSON object, got .*Remove"
    ):
        read_metrics(tmp_path)


WANDB = """
import json, pathlib
def init(**given):
    path = pathlib.Path(__file__).with_name("told.jsonl")
    with path.open("a") as file:
        file.write(json.dumps(given) + "\\n")
    return Run()
class Run:
    def log(self, values, step): pass
    def finish(self): pass
"""


def test_a_run_that_goes_on_is_the_same_run_of_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "wandb.py").write_text(WANDB)  # stands in for a service, which a test cannot reach
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    for name in ("one", "one", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        metrics = Metrics(tmp_path / name, project="demo")
        metrics.write(1, "losses", {"q": 0.5})
        metrics.close()
    sys.modules.pop("wandb")
    told = [json.loads(line) for line in (tmp_path / "modules" / "told.jsonl").read_text().splitlines()]
    assert [(given["project"], given["name"], given["resume"]) for given in told] == [
        ("demo", "one", "allow"),
        ("demo", "one", "allow"),
        ("demo", "other", "allow"),
    ]
    assert told[0]["id"] == told[1]["id"] != told[2]["id"]
    assert len(told[0]["id"]) == 32


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = 10
    log_every: int = 5
    frames: str = "observation"


def test_settings_that_came_later_leave_earlier_runs_their_fingerprint() -> None:
    def described(settings: Settings) -> dict:
        return describe_settings(settings, unimportant=("log_every",), added=("frames",))

    assert described(Settings()) == {"steps": 10}
    assert described(Settings(steps=3, frames="render")) == {"steps": 3, "frames": "render"}
