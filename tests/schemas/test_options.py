"""Options of settings, apart from any command line."""

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_rewards.schemas.options import (
    as_declared,
    brief_repr,
    build_settings,
    option,
    option_fields,
    read_assignment,
    read_value,
    shows_settings,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = dataclasses.field(default=1, metadata=option("N", "layers", name="inner-depth"))
    hidden: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = dataclasses.field(metadata=option("NAME", "what it is called"))
    max_steps: int | None = dataclasses.field(default=None, metadata=option("N", "steps", unset="no limit"))
    inner: Inner = dataclasses.field(default_factory=Inner)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
    workers: int = dataclasses.field(default=1, metadata=option("N", "workers"))


def test_options_are_the_fields_with_one_and_those_inside() -> None:
    found = list(option_fields(Outer))
    assert [(field.path, field.name, field.type, field.default) for field in found] == [
        (("name",), "name", str, dataclasses.MISSING),
        (("max_steps",), "max-steps", int | None, None),
        (("inner", "depth"), "inner-depth", int, 1),
    ]
    assert [field.option.help for field in found] == ["what it is called", "steps", "layers"]


def test_settings_are_built_from_their_own_names() -> None:
    assert build_settings({"name": "a", "workers": 3}, Outer, Other) == (Outer(name="a"), Other(workers=3))


def test_a_name_that_is_no_setting_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match=r"there is no setting of this name: got 'worker'. Did you mean workers\?"):
        build_settings({"name": "a", "worker": 3}, Outer, Other)
    with pytest.raises(TypeError, match=r"got 'zzz'. The settings are workers."):
        build_settings({"zzz": 3}, Other)


def test_a_signature_shows_settings_one_by_one() -> None:
    @shows_settings(Outer, Other)
    def run(source: str, *, output: str, workers: int = 5, **settings: Any) -> str:
        return source

    assert str(inspect.signature(run)) == (
        "(source: str, *, output: str, workers: int = 5, name: str, max_steps: int | None = None, "
        f"inner: {Inner.__module__}.Inner = {Inner()!r}) -> str"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    share: float = 0.5
    number: int | None = None
    both: float | tuple[float, ...] | None = None
    names: tuple[str, ...] = ()
    path: str | Path | None = None
    flag: bool = False
    inner: Inner = dataclasses.field(default_factory=Inner)
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        as_declared(self)


def test_values_become_what_is_declared() -> None:
    made = Declared(share=np.float32(1), number=np.int64(2), both=[1, 0.5], names=["a", "b"], path=Path("x"), flag=True)
    assert made == Declared(share=1.0, number=2, both=(1.0, 0.5), names=("a", "b"), path=Path("x"), flag=True)
    assert [type(value) for value in (made.share, made.number, made.both[0])] == [float, int, float]
    assert type(Declared(share=1).share) is float
    assert Declared(both=2).both == 2.0
    assert Declared(inner={"depth": 3}, more={"a": 1}).inner == {"depth": 3}  # whose class makes settings of it


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": "much"}, "share must be a number: got 'much'. Give one of that kind"),
        ({"share": True}, "share must be a number: got True. Give one of that kind"),
        ({"number": 1.5}, "number must be a whole number or None: got 1.5. Give one of that kind"),
        ({"both": ["a"]}, r"both must be a number or a list of numbers or None: got \['a'\]"),
        ({"names": "abc"}, "names must be a list of texts: got 'abc'. Put it into a list"),
        ({"names": [1]}, r"names must be a list of texts: got \[1\]. Give one of that kind"),
        ({"flag": 1}, "flag must be True or False: got 1"),
        ({"path": 3}, "path must be a text or Path or None: got 3"),
        ({"inner": 3}, "inner must be Inner: got 3"),
        ({"more": 3}, "more must be Mapping: got 3"),
    ],
)
def test_a_value_of_another_kind_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Declared(**given)


def test_settings_are_shown_by_what_is_not_at_its_default() -> None:
    assert repr(Declared()) == "Declared()"
    assert repr(Declared(share=1, names=["a", "b", "c", "d"])) == "Declared(share=1.0, names=<4 names>)"


def test_assignments_are_names_and_values() -> None:
    assert read_assignment("a=1=2") == ("a", "1=2")
    assert [read_value(word)[1] for word in ("a=1", "a=true", "a=[1]", "a=b")] == [1, True, [1], "b"]
    with pytest.raises(ValueError, match="expected NAME=VALUE: got 'a'. Write the two with = between them"):
        read_assignment("a")
