import dataclasses
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from labelers.labeler import EMBEDDING_PARTS, Labeler, LabelerSettings
from labelers.negatives import NegativeSettings
from labelers.preprocessing import to_rgb
from schemas.goals import Goal

GOALS = (
    Goal("red", "the agent is in front of a red ball"),
    Goal("blue", "the agent is in front of a blue ball"),
    Goal("near", "a red ball next to a green key", group="pair"),
    Goal("near-too", "a green key next to a red ball", group="pair"),
    Goal("carry", "the agent carries a box"),
)


@pytest.fixture(scope="module")
def settings(tiny_clip: Path) -> LabelerSettings:
    return LabelerSettings(model=str(tiny_clip), goals=GOALS, precision="float32", batch_size=8)


@pytest.fixture(scope="module")
def labeler(settings: LabelerSettings) -> Labeler:
    return settings.build()


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(5)
    found = []
    for height, width in ((32, 32), (90, 200), (1, 64), (64, 1), (33, 47), (480, 640)):
        rgba = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8), mode="RGBA")
        rgb = rgba.convert("RGB")
        found += [rgb, rgba, rgb.convert("L"), rgb.convert("P"), rgb.convert("CMYK"), rgb.convert("1")]
        found.append(Image.fromarray(random.integers(0, 65536, (height, width), dtype=np.uint16)))
    return found


def test_scores_equal_those_of_clip_with_its_own_processor(tiny_clip: Path) -> None:
    goals = tuple(Goal(goal.id, goal.text) for goal in GOALS)  # one family, no groups: CLIP's softmax is over all texts
    labeler = LabelerSettings(model=str(tiny_clip), goals=goals, precision="float32").build()
    model, processor = (
        CLIPModel.from_pretrained(tiny_clip).eval(),
        CLIPProcessor.from_pretrained(tiny_clip, backend="pil"),
    )
    scores = labeler([to_rgb(picture) for picture in pictures()])
    assert (scores.dtype, scores.shape) == (np.float32, (len(pictures()), 5))
    for row, picture in zip(scores, pictures(), strict=True):
        with torch.no_grad():
            inputs = processor(text=[goal.text for goal in goals], images=picture, padding=True, return_tensors="pt")
            expected = model(**inputs).logits_per_image.softmax(dim=-1)[0]
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5)


def test_cosine_scores_equal_those_of_clip(settings: LabelerSettings, tiny_clip: Path) -> None:
    labeler = dataclasses.replace(settings, formula="cosine", threshold=0.2).build()
    model, processor = (
        CLIPModel.from_pretrained(tiny_clip).eval(),
        CLIPProcessor.from_pretrained(tiny_clip, backend="pil"),
    )
    with torch.no_grad():
        output = model(
            **processor(text=[goal.text for goal in GOALS], images=pictures()[0], padding=True, return_tensors="pt")
        )
    expected = output.logits_per_image / model.logit_scale.detach().exp()
    np.testing.assert_allclose(labeler([to_rgb(pictures()[0])]), expected, rtol=0, atol=1e-5)
    assert labeler.temperature is None
    assert labeler.fingerprint.parts["negatives"] is None


def test_goals_of_a_group_do_not_compete(labeler: Labeler, random_frames: np.ndarray) -> None:
    # Goals 2 and 3 share a group: goal 2 competes with 0, 1 and 4 only.
    scores = labeler(random_frames[:3])
    logits = labeler.embed(random_frames[:3]) @ labeler.text_embeddings.T / labeler.temperature
    competitors = np.exp(logits[:, [0, 1, 2, 4]])
    np.testing.assert_allclose(scores[:, 2], competitors[:, 2] / competitors.sum(axis=1), atol=1e-5)


def test_a_label_depends_on_its_frame_alone(settings: LabelerSettings, random_frames: np.ndarray) -> None:
    for precision in ("auto", "float32"):
        labeler = dataclasses.replace(settings, precision=precision).build()
        scores = labeler(random_frames)
        order = np.random.default_rng(1).permutation(len(random_frames))
        assert np.array_equal(labeler(random_frames[order]), scores[order])
        assert np.array_equal(
            np.concatenate([labeler(random_frames[n : n + 1]) for n in range(len(random_frames))]), scores
        )
        assert np.array_equal(np.concatenate([labeler(random_frames[:9]), labeler(list(random_frames[9:]))]), scores)


def test_threads_that_share_a_labeler_get_the_same_bits(labeler: Labeler, random_frames: np.ndarray) -> None:
    expected = labeler(random_frames)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(scores, expected) for scores in pool.map(labeler, [random_frames] * 8))


def test_threads_can_build_from_one_encoder(settings: LabelerSettings, labeler: Labeler) -> None:
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: Labeler(settings, labeler.encoder), range(8)))
    assert {one.fingerprint.digest for one in built} == {labeler.fingerprint.digest}
    assert all(np.array_equal(one.text_embeddings, labeler.text_embeddings) for one in built)


def test_kept_embeddings_give_the_same_scores(labeler: Labeler, random_frames: np.ndarray) -> None:
    embeddings = labeler.embed(random_frames)
    assert embeddings.shape == (70, labeler.dim)
    assert np.array_equal(labeler.score(embeddings), labeler(random_frames))


def test_no_frames_give_no_scores(labeler: Labeler) -> None:
    assert labeler([]).shape == (0, 5)
    assert labeler(np.zeros((0, 9, 9, 3), dtype=np.uint8)).shape == (0, 5)


def test_rewards_use_the_threshold_in_force(settings: LabelerSettings, labeler: Labeler) -> None:
    scores = np.repeat(np.array([[0.9], [0.6], [0.4]], dtype=np.float32), 5, axis=1)
    assert labeler.rule.thresholds == (0.5,) * len(labeler.goals)
    assert labeler.rewards(scores).tolist() == [[1.0] * 5, [0.0] * 5]
    assert dataclasses.replace(settings, threshold=0.7).build().rewards(scores).tolist() == [[0.0] * 5] * 2


def test_templates_are_averaged(settings: LabelerSettings, labeler: Labeler) -> None:
    templates = ("{goal}", "a photo of {goal}")
    ensemble = Labeler(dataclasses.replace(settings, templates=templates), labeler.encoder)
    plain, photo = (
        labeler.encoder.embed_texts([template.replace("{goal}", GOALS[0].text) for template in templates])
    ).astype(float)
    expected = (plain + photo) / np.linalg.norm(plain + photo)
    np.testing.assert_allclose(ensemble.text_embeddings[0], expected, atol=1e-6)
    assert np.array_equal(labeler.text_embeddings[0], plain.astype(np.float32))


def test_settings_survive_pickling_and_build_the_same_labeler(settings: LabelerSettings, labeler: Labeler) -> None:
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert Labeler.build(again).fingerprint == labeler.fingerprint


def test_fingerprint_changes_with_everything_that_matters(settings: LabelerSettings, labeler: Labeler) -> None:
    changes: dict[str, dict] = {
        "templates": {"templates": ("a {goal}",)},
        "goals": {"goals": (*GOALS[:-1], Goal("carry", "the agent carries a key"))},
        "negatives": {"negatives": NegativeSettings(explicit=("nothing",))},
        "temperature": {"temperature": 0.5},
        "rule": {"threshold": 0.6},
    }
    for part, change in changes.items():
        other = Labeler(dataclasses.replace(settings, **change), labeler.encoder)
        # Other goals are other negatives too.
        expected = ["goals", "negatives"] if part == "goals" else [part]
        assert labeler.fingerprint.differing_parts(other.fingerprint) == expected
        assert other.embedding_fingerprint == labeler.embedding_fingerprint
    other = dataclasses.replace(settings, batch_size=16).build()
    assert labeler.fingerprint.differing_parts(other.fingerprint) == ["batch_size"]
    assert labeler.embedding_fingerprint.differing_parts(other.embedding_fingerprint) == ["batch_size"]
    assert tuple(labeler.embedding_fingerprint.parts) == tuple(sorted(EMBEDDING_PARTS))
    json.dumps(dict(labeler.fingerprint.parts), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"goals": ()}, "must hold at least one goal"),
        ({"templates": ("photo",)}, "exactly once"),
        ({"formula": "dot"}, "formula must be one of softmax, cosine, got 'dot'"),
        ({"temperature": 0.0}, "temperature must be at least 0.001 and finite, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be at least 0.001 and finite, got nan"),
        ({"formula": "cosine"}, "threshold must be given for the formula 'cosine', got None"),
        ({"threshold": float("inf")}, "threshold must be a finite number, got inf"),
        ({"precision": "half"}, "precision must be one of auto, float32, bfloat16, got 'half'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: LabelerSettings, change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(settings, **change)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "another"}, "model of the encoder must be that of the settings, another, got"),
        ({"batch_size": 9}, "batch_size of the encoder must be that of the settings, 9, got 8"),
        ({"device": "cuda"}, "device of the encoder must be that of the settings, cuda, got cpu"),
        ({"precision": "bfloat16"}, "precision of the encoder must be that of the settings, bfloat16, got float32"),
    ],
)
def test_another_encoder_is_refused(settings: LabelerSettings, labeler: Labeler, change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Labeler(dataclasses.replace(settings, **change), labeler.encoder)


def test_a_goal_without_negatives_is_refused(settings: LabelerSettings, labeler: Labeler) -> None:
    with pytest.raises(
        ValueError, match="every goal must have a negative, got none for 'near': its probability would always be 1"
    ):
        Labeler(dataclasses.replace(settings, goals=GOALS[2:4]), labeler.encoder)
    explicit = NegativeSettings(kind="explicit", explicit=("nothing",))
    assert (
        Labeler(dataclasses.replace(settings, goals=GOALS[2:4], negatives=explicit), labeler.encoder).goals
        == GOALS[2:4]
    )


def test_a_temperature_must_come_from_somewhere(settings: LabelerSettings, labeler: Labeler) -> None:
    encoder = dataclasses.replace(labeler.encoder, logit_scale=None)
    with pytest.raises(ValueError, match="temperature must be given for a model that has none of its own"):
        Labeler(settings, encoder)
    assert Labeler(dataclasses.replace(settings, temperature=0.1), encoder).temperature == 0.1
    encoder = dataclasses.replace(labeler.encoder, logit_scale=2000.0)
    with pytest.raises(ValueError, match=r"temperature must be at least 0.001, got the model's own 0.0005"):
        Labeler(settings, encoder)


@pytest.mark.parametrize(
    ("embeddings", "match"),
    [
        (np.zeros((2, 23), np.float32), r"embeddings must be \[N, 24\] float32, got \[2, 23\] float32"),
        (np.zeros((2, 24)), r"embeddings must be \[N, 24\] float32, got \[2, 24\] float64"),
        (
            np.stack([np.eye(24)[0], np.full(24, np.nan)]).astype(np.float32),
            "finite and of unit length, got length nan in row 1",
        ),
        (np.full((1, 24), np.inf, np.float32), "finite and of unit length, got length inf in row 0"),
        (np.zeros((1, 24), np.float32), "finite and of unit length, got length 0.0 in row 0"),
    ],
)
def test_embeddings_of_another_kind_are_refused(labeler: Labeler, embeddings: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        labeler.score(embeddings)
