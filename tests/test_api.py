"""The public API: small, lazy, documented by examples that run, and without a trace in the process."""

import doctest
import logging
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import vlm_rewards as vr
from vlm_rewards.cli import main

EXAMPLES = doctest.DocTestFinder(recurse=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus/, labels/, relabelled/ and agent/, all small; examples run in a copy of it."""
    folder = tmp_path_factory.mktemp("made")
    vr.record(output=folder / "corpus", envs=["BabyAI-GoToLocal-v0"], policy="bot:0.7,random:0.3", episodes=12, seed=3)
    labeler = vr.load_labeler("reference-s", vr.read_goals(folder / "corpus" / "goals.jsonl"))
    vr.label(folder / "corpus", labeler.settings, output=folder / "labels")
    vr.hindsight(folder / "corpus", folder / "labels", output=folder / "relabelled")
    small = {"width": 32, "channels": 8}
    output = folder / "agent"
    vr.train(folder / "relabelled", output=output, steps=10, batch_size=16, num_actions=7, algorithm_settings=small)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(made, tmp_path / "work"))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", vr.__all__)
def test_the_example_of_every_name_runs(name: str, work: Path) -> None:
    found = [test for test in EXAMPLES.find(getattr(vr, name), name, globs={}) if test.examples]
    assert len(found) == 1, name
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(found[0], out=said.append)
    assert runner.failures == 0, "".join(said)


def test_the_api_is_small_and_whole() -> None:
    assert len(vr.__all__) <= 25
    assert vr.__all__ == sorted(vr.__all__)
    assert {*vr.__all__} <= {*dir(vr)}
    for name in vr.__all__:
        assert getattr(vr, name).__doc__, name
    with pytest.raises(AttributeError, match="module 'vlm_rewards' has no attribute 'lable'"):
        _ = vr.lable


def test_importing_the_api_loads_nothing() -> None:
    script = "import sys, vlm_rewards as vr; dir(vr); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "torch", "pyarrow", "apache_beam", "transformers", "argparse"} & {*done.stdout.split()}
    [took] = [line for line in done.stderr.splitlines() if line.endswith(" vlm_rewards")]
    assert int(took.split("|")[1]) < 50_000  # microseconds


def _process() -> dict[str, object]:
    """What a program that uses the API may rely on."""
    import torch
    import transformers
    from threadpoolctl import threadpool_info

    blas = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return {
        "threads": torch.get_num_threads(),
        "blas": sorted((info["filepath"], info["num_threads"]) for info in blas),
        "precision": torch.get_float32_matmul_precision(),
        "gradients": torch.is_grad_enabled(),
        "random": torch.random.get_rng_state().sum().item(),
        "numpy": int(np.random.get_state()[1].sum()),  # noqa: NPY002
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "logging": (logging.getLogger().level, len(logging.getLogger().handlers)),
        "transformers": transformers.logging.get_verbosity(),
        "folder": Path.cwd(),
    }


def test_no_function_changes_a_setting_of_the_process(work: Path) -> None:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    level = ["BabyAI-GoToLocal-v0"]
    try:
        labeler = vr.load_labeler("reference-s", vr.read_goals("corpus/goals.jsonl"), temperature=0.2)
        before = _process()
        for call in (
            lambda: vr.label("corpus/", labeler.settings, output="other/", embeddings="kept/"),
            lambda: vr.calibrate("other/", corpus="corpus/", embeddings="kept/", output="calibration.json"),
            lambda: vr.evaluate("corpus/", "other/", output="report/"),
            lambda: vr.diff("labels/", "other/", output="diff/"),
            lambda: vr.hindsight("corpus/", "other/", output="relabelled-2/"),
            lambda: vr.export("corpus/", "other/", to="verdicts", output="verdicts-2/"),
            lambda: vr.train("relabelled/", output="agent-2/", steps=2, batch_size=16, num_actions=7),
            lambda: vr.finetune("agent/", output="online/", envs=level, steps=16, warmup_steps=8, eval_episodes=0),
            lambda: vr.rollout("agent/", output="play/", envs=level, episodes=2, videos=0),
            lambda: vr.record(output="new/", envs=level, episodes=2),
        ):
            returned = call()
            assert _process() == before, returned
            assert len(repr(returned)) < 1500
    finally:
        torch.set_num_threads(threads)


def test_python_and_the_shell_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    level = "BabyAI-GoToObj-v0"
    shell, python = tmp_path / "shell", tmp_path / "python"
    for folder in (shell, python):
        folder.mkdir()
    monkeypatch.chdir(shell)
    for words in (
        f"record --env {level} --policy random --episodes 5 --seed 4 --episodes-per-shard 2 --max-steps 6 --output corpus",
        "label --input corpus --goals corpus/goals.jsonl --model reference-s --template {goal}. --negatives all "
        "--threshold 0.25 --window 2 --batch-size 16 --embeddings kept --output labels",
        "hindsight --input corpus --labels labels --strategy final --goals-per-episode 3 --ratio 1:1:1 --output relabelled",
    ):
        assert main(words.split()) == 0
    monkeypatch.chdir(python)
    vr.record(output="corpus", envs=[level], policy="random", episodes=5, seed=4, episodes_per_shard=2, max_steps=6)
    labeler = vr.load_labeler(
        "reference-s",
        vr.read_goals("corpus/goals.jsonl"),
        templates=("{goal}.",),
        negatives={"kind": "all"},
        threshold=0.25,
        window={"frames": 2},
        batch_size=16,
    )
    vr.label("corpus", labeler.settings, output="labels", embeddings="kept")
    vr.hindsight("corpus", "labels", output="relabelled", strategy="final", goals_per_episode=3, ratio=(1, 1, 1))
    made, again = _contents(shell), _contents(python)
    assert len([path for path in made if path.parent.name == "parts"]) == 12
    assert made.keys() == again.keys()
    for path, content in made.items():
        assert content == again[path], path


def _contents(folder: Path) -> dict[Path, bytes]:
    """Bytes of all files but markers and manifests, which tell how long a run took."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    timed = {"markers", "manifest.json"}
    return {name: path.read_bytes() for name, path in files.items() if not timed & {*name.parts}}
