"""The engine of a run: settled once by the driver, recorded, and kept by a resumed run."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.encoders.encoder import DEFAULT_ENGINE
from vlm_rewards.labelers.encoders.engines.choice import Choice
from vlm_rewards.labelers.labeler import Labeler, load_encoder
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label import choosing_engine
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import encode_png

NEEDS_OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
GOALS = (Goal("ball", "a red ball"), Goal("box", "a blue box"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for shard in range(2):
        frames = [encode_png(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(5)]
        episode = Episode(episode_id=f"e{shard}", images={"view": frames}, actions=np.zeros(4, np.int64))
        features = CorpusFeatures(cameras=("view",), has_rewards=False, has_instruction=False)
        write_episodes(folder / f"shard-{shard}.parquet", features, [episode], "parquet")
    return folder


def settings_of(clip: Path, **more: object) -> LabelerSettings:
    return LabelerSettings(model=str(clip), goals=GOALS, batch_size=16, **more)  # type: ignore[arg-type]


def recorded(output: Path) -> dict:
    return json.loads((output / "settings.json").read_text())


def scores(output: Path) -> np.ndarray:
    tables = [pq.read_table(path) for path in sorted((output / "parts").glob("*.parquet"))]
    return np.concatenate([np.stack(table.column("scores").to_numpy()) for table in tables])


@NEEDS_OPENVINO
def test_labels_of_an_engine_name_it_and_are_near_those_of_torch(clip: Path, corpus: Path, tmp_path: Path) -> None:
    label(corpus, settings_of(clip), output=tmp_path / "torch", workers=2)
    label(corpus, settings_of(clip, engine="openvino"), output=tmp_path / "openvino", workers=2)
    ours, theirs = recorded(tmp_path / "torch"), recorded(tmp_path / "openvino")
    assert (ours["settings"]["labeler"]["engine"], theirs["settings"]["labeler"]["engine"]) == ("torch", "openvino")
    assert "engine" not in ours["fingerprint"]
    assert theirs["fingerprint"]["engine"]["name"] == "openvino"
    np.testing.assert_allclose(scores(tmp_path / "torch"), scores(tmp_path / "openvino"), atol=1e-4)
    with pytest.raises(ValueError, match="engine"):
        label(corpus, settings_of(clip), output=tmp_path / "openvino", workers=1)


def test_auto_takes_torch_where_another_engine_does_not_pay_back(clip: Path, corpus: Path, tmp_path: Path) -> None:
    summary = label(corpus, settings_of(clip, engine="auto"), output=tmp_path / "labels", workers=1)
    assert recorded(tmp_path / "labels")["settings"]["labeler"]["engine"] == "torch"
    (note,) = summary.manifest["notes"]
    assert note.startswith("engine: torch, since ")
    label(corpus, settings_of(clip), output=tmp_path / "named", workers=1)
    for part in sorted((tmp_path / "named" / "parts").iterdir()):
        assert part.read_bytes() == (tmp_path / "labels" / "parts" / part.name).read_bytes()


@NEEDS_OPENVINO
def test_a_resumed_run_keeps_its_first_choice(
    clip: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "labels"
    label(corpus, settings_of(clip, engine="openvino"), output=output, workers=1)
    part, *_ = sorted((output / "parts").iterdir())
    expected = part.read_bytes()
    part.unlink()
    (output / "manifest.json").unlink()

    def choose(*_: object) -> Choice:
        raise AssertionError("a resumed run must not choose")

    monkeypatch.setattr(choosing_engine, "choose_engine", choose)
    summary = label(corpus, settings_of(clip, engine="auto"), output=output, workers=1)
    assert part.read_bytes() == expected
    assert summary.manifest["notes"] == [f"engine: openvino, as {output} was begun with"]


@NEEDS_OPENVINO
def test_auto_labels_with_the_encoder_that_it_measured(
    clip: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def choose(num_frames: int | None, workers: int, candidates: object, load: object, rate_of: object) -> Choice:
        asked.append((num_frames, workers))
        return Choice("openvino", "engine: openvino, by this test", load("openvino"))  # type: ignore[operator]

    monkeypatch.setattr(choosing_engine, "choose_engine", choose)
    summary = label(corpus, settings_of(clip, engine="auto"), output=tmp_path / "labels", workers=3)
    assert asked == [(10, 3)]
    assert summary.manifest["notes"] == ["engine: openvino, by this test"]
    assert recorded(tmp_path / "labels")["fingerprint"]["engine"]["name"] == "openvino"


def test_kept_embeddings_name_the_engine(clip: Path, corpus: Path, tmp_path: Path) -> None:
    kept = tmp_path / "embeddings"
    label(corpus, settings_of(clip), output=tmp_path / "first", embeddings=kept, workers=1)
    summary = label(None, settings_of(clip, engine="auto"), output=tmp_path / "second", embeddings=kept, workers=1)
    assert summary.manifest["notes"] == [f"engine: torch, as {kept} was begun with"]


def test_an_encoder_on_another_engine_than_the_settings_is_refused(clip: Path) -> None:
    encoder = load_encoder(settings_of(clip))
    assert encoder.engine == DEFAULT_ENGINE
    with pytest.raises(
        ValueError, match="engine of the encoder must be that of the settings, compile, got torch; load it w"
    ):
        Labeler(settings_of(clip, engine="compile"), encoder)
    assert Labeler(settings_of(clip, engine="auto"), encoder).settings.engine == "torch"


def test_an_unknown_engine_is_refused(clip: Path) -> None:
    with pytest.raises(
        ValueError, match="engine must be one of auto, torch, compile, openvino, got 'tensorrt'; choose one"
    ):
        settings_of(clip, engine="tensorrt")
