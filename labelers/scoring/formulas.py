"""Reward formulas: pure functions of how similar frames and targets are, for all goals at once.

`FORMULAS` lists ours; other packages register theirs by entry points of the group `vlm_rewards.formulas`. Every formula scores each
frame by itself, so a label never depends on its neighbours. What looks at several frames is made of these scores:
`labelers.scoring.windows` takes means and maxima over time, and `labelers.rewards.rewards` takes differences (MineCLIP's delta, the
potential difference of LIV and VIP) and BiMI's discount.

    frame     o_0   o_1   o_2   ...   o_T         scores  [F, G], F = T + 1: one row a frame
    action      a_0   a_1   ...  a_{T-1}
    reward      r_0   r_1   ...  r_{T-1}          rewards [T, G]: r_t looks at o_{t+1}, the frame after the action

Shape letters: N frames in any order, F = T + 1 frames of one episode, G goals, C candidates that frames are compared with (the
goals, then other negatives or baselines), D size of an embedding.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from vlm_rewards.labelers.scoring.blas_threads import one_blas_thread
from vlm_rewards.labelers.scoring.negatives import SCORE_BLOCK, NegativeMask
from vlm_rewards.schemas.extensions import load_extensions

EXTENSION_GROUP = "vlm_rewards.formulas"
"""Entry-point group in which other packages register a `Formula`."""

MIN_TEMPERATURE = 1e-3
MIN_BASELINE_DISTANCE = 1e-3
"""A baseline nearer to its goal than this has no direction that float32 embeddings could tell."""

_UNDERFLOW = 1e-280  # below this a sum of exponentials has lost digits to denormal numbers
_LIFT = 600.0  # exp(600) times any number of candidates is within float64, and exp(-600) is far above _UNDERFLOW
_SMALLEST_LOGIT = -700.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Baselines:
    """Baselines of G goals as three numbers each; made by `baselines_of`.

    Args:
        columns: `[G]` int, each goal's baseline among the C candidates.
        goal_along: `[G]` float64, g . d with d = g - b.
        distance: `[G]` float64, |d|.
    """

    columns: np.ndarray
    goal_along: np.ndarray
    distance: np.ndarray


def baselines_of(candidates: np.ndarray, columns: np.ndarray) -> Baselines:
    """Returns the numbers that the goal-baseline formula needs: three per goal, no matrix.

    Args:
        candidates: `[C, D]`, unit length; the first G are the goals.
        columns: `[G]` int, each goal's baseline among them.
    """
    goals = candidates[: len(columns)].astype(np.float64)
    along = goals - candidates[columns]
    return Baselines(columns=columns, goal_along=(goals * along).sum(axis=1), distance=np.linalg.norm(along, axis=1))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Inputs of formulas besides similarities; a formula reads the fields that it needs.

    Args:
        num_goals: G; the first G candidates are the goals.
        negatives: Negatives of each goal, among the candidates.
        temperature: Temperature of the softmax, in units of cosine, at least 0.001.
        baselines: Baseline of each goal.
        alpha: Strength of the goal-baseline projection, 0..1.
        logit_scale: Factor by which the model multiplies a cosine.
        logit_bias: Summand that the model adds to the product.
    """

    num_goals: int
    negatives: NegativeMask | None = None
    temperature: float | None = None
    baselines: Baselines | None = None
    alpha: float | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None


def score_frames(
    formula: str, images: np.ndarray, candidates: np.ndarray, context: Context, out: np.ndarray | None = None
) -> np.ndarray:
    """Scores frames by their embeddings: a matrix product and the formula, block by block, so that neither leaves the cache.

    In float64 and in blocks of one shape, the last one padded: a matrix product rounds differently for different shapes, so a
    row's bits depend neither on N nor on its place, and what float64 may still differ by elsewhere is hidden from scores that
    are stored in float32. The memory that this takes besides the scores is that of a block, whatever N.

    Args:
        formula: Name of a formula.
        images: `[N, D]` float32, unit length.
        candidates: `[C, D]`, unit length; the first G are the goals.
        context: Other inputs of the formula.
        out: `[N, G]` float32 to write to, such as a memory map.

    Returns:
        `[N, G]` float32: `out`, if given.
    """
    assert (images.ndim, candidates.ndim) == (2, 2), (images.shape, candidates.shape)
    function = formula_named(formula).function
    matrix = candidates.astype(np.float64, copy=False).T
    scores = np.empty((len(images), context.num_goals), dtype=np.float32) if out is None else out
    block = np.zeros((SCORE_BLOCK, images.shape[1]))
    with one_blas_thread():
        for start in range(0, len(images), SCORE_BLOCK):
            part = images[start : start + SCORE_BLOCK]
            block[: len(part)] = part
            scores[start : start + len(part)] = function((block @ matrix)[: len(part)], context)
    return scores


def softmax_probability(similarity: np.ndarray, context: Context) -> np.ndarray:
    """Returns the probability of each goal among itself and its negatives.

        p(o, l) = exp(f(o).g(l) / t) / sum over l' in {l} + negatives(l) of exp(f(o).g(l') / t)

    Shifted by the frame's largest similarity, in float64. Where that pushes a goal's whole sum below the range of float64,
    because only candidates that are not its negatives are near the frame, those candidates are left out and all others are
    lifted by 600, at most three times at the lowest temperature: the result is never 0/0.

    Args:
        similarity: `[N, C]` cosines; the first G candidates are the goals.
        context: With negatives and temperature.

    Returns:
        `[N, G]` float32, 0..1.

    Source: Baumli et al. 2023, equation (1). They give neither t nor the number of negatives.
    """
    return _softmax(similarity, context).astype(np.float32)


def _softmax(similarity: np.ndarray, context: Context) -> np.ndarray:
    negatives, temperature = context.negatives, context.temperature
    assert negatives is not None
    assert temperature is not None
    assert temperature >= MIN_TEMPERATURE, temperature
    assert similarity.shape[1:] == negatives.mask.shape[:1], (similarity.shape, negatives.mask.shape)
    logits = np.divide(similarity, temperature, dtype=np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    terms = np.exp(logits)
    total = negatives.totals(terms)
    if total.min(initial=np.inf) >= _UNDERFLOW:
        return np.divide(terms[:, : context.num_goals], total)
    probability = np.zeros((len(similarity), context.num_goals))
    missing = np.ones(probability.shape, dtype=bool)
    while True:
        found = missing & (total >= _UNDERFLOW)
        np.divide(terms[:, : context.num_goals], total, out=probability, where=found)
        missing &= ~found
        if not missing.any():
            return probability
        logits = np.where(logits > 0, -np.inf, logits + _LIFT)
        terms = np.exp(logits)
        total = negatives.totals(terms)


def shifted_softmax(similarity: np.ndarray, context: Context) -> np.ndarray:
    """Returns how far each goal's probability is above chance.

        max(p(o, l) - 1/N, 0),    N = 1 + number of the goal's negatives

    Args:
        similarity: `[N, C]` cosines; the first G candidates are the goals.
        context: With negatives and temperature.

    Returns:
        `[N, G]` float32, 0..1 - 1/N. Greater than 0 where the goal is likelier than chance.

    Source: the "direct" reward of MineCLIP (Fan et al. 2022), there over a window of 16 frames through a video encoder, one goal
    and 31 negatives, N = 32. Here the softmax is of single frames (`labelers.scoring.windows` averages over several), and N is each
    goal's own. Its difference over time, their "delta" reward, is the reward "difference" of these scores.
    """
    assert context.negatives is not None
    probability = _softmax(similarity, context)
    probability -= 1.0 / (1 + context.negatives.counts)
    return np.maximum(probability, 0.0, out=probability).astype(np.float32)


def cosine(similarity: np.ndarray, context: Context) -> np.ndarray:
    """Returns the cosines themselves.

    Args:
        similarity: `[N, C]` cosines; the first G candidates are the goals.
        context: Context, of which only G is used.

    Returns:
        `[N, G]` float32, -1..1.

    Source: the cosine reward of VLM-RM (Rocamonde et al. 2024, equation 2); its difference over time, the reward "difference" of
    these scores, is the potential difference of LIV (Ma et al. 2023).
    """
    return similarity[:, : context.num_goals].astype(np.float32)


def goal_baseline(similarity: np.ndarray, context: Context) -> np.ndarray:
    """Returns the nearness to each goal once the frame is moved towards the line through baseline and goal.

        y = 1 - |a P(x) + (1 - a) x - g|^2 / 2,    P(x) the projection of x onto the line L through b and g
          = 1 - ((1 - a)^2 |x - g|^2 + (1 - (1 - a)^2) ((x - g).d)^2 / |d|^2) / 2,    d = g - b

    The second line needs x.g, x.b and numbers of the goal alone: no D x D matrix a goal. At a = 0 it is the cosine.

    Args:
        similarity: `[N, C]` cosines; the first G candidates are the goals, those after them the baselines.
        context: With baselines, none at its goal, and alpha.

    Returns:
        `[N, G]` float32, -1..1; 1 at the goal.

    Source: Rocamonde et al. 2024 (VLM-RM), definition 1. They do not make the mean over prompts a unit vector again before they
    take its distances, here it is one: with one prompt a goal the two are the same.
    """
    baselines, alpha = context.baselines, context.alpha
    assert baselines is not None
    assert alpha is not None
    goals = similarity[:, : context.num_goals]
    apart = (1.0 - alpha) ** 2
    along = goals - similarity[:, baselines.columns]
    along -= baselines.goal_along
    along *= np.sqrt((1.0 - apart) / 2) / baselines.distance
    along *= along
    score = goals - 1.0  # -|x - g|^2 / 2 of unit vectors
    score *= apart
    score -= along
    score += 1.0
    return score.astype(np.float32)


def sigmoid_probability(similarity: np.ndarray, context: Context) -> np.ndarray:
    """Returns the probability that frame and text belong together, judging each pair for itself.

        p(o, l) = 1 / (1 + exp(-(scale f(o).g(l) + bias)))

    Args:
        similarity: `[N, C]` cosines; the first G candidates are the goals.
        context: With the model's own logit_scale and logit_bias.

    Returns:
        `[N, G]` float32, 0..1.

    Source: SigLIP (Zhai et al. 2023), its loss without the sign of the label. The bias was learned where one pair in a batch of
    thousands belongs together, so these probabilities are low: true captions are often under 0.5.
    """
    assert context.logit_scale is not None
    assert context.logit_bias is not None
    logits = similarity[:, : context.num_goals] * context.logit_scale
    logits += context.logit_bias
    np.maximum(logits, _SMALLEST_LOGIT, out=logits)
    np.negative(logits, out=logits)
    np.exp(logits, out=logits)
    logits += 1.0
    return np.reciprocal(logits, out=logits).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formula:
    """A formula and its properties.

    Args:
        function: `(similarity [N, C], context) -> scores [N, G] float32`.
        summary: One line for the command line's help.
        default_threshold: Threshold that has a meaning for every model, or None where there is none.
        needs_negatives: Whether it reads negatives and temperature.
        needs_baseline: Whether it reads baselines and alpha.
        needs_bias: Whether it reads the model's own scale and bias.
        score_range: Lowest and highest score there can be; None where that is not known.
        is_probability: Whether its scores claim to be probabilities, so that it can be asked whether they come true.
    """

    function: Callable[[np.ndarray, Context], np.ndarray]
    summary: str
    default_threshold: float | None = None
    needs_negatives: bool = False
    needs_baseline: bool = False
    needs_bias: bool = False
    score_range: tuple[float, float] | None = None
    is_probability: bool = False


FORMULAS: dict[str, Formula] = {
    "softmax": Formula(
        function=softmax_probability,
        summary="probability of the goal among itself and its negatives (Baumli et al. 2023)",
        default_threshold=0.5,
        needs_negatives=True,
        score_range=(0.0, 1.0),
        is_probability=True,
    ),
    "cosine": Formula(
        function=cosine,
        summary="cosine of frame and goal (VLM-RM); its scale depends on the model, so it needs a threshold",
        score_range=(-1.0, 1.0),
    ),
    "goal-baseline": Formula(
        function=goal_baseline,
        summary="nearness to the goal along the line from a baseline text (VLM-RM); needs a baseline and a threshold",
        needs_baseline=True,
        score_range=(-1.0, 1.0),
    ),
    "shifted-softmax": Formula(
        function=shifted_softmax,
        summary="how far the softmax is above chance, 1/N, else 0 (MineCLIP)",
        default_threshold=0.0,
        needs_negatives=True,
        score_range=(0.0, 1.0),
    ),
    "sigmoid": Formula(
        function=sigmoid_probability,
        summary="probability by the model's own scale and bias (SigLIP)",
        default_threshold=0.5,
        needs_bias=True,
        score_range=(0.0, 1.0),
        is_probability=True,
    ),
}
"""The formulas of this package by name."""


@functools.cache
def registered_formulas() -> dict[str, Formula]:
    """Returns the formulas that other installed packages register, by name; looked up once per process.

    Raises:
        ValueError: What a package registers is no `Formula`, or has the name of one of ours.
    """
    found = load_extensions(EXTENSION_GROUP)
    for name, formula in found.items():
        if not isinstance(formula, Formula):
            raise ValueError(
                f"entry point {name!r} of {EXTENSION_GROUP} is no Formula: got {type(formula).__name__}. Fix the package that "
                f"registers it, or uninstall it"
            )
        if name in FORMULAS:
            raise ValueError(
                f"entry point {name!r} of {EXTENSION_GROUP} has the name of a formula of vlm-rewards: got {name!r}. Rename it"
            )
    return {name: formula for name, formula in found.items() if isinstance(formula, Formula)}


def formula_named(name: str) -> Formula:
    """Finds a formula among `FORMULAS` and those that other installed packages register.

    Raises:
        ValueError: There is none of this name.
    """
    found = FORMULAS.get(name) or registered_formulas().get(name)
    if found is None:
        known = ", ".join([*FORMULAS, *registered_formulas()])
        raise ValueError(f"formula must be one of {known}, got {name!r}; choose one of them")
    return found


def claims_probability(name: str) -> bool:
    """Returns whether scores of a formula claim to be probabilities; not where its package is not installed any more."""
    found = FORMULAS.get(name) or registered_formulas().get(name)
    return found is not None and found.is_probability
