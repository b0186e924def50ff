"""Fingerprints: everything that an output depends on, so that outputs of different origin are never mixed."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping

_SHOWN = 3
_LENGTH = 60  # characters of a value in a message
_CONTEXT = 12  # of these before the first that differs
"""Differing values that a message shows of one part."""

READING_PARTS = ("camera", "sparse", "corpus_options", "decoders")
"""Parts of labels' fingerprints that a labeler's lacks: how their corpus was read, and how they are stored."""


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Named parts, each a JSON value or a digest of something large; equal fingerprints give equal bytes.

    Args:
        parts: JSON values by name: numbers, texts, lists or objects.

    Raises:
        ValueError: There are no parts.
    """

    parts: Mapping[str, object]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a fingerprint must have at least one part, got none; name what the output depends on")
        # One canonical form, so that a fingerprint equals itself after a trip through JSON (tuples become lists).
        object.__setattr__(self, "parts", json.loads(json.dumps(dict(self.parts), sort_keys=True)))

    @property
    def digest(self) -> str:
        """32 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()[:32]

    def subset(self, names: tuple[str, ...]) -> "Fingerprint":
        """Returns the fingerprint of these parts alone."""
        return Fingerprint({name: self.parts[name] for name in names})

    def differing_parts(self, other: "Fingerprint") -> list[str]:
        """Returns the names of the parts that are not equal, or that only one of the two has."""
        names = sorted(self.parts.keys() | other.parts.keys())
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]

    def describe_differences(self, other: "Fingerprint", here: str = "here", there: str = "there") -> str:
        """Returns the values that differ, in words.

        Args:
            other: The fingerprint to compare with.
            here: Name for the other's values.
            there: Name for the values of this one.
        """
        found = []
        for name in self.differing_parts(other):
            leaves = list(_differing_leaves(name, self.parts.get(name), other.parts.get(name)))
            for path, *values in leaves[:_SHOWN]:
                one, two = _shown(*values)
                found.append(f"{path} is {one} {there} and {two} {here}")
            if len(leaves) > _SHOWN:
                found.append(f"{len(leaves) - _SHOWN} more values of {name}")
        return "; ".join(found)

    def check_equal(self, other: "Fingerprint", what: str, remedy: str) -> None:
        """Refuses another fingerprint, naming the parts and values that differ.

        Args:
            other: The fingerprint that must equal this one.
            what: Name of the object with this fingerprint, such as "the output folder labels/".
            remedy: Advice for the user.

        Raises:
            ValueError: The two differ.
        """
        differing = self.differing_parts(other)
        if differing:
            raise ValueError(
                f"{what} must have the same fingerprint as this run, got other {', '.join(differing)} "
                f"({self.describe_differences(other)}); {remedy}"
            )


def _differing_leaves(path: str, one: object, two: object) -> Iterator[tuple[str, object, object]]:
    """Yields the smallest differing values of two JSON values, each with its path."""
    if one == two:
        return
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            yield from _differing_leaves(f"{path}.{key}", one.get(key), two.get(key))
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for index, (left, right) in enumerate(zip(one, two, strict=True)):
            yield from _differing_leaves(f"{path}[{index}]", left, right)
    else:
        yield path, one, two


def _shown(*values: object) -> list[str]:
    """Returns short forms of values, from shortly before the first place in which they differ."""
    texts = [json.dumps(value) for value in values]
    same = next((place for place, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1), 0)
    start = max(0, same - _CONTEXT) if max(map(len, texts)) > _LENGTH else 0
    opening = "..." if start else ""
    return [
        opening + (text[start:] if len(text) - start <= _LENGTH else text[start : start + _LENGTH - 3] + "...")
        for text in texts
    ]
