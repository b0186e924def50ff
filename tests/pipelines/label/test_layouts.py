"""The same six episodes of BridgeData V2 in the layouts of several libraries have the same labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import save_tiny_clip

import vlm_rewards as vr
from vlm_rewards.schemas.goals import Goal

CORPORA = Path(__file__).parents[3].parent / "shared" / "corpora"
GOALS = (Goal(id="sink", text="a cup in the sink"), Goal(id="table", text="the table is empty"))
NUM_EPISODES = 6

LOSSLESS = {
    "bridge-lerobot-v21-image": "image_0",
    "bridge-lerobot-v30-image": "image_0",
    "bridge-hf-parquet": "image",
    "bridge-robomimic": "agentview_image",
    "bridge-wds-episode": "image",
}
"""Cameras by corpus; the pictures of each are those of image_0, whatever they are encoded in."""
OPTIONS = {
    "bridge-hf-parquet": {"columns": json.dumps({"episode_id": "episode_index", "frame_index": "step"})},
}
"""What formats must be told of a corpus."""
LOSSY = {"bridge-mp4": "video", "bridge-minari-hdf5": "image"}
"""Corpora whose pictures were encoded again with loss."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def expected(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """[60, 2] float32: the scores of the RLDS files as their authors publish them."""
    if not (CORPORA / "bridge-octo").is_dir():
        pytest.skip(f"the files of BridgeData V2 are not in {CORPORA}")
    return scores("bridge-octo", "image_0", clip, tmp_path_factory.mktemp("octo"), split="train")


def scores(corpus: str, camera: str, clip: Path, folder: Path, **options: str) -> np.ndarray:
    labeler = vr.load_labeler(str(clip), GOALS)
    vr.label(CORPORA / corpus, labeler.settings, output=folder / "labels", camera=camera, corpus_options=options)
    found = [episode.scores for episode in vr.open_labels(folder / "labels").episodes()]
    return np.concatenate(found[:NUM_EPISODES])


@pytest.mark.parametrize("corpus", LOSSLESS)
def test_labels_are_the_same_bits_in_every_lossless_layout(
    corpus: str, clip: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    found = scores(corpus, LOSSLESS[corpus], clip, tmp_path, **OPTIONS.get(corpus, {}))
    assert found.dtype == np.float32
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("corpus", LOSSY)
def test_labels_are_close_in_layouts_with_loss(corpus: str, clip: Path, expected: np.ndarray, tmp_path: Path) -> None:
    found = scores(corpus, LOSSY[corpus], clip, tmp_path)
    assert found.shape == expected.shape
    assert found.tobytes() != expected.tobytes()
    np.testing.assert_allclose(found, expected, atol=0.05)
