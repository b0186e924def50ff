import dataclasses
import json
import math
from pathlib import Path

import pytest

from vlm_rewards.schemas.calibrations import Calibration, compared_parts, read_calibration
from vlm_rewards.schemas.fingerprints import Fingerprint

PARTS = {"weights": "sha256:1", "precision": "float32", "formula": "softmax", "templates": ["{goal}"]}


def calibration(**changes: object) -> Calibration:
    fields: dict = {
        "goals": ("ball", "box"),
        "labeler": PARTS,
        "thresholds": (0.25, 0.5),
        "temperature": 0.02,
        "fire_rates": (0.0, 0.125),
        "objective": {"objective": "f1", "min_examples": 10},
        "data": {"truth": "marks", "frames": 7, "episodes": 2},
        "temperature_search": {"outcome": "kept"},
        "quality": {},
        "details": ({"id": "ball"}, {"id": "box"}),
    }
    return Calibration(**{**fields, **changes})


def write(path: Path, record: object) -> Path:
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    original = calibration()
    read = read_calibration(write(tmp_path / "calibration.json", original.to_json()))
    assert read.to_json() == original.to_json()
    assert read.digest == original.digest
    assert read.digest != calibration(thresholds=(0.25, 0.75)).digest
    assert original.to_json()["thresholds"] == {"ball": 0.25, "box": 0.5}


def test_what_a_labeler_takes_from_it() -> None:
    point = calibration().operating_point(["ball", "box"], formula="softmax")
    assert point == {"temperature": 0.02, "threshold": (0.25, 0.5), "fire_rates": None}
    point = calibration().operating_point(["ball", "box"], formula="softmax", reward="discounted", hysteresis=0.1)
    assert point["fire_rates"] == (0.0, 0.125)


def test_the_same_labeler_is_accepted_whatever_batch_and_device() -> None:
    parts = {**PARTS, "batch_size": 8, "device": "cuda", "temperature": 0.5, "rule": {}, "camera": "front"}
    assert compared_parts(Fingerprint(parts)) == PARTS
    calibration().check_labeler(Fingerprint(parts))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": (0.5,)}, r"thresholds of a calibration must be one a goal, 2, got 1; calibrate again"),
        ({"fire_rates": (0.5,)}, r"fire_rates of a calibration must be one a goal, 2, got 1"),
        ({"thresholds": (0.5, math.nan)}, r"threshold of goal 'box' must be a finite number, got nan"),
        ({"fire_rates": (1.5, None)}, r"fire rate of goal 'ball' must be 0 to 1, got 1.5"),
        ({"temperature": 0.0}, r"temperature of a calibration must be greater than 0 and finite, got 0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration(**changes)


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        (["ball"], r"got 0 goals that are not calibrated \(none\), and 1 missing that are \(box\)"),
        (["ball", "box", "cup"], r"got 1 goals that are not calibrated \(cup\), and 0 missing"),
        (
            ["box", "ball"],
            r"goals must be those of the calibration, got the same goals in another order; label with the settings",
        ),
    ],
)
def test_other_goals_are_refused(goals: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration().operating_point(goals, formula="softmax")


def test_another_formula_or_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"formula must be that of the calibration, 'softmax', got 'cosine'"):
        calibration().operating_point(["ball", "box"], formula="cosine")
    with pytest.raises(
        ValueError, match=r"the calibration must have the same fingerprint as this run, got other weights"
    ):
        calibration().check_labeler(Fingerprint({**PARTS, "weights": "sha256:2"}))
    with pytest.raises(ValueError, match=r"got other window .* or run vlm-rewards calibrate on labels of these"):
        calibration().check_labeler(Fingerprint({**PARTS, "window": {"frames": 3}}))


def test_hysteresis_does_not_go_with_a_bound() -> None:
    bound = calibration(objective={"objective": "fpr", "level": 0.01, "confidence": 0.95})
    bound.operating_point(["ball", "box"], formula="softmax")
    with pytest.raises(
        ValueError, match=r"hysteresis must be 0 with a calibration that bounds false positives, got 0.1"
    ):
        bound.operating_point(["ball", "box"], formula="softmax", hysteresis=0.1)


def test_a_discount_needs_every_fire_rate() -> None:
    unknown = calibration(fire_rates=(0.5, None))
    unknown.operating_point(["ball", "box"], formula="softmax")
    with pytest.raises(ValueError, match=r"must be known for the reward 'discounted', got none for 'box'"):
        unknown.operating_point(["ball", "box"], formula="softmax", reward="discounted")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    with pytest.raises(ValueError, match=r"a calibration must be a file, got .*, which is not there"):
        read_calibration(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"a calibration must be JSON, got .*; give the file that vlm-rewards calibrate wrote"
    ):
        read_calibration(path)
    with pytest.raises(ValueError, match=r"must say that it is one, got .* of kind 'list'"):
        read_calibration(write(path, []))
    with pytest.raises(ValueError, match=r"must say that it is one, got .* of kind 'evaluation'"):
        read_calibration(write(path, {"kind": "evaluation"}))
    with pytest.raises(ValueError, match=r"must be of version 1, got 2"):
        read_calibration(write(path, {**calibration().to_json(), "version": 2}))
    edited = {**calibration().to_json(), "temperature": 0.03}
    with pytest.raises(ValueError, match=r"must be as it was written, got .* with another digest; calibrate again"):
        read_calibration(write(path, edited))
    assert dataclasses.replace(calibration(), temperature=0.03).to_json()["digest"] != edited["digest"]
