"""Evidence of units on its way through a pipeline that merges it: as bytes, with refusals carried as data.

    unit ──► work ──► evidence, or why the unit is refused ──► bytes ──► merged ──► the driver raises the first refusal

Bytes, because Beam 2.77's workers flush their output once a second from another thread, and that cuts an element whose coder is
just running Python, as the pickling of an object does, in two; bytes are written in one go. Data, because what a runner makes of
an exception differs, and hides its type.
"""

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from vlm_rewards.schemas.manifests import Unit

EvidenceT = TypeVar("EvidenceT")


def refusal_of(error: ValueError) -> str:
    """An error and its notes in one line."""
    return "; ".join([str(error), *getattr(error, "__notes__", [])])


def pack_evidence(unit: dict, work: Callable[[Unit], EvidenceT], refused: Callable[..., EvidenceT]) -> bytes:
    """Returns the evidence of a unit as bytes.

    Args:
        unit: A unit as a JSON object.
        work: Gathers its evidence; a ValueError becomes a refusal.
        refused: Makes evidence of `refusals`, a list of texts.
    """
    try:
        evidence = work(Unit.from_json(unit))
    except ValueError as error:
        evidence = refused(refusals=[refusal_of(error)])
    return pickle.dumps(evidence)


def merge_packed(packed: Iterable[bytes], merge: Callable[[Iterable[EvidenceT]], EvidenceT]) -> bytes:
    """Merges packed evidence; for `beam.CombineGlobally(merge_packed, merge)`."""
    return pickle.dumps(merge(pickle.loads(part) for part in packed))


def raise_refusals(refusals: Sequence[str], others_are: str = "more units like it") -> None:
    """Raises the first refusal and says how many more there are.

    Args:
        refusals: In order; none is fine.
        others_are: Name of the others, put after their number.

    Raises:
        ValueError: There is one.
    """
    if refusals:
        others = len(refusals) - 1
        raise ValueError(refusals[0] + (f" (and {others} {others_are})" if others else ""))
