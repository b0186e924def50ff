"""What a command imports: large libraries only where the command cannot do without them, since they are most of its start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal, goals_to_lines

PROGRAM = """
import json, sys
from vlm_rewards.cli import main
try:
    status = main(sys.argv[2:])
except SystemExit as end:
    status = end.code
print()
print(json.dumps([status, [name for name in json.loads(sys.argv[1]) if name in sys.modules]]))
"""
LARGE = ["apache_beam", "av", "datasets", "h5py", "matplotlib", "minigrid", "pyarrow", "sympy", "torch", "transformers"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imports")
    save_tiny_clip(folder / "clip")
    (folder / "corpus").mkdir()
    episode = plain_episode(0)
    write_episodes(folder / "corpus" / "a.parquet", CorpusFeatures.of(episode), [episode], "parquet")
    (folder / "goals.jsonl").write_text(goals_to_lines([Goal("red", "a red ball"), Goal("blue", "a blue ball")]))
    return folder


@pytest.mark.parametrize(
    ("words", "imported"),
    [
        ("--help", []),
        ("label --help", []),
        ("train --help", []),
        ("inspect corpus", ["pyarrow"]),
        (
            "label --input corpus --goals goals.jsonl --model clip --output labels --dry-run",
            ["pyarrow", "sympy", "torch", "transformers"],  # torch imports sympy where transformers does
        ),
    ],
)
def test_a_command_imports_what_it_needs(folder: Path, words: str, imported: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(LARGE), *words.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, imported], done.stderr
