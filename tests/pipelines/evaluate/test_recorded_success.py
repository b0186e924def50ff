"""Evaluation by the rewards and successes that further formats hold; all counts are by hand."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hdf5_recordings import write_libero, write_robomimic
from labelled_corpora import holds, write_labels_of
from lerobot_datasets import DataSet
from minari_storages import STORAGES, write_minari
from rlds_files import episode_features, group, image, serialized, tensor, write_data_set

from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.formats.corpus import open_corpus
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


def _write_tar(path: Path, reward: str) -> Path:
    """Writes two episodes of four frames, the second with a reward in its last step; returns the folder."""
    members: dict[str, bytes] = {}
    for episode in range(2):
        for frame in range(4):
            members[f"ep{episode}.frame_{frame}.png"] = encode_png(np.full((8, 8, 3), 4 * episode + frame, np.uint8))
        for name, values in (("actions", np.zeros((3, 2))), (reward, [0, 0, 1] if episode else [0, 0, 0])):
            members[f"ep{episode}.{name}.npy"] = _npy(values)
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.parent


def test_positive_rewards_of_tars_of_others_speak_of_the_frame_after_the_step(tmp_path: Path) -> None:
    corpus = _write_tar(tmp_path / "corpus/a.tar", "rewards")
    found, sources = counts_of(corpus, {"ep0": "..X.", "ep1": "X..X"})
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


def _write_rlds(folder: Path) -> Path:
    steps = {
        "observation": group({"image": image(8, 8, 3)}),
        "action": tensor("float32", 1),
        "reward": tensor("float32"),
    }
    record = serialized(
        {
            "steps/observation/image": [encode_png(np.full((8, 8, 3), frame, np.uint8)) for frame in range(3)],
            "steps/action": np.zeros((3, 1), np.float32),
            "steps/reward": np.array([0, 1, 0], np.float32),
        }
    )
    write_data_set(folder / "toy/1.0.0", episode_features(steps), {"train": [[record]]}, name="toy")
    return folder


def _write_lerobot(folder: Path) -> Path:
    columns = {"next.success": [False] * 6, "next.reward": [0.0] * 5 + [1.0]}
    return DataSet(lengths=(3, 3), tasks=("lift", "lift"), columns=columns, cameras={"front": "image"}).write(folder)


CORPORA = {
    "lerobot": ("lerobot", _write_lerobot, "success"),
    "robomimic": ("robomimic", lambda folder: write_robomimic(folder / "demo.hdf5", (3, 2)).parent, "rewards"),
    "libero": ("robomimic", lambda folder: write_libero(folder / "drawer.hdf5", (3, 2)).parent, "rewards"),
    "rlds": ("rlds", _write_rlds, "rewards"),
    **{
        f"minari-{storage}": ("minari", lambda folder, storage=storage: write_minari(folder, storage), "rewards")
        for storage in STORAGES
    },
}


@pytest.mark.parametrize("kind", CORPORA)
@pytest.mark.parametrize("in_place", [False, True])
def test_labels_that_an_export_wrote_are_not_judged_by_themselves(kind: str, in_place: bool, tmp_path: Path) -> None:
    to, write, field = CORPORA[kind]
    corpus = write(tmp_path / "corpus")
    opened = open_corpus(corpus)
    episodes = [
        episode for unit in opened.units() for episode in opened.episodes(unit, frames=False, fields=("actions",))
    ]
    scored = {episode.episode_id: "." + "X" * (episode.num_frames - 1) for episode in episodes}
    assert sum(counts_of(corpus, scored)[0][:2]) > 0  # as it was recorded, it tells
    place = {"in_place": True} if in_place else {"output": tmp_path / "exported"}
    export(corpus, tmp_path / "labels", to=to, goal="cup", **place)
    exported = corpus if in_place else tmp_path / "exported"
    assert not open_corpus(exported).passed_over
    (tmp_path / "again").mkdir()
    exported = exported.rename(tmp_path / "again/corpus")
    with pytest.raises(
        ValueError, match=rf"must be the recording's own: got {field} in .* labels of some/model. Give the"
    ):
        counts_of(exported, scored)
    unit = open_corpus(exported).units()[0]
    both = {"rewards": "some/model", "success": "some/model"}
    assert open_corpus(exported).labelled_by(unit) == (both if kind == "lerobot" else {"rewards": "some/model"})


def test_columns_and_members_of_an_export_are_not_what_a_recording_says(tmp_path: Path) -> None:
    rows = {
        "episode_id": ["a"] * 3,
        "frame_index": range(3),
        "observation.images.front": [{"bytes": encode_png(np.zeros((8, 8, 3), np.uint8)), "path": None}] * 3,
        "action": [0, 0, 0],
        "vlm.reward": [0.0, 1.0, 0.0],
        "end": [False, False, True],
        "cut": [False] * 3,
    }
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "corpus/a.parquet")
    columns = {"reward": "vlm.reward", "terminated": "end", "truncated": "cut"}
    options = {"columns": json.dumps(columns)}
    with pytest.raises(
        ValueError, match="got rewards in .*a.parquet that an export wrote, labels of a model that is not"
    ):
        counts_of(tmp_path / "corpus", {"a": "..X"}, options=options)
    tars = _write_tar(tmp_path / "others/tars/a.tar", "vlm_reward")
    options = {"reward": "{episode}.vlm_reward.npy"}
    with pytest.raises(
        ValueError, match="got rewards in .*a.tar that an export wrote, labels of a model that is not named"
    ):
        counts_of(tars, {"ep0": "..X.", "ep1": "X..X"}, options=options)
