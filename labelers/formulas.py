"""Reward formulas: pure functions of how similar frames and texts are, for all goals at once.

One list, `FORMULAS`, names them all. Every formula scores each frame by itself, so a label never depends on its neighbours.

    frame     o_0   o_1   o_2   ...   o_T         scores  [F, G], F = T + 1: one row a frame
    action      a_0   a_1   ...  a_{T-1}
    reward      r_0   r_1   ...  r_{T-1}          rewards [T, G]: r_t looks at o_{t+1}, the frame after the action

Shape letters: N frames in any order, F = T + 1 frames of one episode, G goals, C candidate texts (the goals, then explicit
negatives), D size of an embedding.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

SCORE_BLOCK = 32
"""Rows of a matrix product: every product has this many, the last one padded, so that a row's bits do not depend on N."""

MIN_TEMPERATURE = 1e-3
_UNDERFLOW = 1e-280  # below this a sum of exponentials has lost digits to denormal numbers


def cosine_similarity(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Cosine of each frame with each text, `s[n, c] = f(o_n) . g(l_c)`.

    In float64 and in blocks of one shape: a matrix product rounds differently for different shapes, which float64 hides from
    scores that are stored in float32.

    Args:
        images: `[N, D]`, unit length.
        texts: `[C, D]`, unit length.

    Returns:
        `[N, C]` float64, -1..1.
    """
    assert (images.ndim, texts.ndim) == (2, 2), (images.shape, texts.shape)
    return _blocked_product(images, texts.astype(np.float64, copy=False).T)


class NegativeMask:
    """Which candidates are which goal's negatives, made ready for sums over them.

    Many goals have the same negatives beside themselves (those of one group, say): each distinct sum is computed once.

    Args:
        mask: `[C, G]` bool, True where candidate c is a negative of goal g; False for the goal itself, candidate g.
    """

    def __init__(self, mask: np.ndarray) -> None:
        assert mask.dtype == bool, mask.dtype
        assert not mask.diagonal().any(), "a goal must not be its own negative"
        self.mask = mask
        self.all_others = bool(mask.sum() == mask.shape[1] * (mask.shape[0] - 1))
        columns, self._index = np.unique(mask, axis=1, return_inverse=True)
        self._columns = columns.astype(np.float64)

    def sums(self, terms: np.ndarray) -> np.ndarray:
        """`[N, C]` float64 terms of the candidates to `[N, G]` float64 sums over each goal's negatives."""
        return _blocked_product(terms, self._columns)[:, self._index]


def softmax_probability(similarity: np.ndarray, negatives: NegativeMask, temperature: float) -> np.ndarray:
    """Probability of the goal among itself and its negatives.

        p(o, l) = exp(f(o).g(l) / t) / sum over l' in {l} + negatives(l) of exp(f(o).g(l') / t)

    Shifted by the frame's largest similarity, in float64. Where all other candidates are a goal's negatives, one sum a frame
    serves every goal; otherwise the sums are one product with the mask. Where the shift pushes a goal's whole sum below the
    range of float64, because only candidates that are not its negatives are near the frame, that pair is computed again,
    shifted by its own largest term: the result is never 0/0.

    Args:
        similarity: `[N, C]` cosines; the first G candidates are the goals.
        negatives: Of the G goals, among the C candidates.
        temperature: t, in units of cosine, at least 0.001.

    Returns:
        `[N, G]` float32, 0..1.

    Source: Baumli et al. 2023, equation (1). They give neither t nor the number of negatives.
    """
    num_candidates, num_goals = negatives.mask.shape
    assert similarity.shape[1:] == (num_candidates,), (similarity.shape, negatives.mask.shape)
    assert temperature >= MIN_TEMPERATURE, temperature
    logits = similarity.astype(np.float64) / temperature
    terms = np.exp(logits - logits.max(axis=1, keepdims=True))
    own = terms[:, :num_goals]
    if negatives.all_others:
        return (own / terms.sum(axis=1, keepdims=True)).astype(np.float32)
    total = own + negatives.sums(terms)
    lost = total < _UNDERFLOW
    probability = own / np.where(lost, 1.0, total)
    for n, g in zip(*np.nonzero(lost), strict=True):
        rivals = logits[n, negatives.mask[:, g]]
        largest = max(logits[n, g], rivals.max(initial=-np.inf))
        numerator = np.exp(logits[n, g] - largest)
        probability[n, g] = numerator / (numerator + np.exp(rivals - largest).sum())
    return probability.astype(np.float32)


def cosine(similarity: np.ndarray, negatives: NegativeMask, temperature: float) -> np.ndarray:
    """The cosine itself; neither negatives nor temperature matter.

    Args:
        similarity: `[N, C]` cosines; the first G candidates are the goals.
        negatives: Only G is taken from it.
        temperature: Not used.

    Returns:
        `[N, G]` float32, -1..1.

    Source: the cosine reward of VLM-RM (Rocamonde et al. 2024, equation 2).
    """
    return similarity[:, : negatives.mask.shape[1]].astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formula:
    """A formula of the list.

    Args:
        function: `(similarity [N, C], negatives, temperature) -> scores [N, G] float32`.
        summary: One line for the command line's help.
        needs_negatives: Whether negatives and temperature matter.
        default_threshold: The threshold that has a meaning for every model, or None where there is none.
    """

    function: Callable[[np.ndarray, NegativeMask, float], np.ndarray]
    summary: str
    needs_negatives: bool
    default_threshold: float | None


FORMULAS: dict[str, Formula] = {
    "softmax": Formula(
        function=softmax_probability,
        summary="probability of the goal among itself and its negatives (Baumli et al. 2023)",
        needs_negatives=True,
        default_threshold=0.5,
    ),
    "cosine": Formula(
        function=cosine,
        summary="cosine of frame and goal; its scale depends on the model, so it needs a threshold",
        needs_negatives=False,
        default_threshold=None,
    ),
}
"""Every formula by name."""


def _blocked_product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`rows @ matrix` in float64, by products of SCORE_BLOCK rows each."""
    block = np.zeros((SCORE_BLOCK, rows.shape[1]))
    product = np.empty((len(rows), matrix.shape[1]))
    for start in range(0, len(rows), SCORE_BLOCK):
        part = rows[start : start + SCORE_BLOCK]
        block[: len(part)] = part
        product[start : start + len(part)] = (block @ matrix)[: len(part)]
    return product
