import importlib
import os
import sys

import pytest

from vlm_rewards.schemas import extensions
from vlm_rewards.schemas.extensions import load_extensions

GROUP = "vlm_rewards.test_things"


def _install(folder, name, points, code=""):
    """Installs a package as pip does: a module, and its metadata beside it."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{key} = {value}\n" for key, value in points))
    importlib.invalidate_caches()


def test_extensions_are_loaded_and_sorted_by_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert load_extensions(GROUP) == {}
    _install(tmp_path, "extension_one", [("b", "extension_one:B"), ("c", "extension_one:C")], "B, C = 2, 3")
    _install(tmp_path, "extension_two", [("a", "extension_two:A")], "A = 1")
    assert list(load_extensions(GROUP).items()) == [("a", 1), ("b", 2), ("c", 3)]


def test_packages_are_looked_up_again_only_where_one_was_installed(tmp_path, monkeypatch):
    asked = []

    def counted(group):
        asked.append(group)
        return entry_points(group=group)

    entry_points = extensions.entry_points
    monkeypatch.setattr(extensions, "entry_points", counted)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "missing")])
    os.utime(tmp_path, (1e9, 1e9))
    assert [load_extensions(GROUP) for _ in range(3)] == [{}] * 3
    assert len(asked) == 1
    _install(tmp_path, "extension_later", [("a", "extension_later:A")], "A = 1")
    assert [load_extensions(GROUP) for _ in range(2)] == [{"a": 1}] * 2
    assert len(asked) == 3  # the folder has just changed, and might again within a tick of its clock
    os.utime(tmp_path, (1e9 + 5, 1e9 + 5))
    found = load_extensions(GROUP)
    found.clear()
    assert load_extensions(GROUP) == {"a": 1}
    assert len(asked) == 4


@pytest.mark.parametrize("code", ["raise RuntimeError('no licence')", "A = 1"])
def test_an_extension_that_cannot_be_imported_names_its_package(tmp_path, monkeypatch, code):
    monkeypatch.syspath_prepend(tmp_path)
    _install(tmp_path, "extension_broken", [("b", "extension_broken:B")], code)
    with pytest.raises(ValueError, match=r"extension 'b' of extension_broken 1\.5 cannot be imported: got \w+Error"):
        load_extensions(GROUP)


def test_one_name_from_two_packages_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    _install(tmp_path, "extension_left", [("a", "extension_left:A")], "A = 1")
    _install(tmp_path, "extension_right", [("a", "extension_right:A")], "A = 2")
    with pytest.raises(ValueError, match=r"got 'a' from extension_left 1\.5 and from extension_right 1\.5"):
        load_extensions(GROUP)
