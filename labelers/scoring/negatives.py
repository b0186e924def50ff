"""Negatives: the texts beside a goal in its softmax. They are drawn once, from the settings and the goals alone.

    candidates   c = 0 .. G-1   the goals, in order
                 c = G .. C-1   explicit texts, and those that goals name themselves, that are no goal's
    mask[c, g]   True where candidate c is a negative of goal g; never the goal itself

Shape letters: N frames, G goals, C candidates.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.options import as_declared, option

if TYPE_CHECKING:
    from scipy.sparse import csr_array

KINDS = ("auto", "family", "all", "sampled", "explicit")
REWARD_GROUP = "the reward"
"""Heading of the options that say what a frame is worth."""

SCORE_BLOCK = 64
"""Rows of a matrix product: every product has this many, the last one padded, so that a row's bits do not depend on N."""

_ENTRY_NS, _SPARSE_NS = 0.04, 0.2  # per frame and core, as measured: an entry of a product, and of a sparse sum
_KEPT_SHARE = 1e-6
"""Of a sum, after a subtraction: float64 keeps the nine digits more that float32 scores have no use for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NegativeSettings:
    """Settings of the negatives.

    Args:
        kind: "explicit": the texts in `explicit` and those that a goal names itself, only. "family": also all other goals of
            the goal's family, which compete for one state. "all": also all other goals. "sampled": also k of the other
            goals, drawn for each goal and then fixed (Baumli et al. 2023; they do not give k). "auto": "explicit" if there
            are explicit texts or every goal names some, else "family". Among other goals, those that hold in the same frame
            share the probability; against texts alone, each goal is judged for itself.
        k: Number of sampled goals; None for other kinds.
        seed: Seed of the sampling.
        explicit: Texts that are negatives of every goal, with any kind.

    Raises:
        ValueError: An unknown kind, a k without sampling or sampling without one, or an explicit text that is empty or
            occurs twice.
    """

    kind: str = dataclasses.field(
        default="auto",
        metadata=option(
            "",
            "what stands beside a goal in the softmax: explicit: the texts of --negative and those that the goal names itself in "
            "the file; family, all, sampled: also the other goals of its family, all others, or K of them drawn once; auto: "
            "explicit if there are such texts for every goal, else family",
            name="negatives",
            choices=KINDS,
            group=REWARD_GROUP,
        ),
    )
    k: int | None = dataclasses.field(
        default=None,
        metadata=option("K", "goals drawn per goal with --negatives sampled", name="num-negatives", group=REWARD_GROUP),
    )
    seed: int = dataclasses.field(
        default=0, metadata=option("N", "seed of that draw", name="negatives-seed", group=REWARD_GROUP)
    )
    explicit: tuple[str, ...] = dataclasses.field(
        default=(),
        metadata=option(
            "TEXT", "text that is a negative of every goal; repeatable", name="negative", group=REWARD_GROUP
        ),
    )

    def __post_init__(self) -> None:
        as_declared(self)
        if self.kind not in KINDS:
            raise ValueError(
                f"kind of negatives must be one of {', '.join(KINDS)}, got {self.kind!r}; choose one of them"
            )
        if self.kind == "sampled" and (self.k is None or self.k < 1):
            raise ValueError(f"sampled negatives must have k of at least 1, got {self.k}; give their number")
        if self.kind != "sampled" and self.k is not None:
            raise ValueError(
                f"k must be left out for negatives of kind {self.kind!r}, got {self.k}; it is for 'sampled'"
            )
        if self.seed < 0:
            raise ValueError(f"seed of the negatives must be 0 or more, got {self.seed}; choose another")
        for text in self.explicit:
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"an explicit negative must be a text that is not empty, got {text!r}; remove it")
            if self.explicit.count(text) > 1:
                raise ValueError(
                    f"every explicit negative must occur once, got {text!r} several times; remove the others"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Negatives:
    """The negatives of every goal.

    Args:
        texts: C candidate texts: those of the goals, in order, then the others.
        mask: `[C, G]` bool: candidate c is a negative of goal g.
    """

    texts: tuple[str, ...]
    mask: np.ndarray

    @property
    def digest(self) -> str:
        """32 hexadecimal digits of texts and mask."""
        digest = hashlib.sha256("\0".join(self.texts).encode())
        digest.update(np.packbits(self.mask).tobytes())
        return digest.hexdigest()[:32]


def choose_negatives(settings: NegativeSettings, goals: Sequence[Goal]) -> Negatives:
    """Chooses every goal's negatives: a pure function of the settings and the list of goals.

    Goals of one group are never each other's negatives, and a text that is a goal's own, or that of a goal of its
    group, is not a negative of that goal. Each goal's sample is drawn without replacement by a generator seeded with the
    seed and the goal's id, from the other goals in their order: it depends on which goals there are, on nothing else.

    Args:
        settings: Settings of the negatives.
        goals: Goals with distinct ids and texts.

    Raises:
        ValueError: A goal has fewer than k goals to draw from.
    """
    groups: dict[tuple[str, str], int] = {}  # a goal without a group is one of its own
    keys = [("id", goal.id) if goal.group is None else ("group", goal.group) for goal in goals]
    codes = np.array([groups.setdefault(key, len(groups)) for key in keys])
    own_group = codes[:, None] == codes[None, :]
    position = {goal.text: index for index, goal in enumerate(goals)}
    named = dict.fromkeys([*settings.explicit, *(text for goal in goals for text in goal.negatives)])
    for text in named:
        position.setdefault(text, len(position))
    mask = np.zeros((len(position), len(goals)), dtype=bool)
    alone = bool(settings.explicit) or all(goal.negatives for goal in goals)
    if settings.kind == "all":
        mask[: len(goals)] = True
    elif settings.kind == "family" or (settings.kind == "auto" and not alone):
        families = np.array([goal.family for goal in goals])
        mask[: len(goals)] = families[:, None] == families[None, :]
    elif settings.kind == "sampled":
        for index, goal in enumerate(goals):
            mask[_sample(settings, goal, np.flatnonzero(~own_group[index])), index] = True
    mask[[position[text] for text in settings.explicit]] = True
    for index, goal in enumerate(goals):
        mask[[position[text] for text in goal.negatives], index] = True
    mask[: len(goals)] &= ~own_group
    return Negatives(texts=tuple(position), mask=mask)


def _sample(settings: NegativeSettings, goal: Goal, others: np.ndarray) -> np.ndarray:
    assert settings.k is not None
    if settings.k > len(others):
        raise ValueError(
            f"k of the sampled negatives must be at most the {len(others)} goals that can be negatives of {goal.id!r}, got "
            f"{settings.k}; lower k, or choose all"
        )
    digest = hashlib.sha256(f"{settings.seed}\0{goal.id}".encode()).digest()
    random = np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest, "big")))
    return random.choice(others, size=settings.k, replace=False)


class NegativeMask:
    """Mask of each goal's negatives among the candidates, prepared for sums over a goal and its negatives.

    The sums are found in one of three ways, whichever is cheapest for the mask, chosen once:

        product     of the terms with the distinct columns of the mask: few families, or a few texts that are everybody's
        shared      sums over a few wide sets, less what a goal's set lacks: all others but those of the goal's group
        sparse      a goal's negatives one by one, in their order: sampled negatives, which have little in common

    What is left by the subtraction has lost digits where nearly all of it was taken off; such sums are found by the product.

    Args:
        mask: `[C, G]` bool, True where candidate c is a negative of goal g; False for the goal itself, candidate g.
    """

    def __init__(self, mask: np.ndarray) -> None:
        assert mask.dtype == bool, mask.dtype
        assert not mask.diagonal().any(), "a goal must not be its own negative"
        num_candidates, num_goals = mask.shape
        self.mask = mask
        self.counts = mask.sum(axis=0)
        self._all_others = bool((self.counts == num_candidates - 1).all())
        if self._all_others:
            return
        own = np.zeros_like(mask)
        own[np.arange(num_goals), np.arange(num_goals)] = True
        self._product = min(
            _Product(mask | own, own_inside=True), _Product(mask, own_inside=False), key=_Product.cost_ns
        )
        self._wide: _Product | None = None
        self._sparse: csr_array | None = None
        cost_ns = self._product.cost_ns()
        if cost_ns > _SPARSE_NS * num_goals:
            wide = _reach(mask | own)
            lacking, shared = wide & ~(mask | own), _Product(wide, own_inside=True)
            shared_ns = shared.cost_ns() + _SPARSE_NS * lacking.sum()
            sparse_ns = _SPARSE_NS * self.counts.sum()
            if min(shared_ns, sparse_ns) < cost_ns:
                self._wide = shared if shared_ns < sparse_ns else None
                self._sparse = _sparse_matrix((lacking if shared_ns < sparse_ns else mask | own).T.astype(np.float64))

    def totals(self, terms: np.ndarray) -> np.ndarray:
        """Sums terms over each goal and its negatives.

        Args:
            terms: `[N, C]` float64, 0 or more.

        Returns:
            `[N, G]` float64, or `[N, 1]` where all goals have the same sum. A row's bits depend on its terms alone.
        """
        if self._all_others:
            return terms.sum(axis=1, keepdims=True)
        own = terms[:, : len(self.counts)]
        if self._sparse is None:
            return self._product(terms, own)
        if self._wide is None:
            return _sparse_sums(self._sparse, terms)
        wide = self._wide(terms, own)
        total = wide - _sparse_sums(self._sparse, terms)
        lost = total < _KEPT_SHARE * wide
        return np.where(lost, self._product(terms, own), total) if lost.any() else total


class _Product:
    """Sums terms over the columns of a mask `[C, G]` by one product with the distinct ones."""

    def __init__(self, mask: np.ndarray, own_inside: bool) -> None:
        packed, first, index = np.unique(np.packbits(mask, axis=0), axis=1, return_index=True, return_inverse=True)
        self._own_inside = own_inside
        self._columns = mask[:, first].astype(np.float64)
        self._index = index if packed.shape[1] > 1 else None

    def cost_ns(self) -> float:
        return _ENTRY_NS * self._columns.size

    def __call__(self, terms: np.ndarray, own: np.ndarray) -> np.ndarray:
        sums = _blocked_product(terms, self._columns)
        if self._index is not None:
            sums = np.take(sums, self._index, axis=1)
        return sums if self._own_inside else sums + own


def _reach(mask: np.ndarray) -> np.ndarray:
    """`[C, G]` bool: what is in the column of a goal that is in the goal's column."""
    entries = mask.astype(np.float32)
    return entries @ entries[: mask.shape[1]] > 0


def _sparse_matrix(dense: np.ndarray) -> "csr_array":
    from scipy.sparse import csr_array  # imported here, so that the settings above are read without it

    return csr_array(dense)


def _sparse_sums(members: "csr_array", terms: np.ndarray) -> np.ndarray:
    """`[N, G]`: of the terms `[N, C]`, the sum over each row's members `[G, C]`, added one after the other."""
    return np.ascontiguousarray((members @ np.ascontiguousarray(terms.T)).T)


def _blocked_product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`rows @ matrix` in float64, by products of SCORE_BLOCK rows each."""
    if len(rows) == SCORE_BLOCK:
        return rows @ matrix
    block = np.zeros((SCORE_BLOCK, rows.shape[1]))
    product = np.empty((len(rows), matrix.shape[1]))
    for start in range(0, len(rows), SCORE_BLOCK):
        part = rows[start : start + SCORE_BLOCK]
        block[: len(part)] = part
        product[start : start + len(part)] = (block @ matrix)[: len(part)]
    return product
