"""What a corpus is read with is part of its labels."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.goals import Goal, read_goals
from vlm_rewards.schemas.pictures import encode_png


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> LabelerSettings:
    clip = save_tiny_clip(tmp_path_factory.mktemp("clip"))
    goals = (Goal("g0", "a red ball"), Goal("g1", "a blue ball"))
    return LabelerSettings(model=str(clip), goals=goals, batch_size=16, precision="float32")


def png_of_16_bits(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def write_corpus(folder: Path, frames: list[bytes]) -> Path:
    folder.mkdir()
    episode = Episode(episode_id="a", images={"depth": frames})
    write_episodes(folder / "a.parquet", CorpusFeatures.of(episode), [episode], "parquet")
    return folder


def scores(labels: Path) -> list[list[float]]:
    return pq.read_table(labels / "parts" / "a.parquet")["scores"].to_pylist()


def test_depth_is_labelled_as_it_is_scaled_by_the_stated_range(tmp_path: Path, settings: LabelerSettings) -> None:
    ramps = [
        np.arange(start, start + 64 * 60, 60, np.uint16).reshape(8, 8).repeat(8, 0).repeat(8, 1) for start in (0, 300)
    ]
    deep = write_corpus(tmp_path / "deep", [png_of_16_bits(ramp) for ramp in ramps])
    # by hand: 255 * value / 4000, rounded; values over 4000 are white
    greys = [np.minimum(np.rint(ramp / 4000 * 255), 255).astype(np.uint8) for ramp in ramps]
    plain = write_corpus(tmp_path / "plain", [encode_png(np.repeat(grey[:, :, None], 3, axis=2)) for grey in greys])
    with pytest.raises(
        ValueError, match="got 16 bits, with values from 0 to 3780. Say which values are black and white"
    ):
        label(deep, settings, output=tmp_path / "refused")
    summary = label(deep, settings, output=tmp_path / "labels", picture_range="0:4000")
    label(plain, settings, output=tmp_path / "other")
    assert scores(tmp_path / "labels") == scores(tmp_path / "other")
    assert summary.manifest["fingerprint"]["corpus_options"] == {"picture-range": "0:4000"}
    with pytest.raises(ValueError, match="fingerprint"):
        label(deep, settings, output=tmp_path / "labels", picture_range="0:5000")
    corpus, (unit,) = open_labels(tmp_path / "labels").open_corpus(deep)  # as other commands open it
    (episode,) = corpus.episodes(unit)
    assert [frame.tolist() for frame in episode.images["depth"]] == [  # type: ignore[union-attr]
        np.repeat(grey[:, :, None], 3, axis=2).tolist() for grey in greys
    ]


def test_a_range_that_is_none_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [png_of_16_bits(np.zeros((8, 8), np.uint16))])
    with pytest.raises(ValueError, match="a range of values must be two different numbers, got '4000'"):
        open_corpus(corpus, {"picture-range": "4000"})


def test_a_goal_picture_is_turned_like_a_frame(tmp_path: Path, settings: LabelerSettings) -> None:
    upright = np.zeros((64, 32, 3), np.uint8)
    upright[:32] = (200, 30, 30)
    tag = Image.Exif()
    tag[0x0112] = 6  # stored lying, to be turned to the right
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(buffer, "PNG", exif=tag)
    corpus = write_corpus(tmp_path / "corpus", [encode_png(upright), buffer.getvalue()])
    (tmp_path / "goal.png").write_bytes(buffer.getvalue())
    (tmp_path / "goals.jsonl").write_text(
        "".join(
            json.dumps(record) + "\n"
            for record in ({"id": "seen", "text": "as shown", "images": ["goal.png"]}, {"id": "key", "text": "a key"})
        )
    )
    of_pictures = LabelerSettings(
        model=settings.model,
        goals=read_goals(tmp_path / "goals.jsonl"),
        formula="cosine",
        threshold=0.9,
        batch_size=16,
        precision="float32",
    )
    label(corpus, of_pictures, output=tmp_path / "labels")
    first, second = scores(tmp_path / "labels")
    assert first == second
    assert first[0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("num_broken", "allowed"), [(1, 0.25), (3, 0.75)])
def test_frames_that_do_not_decode_count_towards_the_share_that_may_fail(
    tmp_path: Path, settings: LabelerSettings, num_broken: int, allowed: float
) -> None:
    whole = encode_png(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    frames = [whole] * (4 - num_broken) + [whole[: len(whole) // 2]] * num_broken
    corpus = write_corpus(tmp_path / "corpus", frames)
    message = rf"at most a share of {allowed - 0.01:g} may fail, got {num_broken} of 4 rows, 0 of 1 episodes"
    with pytest.raises(ValueError, match=message):
        label(corpus, settings, output=tmp_path / "labels", max_failure_share=allowed - 0.01)
    manifest = label(corpus, settings, output=tmp_path / "labels", max_failure_share=allowed).manifest
    assert (manifest["failed_frames"], manifest["rows"]) == (num_broken, 4 - num_broken)
    assert manifest["failures"] == {"undecodable image": num_broken}


def test_a_refused_run_claims_no_folder(tmp_path: Path, settings: LabelerSettings) -> None:
    corpus = write_corpus(tmp_path / "corpus", [encode_png(np.zeros((8, 8, 3), np.uint8))])
    for wrong, message in (
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"max_failure_share": 1.5}, "max_failure_share must be from 0 to 1, got 1.5"),
        ({"camera": "side"}, "the camera must be one of the corpus's"),
        ({"picture_range": "4"}, "a range of values must be two different numbers"),
        ({"beam_options": ["--runer=FnApiRunner"]}, "did you mean --runner"),
    ):
        with pytest.raises(ValueError, match=message):
            label(corpus, settings, output=tmp_path / "labels", embeddings=tmp_path / "kept", **wrong)
        assert not (tmp_path / "labels").exists(), wrong
        assert not (tmp_path / "kept").exists(), wrong


def test_kept_embeddings_say_how_their_corpus_was_read(tmp_path: Path, settings: LabelerSettings) -> None:
    corpus = write_corpus(tmp_path / "corpus", [encode_png(np.zeros((8, 8, 3), np.uint8))])
    label(corpus, settings, output=tmp_path / "labels", embeddings=tmp_path / "kept")
    path = tmp_path / "kept" / "settings.json"
    record = json.loads(path.read_text())
    del record["settings"]["max_unit_bytes"]
    path.write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=r"max_unit_bytes in .*settings.json must be a whole number of at least 1, got noth"
    ):
        label(None, settings, output=tmp_path / "again", embeddings=tmp_path / "kept")
