"""Fingerprints: what an output depends on, part by part, so that outputs of different making are never mixed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Named parts, each a JSON value or a digest of something large; equal fingerprints give equal bytes.

    Args:
        parts: By name, a JSON value: a number, a text, a list or an object.

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
        """The fingerprint of these parts alone."""
        return Fingerprint({name: self.parts[name] for name in names})

    def differing_parts(self, other: "Fingerprint") -> list[str]:
        """Names of the parts that are not equal, or that only one of the two has."""
        names = sorted(self.parts.keys() | other.parts.keys())
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]

    def check_equal(self, other: "Fingerprint", what: str, remedy: str) -> None:
        """Refuses another fingerprint, naming the parts that differ.

        Args:
            other: The fingerprint that must equal this one.
            what: What has this fingerprint, such as "the output folder labels/".
            remedy: What the user can do.

        Raises:
            ValueError: The two differ.
        """
        differing = self.differing_parts(other)
        if differing:
            pairs = "; ".join(
                f"{name} is {_short(self.parts.get(name))} there and {_short(other.parts.get(name))} here"
                for name in differing
            )
            raise ValueError(
                f"{what} must have the same fingerprint as this run, got other {', '.join(differing)} ({pairs}); {remedy}"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
