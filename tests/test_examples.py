"""The examples: every file of examples/ runs as a person runs it, in an empty folder, after the examples are installed."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny_clip

EXAMPLES = Path(__file__).parent.parent / "examples"
PROJECT = tomllib.loads((EXAMPLES / "pyproject.toml").read_text(encoding="utf-8"))
SAID = {
    "custom_domain.py": ["RunSummary(corpus: ", "20 episodes", "frames in which a goal holds: {'left': ", "'right': "],
    "custom_encoder.py": [
        "red  green  blue",
        "colours    0            1.0    0.0   0.0",
        "1            0.0    1.0   0.0",
    ],
    "custom_format.py": [
        "Episode('run-0': 6 frames of front, 5 steps)",
        "LabelSummary(labels: 12 rows of 2 episodes in 2 units",
    ],
    "custom_formula.py": ["softmax: mean average precision 0.", "margin: mean average precision 0."],
    "corpus_to_heat_map.py": ["LabelSummary(labels: ", "evaluated ", "average precision"],
}
"""By file, what it prints."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path with the metadata that `pip install ./examples` writes."""
    folder = tmp_path_factory.mktemp("installed")
    project = PROJECT["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(installed: Path, folder: Path, name: str, *words: str) -> str:
    path = os.pathsep.join([str(installed), str(EXAMPLES), str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(EXAMPLES / name), *words]
    environment = {**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs(installed: Path, tmp_path: Path, name: str) -> None:
    out = run(installed, tmp_path, name)
    for words in SAID[name]:
        assert words in out, out
    if name == "custom_formula.py":  # worker processes know the formula, too
        words = "label --input corpus --goals corpus/goals.jsonl --model reference-s --formula margin --output again --workers 2"
        run(
            installed,
            tmp_path,
            "../vlm_rewards/__main__.py",
            *words.split(),
            "--",
            "--direct_running_mode=multi_processing",
        )
        parts = [sorted((tmp_path / folder / "parts").iterdir()) for folder in ("again", "labels-margin")]
        assert [path.read_bytes() for path in parts[0]] == [path.read_bytes() for path in parts[1]]
    if name == "corpus_to_heat_map.py":
        with Image.open(tmp_path / "heat_map.png") as picture:
            assert len({*picture.convert("RGB").getdata()}) > 100  # something is drawn


def test_pictures_are_labelled_with_a_checkpoint(installed: Path, tmp_path: Path) -> None:
    checkpoint = save_tiny_clip(tmp_path / "clip")
    for name, colour in (("one.png", (200, 0, 0)), ("two.jpg", (0, 200, 0))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    out = run(installed, tmp_path, "label_pictures.py", str(checkpoint), "one.png", "two.jpg")
    lines = [line.split("  ") for line in out.splitlines()]
    assert [line[0] for line in lines] == ["one.png", "two.jpg"]
    scores = np.array([[float(part.partition(": ")[2]) for part in line[1:]] for line in lines])
    assert scores.shape == (2, 2)
    assert ((scores >= 0) & (scores <= 1)).all()
    code = (EXAMPLES / "label_pictures.py").read_text(encoding="utf-8").partition('"""\n\n')[2]
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10


def test_every_example_is_run_and_registered() -> None:
    files = {path.name for path in EXAMPLES.glob("*.py")}
    assert files == {*SAID, "label_pictures.py"}
    modules = {path.removesuffix(".py") for path in files if path.startswith("custom_")}
    assert {*PROJECT["tool"]["setuptools"]["py-modules"]} == modules
    points = [value for group in PROJECT["project"]["entry-points"].values() for value in group.values()]
    assert {value.partition(":")[0] for value in points} == modules
