import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from bootstrap import average_precisions, episode_weights, interval_of, mean_with_interval, weighted_average_precision
from drawing import draw_figures
from figures import Budget, compare_sizes, formula_settings, measure
from wordings import (
    NEW_WORDING,
    READ,
    UNKNOWN_WORDS,
    UNTRAINED_WORDS,
    WORDINGS,
    unknown_words,
    untrained_words,
    what_was_read,
)

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.domains.babyai.pretraining import BABYAI_PRETRAINING
from vlm_rewards.labelers.reference_models.pretraining import tokenizer_of
from vlm_rewards.labelers.scoring.formulas import FORMULAS

SCORES = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
TRUTH = np.array([True, False, True, False])
EPISODE = np.array([0, 0, 1, 1])


def test_average_precision_by_hand_under_weights_of_episodes() -> None:
    weights = np.array([[1, 1], [2, 0], [0, 1], [1, 2]], np.float32).T
    values = weighted_average_precision(SCORES, TRUTH, EPISODE, weights)
    # each once: precision 1/1 at the first positive, 2/3 at the second
    assert values[0] == pytest.approx((1 + 2 / 3) / 2)
    # the first episode twice: its positive before everything
    assert values[1] == 1.0
    # the second alone: its positive first
    assert values[2] == 1.0
    # the second twice: 1/1 once, then 3 positives among 1 + 1 + 2 frames, with weight 2
    assert values[3] == pytest.approx((1 * 1 + 2 * 3 / 4) / 3)


def test_frames_of_one_score_are_taken_together() -> None:
    # both at 0.5: 1 positive among 2 frames, whatever their order
    tied = np.array([0.5, 0.5], np.float32)
    assert (
        weighted_average_precision(tied, np.array([True, False]), np.array([0, 0]), np.ones((1, 1), np.float32)) == 0.5
    )


def test_average_precision_is_scikit_learns_with_sample_weights() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.random((400, 3)), 2).astype(np.float32)  # with ties
    truth = rng.random((400, 3)) < 0.1
    episode = np.sort(rng.integers(0, 30, 400))
    weights = episode_weights(30, 20, seed=1)
    values = average_precisions(scores, truth, episode, weights)
    for goal in range(3):
        for column in range(21):
            weight = weights[episode, column]
            assert values[goal, column] == pytest.approx(
                average_precision_score(truth[:, goal], scores[:, goal], sample_weight=weight), abs=1e-9
            )


def test_a_goal_without_a_positive_has_no_average_precision() -> None:
    weights = np.array([[1, 0], [1, 1]], np.float32)
    assert np.isnan(weighted_average_precision(SCORES, np.zeros(4, bool), EPISODE, weights)).all()
    only_first = TRUTH & (EPISODE == 0)
    assert np.isnan(weighted_average_precision(SCORES, only_first, EPISODE, weights)).tolist() == [False, True]


def test_weights_draw_as_many_episodes_as_there_are() -> None:
    weights = episode_weights(7, 50, seed=3)
    assert weights.shape == (7, 51)
    assert (weights[:, 0] == 1).all()
    assert (weights.sum(axis=0) == 7).all()
    assert (weights == episode_weights(7, 50, seed=3)).all()
    assert (weights != episode_weights(7, 50, seed=4)).any()


def test_intervals_are_percentiles_of_means_over_goals_that_occur() -> None:
    assert interval_of(np.arange(101.0)) == pytest.approx([2.5, 97.5])
    assert interval_of(np.zeros(0)) is None
    values = np.array([[0.5, 0.4, 0.6], [0.7, np.nan, 0.8]])
    found = mean_with_interval(values)
    assert found["mean"] == pytest.approx(0.6)
    assert found["interval"] == pytest.approx([0.4 + 0.025 * 0.3, 0.7 - 0.025 * 0.3])  # between means 0.4 and 0.7


def test_the_interval_narrows_with_episodes() -> None:
    def width(num_episodes: int) -> float:
        rng = np.random.default_rng(0)
        truth = rng.random((10 * num_episodes, 1)) < 0.2
        scores = (truth + rng.normal(0, 1, truth.shape)).astype(np.float32)
        weights = episode_weights(num_episodes, 200, seed=0)
        episode = np.repeat(np.arange(num_episodes), 10)
        low, high = mean_with_interval(average_precisions(scores, truth, episode, weights))["interval"]
        return high - low

    assert width(400) < 0.7 * width(100)  # about half: four times as many


def test_sizes_are_compared_in_the_same_resamples() -> None:
    values = {
        "large": np.array([[0.9, 0.8, 0.95]]),
        "small": np.array([[0.5, 0.45, 0.6]]),
        "middle": np.array([[0.7, 0.7, 0.65]]),
    }
    found = compare_sizes(values, {"small": 1, "middle": 10, "large": 100})
    assert found["order"] == ["small", "middle", "large"]
    assert found["monotone"] is True
    assert found["smallest_and_largest_apart"] is True
    step = found["steps"][0]
    assert (step["from"], step["to"], step["difference"]) == ("small", "middle", pytest.approx(0.2))
    assert step["interval"] == pytest.approx([0.05 + 0.025 * 0.2, 0.25 - 0.025 * 0.2])  # 0.70 - 0.45 and 0.65 - 0.60
    turned = compare_sizes(values, {"small": 100, "middle": 10, "large": 1})
    assert (turned["monotone"], turned["smallest_and_largest_apart"]) == (False, False)


def test_what_a_model_has_read_is_found_and_not_claimed() -> None:
    tokenizer = tokenizer_of(BABYAI_PRETRAINING)
    assert what_was_read(tokenizer, ["pick up the red ball", "pick up the blue key"]) == {"class": READ, "words": []}
    assert what_was_read(tokenizer, ["pick the red ball up"]) == {"class": NEW_WORDING, "words": []}
    found = what_was_read(tokenizer, ["the robot lifts the red ball"])
    assert found == {"class": UNTRAINED_WORDS, "words": ["lifts", "robot"]}
    found = what_was_read(tokenizer, ["pick up the red ball", "grab the red ball"])
    assert found == {"class": UNKNOWN_WORDS, "words": ["grab"]}
    assert unknown_words(tokenizer, ["Pick up the GREY ball"]) == []  # the tokenizer reads lower case
    assert untrained_words(["the robot carries a key"]) == ["robot"]


def test_wordings_name_every_goal() -> None:
    goals = goal_bank()
    assert len({wording.name for wording in WORDINGS}) == len(WORDINGS)
    for wording in WORDINGS:
        texts = wording.texts(goals)
        assert len(texts) == len(goals)
        for rows in (slice(0, 18), slice(18, 36), slice(36, None)):
            assert len(set(texts[rows])) == len(texts[rows]), wording.name  # no two goals of a family are worded alike
        assert not any("{" in text for text in texts)
    by_name = {wording.name: wording.texts(goals) for wording in WORDINGS}
    assert by_name["the goal's own text"] == [goal.text for goal in goals]
    assert by_name["pick up the ..."][36] == "put the red key next to the red ball"
    assert by_name["a photo of {goal}"][18] == "a photo of the agent carries a red key"


def test_every_formula_is_measured() -> None:
    settings = formula_settings()
    assert {own["formula"] for own in settings.values()} == set(FORMULAS)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    budget = Budget(episodes=12, num_resamples=10, sampled=(1, 4), negative_seeds=2)
    lines: list[str] = []
    found = measure(budget, tmp_path_factory.mktemp("work"), lines.append, ["reference-s"])
    assert len(lines) == 4
    return json.loads(json.dumps({**found, "budget": {"negative_seeds": 2}}, allow_nan=False))


def test_a_small_run_measures_everything(results: dict) -> None:
    assert results["corpus"]["episodes"] == 12
    assert results["corpus"]["goals"] == {"find": 18, "lift": 18, "place": 306}
    assert results["models"]["reference-s"]["image_parameters"] == 115_776
    assert results["ladder"]["place"]["order"] == ["reference-s"]
    for model in results["models"]:
        wordings = {row["name"]: row["families"] for row in results["wordings"][model]}
        formulas = {row["name"]: row for row in results["formulas"][model]}
        own = wordings["the goal's own text"]
        for family in ("find", "lift", "place"):
            # Beside the neutral caption alone, no other goal matters: one family's labeler gives what the bank's does.
            assert own[family]["mean"] == pytest.approx(results["size"][model][family]["mean"])
            assert own[family]["class"] == READ
        assert formulas["softmax"]["families"] == results["size"][model]
        assert "mean" not in wordings["screenshot of {goal}"]["find"]
        assert wordings["screenshot of {goal}"]["find"]["words"] == ["screenshot"]
        assert formulas["sigmoid"]["not_measured"].startswith("the model must have a logit scale and bias")
        negatives = results["negatives"][model]
        assert [row["negatives"] for row in negatives["goals and neutral"]] == ["0", "1", "4", "family", "all"]
        assert [len(row["families"]["place"]) for row in negatives["goals"]] == [2, 2, 1, 1]
        assert negatives["goals and neutral"][0]["families"]["place"] == [
            pytest.approx(results["size"][model]["place"]["mean"])
        ]
    curve = results["precision_recall"]["reference-s"]["find"]
    assert curve["recall"] == sorted(curve["recall"])
    assert curve["average_precision"] > 0.9


def test_pictures_are_drawn_small_and_readable(tmp_path: Path, results: dict) -> None:
    paths = draw_figures(results, tmp_path)
    assert sorted(path.name for path in paths) == sorted(path.name for path in tmp_path.iterdir())
    assert sum(path.stat().st_size for path in paths) < 300_000
    words = ""
    for path in paths:
        if path.suffix == ".png":
            assert Image.open(path).size[0] >= 500
        else:
            words += " ".join(ElementTree.parse(path).getroot().itertext())
    for said in ("recall", "reference-s (0.12 M)", "not measured: unknown screenshot", "goal-baseline, alpha 0.25"):
        assert said in words
    assert f"{results['size']['reference-s']['place']['mean']:.5f}" in words  # numbers in words stay as they are
    first = {path.name: path.read_bytes() for path in paths}
    assert {path.name: path.read_bytes() for path in draw_figures(results, tmp_path)} == first
