"""The same frames in HDF5, Minari and zarr have the same labels, frame for frame, and become the same training data."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from planted_episodes import planted_episodes
from planted_formats import Write, minari, replay_buffers, write_aloha, write_libero, write_robomimic
from tiny_models import save_tiny_clip

import vlm_rewards as vr
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("cup", "a cup on the table"), Goal("sink", "the sink is empty"))
# By layout: what writes it, the camera, and the first and the last frame that it has of T+1.
LAYOUTS: dict[str, tuple[Write, str, slice]] = {
    "robomimic": (write_robomimic, "front_image", slice(0, None)),
    "LIBERO": (write_libero, "front_rgb", slice(1, None)),
    "ALOHA": (write_aloha, "front", slice(0, -1)),
    "Minari": (minari("hdf5"), "front", slice(0, None)),
    "zarr": (replay_buffers(2, pack=True), "front", slice(0, -1)),
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora and labels of all layouts, by their names; the threshold is the median score of the first goal."""
    folder = tmp_path_factory.mktemp("layouts")
    clip = save_tiny_clip(folder / "clip", image_size=32)
    settings = {"formula": "cosine", "precision": "float32"}
    threshold = 0.0
    for name, (write, camera, _) in LAYOUTS.items():
        (folder / name).mkdir()
        write(folder / name, planted_episodes())
        if name == "robomimic":
            labeler = vr.load_labeler(str(clip), GOALS, threshold=threshold, **settings)
            vr.label(folder / name, labeler.settings, output=folder / "first-look", camera=camera)
            found = [episode.scores[:, 0] for episode in vr.open_labels(folder / "first-look").episodes()]
            threshold = float(np.median(np.concatenate(found)))
            labeler = vr.load_labeler(str(clip), GOALS, threshold=threshold, **settings)
        vr.label(folder / name, labeler.settings, output=folder / f"labels-{name}", camera=camera)
    return folder


def test_each_frame_has_the_same_score_in_every_layout(labelled: Path) -> None:
    whole = [episode.scores for episode in vr.open_labels(labelled / "labels-robomimic").episodes()]
    assert [len(scores) for scores in whole] == [episode.num_frames for episode in planted_episodes()]
    for name, (_, _, kept) in LAYOUTS.items():
        found = [episode.scores for episode in vr.open_labels(labelled / f"labels-{name}").episodes()]
        for expected, scores in zip(whole, found, strict=True):
            assert scores.tobytes() == expected[kept].tobytes(), name


@pytest.mark.parametrize("name", LAYOUTS)
def test_rewards_of_training_data_look_at_the_frame_after_the_action(labelled: Path, name: str, tmp_path: Path) -> None:
    camera, kept = LAYOUTS[name][1:]
    vr.hindsight(labelled / name, labelled / f"labels-{name}", output=tmp_path / "relabelled", strategy="first")
    whole = {e.episode_id: e.scores for e in vr.open_labels(labelled / f"labels-{name}").episodes()}
    threshold = vr.open_labels(labelled / f"labels-{name}").metadata.rule.threshold_array
    seen = 0
    for episode in vr.read_relabelled(tmp_path / "relabelled"):
        scores = whole[episode.episode_id]
        assert len(list(episode.images[camera])) == len(scores)
        first_step = (
            1 if kept.start == 1 else 0
        )  # the action before LIBERO's first frame has no frame that it was taken in
        assert np.asarray(episode.actions)[:, 0].tolist() == list(range(first_step, first_step + len(scores) - 1))
        for row, goal in enumerate(episode.goal_ids):
            index = [goal.id for goal in GOALS].index(goal)
            over = scores[:, index] > threshold[index]
            assert (np.asarray(episode.rewards)[row] > 0).tolist() == over[1:].tolist()
            seen += 1
    assert seen


def test_an_agent_is_trained_on_robomimic(labelled: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(labelled / "robomimic", corpus)
    for path in corpus.glob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            for demo in file["data"].values():
                demo["actions"][...] = demo["actions"][...] / 10  # agents act between -1 and 1
    threshold = float(vr.open_labels(labelled / "labels-robomimic").metadata.rule.threshold_array[0])
    labeler = vr.load_labeler(str(labelled / "clip"), GOALS, formula="cosine", precision="float32", threshold=threshold)
    vr.label(corpus, labeler.settings, output=tmp_path / "labels", camera="front_image")
    vr.hindsight(corpus, tmp_path / "labels", output=tmp_path / "relabelled")
    vr.train(tmp_path / "relabelled", output=tmp_path / "agent", steps=2, batch_size=4, camera="front_image")
    assert (tmp_path / "agent" / "settings.json").is_file()
