"""What a run does again, what it leaves, and what it forgets before it begins."""

from pathlib import Path

import pytest

from vlm_rewards.pipelines.engine.driver import RunSummary, run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.manifests import Failure, Unit

ONE_WORKER = ("--runner=FnApiRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1")
UNITS = (Unit(name="a", content="1"), Unit(name="b", content="2"))


def folder_at(path: Path) -> OutputFolder:
    return OutputFolder(path, kind="labels", fingerprint=Fingerprint({"weights": "w"}), settings={}, extension="txt")


class Work:
    """Writes its unit's name, also to a second folder, and notes what it saw in the folders when it began."""

    def __init__(self, output: OutputFolder, notes: Path, other: OutputFolder | None = None, fails: str = "") -> None:
        self.output, self.notes, self.other, self.fails = output, notes, other, fails

    def __call__(self, unit: Unit, part: PartWriter) -> None:
        seen = [
            unit.name,
            f"marker={self.output.marker_path(unit).exists()}",
            f"rows={self.output.count_so_far({})}",
            f"manifest={(self.output.path / 'manifest.json').exists()}",
        ]
        if self.other is not None:
            seen.append(f"other={(self.other.path / 'manifest.json').exists()}")
            if not self.other.is_done(unit):
                with self.other.writing(unit) as kept:
                    self._fill(unit, kept)
        with self.notes.open("a") as file:
            file.write(" ".join(seen) + "\n")
        self._fill(unit, part)

    def _fill(self, unit: Unit, part: PartWriter) -> None:
        part.path.write_text(unit.name)
        part.advance(5)
        part.episodes += 1
        if unit.name == self.fails:
            part.fail(Failure(scope="shard", shard=unit.name, reason="unreadable", detail="d"))


def run(work: Work, units: tuple[Unit, ...] = UNITS, **settings: object) -> RunSummary:
    others = () if work.other is None else (work.other,)
    return run_units(
        units,
        work,
        work.output,
        also_filled=others,
        beam_options=ONE_WORKER,
        title="try",
        counted_name="rows",
        total=None,
        **settings,  # type: ignore[arg-type]
    )


def lines(path: Path) -> list[str]:
    """What the work noted since the last call."""
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return sorted(text.splitlines())


def test_a_marker_that_no_longer_holds_is_gone_before_the_work_begins(tmp_path: Path) -> None:
    work = Work(folder_at(tmp_path / "out"), tmp_path / "notes")
    assert run(work).num_skipped == 0
    assert lines(work.notes) == [
        "a marker=False rows=0 manifest=False",
        "b marker=False rows=5 manifest=False",
    ]
    replaced = (UNITS[0], Unit(name="b", content="other bytes"))
    summary = run(work, replaced)
    assert summary.num_skipped == 1
    # The five rows of the old "b" are not progress, and nobody who looks on may take the old manifest for this run's.
    assert lines(work.notes) == ["b marker=False rows=5 manifest=False"]
    work.output.part_path(UNITS[0]).write_text("cut short")  # of another size than its marker says
    assert run(work, replaced).num_skipped == 1
    assert lines(work.notes) == ["a marker=False rows=5 manifest=False"]


def test_a_unit_whose_file_failed_is_done_again_and_a_run_without_work_keeps_its_manifest(tmp_path: Path) -> None:
    work = Work(folder_at(tmp_path / "out"), tmp_path / "notes", fails="b")
    run(work, max_failure_share=0.5)
    manifest = (tmp_path / "out" / "manifest.json").read_bytes()
    lines(work.notes)
    run(work, max_failure_share=0.5)
    assert lines(work.notes) == ["b marker=False rows=5 manifest=False"]
    assert (tmp_path / "out" / "manifest.json").read_bytes() == manifest
    work.fails = ""
    assert run(work).num_skipped == 1
    lines(work.notes)
    assert run(work).num_skipped == 2
    assert lines(work.notes) == []
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_unit_is_done_when_it_is_done_in_every_folder(tmp_path: Path) -> None:
    out, other = folder_at(tmp_path / "out"), folder_at(tmp_path / "other")
    work = Work(out, tmp_path / "notes", other)
    run(work)
    assert [line.split()[-1] for line in lines(work.notes)] == ["other=False"] * 2
    (tmp_path / "other" / "markers" / "b.json").unlink()
    assert run(work).num_skipped == 1
    assert lines(work.notes) == ["b marker=False rows=5 manifest=False other=False"]
    out.marker_path(UNITS[0]).unlink()  # done in the other folder, which stays finished meanwhile
    assert run(work).num_skipped == 1
    assert lines(work.notes) == ["a marker=False rows=5 manifest=False other=True"]
    assert (tmp_path / "other" / "manifest.json").is_file()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_must_be_a_share(tmp_path: Path, share: float) -> None:
    work = Work(folder_at(tmp_path / "out"), tmp_path / "notes")
    with pytest.raises(ValueError, match="max_failure_share must be from 0 to 1, got"):
        run(work, max_failure_share=share)
    assert not (tmp_path / "out").exists()


def test_an_error_ends_the_run_and_the_next_one_does_all(tmp_path: Path) -> None:
    work = Work(folder_at(tmp_path / "out"), tmp_path / "notes")
    (tmp_path / "notes").mkdir()  # so that the work cannot write to it
    with pytest.raises(RuntimeError, match=r"(?s)^IsADirectoryError: .*\nin unit '[ab]' of the plan$"):
        run(work)
    assert [list((tmp_path / "out" / name).iterdir()) for name in ("parts", "markers")] == [[], []]
    (tmp_path / "notes").rmdir()
    assert run(work).num_skipped == 0
    assert len(lines(work.notes)) == 2
