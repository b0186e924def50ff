"""A read-only format of another package goes through every command: one file and a line of its entry points are all it takes."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from planted_episodes import number_in, paint
from strip_format import PER_FILE
from tiny_models import save_tiny_clip

import vlm_rewards as vr
from vlm_rewards.cli import main
from vlm_rewards.labelers.settings import LabelerSettings

LENGTHS = (6, 1, 5, 9)
GOALS = (vr.Goal("ball", "a red ball"),)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Installs the toy format as pip does: metadata with one line, on the path of this process and of its workers."""
    metadata = tmp_path_factory.mktemp("site") / "strips-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: strips\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vlm_rewards.formats]\nstrip = strip_format:STRIP\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(metadata.parent)
        paths = [str(metadata.parent), str(Path(__file__).parent), *sys.path]
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        yield


@pytest.fixture(scope="module")
def corpus(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 0, 1, 2, ... of four episodes, four frames per file; the ball is in truth where a frame's number is odd."""
    folder = tmp_path_factory.mktemp("strips")
    starts = [sum(LENGTHS[:number]) for number in range(len(LENGTHS))]
    frames = np.stack([paint(number) for number in range(sum(LENGTHS))])
    for number in range(0, len(frames), PER_FILE):
        np.save(folder / f"{number // PER_FILE}.npy", frames[number : number + PER_FILE])
    episodes = [
        {
            "id": f"take {number}/strip",
            "start": start,
            "actions": list(range(length)),
            "truth": [["ball"] * ((start + t) % 2) for t in range(length)],
        }
        for number, (start, length) in enumerate(zip(starts, LENGTHS, strict=True))
    ]
    (folder / "index.json").write_text(json.dumps({"goals": ["ball"], "episodes": episodes}))
    return folder


def test_a_toy_format_goes_through_label_hindsight_and_evaluate(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = vr.open_corpus(corpus)
    assert (opened.format_name, opened.features.missing_frame) == ("strip", "last")
    assert [unit.files for unit in opened.units()] == [
        ("0.npy", "1.npy"),
        ("1.npy",),
        ("1.npy", "2.npy"),
        ("3.npy", "4.npy", "5.npy"),
    ]
    clip = save_tiny_clip(tmp_path / "clip")
    settings = LabelerSettings(
        model=str(clip), goals=GOALS, formula="cosine", threshold=0.0, batch_size=8, precision="float32"
    )
    vr.label(corpus, settings, output=tmp_path / "first", workers=2)
    scores = np.concatenate([labels.scores[:, 0] for labels in vr.open_labels(tmp_path / "first").episodes()])
    threshold = float(np.median(scores))  # so that the goal holds in about half of the frames
    settings = dataclasses.replace(settings, threshold=threshold)
    vr.label(corpus, settings, output=tmp_path / "labels", workers=2)

    quality = vr.evaluate(corpus, tmp_path / "labels", output=tmp_path / "report", workers=1)
    assert quality["counts"] == {"episodes": 4, "frames": 21, "unlabelled_frames": 0}
    odd = np.arange(21) % 2 == 1
    over = scores > np.float32(threshold)
    assert quality["overall"]["pooled"]["at_threshold"]["precision"] == (over & odd).sum() / over.sum()

    words = ["--input", corpus, "--labels", tmp_path / "labels", "--output", tmp_path / "relabelled", "--workers", "1"]
    assert main([str(word) for word in ["hindsight", *words]]) == 0
    assert "left out without a goal, 1 of them of one frame" in capsys.readouterr().out
    found = list(vr.read_relabelled(tmp_path / "relabelled"))
    assert found
    for episode in found:
        number = int(episode.episode_id.removeprefix("take ").removesuffix("/strip"))
        start, length = sum(LENGTHS[:number]), LENGTHS[number]
        assert [number_in(frame) for frame in episode.images["eye"]] == list(range(start, start + length))
        assert episode.actions is not None
        assert episode.actions.tolist() == list(range(length - 1))  # the last action has no frame after it
        assert episode.rewards[episode.goal_ids.index("ball")].tolist() == over[start + 1 : start + length].tolist()
