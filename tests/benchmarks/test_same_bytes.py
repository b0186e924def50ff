"""The comparison behind the proof of a refactor, on small folders, and the arguments that it refuses."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from output_comparison import FileComparison, compare_folders, describe, leaves_of
from same_bytes import main, resolve_commit


def write(folder: Path, files: Mapping[str, object]) -> Path:
    """Writes bytes as they are, everything else as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=1).encode())
    return folder


def compare(tmp_path: Path, old: Mapping[str, object], new: Mapping[str, object]) -> list[FileComparison]:
    return compare_folders(write(tmp_path / "old", old), write(tmp_path / "new", new))


def test_equal_bytes_are_compared_whole(tmp_path: Path) -> None:
    files = {"labels/parts/a.parquet": b"PAR1", "labels/markers/a.json": {"rows": 3, "seconds": {"score": 0.5}}}
    assert compare(tmp_path, files, files) == [
        FileComparison(path="labels/markers/a.json", differs=False),
        FileComparison(path="labels/parts/a.parquet", differs=False),
    ]


def test_one_byte_is_a_difference(tmp_path: Path) -> None:
    found = compare(tmp_path, {"labels/parts/a.parquet": b"PAR1"}, {"labels/parts/a.parquet": b"PAR2"})
    detail = "first difference at byte 3 (sizes 4 and 4)"
    assert found == [FileComparison(path="labels/parts/a.parquet", differs=True, detail=detail)]


def test_a_file_that_ends_earlier_differs_where_it_ends(tmp_path: Path) -> None:
    (found,) = compare(tmp_path, {"a.npy": b"12"}, {"a.npy": b"123"})
    assert found.detail == "first difference at byte 2 (sizes 2 and 3)"


def test_measured_seconds_are_left_out_and_named(tmp_path: Path) -> None:
    old = {"labels/markers/a.json": {"rows": 3, "seconds": {"score": 0.5}}}
    new = {"labels/markers/a.json": {"rows": 3, "seconds": {"score": 0.7, "write": 0.1}}}
    assert compare(tmp_path, old, new) == [
        FileComparison(path="labels/markers/a.json", differs=False, left_out=("seconds",))
    ]


@pytest.mark.parametrize(
    ("name", "old", "new", "detail"),
    [
        # a value beside the seconds
        ("l/markers/a.json", {"rows": 3, "seconds": 1}, {"rows": 4, "seconds": 2}, "at rows: 3 in OLD, 4 in NEW"),
        # seconds at another place than the one that a clock fills
        ("l/markers/a.json", {"unit": {"seconds": 1}}, {"unit": {"seconds": 2}}, "at unit.seconds: 1 in OLD, 2 in NEW"),
        # seconds in a file of another kind
        ("l/manifest.json", {"seconds": 1}, {"seconds": 2}, "at seconds: 1 in OLD, 2 in NEW"),
        # a name of a module in a fingerprint
        (
            "l/settings.json",
            {"fingerprint": {"formula": "labelers.formulas"}},
            {"fingerprint": {"formula": "vlm_rewards.labelers.formulas"}},
            "at fingerprint.formula: 'labelers.formulas' in OLD, 'vlm_rewards.labelers.formulas' in NEW",
        ),
        # a whole number that became a float
        ("l/manifest.json", {"rows": [1]}, {"rows": [1.0]}, "at rows[0]: 1 in OLD, 1.0 in NEW"),
        # the order of keys
        ("l/manifest.json", {"a": 1, "b": 2}, {"b": 2, "a": 1}, "a = 1 in OLD, b = 2 in NEW"),
        ("l/manifest.json", {"a": 1}, {"a": 1, "b": 2}, "nothing in OLD, b = 2 in NEW"),
        # values that agree, in another layout
        (
            "l/manifest.json",
            b'{"a": 1}',
            b'{"a":1}',
            "first difference at byte 5 (sizes 8 and 7); the values are equal",
        ),
    ],
)
def test_everything_else_in_a_json_file_is_compared(
    tmp_path: Path, name: str, old: object, new: object, detail: str
) -> None:
    assert compare(tmp_path, {name: old}, {name: new}) == [FileComparison(path=name, differs=True, detail=detail)]


def test_a_file_of_one_side_is_a_difference(tmp_path: Path) -> None:
    found = compare(tmp_path, {"a": b"", "b": b""}, {"a": b"", "c": b""})
    assert [(one.path, one.differs, one.detail) for one in found] == [
        ("a", False, ""),
        ("b", True, "only in OLD"),
        ("c", True, "only in NEW"),
    ]


def test_a_file_that_cannot_be_read_is_a_difference(tmp_path: Path) -> None:
    (found,) = compare(tmp_path, {"l/markers/a.json": {"seconds": 1}}, {"l/markers/a.json": b"{"})
    assert found.differs
    assert "cannot be read: Expecting property name" in found.detail


def test_two_empty_folders_prove_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files to compare: got .*old and .*new"):
        compare(tmp_path, {}, {})


def test_records_of_a_run_are_compared_without_their_seconds(tmp_path: Path) -> None:
    old = b'{"step": 1, "seconds": 0.1, "loss": 0.5}\n{"step": 2, "seconds": 0.2, "loss": 0.25}\n'
    later = old.replace(b"0.2,", b"0.3,")
    (found,) = compare(tmp_path / "time", {"agent/metrics.jsonl": old}, {"agent/metrics.jsonl": later})
    assert (found.differs, found.left_out) == (False, ("[].seconds",))
    worse = later.replace(b"0.25", b"0.26")
    (found,) = compare(tmp_path / "loss", {"agent/metrics.jsonl": old}, {"agent/metrics.jsonl": worse})
    assert (found.differs, found.detail) == (True, "at [1].loss: 0.25 in OLD, 0.26 in NEW")


def test_checkpoints_are_compared_by_their_tensors(tmp_path: Path) -> None:
    def save(side: str, weight: float, seconds: float) -> None:
        path = tmp_path / side / "agent" / "checkpoints" / "step-000000001.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        costs = {"seconds": seconds, "frames": 8}
        torch.save({"weights": torch.tensor([1.0, weight]), "live": {"judge": costs}}, path)

    save("old", 2.0, seconds=0.1)
    save("new", 2.0, seconds=0.2)
    (found,) = compare_folders(tmp_path / "old", tmp_path / "new")
    assert (found.differs, found.left_out) == (False, ("live.judge.seconds",))
    save("new", 3.0, seconds=0.2)
    (found,) = compare_folders(tmp_path / "old", tmp_path / "new")
    assert found.differs
    assert found.detail.startswith("at weights: torch.float32[2] ")


def test_tensorboard_files_are_compared_by_their_values(tmp_path: Path) -> None:
    def log(side: Path, loss: float, seconds: float) -> Path:
        with SummaryWriter(str(side / "agent" / "tensorboard")) as board:
            board.add_scalar("losses/value", loss, 1, walltime=seconds)
            board.add_scalar("scoring/seconds_waited", seconds, 1, walltime=seconds)
        return side

    old = log(tmp_path / "old", 0.5, seconds=1.0)
    (found,) = compare_folders(old, log(tmp_path / "same", 0.5, seconds=2.0))
    assert found.path == "agent/tensorboard/events.out.tfevents-0"  # whatever time, host and process are in the name
    assert (found.differs, found.left_out) == (False, ("[].summary.scoring/seconds_waited", "[].wallTime"))
    (found,) = compare_folders(old, log(tmp_path / "other", 0.25, seconds=2.0))
    assert found.detail == "at [1].summary.losses/value.simpleValue: 0.5 in OLD, 0.25 in NEW"


REPORT = (
    "<p>{quality}</p><tr><td>frames a second and worker</td><td class=number>{speed}</td></tr>"
    "<thead><tr><th scope=col>stage</th><th scope=col class=number>frames/s</th></tr></thead><tbody>{stages}</tbody>"
)
STAGE = "<tr><td>{}</td><td class=number>{}</td><td class=number>50%</td><td class=number>7</td></tr>"


def test_reports_are_compared_without_their_times(tmp_path: Path) -> None:
    def report(quality: str, speed: str, *stages: tuple[str, str]) -> dict[str, bytes]:
        rows = "".join(STAGE.format(*stage) for stage in stages)
        return {"report/report.html": REPORT.format(quality=quality, speed=speed, stages=rows).encode()}

    old = report("AP 0.9", "1,204", ("score", "0.30"), ("write", "0.10"))
    slower = report("AP 0.9", "602", ("write", "0.60"), ("score", "0.20"))  # sorted by time: the rows change places
    (found,) = compare(tmp_path / "time", old, slower)
    assert (found.differs, found.left_out) == (False, ("measured.speed", "measured.stages"))
    (found,) = compare(tmp_path / "quality", old, report("AP 0.8", "602", ("write", "0.60"), ("score", "0.20")))
    assert found.differs
    (found,) = compare(tmp_path / "stage", old, report("AP 0.9", "602", ("read", "0.60"), ("score", "0.20")))
    assert found.differs  # a stage of another name


def test_leaves_have_a_place_and_an_empty_container_is_one() -> None:
    assert list(leaves_of({"a": [1, {"b": None}], "c": {}})) == [
        ("a[0]", "a[]", "1"),
        ("a[1].b", "a[].b", "None"),
        ("c", "c", "{}"),
    ]


def test_the_description_lists_every_file_once(tmp_path: Path) -> None:
    found = compare(
        tmp_path,
        {"a.npy": b"1", "l/markers/a.json": {"seconds": 1}, "r/page.html": b"1", "z.npy": b"1"},
        {"a.npy": b"1", "l/markers/a.json": {"seconds": 2}, "r/page.html": b"2", "z.npy": b"2"},
    )
    byte = "first difference at byte 0 (sizes 1 and 1)"
    assert describe(found, ["r/*.html", "*.gif"]) == [
        "equal, compared whole: 1 files",
        "  a.npy",
        "equal, compared in part: 1 files",
        "  l/markers/a.json: without seconds",
        "different, allowed: 1 files",
        f"  r/page.html: {byte}",
        "different: 1 files",
        f"  z.npy: {byte}",
        "--allow *.gif matched no file that differs",
        "not compared: what the commands printed",
        "result: different",
    ]
    assert describe(found, ["r/*", "z.npy"])[-1] == "result: equal"


def test_wrong_arguments_end_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").touch()
    for arguments, message in (
        (["HEAD"], "required: NEW"),
        (["no-such-commit", "HEAD"], "got 'no-such-commit'. Give a commit id"),
        (["--", "HEAD", "--all"], "got '--all'. Give a commit id"),
        (["HEAD", "HEAD", "--keep", str(tmp_path)], "--keep needs an absent or empty folder: got"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert message in capsys.readouterr().err


def test_a_commit_is_resolved_to_its_full_id() -> None:
    commit = resolve_commit("HEAD")
    assert commit is not None
    assert len(commit) == 40
    assert resolve_commit(commit[:12]) == commit
    assert resolve_commit("HEAD^{tree}") is None
