import json
from pathlib import Path

import pytest

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.calibrate.summary import next_label
from vlm_rewards.schemas.calibrations import Calibration
from vlm_rewards.schemas.goals import Goal, write_goals

GOALS = (Goal("ball", "a red ball"), Goal("box", "a red box"))


@pytest.mark.parametrize(
    ("objective", "bank", "expected"),
    [
        # The rule of the labels stays; the goals file is the corpus's, since it holds these very goals.
        ("f1", GOALS, ["--min-frames", "2", "--hysteresis", "0.1", "--reward", "difference"]),
        # A bound on false positives refuses hysteresis.
        ("fpr", GOALS, ["--min-frames", "2", "--reward", "difference"]),
        # The same ids with other prompts are other goals.
        ("f1", (Goal("ball", "a red ball", prompts=("a ball",)), GOALS[1]), None),
    ],
)
def test_the_next_command_keeps_the_settings_of_the_labels(
    tmp_path: Path, objective: str, bank: tuple[Goal, ...], expected: list[str] | None
) -> None:
    settings = LabelerSettings(model="reference-s", goals=GOALS, min_frames=2, hysteresis=0.1, reward="difference")
    record = {"kind": "labels", "fingerprint": {}, "settings": {"labeler": settings.to_json()}}
    (tmp_path / "settings.json").write_text(json.dumps(record))
    calibration = Calibration(
        goals=("ball", "box"),
        labeler={"formula": "softmax"},
        thresholds=(0.5, 0.5),
        temperature=0.02,
        fire_rates=(None, None),
        objective={"objective": objective},
        data={},
        temperature_search={},
        quality={},
        details=({}, {}),
    )
    (tmp_path / "calibration.json").write_text(json.dumps(calibration.to_json()))
    write_goals(bank, tmp_path / "goals.jsonl")
    words = next_label(tmp_path, tmp_path / "calibration.json", tmp_path, None)
    assert words[words.index("--goals") + 1] == ("GOALS.jsonl" if expected is None else str(tmp_path / "goals.jsonl"))
    if expected is not None:
        assert words[words.index("reference-s") + 1 : words.index("--calibration")] == expected
