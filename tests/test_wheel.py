"""The wheel in an environment of its own, in a folder that holds other people's packages of our rooms' names."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_corpora import plain_episode
from tiny_models import save_siglip_of_the_hub

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal, write_goals

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schemas", "labelers", "pipelines", "offline_rl")
PROCESSES = (
    "--",
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=1",
)  # enough to import a wrong package
IMPORT_ALL = """
import importlib, pkgutil, sys
import vlm_rewards
names = [module.name for module in pkgutil.walk_packages(vlm_rewards.__path__, "vlm_rewards.")]
for name in names:
    if name != "vlm_rewards.__main__":
        importlib.import_module(name)
print(len(names), vlm_rewards.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout, so that building leaves nothing in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*ROOMS, "vlm_rewards"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *build], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that holds the wheel and sees the libraries of this one, but not its checkout."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Lines of this file become entries of sys.path; .pth files there, such as that of an editable install, are not read.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--python",
        str(folder / "bin/python"),
    ]
    subprocess.run([*pip, "install", "--no-deps", str(wheel)], check=True, capture_output=True)
    return folder / "bin"


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder that holds somebody else's packages, none of which may be imported."""
    for name in (*ROOMS, "commands", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(
            f"raise RuntimeError({name + ' of somebody else was imported'!r})\n"
        )
    return tmp_path


def run(folder: Path, *arguments: str | Path) -> str:
    without_path = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in arguments], cwd=folder, env=without_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    assert "INFO:" not in done.stderr  # workers of Beam's own would write some twenty lines each
    return done.stdout


def test_the_wheel_installs_one_name_with_everything_below_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert {name.split("/")[0] for name in names} == {"vlm_rewards"}
        assert "vlm_rewards/py.typed" in names
        files = {
            f"vlm_rewards/{path.relative_to(ROOT).as_posix()}": path
            for room in ROOMS
            for path in (ROOT / room).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert files.keys() <= names
        weights = [name for name in files if name.endswith(".safetensors")]
        assert len(weights) >= 3
        for name in weights:
            assert archive.read(name) == files[name].read_bytes()


def test_every_module_can_be_imported_among_other_peoples_packages(environment: Path, crowded: Path) -> None:
    count, file = run(crowded, environment / "python", "-c", IMPORT_ALL).split()
    assert int(count) > 150
    assert Path(file).is_relative_to(environment.parent)


def test_worker_processes_work_among_other_peoples_packages(environment: Path, crowded: Path) -> None:
    command = environment / "vlm-rewards"
    record = (
        "record",
        "--env",
        "BabyAI-GoToLocal-v0",
        "--episodes",
        "4",
        "--episodes-per-shard",
        "2",
        "--workers",
        "2",
    )
    assert "recorded 4 episodes" in run(crowded, command, *record, "--output", "corpus")
    write_goals((Goal("find-red-ball", "a red ball"), Goal("find-grey-key", "a grey key")), crowded / "goals.jsonl")
    label = ("label", "--input", "corpus", "--goals", "goals.jsonl", "--model", "reference-s")
    assert "for 2 goals" in run(crowded, command, *label, "--embeddings", "kept", "--output", "labels", *PROCESSES)
    inputs = ("--input", "corpus", "--labels", "labels")
    assert "relabelled" in run(crowded, command, "hindsight", *inputs, "--output", "relabelled", *PROCESSES)
    assert "evaluated" in run(crowded, command, "evaluate", *inputs, "--output", "report", *PROCESSES)
    calibrate = ("calibrate", "--labels", "labels", "--objective", "quantile", "--quantile", "0.5")
    run(crowded, command, *calibrate, "--output", "calibration.json", *PROCESSES)
    assert (crowded / "calibration.json").is_file()
    run(crowded, command, "diff", "labels", "labels", "--input", "corpus", "--output", "diff", *PROCESSES)
    assert (crowded / "diff" / "diff.json").is_file()


def test_the_wheel_labels_with_a_siglip_as_it_lies_on_the_hub(environment: Path, wheel: Path, crowded: Path) -> None:
    # `benchmarks/fresh_install.py` does the same with libraries that pip installs, for any interpreter.
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        required = [line for line in archive.read(metadata).decode().splitlines() if line.startswith("Requires-Dist: ")]
    for library in ("sentencepiece", "protobuf", "tokenizers"):  # what reads spiece.model
        assert any(line.startswith(f"Requires-Dist: {library}") and "extra" not in line for line in required), library
    save_siglip_of_the_hub(crowded / "siglip")
    assert not (crowded / "siglip" / "tokenizer.json").exists()
    episode = plain_episode(0)
    (crowded / "corpus").mkdir()
    write_episodes(crowded / "corpus" / "shard.parquet", CorpusFeatures.of(episode), [episode], "parquet")
    write_goals((Goal("ball", "a ball in front"), Goal("key", "the agent carries a key")), crowded / "goals.jsonl")
    inputs = ("--input", "corpus", "--goals", "goals.jsonl", "--model", "./siglip", "--formula", "sigmoid")
    words = ("label", *inputs, "--threshold", "0.5", "--output", "labels")
    assert "for 2 goals" in run(crowded, environment / "vlm-rewards", *words)
    (part,) = (crowded / "labels" / "parts").iterdir()
    scores = pq.read_table(part)["scores"].to_pylist()
    assert len(scores) == episode.num_frames
    assert all(0 < score < 1 for row in scores for score in row)
