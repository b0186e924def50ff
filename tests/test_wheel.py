"""The wheel: complete, and at work outside the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from vlm_rewards.schemas.goals import Goal, write_goals

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "labelers", "pipelines", "offline_rl")


def test_the_wheel_labels_outside_the_checkout(tmp_path: Path) -> None:
    source, site, work = tmp_path / "source", tmp_path / "site", tmp_path / "work"
    source.mkdir()
    work.mkdir()
    for package in PACKAGES:  # a copy, so that building leaves nothing in the checkout
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "vlm_rewards.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    assert {path.name for path in site.iterdir() if (path / "__init__.py").is_file()} == set(PACKAGES)

    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> str:
        done = subprocess.run(arguments, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import vlm_rewards, vlm_rewards.labelers; print(vlm_rewards.__file__, vlm_rewards.labelers.__file__)"
    assert run(sys.executable, "-c", where).split() == [
        str(site / "vlm_rewards.py"),
        str(site / "labelers" / "__init__.py"),
    ]
    command = str(site / "bin" / "vlm-rewards")
    run(command, "record", "--env", "BabyAI-GoToLocal-v0", "--episodes", "2", "--output", "corpus")
    write_goals((Goal("ball", "a red ball"), Goal("key", "a key")), work / "goals.jsonl")
    out = run(
        command, "label", "--input", "corpus", "--goals", "goals.jsonl", "--model", "reference-s", "--output", "labels"
    )
    assert "for 2 goals" in out
    for model in (ROOT / "labelers" / "reference").iterdir():
        for file in model.iterdir():
            assert (site / "labelers" / "reference" / model.name / file.name).read_bytes() == file.read_bytes()
