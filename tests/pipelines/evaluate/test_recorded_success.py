"""Evaluation by the rewards and successes that further formats hold; all counts are by hand."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from labelled_corpora import holds, write_labels_of
from minari_storages import STORAGES, write_minari

from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import encode_png

ONE_WORKER = ("--runner=FnApiRunner", "--direct_num_workers=1")
GOALS = (Goal("cup", "the cup is up"), Goal("drawer", "the drawer is open"))
COUNTS = ("known_positives", "known_negatives", "true_positives", "false_positives")


def counts_of(corpus: Path, scored: dict[str, Any], **settings: Any) -> tuple[list[int], dict[str, int]]:
    """Evaluates labels of the cup against recorded success; returns counts of known pairs, and episodes by source."""
    told = {name: holds(column, "." * len(column)) for name, column in scored.items()}
    labels = write_labels_of(corpus.parent / "labels", corpus, told, goals=GOALS, **settings)
    quality = evaluate(
        corpus, labels, output=corpus.parent / "report", truth="success", goal="cup", beam_options=ONE_WORKER
    )
    (cup,) = quality["goals"]
    return [cup[name] for name in COUNTS], quality["truth"]["episodes_by_source"]


@pytest.mark.parametrize("storage", STORAGES)
def test_positive_rewards_of_minari_speak_of_the_frame_after_the_step(storage: str, tmp_path: Path) -> None:
    corpus = write_minari(tmp_path / "corpus", storage)  # rewards 0, 1/4, 1/2 and 0, 1/4
    # Known are frames 1 to 3 (no, yes, yes) and 1 to 2 (no, yes).
    found, sources = counts_of(corpus, {"episode_0": "XX.X", "episode_1": "X.X"})
    assert found == [3, 2, 2, 1]
    assert sources == {"rewards": 2}


def test_positive_rewards_of_tars_of_others_speak_of_the_frame_after_the_step(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for episode in range(2):
        for frame in range(4):
            members[f"ep{episode}.frame_{frame}.png"] = encode_png(np.full((8, 8, 3), 4 * episode + frame, np.uint8))
        for name, values in (("actions", np.zeros((3, 2))), ("rewards", [0, 0, 1] if episode else [0, 0, 0])):
            members[f"ep{episode}.{name}.npy"] = _npy(values)
    (tmp_path / "corpus").mkdir()
    with tarfile.open(tmp_path / "corpus/a.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found, sources = counts_of(tmp_path / "corpus", {"ep0": "..X.", "ep1": "X..X"})
    assert found == [1, 5, 1, 1]
    assert sources == {"rewards": 2}


def _npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, np.float64))
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "source"), [("reward", "rewards"), ("success", "success of every step")])
def test_rewards_and_success_of_zarr_speak_of_the_frame_after_the_row(name: str, source: str, tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "corpus.zarr", mode="w", zarr_format=2)
    arrays = {
        "data/img": np.zeros((6, 32, 32, 3), np.uint8),
        "data/action": np.zeros((6, 2), np.float32),
        f"data/{name}": np.array([0, 1, 1, 0, 0, 0], np.float32),
        "meta/episode_ends": np.array([3, 6]),
    }
    for place, values in arrays.items():
        root.create_array(place, shape=values.shape, dtype=values.dtype)[...] = values
    # The frame after the last action is not recorded: its row speaks of the last frame. Known: no, yes and no, no.
    found, sources = counts_of(tmp_path / "corpus.zarr", {"corpus/episode_0": "X.X", "corpus/episode_1": ".X."})
    assert found == [1, 3, 1, 1]
    assert sources == {source: 2}
