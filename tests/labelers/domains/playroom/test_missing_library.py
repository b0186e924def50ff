"""A machine that lacks a system library of Panda3D's software renderer."""

import pytest

from vlm_rewards.labelers.domains.playroom.drawing import renderer


def test_missing_libx11_is_named_with_its_package(monkeypatch):
    def refuse(path):
        raise OSError("libX11.so.6: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(renderer.ctypes, "CDLL", refuse)
    with pytest.raises(ImportError, match=r"cannot be loaded: got libX11\.so\.6: cannot open .* package libx11-6"):
        renderer._pipe.__wrapped__()
