"""Calibration by what a recording says of its success: the same as by marks of the frames that it speaks of."""

from pathlib import Path
from typing import Any

import pytest
from labelled_corpora import holds, write_labels_of
from lerobot_datasets import DataSet

from vlm_rewards.pipelines.calibrate.calibration import calibrate
from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.goals import Goal

GOALS = (
    Goal("cup", "the cup is up", instructions=("lift the cup",)),
    Goal("drawer", "the drawer is open", instructions=("open the drawer",)),
)
SCORED = {
    "episode_000000": holds("..X.X", "XXXXX"),
    "episode_000001": holds("XXX", ".X."),
    "episode_000002": holds("X...", "...."),
}
SUCCESS = [*(False, False, False, True, True), *(False, False, True), *(False,) * 4]
KNOWN = {  # by hand: step i speaks of frame i+1, and the last row stands for the last frame
    ("episode_000000", "cup"): {1: 0, 2: 0, 3: 0, 4: 1},
    ("episode_000001", "drawer"): {1: 0, 2: 1},
    ("episode_000002", "cup"): {1: 0, 2: 0, 3: 0},
}


def work(folder: Path, **columns: list) -> tuple[Path, Path]:
    corpus = DataSet(cameras={"observation.images.front": "image"}, columns=columns).write(folder / "corpus")
    return corpus, write_labels_of(folder / "labels", corpus, SCORED, goals=GOALS)


def run(labels: Path, name: str, **settings: Any) -> dict[str, Any]:
    made = calibrate(labels, output=labels.parent / f"{name}.json", objective="f1", min_examples=1, **settings)
    return made.to_json()


@pytest.mark.parametrize("column", ["next.success", "next.reward"])
def test_recorded_success_is_marks_of_the_frames_that_it_speaks_of(column: str, tmp_path: Path) -> None:
    values = SUCCESS if column == "next.success" else [float(value) for value in SUCCESS]
    corpus, labels = work(tmp_path, **{column: values})
    lines = ["episode_id,frame_index,goal,achieved"]
    lines += [
        f"{episode},{frame},{goal},{holds}"
        for (episode, goal), known in KNOWN.items()
        for frame, holds in known.items()
    ]
    (tmp_path / "marks.csv").write_text("\n".join(lines))
    recorded = run(labels, "recorded", corpus=corpus, truth="success")
    marked = run(labels, "marked", marks=tmp_path / "marks.csv")
    for part in ("thresholds", "fire_rates", "goals", "quality"):
        assert recorded[part] == marked[part], part
    assert recorded["data"]["truth"] == "success by the recording"
    assert (recorded["data"]["frames"], recorded["data"]["episodes"]) == (9, 3)
    assert recorded["data"]["unknown_episodes"] == {}

    one = run(labels, "one", corpus=corpus, truth="success", goal="cup")
    assert {goal["id"]: goal["positives"] for goal in one["goals"]} == {"cup": 2, "drawer": 0}


def test_recordings_that_say_nothing_are_refused(tmp_path: Path) -> None:
    corpus, labels = work(tmp_path / "zero", **{"next.reward": [0.0] * 12})
    with pytest.raises(ValueError, match="must be over 0 in some step: got 0 in every step of 3 episodes. Mark some"):
        run(labels, "c", corpus=corpus, truth="success")
    corpus, labels = work(tmp_path / "none")
    with pytest.raises(
        ValueError, match=r"a corpus to calibrate with must say .*: got no success and no rewards are recorded"
    ):
        run(labels, "c", corpus=corpus, truth="success")
    with pytest.raises(ValueError, match="got .*corpus without; give --truth success where the recording tells"):
        run(labels, "c", corpus=corpus)


def test_labels_that_an_export_wrote_are_no_truth(tmp_path: Path) -> None:
    corpus, labels = work(tmp_path)
    export(corpus, labels, to="lerobot", in_place=True)
    (tmp_path / "again").mkdir()
    again = write_labels_of(tmp_path / "again/labels", corpus, SCORED, goals=GOALS)
    with pytest.raises(ValueError, match="must be the recording's own: got success in .* labels of some/model"):
        run(again, "c", corpus=corpus, truth="success")


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    corpus, labels = work(tmp_path, **{"next.success": SUCCESS})
    with pytest.raises(ValueError, match="the truth 'success' is that of a corpus: got none. Give --input"):
        run(labels, "c", truth="success")
    with pytest.raises(ValueError, match="truth must be one of achieved-goals, success: got 'luck'"):
        run(labels, "c", corpus=corpus, truth="luck")
    with pytest.raises(ValueError, match="a goal must be given with the truth 'success' alone: got 'cup'"):
        run(labels, "c", corpus=corpus, goal="cup")
    with pytest.raises(ValueError, match=r"the goal must be one of the 2 goals of the labels .*: got 'cap'"):
        run(labels, "c", corpus=corpus, truth="success", goal="cap")
