import dataclasses
import pickle
from collections.abc import Iterable, Sequence

import pytest

from vlm_rewards.pipelines.engine.packed import merge_packed, pack_evidence, raise_refusals
from vlm_rewards.schemas.manifests import Unit


@dataclasses.dataclass
class Count:
    number: int = 0
    refusals: Sequence[str] = ()


def add(counts: Iterable[Count]) -> Count:
    parts = list(counts)
    return Count(sum(part.number for part in parts), [refusal for part in parts for refusal in part.refusals])


def letters(unit: Unit) -> Count:
    if unit.name == "bad":
        error = ValueError("a unit must be good, got bad; mend it")
        error.add_note("in the folder x")
        raise error
    return Count(len(unit.name))


def packed(*names: str) -> list[bytes]:
    return [pack_evidence(Unit(name=name).to_json(), letters, Count) for name in names]


def test_evidence_is_merged_and_a_refusal_travels_with_it() -> None:
    # "one" and "three" have 3 and 5 letters; the refusal has its note behind it.
    merged = pickle.loads(merge_packed(packed("one", "bad", "three"), add))
    assert merged == Count(8, ["a unit must be good, got bad; mend it; in the folder x"])


def test_the_first_refusal_is_raised_and_the_others_counted() -> None:
    raise_refusals([])
    with pytest.raises(ValueError, match=r"^first$"):
        raise_refusals(["first"])
    with pytest.raises(ValueError, match=r"^first \(and 2 more units like it\)$"):
        raise_refusals(["first", "second", "third"])
    with pytest.raises(ValueError, match=r"^first \(and 1 more like it\)$"):
        raise_refusals(["first", "second"], "more like it")


def test_errors_that_are_no_refusals_are_not_swallowed() -> None:
    def broken(unit: Unit) -> Count:
        raise RuntimeError(f"a bug in {unit.name}")

    with pytest.raises(RuntimeError, match="a bug in one"):
        pack_evidence(Unit(name="one").to_json(), broken, Count)
