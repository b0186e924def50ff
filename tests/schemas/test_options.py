"""Options of settings, apart from any command line."""

import dataclasses
import inspect
from typing import Any

import pytest

from vlm_rewards.schemas.options import build_settings, option, option_fields, shows_settings


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
