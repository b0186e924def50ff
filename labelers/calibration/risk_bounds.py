"""Bounds on a mean loss over episodes, from finitely many of them: how sure one can be that a rate lies under a level.

Let n episodes be drawn independently from one distribution, each with a loss in [0, 1] of expectation R and let r be their mean
loss. Then a p-value of "R > level" is the probability, at most, of a mean as low as r if R were the level:

    Hoeffding   exp(-n h(min(r, a), a)),    h(r, a) = r ln(r/a) + (1-r) ln((1-r)/(1-a)),    a the level
    Bentkus     e P(Binomial(n, a) <= ceil(n r))
    binomial        P(Binomial(n, a) <= n r)                                                losses that are 0 or 1 only

The first two hold for any losses in [0, 1], so their minimum does ("Hoeffding-Bentkus"); the third is exact.

Sources: Bates et al. 2021, "Distribution-Free, Risk-Controlling Prediction Sets", section 3.1; Angelopoulos et al. 2021, "Learn
then Test", section 2 and proposition 3; Hoeffding 1963; Bentkus 2004. Our difference: losses are whole numbers of 1/`LOSS_UNIT`,
rounded up, so that n r is exact and its ceiling cannot be off by one; rounding up makes the bound wider, never narrower.
"""

import math

import numpy as np

LOSS_UNIT = 1 << 30
"""A loss of 1 in whole numbers: sums of losses are exact whatever their order."""


def whole_losses(counts: np.ndarray) -> np.ndarray:
    """[G] numbers of frames to [G] int64 whole losses, rounded up: what one of that many frames adds to a mean over them.

    1 / 3 becomes ceil(2^30 / 3); where there is no frame, 0.
    """
    return -(-LOSS_UNIT // np.maximum(counts, 1)) * (counts > 0)


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """P(Binomial(trials, probability) <= successes), as a sum of the probabilities in logarithms.

    Args:
        successes: May be below 0, where the tail is 0, and up to `trials` or more, where it is 1.
        trials: At least 0.
        probability: Of one success, strictly between 0 and 1.

    Returns:
        0..1; the relative error is under 1e-9 for up to a million trials.
    """
    assert 0 < probability < 1, probability
    if successes < 0:
        return 0.0
    if successes >= trials:
        return 1.0
    drawn = np.arange(successes, dtype=np.float64)
    odds = math.log(probability) - math.log1p(-probability)
    steps = np.log((trials - drawn) / (drawn + 1)) + odds
    logs = trials * math.log1p(-probability) + np.concatenate([[0.0], np.cumsum(steps)])
    largest = logs.max()
    return min(1.0, float(np.exp(logs - largest).sum() * math.exp(largest)))


def risk_p_value(total_loss: int, num_episodes: int, level: float, *, binary: bool = False) -> float:
    """How probable, at most, so low a total loss is if the expected loss were the level or more; see the module's formulas.

    Args:
        total_loss: Sum of the episodes' losses, in whole numbers of 1/`LOSS_UNIT`.
        num_episodes: n.
        level: Strictly between 0 and 1.
        binary: Every loss is 0 or 1, known from how it is defined, not from what it came out as.

    Returns:
        0..1; 1 without episodes.
    """
    assert 0 < level < 1, level
    if num_episodes == 0:
        return 1.0
    whole = -(-total_loss // LOSS_UNIT)
    if binary:
        return binomial_tail(whole, num_episodes, level)
    mean = min(total_loss / LOSS_UNIT / num_episodes, 1.0)
    if mean >= level:
        return 1.0
    divergence = (1 - mean) * (math.log1p(-mean) - math.log1p(-level))
    if mean > 0:
        divergence += mean * math.log(mean / level)
    bentkus = math.e * binomial_tail(whole, num_episodes, level)
    return min(1.0, math.exp(-num_episodes * divergence), bentkus)


def num_episodes_needed(level: float, confidence: float) -> int:
    """The fewest episodes with which a loss of 0 in all of them shows the level: (1 - level)^n <= 1 - confidence.

    299 for a level of 1 % at 95 %.
    """
    assert 0 < level < 1, level
    assert 0 < confidence < 1, confidence
    number = max(1, math.floor(math.log1p(-confidence) / math.log1p(-level)))
    while risk_p_value(0, number, level) > 1 - confidence:
        number += 1
    return number
