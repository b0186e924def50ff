import dataclasses
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor, SiglipModel, SiglipProcessor

from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.scoring.negatives import SCORE_BLOCK, NegativeSettings
from vlm_rewards.labelers.scoring.windows import WindowSettings
from vlm_rewards.labelers.settings import LabelerSettings, settings_from_json
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.goals import Goal, read_goals
from vlm_rewards.schemas.pictures import to_rgb

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
    return Labeler.build(settings)


def random_picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def pictured(folder: Path, goal_id: str, *images: Image.Image) -> Goal:
    """A goal given by pictures, as a goals file names them: PNG and JPEG by turns."""
    paths = []
    for index, image in enumerate(images):
        paths.append(f"{goal_id}-{index}.{('png', 'jpg')[index % 2]}")
        image.save(folder / paths[-1])
    (folder / "goals.jsonl").write_text(json.dumps({"id": goal_id, "text": f"like {goal_id}", "images": paths}))
    return read_goals(folder / "goals.jsonl")[0]


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(5)
    found = []
    for height, width in ((32, 32), (90, 200), (1, 64), (64, 1), (33, 47), (480, 640)):
        rgba = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8), mode="RGBA")
        rgb = rgba.convert("RGB")
        found += [rgb, rgba, rgb.convert("L"), rgb.convert("P"), rgb.convert("CMYK"), rgb.convert("1")]
    return found


def test_scores_equal_those_of_clip_with_its_own_processor(tiny_clip: Path) -> None:
    goals = tuple(Goal(goal.id, goal.text) for goal in GOALS)  # one family, no groups: CLIP's softmax is over all texts
    labeler = Labeler.build(LabelerSettings(model=str(tiny_clip), goals=goals, precision="float32"))
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
    labeler = Labeler.build(dataclasses.replace(settings, formula="cosine", threshold=0.2))
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
    logits = labeler.embed(random_frames[:3]) @ labeler.goal_embeddings.T / labeler.temperature
    competitors = np.exp(logits[:, [0, 1, 2, 4]])
    np.testing.assert_allclose(scores[:, 2], competitors[:, 2] / competitors.sum(axis=1), atol=1e-5)


def test_a_label_depends_on_its_frame_alone(settings: LabelerSettings, random_frames: np.ndarray) -> None:
    for precision in ("auto", "float32"):
        labeler = Labeler.build(dataclasses.replace(settings, precision=precision))
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
    assert all(np.array_equal(one.goal_embeddings, labeler.goal_embeddings) for one in built)


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
    assert Labeler.build(dataclasses.replace(settings, threshold=0.7)).rewards(scores).tolist() == [[0.0] * 5] * 2


def test_templates_are_averaged(settings: LabelerSettings, labeler: Labeler) -> None:
    templates = ("{goal}", "a photo of {goal}")
    ensemble = Labeler(dataclasses.replace(settings, templates=templates), labeler.encoder)
    plain, photo = (
        labeler.encoder.embed_texts([template.replace("{goal}", GOALS[0].text) for template in templates])
    ).astype(float)
    expected = (plain + photo) / np.linalg.norm(plain + photo)
    np.testing.assert_allclose(ensemble.goal_embeddings[0], expected, atol=1e-6)
    assert np.array_equal(labeler.goal_embeddings[0], plain.astype(np.float32))


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
        "window": {"window": WindowSettings(frames=2)},
    }
    for part, change in changes.items():
        other = Labeler(dataclasses.replace(settings, **change), labeler.encoder)
        # Other goals are other negatives too.
        expected = ["goals", "negatives"] if part == "goals" else [part]
        assert labeler.fingerprint.differing_parts(other.fingerprint) == expected
        assert other.embedding_fingerprint == labeler.embedding_fingerprint
    other = Labeler.build(dataclasses.replace(settings, batch_size=16))
    assert labeler.fingerprint.differing_parts(other.fingerprint) == ["batch_size"]
    assert labeler.embedding_fingerprint.differing_parts(other.embedding_fingerprint) == ["batch_size"]
    assert set(labeler.embedding_fingerprint.parts) == set(labeler.encoder.describe_images())
    json.dumps(dict(labeler.fingerprint.parts), allow_nan=False)


def test_the_fingerprint_names_all_that_a_score_depends_on(labeler: Labeler) -> None:
    parts = labeler.fingerprint.parts
    of_scores = {"text_encoding", "templates", "goals", "negatives", "temperature", "formula", "rule", "score_block"}
    assert set(parts) == set(labeler.encoder.describe_images()) | of_scores
    assert parts["text_encoding"] == Fingerprint(labeler.encoder.describe_texts()).parts
    assert parts["score_block"] == SCORE_BLOCK
    assert parts["formula"] == "softmax"


def test_another_temperature_is_another_labeler_of_the_same_embeddings(
    settings: LabelerSettings, labeler: Labeler, random_frames: np.ndarray
) -> None:
    warmer = labeler.at_temperature(0.5)
    built = Labeler(dataclasses.replace(settings, temperature=0.5), labeler.encoder)
    assert labeler.fingerprint.differing_parts(warmer.fingerprint) == ["temperature"]
    assert (warmer.fingerprint, warmer.settings, warmer.temperature) == (built.fingerprint, built.settings, 0.5)
    before = labeler(random_frames)
    assert warmer(random_frames).tobytes() == built(random_frames).tobytes() != before.tobytes()
    assert labeler(random_frames).tobytes() == before.tobytes()  # it stays as it was


def test_alpha_and_baselines_are_in_the_fingerprint_of_goal_baseline_alone(
    settings: LabelerSettings, labeler: Labeler
) -> None:
    plain = dataclasses.replace(settings, formula="goal-baseline", threshold=0.2, baseline="a room")
    goals = (dataclasses.replace(GOALS[0], baseline="nothing"), *GOALS[1:])
    built = Labeler(plain, labeler.encoder)
    for change, expected in (
        ({"alpha": 0.5}, []),
        ({"alpha": 0.6}, ["baseline"]),
        ({"baseline": "an empty room"}, ["baseline"]),
        ({"goals": goals}, ["baseline", "goals"]),
    ):
        other = Labeler(dataclasses.replace(plain, **change), labeler.encoder)
        assert built.fingerprint.differing_parts(other.fingerprint) == expected
    assert "baseline" not in labeler.fingerprint.parts
    assert "window" not in labeler.fingerprint.parts


def test_settings_survive_json(settings: LabelerSettings, tmp_path: Path) -> None:
    goals = (pictured(tmp_path, "red", random_picture(0)), Goal("blue", "b", prompts=("a", "c"), baseline="d"))
    for changed in (
        dataclasses.replace(settings, threshold=(0.1, 0.2, 0.3, 0.4, 0.5), hysteresis=0.1, min_frames=2),
        dataclasses.replace(settings, window=WindowSettings(frames=3, over="embeddings", reduce="max")),
        dataclasses.replace(
            settings, goals=goals, formula="goal-baseline", threshold=0.2, baseline="a room", alpha=0.25
        ),
        dataclasses.replace(settings, negatives=NegativeSettings(kind="sampled", k=2, explicit=("nothing",))),
    ):
        assert settings_from_json(json.loads(json.dumps(changed.to_json()))) == changed


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"goals": ()}, "must hold at least one goal"),
        ({"templates": ("photo",)}, "exactly once"),
        (
            {"formula": "dot"},
            "formula must be one of softmax, cosine, goal-baseline, shifted-softmax, sigmoid, got 'dot'",
        ),
        ({"temperature": 0.0}, "temperature must be at least 0.001 and finite, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be at least 0.001 and finite, got nan"),
        ({"formula": "cosine"}, "threshold must be given for the formula 'cosine', got None"),
        (
            {"threshold": 1.0},
            "threshold must be from 0 to below 1 for the formula 'softmax', got 1.0: no score is greater",
        ),
        (
            {"threshold": -0.5},
            "threshold must be from 0 to below 1 for the formula 'softmax', got -0.5: every score is greater",
        ),
        ({"threshold": float("inf")}, "threshold must be a finite number, got inf"),
        (
            {"baseline": "a room"},
            "baseline must be left out for the formula 'softmax', got 'a room'; it is for 'goal-baseline'",
        ),
        (
            {"formula": "cosine", "alpha": 0.5, "threshold": 0.2},
            "alpha must be left out for the formula 'cosine', got 0.5",
        ),
        (
            {"formula": "goal-baseline", "threshold": 0.2},
            "every goal must have a baseline for the formula 'goal-baseline', got none for 'red'; give one for all, or the field",
        ),
        (
            {"formula": "goal-baseline", "threshold": 0.2, "baseline": " "},
            "baseline must be a text that is not empty, got ' '",
        ),
        ({"formula": "goal-baseline", "baseline": "a room"}, "threshold must be given for the formula 'goal-baseline'"),
        (
            {"formula": "goal-baseline", "threshold": 0.2, "baseline": "a room", "alpha": float("nan")},
            "alpha must be 0 to 1, got nan; 0 is the cosine, 0.5 the default",
        ),
        (
            {"formula": "goal-baseline", "threshold": 0.2, "baseline": "a room", "alpha": 1.5},
            "alpha must be 0 to 1, got 1.5",
        ),
        (
            {"threshold": (0.5, 0.5)},
            "thresholds must be one for all or one a goal, 5, got 2; calibrate for these goals",
        ),
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


def test_a_bad_embedding_among_thousands_is_named_by_its_row(labeler: Labeler) -> None:
    embeddings = np.zeros((2_100, labeler.dim), np.float32)
    embeddings[:, 0] = 1
    assert labeler.score(embeddings).shape == (2_100, len(labeler.goals))
    for row in (1_023, 1_024, 2_099):  # lengths are checked in blocks of 1,024
        spoiled = embeddings.copy()
        spoiled[row] *= 1.5
        with pytest.raises(ValueError, match=rf"of unit length, got length 1.5 in row {row};"):
            labeler.score(spoiled)


def test_a_window_looks_at_the_frames_of_its_episode_and_needs_their_order(
    settings: LabelerSettings, labeler: Labeler, random_frames: np.ndarray
) -> None:
    embeddings, scores = labeler.embed(random_frames), labeler(random_frames)
    windowed = Labeler(dataclasses.replace(settings, window=WindowSettings(frames=3)), labeler.encoder)
    found = windowed.episodes().push(["a"] * 40 + ["b"] * 30, embeddings)
    # The third frame of each episode: the mean of its three scores. The first: its own.
    for start in (0, 40):
        assert np.array_equal(found[start], scores[start])
        np.testing.assert_allclose(found[start + 2], scores[start : start + 3].mean(axis=0), rtol=1e-6)
    assert np.array_equal(labeler.episodes().push(["a"] * 70, embeddings), scores)
    for call in (lambda: windowed.score(embeddings), lambda: windowed(random_frames)):
        with pytest.raises(
            ValueError, match="frames must come in the order of their episodes for a window of 3, got frames"
        ):
            call()


def test_a_goals_own_prompts_stand_in_place_of_the_templates(settings: LabelerSettings, labeler: Labeler) -> None:
    prompts = ("a red ball", "the agent is next to a red ball", "red")
    goals = (
        dataclasses.replace(GOALS[0], prompts=prompts),
        dataclasses.replace(GOALS[1], prompts=prompts[:1]),
        *GOALS[2:],
    )
    templates = ("{goal}", "a photo of {goal}")
    built = Labeler(dataclasses.replace(settings, goals=goals, templates=templates), labeler.encoder)
    plain = Labeler(dataclasses.replace(settings, templates=templates), labeler.encoder)
    several = labeler.encoder.embed_texts(prompts).astype(float)
    mean = several.sum(axis=0) / np.linalg.norm(several.sum(axis=0))
    np.testing.assert_allclose(built.goal_embeddings[0], mean, atol=1e-6)
    assert np.array_equal(built.goal_embeddings[1], labeler.encoder.embed_texts(prompts[:1])[0])
    assert np.array_equal(built.goal_embeddings[2:], plain.goal_embeddings[2:])
    assert plain.fingerprint.differing_parts(built.fingerprint) == ["goals"]


def test_goal_baseline_scores_equal_a_projection(
    settings: LabelerSettings, labeler: Labeler, random_frames: np.ndarray
) -> None:
    goals = (dataclasses.replace(GOALS[0], baseline="nothing"), *GOALS[1:])
    changes = {"formula": "goal-baseline", "threshold": 0.2, "baseline": "a room", "alpha": 0.75}
    built = Labeler(dataclasses.replace(settings, goals=goals, **changes), labeler.encoder)
    scores = built(random_frames[:6])
    baselines = labeler.encoder.embed_texts(["nothing"] + ["a room"] * 4).astype(float)
    for index, (goal, baseline) in enumerate(zip(built.goal_embeddings.astype(float), baselines, strict=True)):
        line = (goal - baseline) / np.linalg.norm(goal - baseline)
        weight = 0.75 * np.outer(line, line) + 0.25 * np.eye(24)
        distances = np.linalg.norm((built.embed(random_frames[:6]) - goal) @ weight, axis=1)
        np.testing.assert_allclose(scores[:, index], 1 - distances**2 / 2, atol=1e-6)


def test_a_baseline_at_its_goal_is_refused(settings: LabelerSettings, labeler: Labeler) -> None:
    changes = {"formula": "goal-baseline", "threshold": 0.2}
    with pytest.raises(
        ValueError, match="must differ from its goal, got 'the agent carries a box' for goal 'carry', 'the agent"
    ):
        Labeler(dataclasses.replace(settings, baseline=GOALS[4].text, **changes), labeler.encoder)
    with pytest.raises(
        ValueError, match="got 'THE agent carries a box' for goal 'carry', .* at distance 0 for this model"
    ):
        Labeler(dataclasses.replace(settings, baseline="THE agent carries a box", **changes), labeler.encoder)


def test_sigmoid_scores_equal_those_of_siglip(tiny_siglip: Path, random_frames: np.ndarray) -> None:
    labeler = Labeler.build(
        LabelerSettings(model=str(tiny_siglip), goals=GOALS, formula="sigmoid", precision="float32")
    )
    model, processor = (
        SiglipModel.from_pretrained(tiny_siglip).eval(),
        SiglipProcessor.from_pretrained(tiny_siglip, backend="pil"),
    )
    with torch.no_grad():
        texts = [goal.text for goal in GOALS]
        inputs = processor(text=texts, images=list(random_frames[:4]), padding="max_length", return_tensors="pt")
        expected = model(**inputs).logits_per_image.sigmoid()
    np.testing.assert_allclose(labeler(random_frames[:4]), expected, rtol=0, atol=1e-5)
    assert labeler.rule.thresholds == (0.5,) * 5
    assert labeler.fingerprint.parts["temperature"] is None


def test_the_sigmoid_needs_a_model_with_a_bias(settings: LabelerSettings, labeler: Labeler, tmp_path: Path) -> None:
    changed = dataclasses.replace(settings, formula="sigmoid")
    with pytest.raises(
        ValueError, match="must have a logit scale and bias of its own for the formula 'sigmoid', got none in"
    ):
        Labeler(changed, labeler.encoder)
    biased = dataclasses.replace(labeler.encoder, logit_bias=-5.0)
    assert Labeler(changed, biased).settings.formula == "sigmoid"
    with pytest.raises(ValueError, match="must be finite and the scale over 0, got .* and nan in"):
        Labeler(changed, dataclasses.replace(biased, logit_bias=float("nan")))
    goals = (pictured(tmp_path, "seen", random_picture(1)), GOALS[0])
    with pytest.raises(ValueError, match="goals must be texts for the formula 'sigmoid', got pictures for goal 'seen'"):
        Labeler(dataclasses.replace(changed, goals=goals), biased)


def test_goals_given_by_pictures(settings: LabelerSettings, labeler: Labeler, tmp_path: Path) -> None:
    one, two = random_picture(1), random_picture(2)
    goals = (pictured(tmp_path, "one", one), pictured(tmp_path, "both", one, two), GOALS[0])
    cosine = dataclasses.replace(settings, goals=goals, formula="cosine", threshold=0.5)
    built = Labeler(cosine, labeler.encoder)
    first = np.asarray(one)
    second = to_rgb(Image.open(tmp_path / "both-1.jpg"))
    frames = built.embed(np.stack([built.resize(first), built.resize(second)])).astype(float)
    assert np.array_equal(built.goal_embeddings[0], frames[0].astype(np.float32))
    np.testing.assert_allclose(
        built.goal_embeddings[1], frames.sum(axis=0) / np.linalg.norm(frames.sum(axis=0)), atol=1e-6
    )
    assert np.array_equal(built.goal_embeddings[2], labeler.goal_embeddings[0])
    assert built([first])[0, 0] == pytest.approx(1.0)  # a frame that is the goal's picture
    only = Labeler(
        dataclasses.replace(settings, goals=goals[:2], negatives=NegativeSettings(kind="all")), labeler.encoder
    )
    scores = only([first, second])  # pictures among pictures
    assert scores[0, 0] > 0.5 > scores[0, 1]
    baseline = dataclasses.replace(cosine, formula="goal-baseline", baseline="a room")
    assert Labeler(baseline, labeler.encoder)([first])[0, 0] == pytest.approx(1.0)


def test_where_a_picture_lies_is_not_in_the_fingerprint_but_what_it_shows_is(
    settings: LabelerSettings, labeler: Labeler, tmp_path: Path
) -> None:
    prints = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        goals = (pictured(tmp_path / name, "seen", random_picture(seed)),)
        built = Labeler(dataclasses.replace(settings, goals=goals, formula="cosine", threshold=0.5), labeler.encoder)
        prints.append(built.fingerprint)
    assert prints[0] == prints[1]
    assert prints[0].differing_parts(prints[2]) == ["goals"]


@pytest.mark.parametrize("formula", ["softmax", "shifted-softmax"])
def test_pictures_do_not_stand_among_texts(
    settings: LabelerSettings, labeler: Labeler, tmp_path: Path, formula: str
) -> None:
    seen = pictured(tmp_path, "seen", random_picture(1))
    changed = dataclasses.replace(
        settings, formula=formula, negatives=NegativeSettings(kind="family"), goals=(seen, *GOALS[:2])
    )
    with pytest.raises(
        ValueError, match=f"for the formula '{formula}', got pictures for goal 'seen' and a text for its negative"
    ):
        Labeler(changed, labeler.encoder)
    apart = dataclasses.replace(pictured(tmp_path, "too", random_picture(2)), family="seen")
    goals = (dataclasses.replace(seen, family="seen"), apart, *GOALS[:2])
    assert Labeler(dataclasses.replace(changed, goals=goals), labeler.encoder).goals == goals
    negatives = NegativeSettings(kind="family", explicit=("nothing",))
    with pytest.raises(
        ValueError, match="a text for its negative 'nothing': .* choose cosine or goal-baseline, or give the goals"
    ):
        Labeler(dataclasses.replace(changed, goals=goals, negatives=negatives), labeler.encoder)


def test_bad_pictures_are_refused(settings: LabelerSettings, labeler: Labeler, tmp_path: Path) -> None:
    goal = pictured(tmp_path, "seen", random_picture(1))
    changed = dataclasses.replace(settings, goals=(goal,), formula="cosine", threshold=0.5)
    path = tmp_path / "seen-0.png"
    broken = path.read_bytes()[:100]
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="a goal's picture must be the one it was read with") as caught:
        Labeler(changed, labeler.encoder)
    assert caught.value.__notes__ == [f"in the picture {path} of goal 'seen'"]
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)
    deep = dataclasses.replace(changed, goals=read_goals(tmp_path / "goals.jsonl"))
    with pytest.raises(
        ValueError, match=r"got 16 bits, with values from 40000 to 40000\. Convert it to 8 bits, so that"
    ):
        Labeler(deep, labeler.encoder)  # --picture-range is of the corpus's pictures
    path.write_bytes(broken)
    cut = dataclasses.replace(changed, goals=read_goals(tmp_path / "goals.jsonl"))
    with pytest.raises(ValueError, match="a picture must decode in full, got 100 bytes that do not"):
        Labeler(cut, labeler.encoder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="a goal's picture must exist, got"):
        Labeler(changed, labeler.encoder)


@pytest.mark.parametrize("text", ["A red ball", "a red ball ", "a red\u00a0ball", "  a  red ball"])
def test_goals_and_negatives_that_the_model_reads_as_one_are_refused(
    settings: LabelerSettings, labeler: Labeler, text: str
) -> None:
    match = r"are one text for the model, .*: got goal 'one' \('a red ball'\) and {}. Remove or reword one"
    one, other = Goal("one", "a red ball"), Goal("other", "a blue ball")
    for changes, named in (
        ({"goals": (one, Goal("two", text))}, r"goal 'two' \(.*\)"),
        ({"goals": (one, Goal("two", "a key", prompts=(text,)))}, r"goal 'two' \('a key'\)"),
        ({"goals": (one, Goal("two", text)), "formula": "cosine", "threshold": 0.5}, r"goal 'two' \(.*\)"),
        ({"goals": (one, other), "negatives": NegativeSettings(explicit=(text,))}, "the negative .*"),
        ({"goals": (one, dataclasses.replace(other, negatives=(text,)))}, "the negative .*"),
    ):
        with pytest.raises(ValueError, match=match.format(named)):
            Labeler(dataclasses.replace(settings, **changes), labeler.encoder)
    with pytest.raises(
        ValueError, match=r"two prompts of goal 'one' \('a red ball'\) are one text for the model: got 'a red b"
    ):
        prompted = dataclasses.replace(one, prompts=("a red ball", text))
        Labeler(dataclasses.replace(settings, goals=(prompted, other)), labeler.encoder)
    baseline = {"formula": "goal-baseline", "threshold": 0.2}
    with pytest.raises(ValueError, match="a baseline must differ from its goal, got .* for goal 'one', 'a red ball'"):
        Labeler(dataclasses.replace(settings, goals=(one, other), baseline=text, **baseline), labeler.encoder)


def test_templates_that_become_one_text_are_refused(settings: LabelerSettings, labeler: Labeler) -> None:
    with pytest.raises(
        ValueError, match="two prompts of goal 'red' .*: got 'the agent .*' and ' the agent .*'. Remove one"
    ):
        Labeler(dataclasses.replace(settings, templates=("{goal}", " {goal}")), labeler.encoder)


def test_texts_that_give_one_vector_are_refused(settings: LabelerSettings, tiny_clip: Path) -> None:
    # Two words that the tokenizer tells apart and the text tower does not.
    encoder = DualEncoder.load(tiny_clip, batch_size=8, precision="float32")
    words = encoder.tokenizer.tokenizer.get_vocab()
    table = encoder.towers.model.text_model.get_input_embeddings().weight
    with torch.no_grad():
        table[words["red"]] = table[words["green"]]
    goals = (Goal("one", "a red ball"), Goal("two", "a green ball"))
    with pytest.raises(
        ValueError,
        match=r"have one vector, .*: got goal 'one' \('a red ball'\) and goal 'two' \('a green ball'\). Remove or",
    ):
        Labeler(dataclasses.replace(settings, goals=goals), encoder)


def test_a_word_that_the_tokenizer_does_not_know_is_refused_with_its_goal(
    settings: LabelerSettings, labeler: Labeler
) -> None:
    goals = (*GOALS, Goal("cup", "a cup in the dishwasher"))
    with pytest.raises(
        ValueError, match="tokenizer does not know 'dishwasher': got 'a cup in the dishwasher'"
    ) as caught:
        Labeler(dataclasses.replace(settings, goals=goals), labeler.encoder)
    assert caught.value.__notes__ == ["in a prompt of goal 'cup' ('a cup in the dishwasher')"]
    with pytest.raises(ValueError, match="does not know 'zebra'"):
        Labeler(dataclasses.replace(settings, negatives=NegativeSettings(explicit=("a zebra",))), labeler.encoder)
