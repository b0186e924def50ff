"""The table of `make bench`: ratios by hand, and the frames that all contenders see."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from bench import add_ratios, table, write_jpegs
from bench_contenders import Clock, pictures


def row(contender: str, **changes: object) -> dict:
    rates = {"frames_per_s": 100.0, "frames_per_processor_s": 50.0, "start_s": 4.0, "peak_mib": 600.0, "frames": 768}
    whole = {"whole_frames_per_s": 80.0, "whole_frames_per_processor_s": 20.0}
    return {"shape": "vit-b32", "pictures": "224x224", "contender": contender, **rates, **whole, **changes}


def test_ratios_are_to_the_fastest_limit_without_its_start() -> None:
    slow = row("limit torch float32", frames_per_processor_s=45.0)
    slow["frames_per_s"] = 30.0
    rows = [row("limit openvino float32"), row("label", frames_per_s=90.0, frames_per_processor_s=40.0)]
    rows += [{**row("x"), "shape": "other"}, slow]
    add_ratios(rows)
    names = ("processor_ratio", "whole_processor_ratio", "clock_ratio", "whole_clock_ratio")
    assert [rows[1][name] for name in names] == [40 / 50, 20 / 50, 90 / 100, 80 / 100]
    assert rows[2]["clock_ratio"] is None  # its shape has no limit
    lines = table(rows)
    assert lines[3] == "| vit-b32 | 224x224 | label | 0.80 | 0.40 | 0.90 | 0.80 | 90.0 | 40.0 | 4.0 | 600 | 768 |"
    assert {line.count("|") for line in lines} == {13}


def test_what_failed_says_why_in_its_row() -> None:
    rows = [{"shape": "vit-b32", "pictures": "video", "contender": "label", "failed": "ValueError: no"}]
    add_ratios(rows)
    assert table(rows)[2].startswith("| vit-b32 | video | label | ValueError: no |")
    assert table(rows)[2].count("|") == 13


def test_contenders_see_every_frame_of_the_corpus_once(tmp_path: Path) -> None:
    corpus = write_jpegs(tmp_path / "c", 70, (48, 64))
    seen = [np.asarray(picture) for picture in pictures({"is_video": False, "corpus": str(corpus)})]
    assert [picture.shape for picture in seen] == [(48, 64, 3)] * 70
    assert len({picture.tobytes() for picture in seen}) == 70


def test_the_clock_begins_with_the_first_frames(tmp_path: Path) -> None:
    clock = Clock(0.0, tmp_path / "clock")
    assert (clock.marks(), clock.is_over()) == ({}, False)
    clock.mark()
    first = clock.marks()
    clock.mark()
    assert clock.marks() == first
    assert clock.is_over()
