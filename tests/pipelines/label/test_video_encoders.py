"""An encoder that looks at several frames at once, through the label pipeline."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from toy_encoder import ColourEncoder

from vlm_rewards.labelers.encoders import known
from vlm_rewards.labelers.encoders.encoder import EncoderKind
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import FrameEmbedder
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.model_handler import LabelerHandler
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal, read_goals
from vlm_rewards.schemas.pictures import encode_png

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@dataclasses.dataclass(frozen=True)
class OldestFrameEncoder(ColourEncoder):
    """Sees the colour of the oldest frame of three."""

    window = 3

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.shape[1:] == (3, 1, 1, 3), pixels.shape
        return super().embed_images(pixels[:, 0])


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> LabelerSettings:
    kind = EncoderKind(
        "oldest",
        lambda name: name.startswith("oldest:"),
        lambda name, *, precision, batch_size, device: OldestFrameEncoder(name, "float32", batch_size, device),
    )
    monkeypatch.setattr(known, "load_extensions", lambda group: {"oldest": kind})
    goals = tuple(Goal(name, f"{name} {name}") for name in COLOURS)
    return LabelerSettings(model=f"oldest:{id(kind)}", goals=goals, batch_size=2)


def picture(colour: str) -> bytes:
    return encode_png(np.full((4, 6, 3), COLOURS[colour], np.uint8))


def test_each_frame_is_scored_by_its_window(settings: LabelerSettings, tmp_path: Path) -> None:
    # Windows cross batches of two frames, and no episode sees the one before. The third frame of "b" cannot be read: it has
    # no row, and is in no window.
    shown = {"a": ["red", "green", "blue", "red", "green"], "b": ["blue", "red", None, "green", "green"]}
    seen = {"a": ["red", "red", "red", "green", "blue"], "b": ["blue", "blue", "blue", "red"]}
    episodes = [
        Episode(
            episode_id=name,
            images={"front": [b"broken" if colour is None else picture(colour) for colour in colours]},
            actions=np.zeros(len(colours) - 1, np.int64),
        )
        for name, colours in shown.items()
    ]
    (tmp_path / "corpus").mkdir()
    write_episodes(tmp_path / "corpus" / "a.parquet", CorpusFeatures.of(episodes[0]), episodes, "parquet")
    label(tmp_path / "corpus", settings, output=tmp_path / "labels", workers=1, max_failure_share=0.5)
    table = ds.dataset(tmp_path / "labels" / "parts").to_table()
    won = [settings.goals[int(np.argmax(scores))].id for scores in table["scores"].to_pylist()]
    assert won == [*seen["a"], *seen["b"]]
    assert table["frame_index"].to_pylist() == [0, 1, 2, 3, 4, 0, 1, 3, 4]


def test_a_goals_picture_is_an_episode_of_one_frame(settings: LabelerSettings, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture("red"))
    (tmp_path / "goals.jsonl").write_text('{"id": "seen", "text": "like this", "images": ["red.png"]}')
    goals = read_goals(tmp_path / "goals.jsonl")
    labeler = Labeler.build(dataclasses.replace(settings, goals=goals, formula="cosine", threshold=0.5))
    assert labeler.goal_embeddings.argmax() == 0
    assert labeler.goal_embeddings.shape == (1, 3)


def test_frames_without_an_order_are_refused(settings: LabelerSettings) -> None:
    labeler = Labeler.build(settings)
    with pytest.raises(
        ValueError, match="oldest:.* looks at 3 frames of an episode at once: got frames alone. Label a corpus"
    ):
        labeler(np.zeros((2, 4, 6, 3), np.uint8))
    with pytest.raises(
        ValueError, match="live rewards need an encoder of single frames: got oldest:.*, which looks at 3 at o"
    ):
        FrameEmbedder(labeler)
    with pytest.raises(
        ValueError, match="must look at single frames for RunInference, .*: got oldest:.*, which looks at 3"
    ):
        LabelerHandler(settings)
