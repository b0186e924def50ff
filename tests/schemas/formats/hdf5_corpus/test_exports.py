"""Exports into robomimic and LIBERO: rewards of hand-drawn labels, and all else as it was."""

import h5py
import numpy as np
import pytest
from hdf5_recordings import write_aloha, write_libero, write_robomimic
from labelled_corpora import holds, write_labels_of

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("cup", "the cup is up"), Goal("drawer", "the drawer is open"))


def contents(path, without=()):
    """All data sets and attributes of a file, those of some names left out."""
    found = {}

    def take(name, entry):
        found[f"{name}@"] = dict(entry.attrs)
        if isinstance(entry, h5py.Dataset):
            found[name] = (entry.dtype, entry.shape, entry.chunks, entry.compression, entry[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(take)
    return {name: value for name, value in found.items() if not any(part in name for part in without)}


def test_a_copy_has_rewards_of_the_next_frame_and_a_list_of_successes(tmp_path):
    corpus = tmp_path / "corpus"
    write_robomimic(corpus / "a.hdf5", (4, 2), masks={"train": ["demo_0"]})
    write_robomimic(corpus / "b.hdf5", (3,), next_obs=False)
    (corpus / "README.md").write_text("mine")
    marks = {
        "a/demo_0": holds("..X.X", "....."),
        "a/demo_1": holds("...", "XXX"),
        "b/demo_0": holds(".XX", "..."),  # three frames, the last action has none after it
    }
    labels = write_labels_of(tmp_path / "labels", corpus, marks, goals=GOALS)
    before = {name: (corpus / name).read_bytes() for name in ("a.hdf5", "b.hdf5")}
    summary = export(corpus, labels, to="robomimic", goal="cup", output=tmp_path / "copy")
    assert summary.lines == ("3 demos have new rewards; 2 of them succeeded and are listed in mask/vlm_success",)
    assert {name: (corpus / name).read_bytes() for name in before} == before
    assert (tmp_path / "copy" / "README.md").read_text() == "mine"
    for name in before:
        changed = ("rewards", "vlm_success", "mask@")
        assert contents(corpus / name, changed) == contents(tmp_path / "copy" / name, changed)
    with h5py.File(tmp_path / "copy" / "a.hdf5") as file:
        assert file["data/demo_0/rewards"].dtype == np.float64  # as it was
        assert file["data/demo_0/rewards"][:].tolist() == [0, 1, 0, 1]
        assert file["data/demo_1/rewards"][:].tolist() == [0, 0]
        assert [name.decode() for name in file["mask/vlm_success"]] == ["demo_0"]
    with h5py.File(tmp_path / "copy" / "b.hdf5") as file:
        assert file["data/demo_0/rewards"][:].tolist() == [1, 1, 1]
    kept = [episode.episode_id for episode in open_corpus(tmp_path / "copy" / "a.hdf5", {"filter": "vlm_success"})]
    assert kept == ["a/demo_0"]


def test_in_place_is_the_same_and_can_be_done_again(tmp_path):
    path = write_robomimic(tmp_path / "corpus" / "a.hdf5", (2, 1))
    marks = {"a/demo_0": holds("..X", "..."), "a/demo_1": holds("..", "..")}
    for goal, expected, successes in (("cup", [0, 1], [b"demo_0"]), ("drawer", [0, 0], [])):
        labels = write_labels_of(tmp_path / f"labels-{goal}", tmp_path / "corpus", marks, goals=GOALS)
        export(tmp_path / "corpus", labels, to="robomimic", goal=goal, in_place=True)
        with h5py.File(path) as file:
            assert file["data/demo_0/rewards"][:].tolist() == expected
            assert list(file["mask/vlm_success"]) == successes
    assert [found.name for found in (tmp_path / "corpus").iterdir() if not found.name.startswith(".")] == ["a.hdf5"]


def test_rewards_of_whole_numbers_become_float32_and_scores_are_added_where_asked_for(tmp_path):
    path = write_libero(tmp_path / "corpus" / "a.hdf5", (3,))  # frame i is the one after action i
    for number in range(2):  # the second time, both are there
        marks = {"a/demo_0": holds(".X.", "XXX")}
        labels = write_labels_of(tmp_path / f"labels-{number}", path, marks, goals=GOALS)
        copy = tmp_path / f"copy-{number}"
        export(path, labels, to="robomimic", goal="cup", all_scores=True, output=copy)
        path = copy / "a.hdf5"
        with h5py.File(path) as file:
            demo = file["data/demo_0"]
            assert demo["rewards"].dtype == np.float32
            assert demo["rewards"][:].tolist() == [0, 1, 0]
            assert demo["vlm_scores"][:].tolist() == np.float32([[0.1, 0.9], [0.9, 0.9], [0.1, 0.9]]).tolist()
            assert list(demo["vlm_scores"].attrs["goals"]) == ["cup", "drawer"]


def test_a_file_without_rewards_gets_them_and_demos_that_were_not_labelled_are_told(tmp_path):
    path = write_robomimic(tmp_path / "corpus" / "a.hdf5", (2, 1), masks={"train": ["demo_0"]})
    with h5py.File(path, "a") as file:
        del file["data/demo_0/rewards"]
    labels = write_labels_of(
        tmp_path / "labels", path, {"a/demo_0": holds(".X.", "...")}, goals=GOALS, options={"filter": "train"}
    )
    summary = export(path, labels, to="robomimic", goal="cup", output=tmp_path / "copy")
    assert summary.lines[1] == "1 demos were not labelled and keep their rewards: train with the filter of the labels"
    with h5py.File(tmp_path / "copy" / "a.hdf5") as file:
        assert file["data/demo_0/rewards"][:].tolist() == [1, 0]
        assert file["data/demo_1/rewards"][:].tolist() == [0]


def test_files_of_another_layout_are_refused(tmp_path):
    path = write_aloha(tmp_path / "corpus" / "episode_0.hdf5", 2)
    labels = write_labels_of(tmp_path / "labels", path, {"episode_0": holds("..", "..")}, goals=GOALS)
    with pytest.raises(ValueError, match="takes files of robomimic or LIBERO: got episode_0.hdf5 of another layout"):
        export(path, labels, to="robomimic", goal="cup", output=tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_rewards_that_are_not_as_many_as_actions_are_refused(tmp_path):
    path = write_robomimic(tmp_path / "corpus" / "a.hdf5", (2,))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/rewards"]
        file["data/demo_0/rewards"] = np.zeros(5)
    labels = write_labels_of(tmp_path / "labels", path, {"a/demo_0": holds("...", "...")}, goals=GOALS)
    with pytest.raises(ValueError, match="as many rewards as labelled actions: got 5 and 2 for 'a/demo_0'. Label"):
        export(path, labels, to="robomimic", goal="cup", output=tmp_path / "copy")
