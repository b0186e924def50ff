"""Finds missing numbers in the names of frames."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Gap(NamedTuple):
    """A gap in evenly spaced numbers.

    Attributes:
        before: Position of the number before the gap.
        num_expected: Number of numbers there would be without gaps.
    """

    before: int
    num_expected: int


def find_gap(numbers: Sequence[int] | np.ndarray) -> Gap | None:
    """Finds a gap among numbers that count evenly, by ones or by fives, but for gaps of whole counts.

    Args:
        numbers: Numbers that rise.

    Returns:
        The first gap; None where there is none, where the numbers do not count evenly (time stamps), or are too few to tell.
    """
    steps = np.diff(np.asarray(numbers, np.int64))
    if len(steps) < 2:
        return None
    step, count = Counter(steps.tolist()).most_common(1)[0]
    if step <= 0 or 2 * count <= len(steps) or (steps % step).any() or steps.max() == step:
        return None
    return Gap(int(np.argmax(steps > step)), int(steps.sum() // step) + 1)
