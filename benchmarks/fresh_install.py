"""Installs the wheel as a user does and labels with a SigLIP laid out as on the hub: spiece.model, no tokenizer.json.

    python benchmarks/fresh_install.py PYTHON [PYTHON ...]        such as python3.11 python3.13

For each interpreter: a new virtual environment, `pip install torch` and the wheel with the releases of constraints.txt, from the
network, then `vlm-rewards label` on three episodes, without it. Prints the scores, which must be the same everywhere.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # where the small SigLIP and the small corpus are made

from small_corpora import plain_episode  # noqa: E402
from tiny_models import save_siglip_of_the_hub  # noqa: E402

from vlm_rewards.schemas.episodes import CorpusFeatures  # noqa: E402
from vlm_rewards.schemas.formats.corpus import write_episodes  # noqa: E402
from vlm_rewards.schemas.goals import Goal, write_goals  # noqa: E402


def run(*words: object, **settings: object) -> str:
    """Runs a command, which must succeed, and returns what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words], env=clean, check=True, capture_output=True, text=True, **settings
    )  # type: ignore[call-overload]
    return str(done.stdout)


def build_wheel(folder: Path) -> Path:
    """Builds the wheel from a copy of what git tracks."""
    source = folder / "source"
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def write_inputs(folder: Path) -> None:
    """Writes the model, three episodes and two goals."""
    save_siglip_of_the_hub(folder / "siglip")
    episodes = [plain_episode(number) for number in range(3)]
    (folder / "corpus").mkdir()
    write_episodes(folder / "corpus" / "shard.parquet", CorpusFeatures.of(episodes[0]), episodes, "parquet")
    write_goals((Goal("ball", "a ball in front"), Goal("key", "the agent carries a key")), folder / "goals.jsonl")


def label(python: str, folder: Path, wheel: Path) -> list[list[float]]:
    """Installs the wheel for an interpreter and returns the scores that it gives."""
    environment, constraint = folder / f"environment-{Path(python).name}", ["--constraint", ROOT / "constraints.txt"]
    run(python, "-m", "venv", environment)
    for package in ("torch", wheel):  # torch first, so that it is taken from where pip is told to look
        run(environment / "bin" / "pip", "install", "--quiet", *constraint, package)
    output = folder / f"labels-{Path(python).name}"
    inputs = ["--input", "corpus", "--goals", "goals.jsonl", "--model", "./siglip"]
    words = ["label", *inputs, "--formula", "sigmoid", "--threshold", "0.5", "--output", output]
    run("env", "HF_HUB_OFFLINE=1", environment / "bin" / "vlm-rewards", *words, cwd=folder)
    (part,) = (output / "parts").iterdir()
    scores: list[list[float]] = pq.read_table(part)["scores"].to_pylist()
    return scores


def main() -> None:
    """Labels with every interpreter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="+", help="interpreter to install for")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        wheel = build_wheel(folder)
        found = {python: label(python, folder, wheel) for python in arguments.python}
    for python, scores in found.items():
        print(f"{python}: {len(scores)} frames labelled, the first {scores[0]}")
    if any(scores != found[arguments.python[0]] for scores in found.values()):
        raise SystemExit("the scores differ")


if __name__ == "__main__":
    main()
