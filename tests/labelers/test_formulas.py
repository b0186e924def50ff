import math

import numpy as np
import pytest

from labelers import formulas
from labelers.formulas import (
    FORMULAS,
    SCORE_BLOCK,
    NegativeMask,
    cosine,
    cosine_similarity,
    softmax_probability,
)


def all_others(num_candidates: int, num_goals: int) -> np.ndarray:
    return ~np.eye(num_candidates, num_goals, dtype=bool)


def naive_softmax(similarity: np.ndarray, mask: np.ndarray, temperature: float) -> np.ndarray:
    """Equation (1), a pair at a time, shifted by the pair's own largest term."""
    scores = np.zeros((len(similarity), mask.shape[1]))
    for n, row in enumerate(similarity):
        for g in range(mask.shape[1]):
            logits = [row[g] / temperature] + [row[c] / temperature for c in range(len(mask)) if mask[c, g]]
            largest = max(logits)
            scores[n, g] = math.exp(logits[0] - largest) / math.fsum(math.exp(logit - largest) for logit in logits)
    return scores


def test_softmax_by_hand() -> None:
    # t = 0.1: similarities 0.1 ln 1, 0.1 ln 2, 0.1 ln 5 have the exponentials 1, 2, 5, which sum to 8.
    similarity = 0.1 * np.log([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(
        softmax_probability(similarity, NegativeMask(all_others(3, 3)), 0.1), [[1 / 8, 2 / 8, 5 / 8]], atol=1e-7
    )


def test_softmax_with_a_mask_by_hand() -> None:
    # The same exponentials 1, 2, 5; goals 0 and 1, candidate 2 is explicit. Goal 0 has negative 1 only: 1 / (1 + 2). Goal 1
    # has negative 2 only: 2 / (2 + 5).
    similarity = 0.1 * np.log([[1.0, 2.0, 5.0]])
    mask = np.array([[0, 0], [1, 0], [0, 1]], dtype=bool)
    np.testing.assert_allclose(softmax_probability(similarity, NegativeMask(mask), 0.1), [[1 / 3, 2 / 7]], atol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.01, 0.001])
def test_softmax_equals_a_loop(temperature: float) -> None:
    random = np.random.default_rng(0)
    similarity = random.uniform(-1, 1, (40, 9))
    for mask in (all_others(9, 9), all_others(9, 5), random.random((9, 5)) < 0.4):
        mask[np.arange(5), np.arange(5)] = False
        expected = naive_softmax(similarity, mask, temperature)
        got = softmax_probability(similarity, NegativeMask(mask), temperature)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=2e-7, atol=1e-37)


def test_softmax_is_never_zero_by_zero() -> None:
    # Candidate 3 is near the frame and no goal's negative; t = 0.001 puts the goals exp(-1500) below it. Among themselves goals
    # 0 and 1 are e : 1 apart, 0.001 in similarity. Goal 2 has no negative at all: its probability is 1.
    similarity = np.array([[-0.5, -0.501, -0.9, 1.0]])
    mask = np.zeros((4, 3), dtype=bool)
    mask[1, 0] = mask[0, 1] = True
    sigmoid = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(
        softmax_probability(similarity, NegativeMask(mask), 0.001), [[sigmoid, 1 - sigmoid, 1]], rtol=1e-6
    )


def test_mask_and_fast_path_agree() -> None:
    # An explicit candidate that no frame is near adds nothing, but a mask without it takes the general path.
    similarity = np.random.default_rng(1).uniform(-0.2, 0.2, (300, 20))
    fast = softmax_probability(similarity, NegativeMask(all_others(20, 20)), 0.01)
    far = np.concatenate([similarity, np.full((300, 1), -1.0)], axis=1)
    mask = all_others(21, 20)
    mask[20] = False
    np.testing.assert_allclose(softmax_probability(far, NegativeMask(mask), 0.01), fast, rtol=2e-7)


def test_adding_a_negative_lowers_the_probability() -> None:
    similarity = np.random.default_rng(2).uniform(-0.2, 0.2, (50, 6))
    fewer = softmax_probability(similarity[:, :5], NegativeMask(all_others(5, 5)), 0.05)
    more = softmax_probability(similarity, NegativeMask(all_others(6, 5)), 0.05)
    assert (more < fewer).all()


def test_cosine_is_the_similarity_of_the_goals() -> None:
    similarity = np.array([[0.1, 0.2, 0.3]])
    assert np.array_equal(
        cosine(similarity, NegativeMask(all_others(3, 2)), 1.0), np.array([[0.1, 0.2]], dtype=np.float32)
    )


def test_cosine_similarity_by_hand() -> None:
    # (0.6, 0.8) with (1, 0), (0, 1) and (-0.6, -0.8).
    images = np.array([[0.6, 0.8]], dtype=np.float32)
    texts = np.array([[1, 0], [0, 1], [-0.6, -0.8]], dtype=np.float32)
    np.testing.assert_allclose(cosine_similarity(images, texts), [[0.6, 0.8, -1.0]], atol=1e-7)


@pytest.mark.parametrize("formula", sorted(FORMULAS))
def test_scores_do_not_depend_on_neighbours_place_or_number(formula: str) -> None:
    random = np.random.default_rng(3)
    unit = random.normal(size=(3 * SCORE_BLOCK + 5 + 40, 48))
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)
    images, texts = unit[:-40], unit[-40:]
    masks = [all_others(40, 40), random.random((40, 30)) < 0.5]
    masks[1][np.arange(30), np.arange(30)] = False
    for mask in masks:

        def score(rows: np.ndarray, mask: np.ndarray = mask) -> np.ndarray:
            return FORMULAS[formula].function(cosine_similarity(rows, texts), NegativeMask(mask), 0.01)

        scores = score(images)
        order = random.permutation(len(images))
        assert np.array_equal(score(images[order]), scores[order])
        for cut in (1, SCORE_BLOCK - 1, SCORE_BLOCK, 57):
            assert np.array_equal(np.concatenate([score(images[:cut]), score(images[cut:])]), scores)
        assert np.array_equal(np.concatenate([score(images[n : n + 1]) for n in range(len(images))]), scores)
        assert score(images[:0]).shape == (0, mask.shape[1])


def test_every_formula_is_listed_with_a_summary() -> None:
    assert list(FORMULAS) == ["softmax", "cosine"]
    assert all(formula.summary for formula in FORMULAS.values())
    assert formulas.FORMULAS["softmax"].default_threshold == 0.5
