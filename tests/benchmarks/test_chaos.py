"""The short form of `make chaos`, and that it finds what it looks for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from chaos import STAGES, Chaos, Stage, Tally

ROOT = Path(__file__).resolve().parents[2]
RECORD = STAGES[0]


def test_a_recording_killed_at_random_moments_is_that_of_an_unbroken_run(tmp_path: Path) -> None:
    """In a process of its own, since it forks: that of the tests has threads."""
    command = [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), "--stages", "record", "--kills", "6"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "chaos.json").read_text())
    assert (result["kills"], result["differences"]) == (6, 0)
    assert result["stages"]["record"]["compared"] >= 19


@pytest.fixture
def chaos(tmp_path: Path) -> Chaos:
    """A run whose stage `record` has ended once: a part, its marker and the manifest."""
    made = Chaos(tmp_path, seed=0)
    part = made.reference / "record" / "corpus" / "parts" / "a.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"PAR1 whole PAR1")
    shutil.copytree(made.reference / "record", made.work, dirs_exist_ok=True)
    return made


def problems_after(chaos: Chaos, stage: Stage = RECORD) -> list[str]:
    tally = Tally()
    chaos.check_names(stage, tally)
    return tally.problems


def test_a_whole_file_and_an_unfinished_one_of_another_name_are_no_problem(chaos: Chaos) -> None:
    (chaos.work / "corpus" / "parts" / "b.parquet.tmp-0123456789abcdef").write_bytes(b"PAR1")
    (chaos.work / "corpus" / ".lock").touch()
    assert problems_after(chaos) == []


def test_half_a_file_under_its_final_name_is_found(chaos: Chaos) -> None:
    (chaos.work / "corpus" / "parts" / "a.parquet").write_bytes(b"PAR1")
    (problem,) = problems_after(chaos)
    assert problem == ("record, after kill 0: corpus/parts/a.parquet: first difference at byte 4 (sizes 15 and 4)")


def test_a_file_that_the_unbroken_run_does_not_have_is_found(chaos: Chaos) -> None:
    (chaos.work / "corpus" / "parts" / "b.parquet").write_bytes(b"PAR1")
    assert problems_after(chaos) == [
        "record, after kill 0: corpus/parts/b.parquet: the unbroken run has no file of this name"
    ]


def test_a_digest_of_other_contents_is_found(chaos: Chaos) -> None:
    checkpoint = chaos.work / "corpus" / "step-4.pt"
    checkpoint.write_bytes(b"weights")
    checkpoint.with_name("step-4.pt.sha256").write_text("0" * 64)
    assert problems_after(chaos) == [
        "record, after kill 0: corpus/step-4.pt: it is not the digest of its file",
        "record, after kill 0: corpus/step-4.pt.sha256: it is not the digest of its file",
    ]


def test_an_export_in_place_is_old_or_new_as_a_whole(chaos: Chaos) -> None:
    stage = next(stage for stage in STAGES if stage.copied is not None)
    for folder, (a, b) in {
        chaos.work / "corpus" / "parts": (b"old a", b"old b"),
        chaos.reference / stage.name / "mine": (b"new a", b"new b"),
        chaos.work / "mine": (b"old a", b"old b"),
    }.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.parquet").write_bytes(a)
        (folder / "b.parquet").write_bytes(b)
    assert problems_after(chaos, stage) == []
    (chaos.work / "mine" / "a.parquet").write_bytes(b"new a")
    assert problems_after(chaos, stage) == [
        "export in place, after kill 0: ['mine/b.parquet'] are old, 1 files are new"
    ]
