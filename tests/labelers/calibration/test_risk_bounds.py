import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from vlm_rewards.labelers.calibration.risk_bounds import (
    LOSS_UNIT,
    binomial_tail,
    num_episodes_needed,
    risk_p_value,
    whole_losses,
)


def test_binomial_tail_by_hand_and_against_scipy() -> None:
    assert binomial_tail(0, 3, 0.5) == pytest.approx(1 / 8)
    assert binomial_tail(1, 3, 0.5) == pytest.approx(4 / 8)
    assert binomial_tail(-1, 3, 0.5) == 0
    assert binomial_tail(3, 3, 0.5) == binomial_tail(7, 3, 0.5) == 1
    exact = sum(math.comb(50, k) * Fraction(1, 10) ** k * Fraction(9, 10) ** (50 - k) for k in range(8))
    assert binomial_tail(7, 50, 0.1) == pytest.approx(float(exact), rel=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(300):
        trials = int(rng.integers(1, 20_000))
        probability = float(10 ** rng.uniform(-4, -0.001))
        successes = int(rng.integers(0, trials + 1))
        expected = stats.binom.cdf(successes, trials, probability)
        assert binomial_tail(successes, trials, probability) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert binomial_tail(9_900, 1_000_000, 0.01) == pytest.approx(stats.binom.cdf(9_900, 1_000_000, 0.01), rel=1e-8)


def test_p_value_is_the_smaller_of_hoeffding_and_bentkus() -> None:
    # No loss in 100 episodes, level 0.1: Hoeffding (1 - 0.1)^100, Bentkus e times that.
    assert risk_p_value(0, 100, 0.1) == pytest.approx(0.9**100)
    # A mean loss of 0.02 in 200 episodes, level 0.05: both by their formulas, with scipy's binomial.
    hoeffding = math.exp(-200 * (0.02 * math.log(0.02 / 0.05) + 0.98 * math.log(0.98 / 0.95)))
    bentkus = math.e * stats.binom.cdf(4, 200, 0.05)
    assert risk_p_value(4 * LOSS_UNIT, 200, 0.05) == pytest.approx(min(hoeffding, bentkus))
    # The binomial itself, for losses of 0 or 1, is smaller than either.
    assert risk_p_value(4 * LOSS_UNIT, 200, 0.05, binary=True) == pytest.approx(stats.binom.cdf(4, 200, 0.05))
    assert risk_p_value(0, 0, 0.05) == 1
    assert risk_p_value(10 * LOSS_UNIT, 200, 0.05) == 1  # at the level itself nothing is shown
    # A sum a little over 4 counts as 5 for Bentkus: the ceiling is of the exact sum.
    above = risk_p_value(4 * LOSS_UNIT + 1, 200, 0.05)
    assert min(hoeffding, math.e * stats.binom.cdf(5, 200, 0.05)) == pytest.approx(above)


def test_p_value_rises_with_the_loss() -> None:
    values = [risk_p_value(loss, 300, 0.05) for loss in range(0, 20 * LOSS_UNIT, LOSS_UNIT // 7)]
    assert all(low <= high for low, high in itertools.pairwise(values))


def test_episodes_needed() -> None:
    assert num_episodes_needed(0.01, 0.95) == 299  # 0.99^299 = 0.0495
    assert 0.99**299 <= 0.05 < 0.99**298
    assert num_episodes_needed(0.5, 0.95) == 5  # 1/32 <= 0.05 < 1/16
    assert num_episodes_needed(0.96, 0.95) == 1
    for level in (0.001, 0.02, 0.3):
        needed = num_episodes_needed(level, 0.9)
        assert risk_p_value(0, needed, level) <= 0.1 + 1e-12
        assert needed == 1 or risk_p_value(0, needed - 1, level) > 0.1


def test_whole_losses_round_up() -> None:
    assert whole_losses(np.array([0, 1, 2, 3])).tolist() == [0, LOSS_UNIT, LOSS_UNIT // 2, -(-LOSS_UNIT // 3)]
    # m frames of 1/m each make a whole loss, and less than a millionth more.
    for frames in range(1, 200):
        assert LOSS_UNIT <= frames * int(whole_losses(np.array([frames]))[0]) < LOSS_UNIT * (1 + 1e-6)


@pytest.mark.parametrize("binary", [False, True])
def test_p_values_are_valid(binary: bool) -> None:
    # Under a true expected loss at the level, p <= u must occur with probability at most u, for every u.
    rng = np.random.default_rng(1)
    level, episodes, repeats = 0.1, 80, 4000
    if binary:
        totals = rng.binomial(episodes, level, repeats) * LOSS_UNIT
    else:  # losses of 0, 1/4, ..., 1 with expectation 0.1, far from the binomial
        losses = rng.choice([0, 1, 2, 3, 4], p=[0.74, 0.18, 0.04, 0.02, 0.02], size=(repeats, episodes))
        assert np.dot([0, 1, 2, 3, 4], [0.74, 0.18, 0.04, 0.02, 0.02]) / 4 == pytest.approx(level)
        totals = losses.sum(axis=1) * (LOSS_UNIT // 4)
    values = np.array([risk_p_value(int(total), episodes, level, binary=binary) for total in totals])
    for bound in (0.01, 0.05, 0.1, 0.3):
        noise = 3 * math.sqrt(bound * (1 - bound) / repeats)
        assert (values <= bound).mean() <= bound + noise
