"""Classifies false positives: near the goal in time, on another goal that holds, or on nothing.

    frame            4    5    6    7    8    9   10        a false positive of "a red ball is seen" in frame ...
    red ball         .    X    .    .    .    .    .        6, 7, 8  near in time: within 3 frames of one in which it holds
    blue ball        .    .    .    .    .    X    .        9        another colour: a goal that differs in this attribute alone
    green box        .    .    .    .    .    .    X        10       another goal of the family

All counts are integers over pairs (frame, goal), so that parts add up in any order. Which goal is taken for which is counted in a
sparse matrix of goals by goals, 12 bytes per pair of goals that occurs together. Thousands of goals have millions of such pairs:
beyond `MAX_PAIRS` the matrix gives way to a bounded sample of frames (`labelers.quality.frame_samples`), so memory grows with the
number of goals, not with its square.

A goal's group stands for the goal: goals of one group hold in the same states, so one of them is no confusion of another.

Shapes: K pairs, G goals, C causes, F frames, V values of an attribute.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from vlm_rewards.labelers.quality.frame_samples import MAX_SAMPLE_BYTES, FrameSample, sample_frames
from vlm_rewards.labelers.rewards.hindsight import goal_groups
from vlm_rewards.schemas.goals import Goal

NEAR_FRAMES = 3
"""A false positive at most this many frames from a frame in which its goal holds is near in time."""

MAX_PAIRS = 1 << 20
"""Pairs of goals that a matrix may hold, 12 MiB; 1,024 goals never have more."""

_MAX_DRAWN = 24
_BLOCK_GOALS = 256
_NUM_CONFUSED = 5
_NEAR, _NONE = "near in time", "none of these"


class Pairs(NamedTuple):
    """[K] int64 each: frames and goals that go together.

    Frames of several episodes are numbered on, with more than `NEAR_FRAMES` numbers between the last frame of one and the first
    of the next.
    """

    frames: np.ndarray
    goals: np.ndarray


class _Test(NamedTuple):
    """Asks of a false positive whether more goals hold of one bucket than of another."""

    cause: str
    holding: sparse.csr_array  # [G, buckets], by the group's first goal
    asked: np.ndarray  # [G] bucket, -1 for goals that do not ask
    discounted: sparse.csr_array
    asked_discounted: np.ndarray


class GoalRelations:
    """Relations between the goals: families, groups and attributes.

    Args:
        goals: G goals. Attributes are compared by name; "other colour" of a goal about two things is a colour, too.

    Attributes:
        families: Their names, in the order of the goals.
        family: [G] index of each goal's family.
        groups: [G] index of the first goal of each goal's group.
        attributes: Names of the attributes by kind: "other colour" is a name of the kind "colour".
        values: Sorted values of the attributes by kind.
        causes: [C] names of what may have caused a false positive, in the order in which they are checked.
    """

    def __init__(self, goals: Sequence[Goal]) -> None:
        self.goals = tuple(goals)
        self.family = _numbered(goal.family for goal in goals)
        self.families = list(dict.fromkeys(goal.family for goal in goals))
        self.groups = goal_groups(goals)
        self.members = _ones(self.groups, np.arange(len(goals)), len(goals))
        names = list(dict.fromkeys(name for goal in goals for name in goal.attributes))
        kinds = list(dict.fromkeys(attribute_kind(name) for name in names))
        self.attributes = {kind: [name for name in names if attribute_kind(name) == kind] for kind in kinds}
        self.values = {
            kind: sorted({goal.attributes[name] for goal in goals for name in own if name in goal.attributes})
            for kind, own in self.attributes.items()
        }
        self._tests = [*self._attribute_tests(), *self._family_tests(), *self._shared_tests()]
        self.causes = list(dict.fromkeys([_NEAR, *(test.cause for test in self._tests), _NONE]))

    def buckets_of_attribute(self, name: str) -> np.ndarray:
        """Returns [G] int64: goals of one family that differ in this attribute at most share a number; -1 without it."""
        return _numbered(
            (goal.family, tuple(sorted(item for item in goal.attributes.items() if item[0] != name)))
            if name in goal.attributes
            else None
            for goal in self.goals
        )

    def causes_of(self, false: Pairs, true: Pairs) -> np.ndarray:
        """Returns [K] int64, the index of the cause of each false positive: the first of `causes` that is so."""
        holding = self.holding(true, int(max(false.frames.max(initial=0), true.frames.max(initial=0))) + 1)
        near = self._is_near(false, true)
        causes = np.where(near, 0, len(self.causes) - 1)
        remaining = np.flatnonzero(~near)
        for test in self._tests:
            frames, goals = false.frames[remaining], false.goals[remaining]
            found = _values_at(holding @ test.holding, frames, test.asked[goals])
            found -= _values_at(holding @ test.discounted, frames, test.asked_discounted[goals])
            causes[remaining[found > 0]] = self.causes.index(test.cause)
            remaining = remaining[found <= 0]
        return causes

    def holding(self, true: Pairs, num_frames: int) -> sparse.csr_array:
        """Returns [num_frames, G] of 0 and 1: the groups that hold, each in the column of its first goal."""
        matrix = _ones(true.frames, self.groups[true.goals], num_frames, len(self.goals))
        matrix.data[:] = 1
        return matrix

    def _is_near(self, false: Pairs, true: Pairs) -> np.ndarray:
        stride = int(max(false.frames.max(initial=0), true.frames.max(initial=0))) + NEAR_FRAMES + 1
        held = np.unique(self.groups[true.goals] * stride + true.frames)
        asked = self.groups[false.goals] * stride + false.frames
        if not len(held):
            return np.zeros(len(asked), dtype=bool)
        after = np.searchsorted(held, asked)
        following, preceding = held[np.minimum(after, len(held) - 1)], held[np.maximum(after - 1, 0)]
        return np.minimum(np.abs(following - asked), np.abs(asked - preceding)) <= NEAR_FRAMES

    def _test(
        self, cause: str, counted: np.ndarray, asked: np.ndarray, less: np.ndarray, asked_less: np.ndarray
    ) -> _Test:
        return _Test(cause, self.members @ _membership(counted), asked, self.members @ _membership(less), asked_less)

    def _attribute_tests(self) -> Iterable[_Test]:
        alike = _numbered((goal.family, tuple(sorted(goal.attributes.items()))) for goal in self.goals)
        for kind, names in self.attributes.items():
            for name in names:
                buckets = self.buckets_of_attribute(name)
                asked_alike = np.where(buckets >= 0, alike, -1)
                yield self._test(f"another {kind}", buckets, buckets, asked_alike, asked_alike)

    def _family_tests(self) -> Iterable[_Test]:
        nothing = np.full(len(self.goals), -1)
        yield self._test("another goal of the family", self.family, self.family, nothing, nothing)

    def _shared_tests(self) -> Iterable[_Test]:
        """Goals of other families whose attributes are the goal's, or some of them, or these and more."""
        if len(self.families) == 1:
            return
        for names in sorted({tuple(sorted(goal.attributes)) for goal in self.goals if goal.attributes}):
            values = [
                tuple(goal.attributes[name] for name in names) if set(names) <= goal.attributes.keys() else None
                for goal in self.goals
            ]
            is_exact = np.array([len(goal.attributes) == len(names) for goal in self.goals])
            bucket = _numbered(values)
            own = _numbered(
                None if value is None else (goal.family, value) for goal, value in zip(self.goals, values, strict=True)
            )
            cause = "the same attributes in another family"
            wider = [np.where(is_exact, -1, ids) for ids in (bucket, own)]
            exact = [np.where(is_exact, ids, -1) for ids in (bucket, own)]
            yield self._test(cause, bucket, exact[0], own, exact[1])
            yield self._test(cause, exact[0], wider[0], exact[1], wider[1])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FalsePositiveCounts:
    """False positives per goal; parts add up.

    Args:
        causes: [G, C] int64, false positives per cause.
        goals: [G, G] int64, sparse: false positives of the row's goal in whose frame the column's group holds, in the column of
            the group's first goal. None where more than `max_pairs` pairs occur.
        sample: Frames to count pairs in where there is no matrix; None for goals so few that there always is one.
        families: [families, families] int64, sparse: false positives of the row's family in whose frame some goal of the
            column's holds. Empty for more than 24 families.
        attributes: [V, V] int64 per kind of attribute with at most 24 values: false positives of goals of the row's value in
            whose frame a goal holds that has the column's value and differs in nothing else.
        max_pairs: Pairs of goals that the matrix may hold.
    """

    causes: np.ndarray
    goals: sparse.csr_array | None
    sample: FrameSample | None
    families: sparse.csr_array
    attributes: Mapping[str, np.ndarray]
    max_pairs: int

    def __add__(self, other: "FalsePositiveCounts") -> "FalsePositiveCounts":
        goals = None if self.goals is None or other.goals is None else self.goals + other.goals
        return FalsePositiveCounts(
            causes=self.causes + other.causes,
            # Counts only grow, so the sum of all parts has a matrix if and only if it is small enough, in whatever order they add.
            goals=None if goals is None or goals.nnz > self.max_pairs else goals,
            sample=None if self.sample is None or other.sample is None else self.sample + other.sample,
            families=self.families + other.families,
            attributes={kind: table + other.attributes[kind] for kind, table in self.attributes.items()},
            max_pairs=self.max_pairs,
        )


def count_false_positives(
    false: Pairs,
    true: Pairs,
    causes: np.ndarray,
    relations: GoalRelations,
    keys: np.ndarray | None = None,
    *,
    max_pairs: int = MAX_PAIRS,
    max_sample_bytes: int = MAX_SAMPLE_BYTES,
) -> FalsePositiveCounts:
    """Counts false positives by their causes, and by the goals that hold in their frames.

    Args:
        false: Frames and goals of the false positives.
        true: All frames and goals that hold, also where there is no label.
        causes: [K], from `GoalRelations.causes_of`.
        relations: Relations of the G goals.
        keys: uint64 per frame number, from `frame_samples.frame_keys`; by default the frame numbers.
        max_pairs: Pairs of goals that a matrix may hold.
        max_sample_bytes: Size of the sample that takes its place.
    """
    num_goals, num_causes = len(relations.goals), len(relations.causes)
    num_frames = int(max(false.frames.max(initial=0), true.frames.max(initial=0))) + 1
    fires = _ones(false.frames, false.goals, num_frames, num_goals)
    holding = relations.holding(true, num_frames)
    sample = None
    if num_goals**2 > max_pairs:
        identities = np.arange(num_frames, dtype=np.uint64) if keys is None else keys
        sample = sample_frames(fires, holding, identities, max_sample_bytes)
    return FalsePositiveCounts(
        causes=np.bincount(false.goals * num_causes + causes, minlength=num_goals * num_causes).reshape(-1, num_causes),
        goals=_pair_matrix(fires, holding, relations, max_pairs),
        sample=sample,
        families=_family_table(fires, holding, relations),
        attributes=_attribute_tables(false, fires, holding, relations),
        max_pairs=max_pairs,
    )


def _family_table(fires: sparse.csr_array, holding: sparse.csr_array, relations: GoalRelations) -> sparse.csr_array:
    """Returns the table `FalsePositiveCounts.families`; empty for more families than are drawn."""
    num_families = len(relations.families)
    if num_families > _MAX_DRAWN:
        return sparse.csr_array((num_families, num_families), dtype=np.int64)
    families = _membership(relations.family)
    family_holds = holding @ families
    family_holds.data[:] = 1
    return ((fires @ families).T @ family_holds).tocsr()


def _pair_matrix(
    fires: sparse.csr_array, holding: sparse.csr_array, relations: GoalRelations, max_pairs: int
) -> sparse.csr_array | None:
    """Returns the matrix `FalsePositiveCounts.goals`, a block of its rows at a time; None as soon as it is too large."""
    num_goals = len(relations.goals)
    by_goal = fires.T.tocsr()
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    num_pairs = 0
    for start in range(0, num_goals, _BLOCK_GOALS):
        block = (by_goal[start : start + _BLOCK_GOALS] @ holding).tocoo()
        # A frame where only another goal of the group holds is no confusion.
        other = relations.groups[block.row + start] != block.col
        num_pairs += int(other.sum())
        if num_pairs > max_pairs:
            return None
        rows.append(block.row[other] + start)
        columns.append(block.col[other])
        counts.append(block.data[other])
    return _counted(np.concatenate(rows), np.concatenate(columns), np.concatenate(counts), num_goals, num_goals)


def confused_goals(counts: FalsePositiveCounts, relations: GoalRelations) -> Iterator[list[dict[str, object]]]:
    """Lists the groups that hold most often where a goal fires falsely, at most five, each by the id of its first goal.

    Yields:
        Per goal, in their order: `goal`, `frames` and `share`, of the goal's false positives; most frequent first, then in the
        order of the goals. Counted in the sample of frames where there is no matrix.
    """
    num_goals = len(relations.goals)
    if counts.goals is not None:
        totals, rows_of = counts.causes.sum(axis=1), counts.goals.__getitem__
    else:
        assert counts.sample is not None, "a matrix is left out only where there is a sample"
        totals, rows_of = counts.sample.fired, counts.sample.pairs
    for start in range(0, num_goals, _BLOCK_GOALS):
        block = rows_of(slice(start, min(start + _BLOCK_GOALS, num_goals)))
        for row, goal in enumerate(range(start, start + block.shape[0])):
            own = slice(*block.indptr[row : row + 2])
            columns, frames = block.indices[own].astype(np.int64), block.data[own]
            others = (
                columns != relations.groups[goal]
            )  # a frame where only the group's other goal holds is no confusion
            ranks = (columns - frames * num_goals)[others]  # lower is more frequent, then earlier
            if len(ranks) > _NUM_CONFUSED:
                ranks = np.partition(ranks, _NUM_CONFUSED - 1)[:_NUM_CONFUSED]
            found = [(rank % num_goals, -(rank // num_goals)) for rank in np.sort(ranks).tolist()]
            total = int(totals[goal])
            yield [
                {"goal": relations.goals[column].id, "frames": number, "share": number / total}
                for column, number in found
            ]


def cause_figures(causes: np.ndarray, relations: GoalRelations) -> dict[str, object]:
    """Returns the `total` of false positives and, by name, the `causes`, from their counts [C]."""
    return {"total": int(causes.sum()), "causes": dict(zip(relations.causes, causes.tolist(), strict=True))}


def confusion_tables(counts: FalsePositiveCounts, relations: GoalRelations) -> dict[str, object]:
    """Returns the confusion between families, and between the values of each attribute.

    Returns:
        `families`: names, false_positives and `holds[a][b]`, false positives of family a in whose frame a goal of b holds.
        `attributes`, by kind: values and `holds[a][b]`, how often a goal of value a fires falsely where one of value b holds
        that is of the same family and differs in nothing else. A table of more than 24 rows is not made, and says so.
    """
    totals = np.bincount(relations.family, counts.causes.sum(axis=1), len(relations.families)).astype(np.int64)
    families: object = _too_large(len(relations.families), "families") or {
        "names": relations.families,
        "false_positives": totals.tolist(),
        "holds": counts.families.toarray().tolist(),
    }
    attributes: dict[str, object] = {
        kind: _too_large(len(values), "values") or {"values": values, "holds": counts.attributes[kind].tolist()}
        for kind, values in relations.values.items()
    }
    tables: dict[str, object] = {"families": families, "attributes": attributes}
    if counts.goals is None and counts.sample is not None and not counts.sample.is_complete:
        tables["sampled_frames"] = {"frames": len(counts.sample.keys), "of": counts.sample.num_frames}
    return tables


def attribute_kind(name: str) -> str:
    """Returns the kind of an attribute: "other colour", of the second object of a goal, is a "colour"."""
    return name.removeprefix("other ")


def _attribute_tables(
    false: Pairs, fires: sparse.csr_array, holding: sparse.csr_array, relations: GoalRelations
) -> dict[str, np.ndarray]:
    """Returns the tables `FalsePositiveCounts.attributes`.

    Goals of one bucket differ in one attribute at most. So of each frame and bucket, the values of the goals that fire are counted
    against the values of the goals that hold: the cost grows with the goals, not with their pairs.

        frame 7, "... ball is seen"   fires: red 1          a red ball is taken for a blue one, once
                                      holds: blue 1
    """
    held = (holding @ relations.members).tocoo()
    true = Pairs(held.row.astype(np.int64), held.col.astype(np.int64))
    own = (
        _values_at(holding, false.frames, relations.groups[false.goals]) > 0
    )  # the goal's own group holds: no confusion
    tables: dict[str, np.ndarray] = {}
    for kind, names in relations.attributes.items():
        values = relations.values[kind]
        if len(values) > _MAX_DRAWN:
            continue
        places = {value: place for place, value in enumerate(values)}
        table = np.zeros((len(values), len(values)), dtype=np.int64)
        for name in names:
            bucket = relations.buckets_of_attribute(name)
            value = np.array(
                [places[goal.attributes[name]] if name in goal.attributes else -1 for goal in relations.goals]
            )
            table += _cross_counts(false, true, bucket, value, len(values))
            if own.any():
                number = _numbered(zip(relations.groups.tolist(), bucket.tolist(), strict=True))
                own_group = Pairs(number, np.arange(len(number)))
                firing = Pairs(number[false.goals[own]], false.goals[own])
                table -= _cross_counts(firing, own_group, bucket, value, len(values))
        np.fill_diagonal(table, 0)
        tables[kind] = table
    return tables


def _cross_counts(rows: Pairs, columns: Pairs, bucket: np.ndarray, value: np.ndarray, num_values: int) -> np.ndarray:
    """Returns [V, V] int64: how often a pair of `rows` and one of `columns` have one frame and one bucket, by their values."""
    num_buckets = int(bucket.max(initial=0)) + 1
    keys, places = [], []
    for pairs in (rows, columns):
        goals = pairs.goals
        known = bucket[goals] >= 0
        keys.append(pairs.frames[known] * num_buckets + bucket[goals[known]])
        places.append(value[goals[known]])
    shared = np.intersect1d(*keys)
    sides = []
    for key, place in zip(keys, places, strict=True):
        entry = np.searchsorted(shared, key)
        found = entry < len(shared)
        found[found] = shared[entry[found]] == key[found]
        sides.append(_ones(entry[found], place[found], len(shared), num_values))
    return (sides[0].T @ sides[1]).toarray()


def _too_large(number: int, what: str) -> str | None:
    return f"undefined: {number} {what} are more than the {_MAX_DRAWN} of a table" if number > _MAX_DRAWN else None


def _numbered(keys: Iterable[Hashable | None]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _membership(buckets: np.ndarray) -> sparse.csr_array:
    members = np.flatnonzero(buckets >= 0)
    return _ones(members, buckets[members], len(buckets), int(buckets.max(initial=0)) + 1)


def _ones(rows: np.ndarray, columns: np.ndarray, num_rows: int, num_columns: int | None = None) -> sparse.csr_array:
    return _counted(rows, columns, np.ones(len(rows), dtype=np.int64), num_rows, num_columns or num_rows)


def _counted(
    rows: np.ndarray, columns: np.ndarray, counts: np.ndarray, num_rows: int, num_columns: int
) -> sparse.csr_array:
    return sparse.coo_array((counts, (rows, columns)), shape=(num_rows, num_columns)).tocsr()


def _values_at(matrix: sparse.csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the entries at these rows and columns; 0 where the column is -1."""
    matrix.sort_indices()
    num_columns = matrix.shape[1]
    keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * num_columns + matrix.indices
    if not len(keys):
        return np.zeros(len(rows), dtype=np.int64)
    wanted = rows * num_columns + columns
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((keys[places] == wanted) & (columns >= 0), matrix.data[places], 0)
