import dataclasses
import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from vlm_rewards.labelers.scoring import formulas
from vlm_rewards.labelers.scoring.formulas import (
    FORMULAS,
    Baselines,
    Context,
    Formula,
    baselines_of,
    claims_probability,
    cosine,
    formula_named,
    goal_baseline,
    score_frames,
    shifted_softmax,
    sigmoid_probability,
    softmax_probability,
)
from vlm_rewards.labelers.scoring.negatives import SCORE_BLOCK, NegativeMask
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.schemas.goals import Goal


def all_others(num_candidates: int, num_goals: int) -> np.ndarray:
    return ~np.eye(num_candidates, num_goals, dtype=bool)


def among(mask: np.ndarray, temperature: float) -> Context:
    return Context(num_goals=mask.shape[1], negatives=NegativeMask(mask), temperature=temperature)


def unit(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    rows = random.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def naive_softmax(similarity: np.ndarray, mask: np.ndarray, temperature: float) -> np.ndarray:
    """Equation (1), a pair at a time, shifted by the pair's own largest term."""
    scores = np.zeros((len(similarity), mask.shape[1]))
    for n, row in enumerate(similarity):
        for g in range(mask.shape[1]):
            logits = [row[g] / temperature] + [row[c] / temperature for c in range(len(mask)) if mask[c, g]]
            largest = max(logits)
            scores[n, g] = math.exp(logits[0] - largest) / math.fsum(math.exp(logit - largest) for logit in logits)
    return scores


def naive_goal_baseline(images: np.ndarray, goals: np.ndarray, baselines: np.ndarray, alpha: float) -> np.ndarray:
    """VLM-RM's definition 1, a pair at a time: project onto the line through baseline and goal, then the distance to the goal."""
    scores = np.zeros((len(images), len(goals)))
    for n, x in enumerate(images.astype(np.float64)):
        for k, (g, b) in enumerate(zip(goals.astype(np.float64), baselines.astype(np.float64), strict=True)):
            direction = (g - b) / np.linalg.norm(g - b)
            projected = b + ((x - b) @ direction) * direction  # the foot of x on the line
            scores[n, k] = 1 - 0.5 * np.sum((alpha * projected + (1 - alpha) * x - g) ** 2)
    return scores


def test_softmax_by_hand() -> None:
    # t = 0.1: similarities 0.1 ln 1, 0.1 ln 2, 0.1 ln 5 have the exponentials 1, 2, 5, which sum to 8.
    similarity = 0.1 * np.log([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(
        softmax_probability(similarity, among(all_others(3, 3), 0.1)), [[1 / 8, 2 / 8, 5 / 8]], atol=1e-7
    )


def test_softmax_with_a_mask_by_hand() -> None:
    # The same exponentials 1, 2, 5; goals 0 and 1, candidate 2 is explicit. Goal 0 has negative 1 only: 1 / (1 + 2). Goal 1
    # has negative 2 only: 2 / (2 + 5).
    similarity = 0.1 * np.log([[1.0, 2.0, 5.0]])
    mask = np.array([[0, 0], [1, 0], [0, 1]], dtype=bool)
    np.testing.assert_allclose(softmax_probability(similarity, among(mask, 0.1)), [[1 / 3, 2 / 7]], atol=1e-7)


def masks(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Masks of every kind and size, for which the sums are found in every way."""
    number = np.arange(200)
    family = number[:, None] // 50 == number // 50
    pair = number[:, None] // 2 == number // 2
    sampled = np.zeros((200, 200), dtype=bool)
    for goal in number:
        sampled[random.choice(np.delete(number, goal), size=goal % 6, replace=False), goal] = True
    scattered = random.random((9, 5)) < 0.4
    scattered[np.arange(5), np.arange(5)] = False
    explicit = np.zeros((202, 200), dtype=bool)
    explicit[200:] = True
    return {
        "all": all_others(9, 9),
        "all and explicit": all_others(9, 5),
        "scattered": scattered,
        "family": family & all_others(200, 200),
        "family but pairs": family & ~pair,
        "all but pairs": ~pair,
        "explicit": explicit,
        "sampled": sampled,
        "one goal, one negative": np.array([[False], [True]]),
    }


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.01, 0.001])
def test_softmax_equals_a_loop(temperature: float) -> None:
    random = np.random.default_rng(0)
    for name, mask in masks(random).items():
        similarity = random.uniform(-1, 1, (7, len(mask)))
        got = softmax_probability(similarity, among(mask, temperature))
        assert got.dtype == np.float32
        expected = naive_softmax(similarity, mask, temperature)
        np.testing.assert_allclose(got, expected, rtol=2e-7, atol=1e-37, err_msg=name)


def test_softmax_is_never_zero_by_zero() -> None:
    # Candidate 3 is near the frame and no goal's negative; t = 0.001 puts the goals exp(-1500) below it. Among themselves goals
    # 0 and 1 are e : 1 apart, 0.001 in similarity. Goal 2 has no negative at all: its probability is 1.
    similarity = np.array([[-0.5, -0.501, -0.9, 1.0]])
    mask = np.zeros((4, 3), dtype=bool)
    mask[1, 0] = mask[0, 1] = True
    sigmoid = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(
        softmax_probability(similarity, among(mask, 0.001)), [[sigmoid, 1 - sigmoid, 1]], rtol=1e-6
    )


def test_what_is_left_of_a_wide_sum_is_exact_when_a_goal_of_the_group_is_nearly_all_of_it() -> None:
    # Goals 2i and 2i+1 are a group. The frame shows goal 0 only, so goal 1's sum is the wide sum less nearly all of it.
    random = np.random.default_rng(4)
    number = np.arange(200)
    mask = number[:, None] // 2 != number // 2
    similarity = random.uniform(0.0, 0.1, (9, 200))
    similarity[:, 0] = 0.6
    for temperature in (0.03, 0.02, 0.01, 0.001):
        expected = naive_softmax(similarity, mask, temperature)
        got = softmax_probability(similarity, among(mask, temperature))
        np.testing.assert_allclose(got, expected, rtol=2e-7, atol=1e-37)


def test_every_pair_can_be_out_of_range_at_once() -> None:
    # An unrelated candidate at 1 and all goals near -1: every sum underflows, and three more passes find all of them.
    random = np.random.default_rng(5)
    mask = np.zeros((301, 300), dtype=bool)
    mask[:300] = all_others(300, 300)
    similarity = np.concatenate([random.uniform(-1.0, -0.98, (9, 300)), np.ones((9, 1))], axis=1)
    got = softmax_probability(similarity, among(mask, 0.001))
    np.testing.assert_allclose(got, naive_softmax(similarity[:, :300], mask[:300], 0.001), rtol=2e-7, atol=1e-37)


def test_mask_and_fast_path_agree() -> None:
    # An explicit candidate that no frame is near adds nothing, but a mask without it takes the general path.
    similarity = np.random.default_rng(1).uniform(-0.2, 0.2, (300, 20))
    fast = softmax_probability(similarity, among(all_others(20, 20), 0.01))
    far = np.concatenate([similarity, np.full((300, 1), -1.0)], axis=1)
    mask = all_others(21, 20)
    mask[20] = False
    np.testing.assert_allclose(softmax_probability(far, among(mask, 0.01)), fast, rtol=2e-7)


def test_adding_a_negative_lowers_the_probability() -> None:
    similarity = np.random.default_rng(2).uniform(-0.2, 0.2, (50, 6))
    fewer = softmax_probability(similarity[:, :5], among(all_others(5, 5), 0.05))
    more = softmax_probability(similarity, among(all_others(6, 5), 0.05))
    assert (more < fewer).all()


def test_shifted_softmax_by_hand() -> None:
    # Exponentials 1, 2, 5 of goals 0 and 1 and an explicit candidate. Goal 0, N = 3: 1/8 - 1/3 < 0. Goal 1, whose only negative is
    # goal 0, N = 2: 2/3 - 1/2 = 1/6.
    similarity = 0.1 * np.log([[1.0, 2.0, 5.0]])
    mask = np.array([[0, 1], [1, 0], [1, 0]], dtype=bool)
    np.testing.assert_allclose(shifted_softmax(similarity, among(mask, 0.1)), [[0, 1 / 6]], atol=1e-7)


def test_shifted_softmax_of_one_negative_is_over_zero_where_the_softmax_is_over_a_half() -> None:
    similarity = np.random.default_rng(6).uniform(0.1, 0.3, (100, 2))
    context = among(np.array([[False], [True]]), 0.05)
    np.testing.assert_array_equal(
        shifted_softmax(similarity, context) > 0, softmax_probability(similarity, context) > 0.5
    )


def test_cosine_is_the_similarity_of_the_goals() -> None:
    similarity = np.array([[0.1, 0.2, 0.3]])
    assert np.array_equal(cosine(similarity, Context(num_goals=2)), np.array([[0.1, 0.2]], dtype=np.float32))


def baseline_scores(images: np.ndarray, goals: np.ndarray, baselines: np.ndarray, alpha: float) -> np.ndarray:
    candidates = np.concatenate([goals, baselines])
    columns = len(goals) + np.arange(len(goals))
    context = Context(num_goals=len(goals), baselines=baselines_of(candidates, columns), alpha=alpha)
    return score_frames("goal-baseline", images, candidates, context)


def test_goal_baseline_by_hand() -> None:
    # Goal (1, 0), baseline (0, 1), frame (0, 1) itself, d = (1, -1). The frame is on the line, so for every alpha the distance is
    # that of baseline and goal, sqrt 2: 1 - 2/2 = 0. A frame at the goal scores 1. The frame (-1, 0): x - g = (-2, 0), along
    # d^ = (1, -1)/sqrt 2 it is -sqrt 2, so alpha 1 gives 1 - 2/2 = 0, alpha 0 gives the cosine -1, and alpha 1/2 gives
    # 1 - (4/4 + 3/4 * 2) / 2 = -1/4.
    goal, baseline = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    images = np.array([[0, 1], [1, 0], [-1, 0]], dtype=np.float32)
    for alpha, last in ((0.0, -1.0), (0.5, -0.25), (1.0, 0.0)):
        got = baseline_scores(images, goal, baseline, alpha)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got[:, 0], [0.0, 1.0, last], atol=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_goal_baseline_equals_the_projection_of_its_paper(alpha: float) -> None:
    random = np.random.default_rng(7)
    images, goals, baselines = (unit(random, count, 24) for count in (30, 8, 8))
    baselines[0] = goals[0] + 2e-3 * baselines[0]  # nearly at its goal
    baselines[0] /= np.linalg.norm(baselines[0])
    got = baseline_scores(images, goals, baselines, alpha)
    np.testing.assert_allclose(got, naive_goal_baseline(images, goals, baselines, alpha), rtol=0, atol=3e-7)
    if alpha == 0.0:
        np.testing.assert_allclose(got, images @ goals.T, rtol=0, atol=3e-7)


def test_goals_can_share_a_baseline() -> None:
    random = np.random.default_rng(8)
    images, goals, baselines = (unit(random, count, 24) for count in (5, 4, 2))
    columns = np.array([4, 5, 5, 4])
    candidates = np.concatenate([goals, baselines])
    context = Context(num_goals=4, baselines=baselines_of(candidates, columns), alpha=0.7)
    expected = naive_goal_baseline(images, goals, baselines[columns - 4], 0.7)
    np.testing.assert_allclose(score_frames("goal-baseline", images, candidates, context), expected, atol=3e-7)


def test_what_the_goal_baseline_knows_by_hand() -> None:
    # g = (1, 0), b = (0.6, 0.8): d = (0.4, -0.8), g . d = 0.4, |d| = sqrt(0.16 + 0.64).
    known = baselines_of(np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([1]))
    assert isinstance(known, Baselines)
    assert known.goal_along == pytest.approx([0.4])
    assert known.distance == pytest.approx([math.sqrt(0.8)])


def test_sigmoid_by_hand() -> None:
    # scale 10, bias -2: cosines 0.2, 0.2 + 0.1 ln 3, 0 have logits 0, ln 3, -2: 1/2, 3/4 and 1 / (1 + e^2).
    similarity = np.array([[0.2, 0.2 + 0.1 * math.log(3), 0.0]])
    context = Context(num_goals=3, logit_scale=10.0, logit_bias=-2.0)
    np.testing.assert_allclose(
        sigmoid_probability(similarity, context), [[0.5, 0.75, 1 / (1 + math.exp(2))]], rtol=1e-6
    )


def test_sigmoid_of_extreme_logits_is_zero_or_one_without_overflow() -> None:
    context = Context(num_goals=2, logit_scale=1e6, logit_bias=-10.0)
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid_probability(np.array([[-1.0, 1.0]]), context).tolist() == [[0.0, 1.0]]


def contexts(random: np.random.Generator) -> dict[str, list[Context]]:
    """For every formula, contexts of 40 candidates."""
    scattered = random.random((40, 30)) < 0.5
    scattered[np.arange(30), np.arange(30)] = False
    pairs = np.arange(40)[:, None] // 2 != np.arange(40) // 2
    sampled = np.zeros((40, 40), dtype=bool)
    sampled[(np.arange(40) + 7) % 40, np.arange(40)] = True
    softmax = [among(mask, 0.01) for mask in (all_others(40, 40), scattered, pairs, sampled)]
    candidates = unit(random, 40, 48)
    baselines = baselines_of(candidates, 30 + np.arange(30) % 10)
    return {
        "softmax": softmax,
        "shifted-softmax": softmax,
        "cosine": [Context(num_goals=40)],
        "goal-baseline": [Context(num_goals=30, baselines=baselines, alpha=0.5)],
        "sigmoid": [Context(num_goals=40, logit_scale=100.0, logit_bias=-10.0)],
    }


@pytest.mark.parametrize("formula", sorted(FORMULAS))
def test_scores_do_not_depend_on_neighbours_place_or_number(formula: str) -> None:
    random = np.random.default_rng(3)
    images, candidates = unit(random, 3 * SCORE_BLOCK + 5, 48), unit(random, 40, 48)
    for context in contexts(random)[formula]:

        def score(rows: np.ndarray, context: Context = context) -> np.ndarray:
            return score_frames(formula, rows, candidates, context)

        scores = score(images)
        order = random.permutation(len(images))
        assert np.array_equal(score(images[order]), scores[order])
        for cut in (1, SCORE_BLOCK - 1, SCORE_BLOCK, 57):
            assert np.array_equal(np.concatenate([score(images[:cut]), score(images[cut:])]), scores)
        assert np.array_equal(np.concatenate([score(images[n : n + 1]) for n in range(len(images))]), scores)
        assert score(images[:0]).shape == (0, context.num_goals)


def test_rows_that_are_not_in_range_do_not_change_the_bits_of_others() -> None:
    # One frame in the block takes the three further passes, and one the exact product: its neighbours stay as they are alone.
    random = np.random.default_rng(9)
    pairs = np.arange(200)[:, None] // 2 != np.arange(200) // 2
    candidates = unit(random, 200, 48)
    images = np.concatenate([unit(random, 20, 48), candidates[:3]])
    context = among(pairs, 0.001)
    together = score_frames("softmax", images, candidates, context)
    alone = np.concatenate([score_frames("softmax", row[None], candidates, context) for row in images])
    assert np.array_equal(together, alone)


def test_scores_can_be_written_to_an_array_of_the_caller() -> None:
    random = np.random.default_rng(10)
    images, candidates = unit(random, 130, 16), unit(random, 5, 16)
    out = np.zeros((130, 5), dtype=np.float32)
    assert score_frames("cosine", images, candidates, Context(num_goals=5), out) is out
    np.testing.assert_allclose(out, images @ candidates.T, atol=1e-6)


@pytest.mark.parametrize("formula", sorted(FORMULAS))
def test_a_thousand_goals_take_the_memory_of_a_block(formula: str) -> None:
    # 1,000 goals of 64 numbers: a D x D matrix a goal would be 33 MB, all frames' similarities in float64 another 16 MB.
    random = np.random.default_rng(11)
    images, candidates = unit(random, 2000, 64), unit(random, 1001, 64)
    sampled = np.zeros((1001, 1000), dtype=bool)
    sampled[(np.arange(1000) + 11) % 1000, np.arange(1000)] = sampled[1000] = True
    context = dataclasses.replace(
        among(sampled, 0.01),
        baselines=baselines_of(candidates, np.full(1000, 1000)),
        alpha=0.5,
        logit_scale=100.0,
        logit_bias=-10.0,
    )
    out = np.empty((2000, 1000), dtype=np.float32)
    tracemalloc.start()
    score_frames(formula, images, candidates, context, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * SCORE_BLOCK * 1001 * 8
    assert np.isfinite(out).all()


def test_every_formula_is_listed_with_a_summary() -> None:
    assert list(FORMULAS) == ["softmax", "cosine", "goal-baseline", "shifted-softmax", "sigmoid"]
    assert all(formula.summary for formula in FORMULAS.values())
    assert FORMULAS["softmax"].default_threshold == FORMULAS["sigmoid"].default_threshold == 0.5
    assert FORMULAS["shifted-softmax"].default_threshold == 0.0
    assert FORMULAS["cosine"].default_threshold is FORMULAS["goal-baseline"].default_threshold is None
    assert FORMULAS["goal-baseline"].function is goal_baseline


def test_formulas_of_other_packages_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Formula(function=cosine, summary="mine", is_probability=True)
    register(monkeypatch, {"mine": own})
    assert formula_named("mine") is own
    assert formula_named("cosine") is FORMULAS["cosine"]
    assert [claims_probability(name) for name in ("mine", "softmax", "cosine", "uninstalled")] == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(ValueError, match="formula must be one of softmax, .*, sigmoid, mine, got 'other'; choose one"):
        formula_named("other")
    settings = LabelerSettings(model="m", goals=(Goal("a", "a"),), formula="mine", threshold=3)
    assert settings.rule.thresholds == (3.0,)


def test_what_is_no_formula_or_has_our_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, {"mine": cosine})
    with pytest.raises(ValueError, match="entry point 'mine' of vlm_rewards.formulas is no Formula: got function"):
        formula_named("mine")
    register(monkeypatch, {"cosine": FORMULAS["cosine"]})
    with pytest.raises(ValueError, match="has the name of a formula of vlm-rewards: got 'cosine'. Rename it"):
        formula_named("mine")


def register(monkeypatch: pytest.MonkeyPatch, found: dict[str, object]) -> None:
    """Lets entry points name these objects."""
    monkeypatch.setattr(formulas, "load_extensions", lambda group: found if group == "vlm_rewards.formulas" else {})
    formulas.registered_formulas.cache_clear()


@pytest.fixture(autouse=True)
def _forget_registered() -> Iterator[None]:
    yield
    formulas.registered_formulas.cache_clear()
