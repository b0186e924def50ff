from collections.abc import Callable
from types import SimpleNamespace

import pytest

from vlm_rewards.labelers.encoders.encoder import Encoder
from vlm_rewards.labelers.encoders.engines import choice
from vlm_rewards.labelers.encoders.engines.choice import Candidate, Choice, candidates_of, choose_engine, measured_rate
from vlm_rewards.labelers.encoders.known import load_encoder

FAST = Candidate("openvino", gain=2.0, start_s=10.0)
FASTER = Candidate("compile", gain=2.5, start_s=40.0)


def choose(
    num_frames: int | None, rates: dict[str, float], workers: int = 1, candidates: tuple = (FAST, FASTER)
) -> Choice:
    """The choice where every engine encodes as many frames a second as `rates` says; an encoder is its engine's name."""
    load: Callable = lambda engine: engine  # noqa: E731
    return choose_engine(num_frames, workers, list(candidates), load, lambda encoder: rates[str(encoder)])


def test_the_engine_that_pays_back_its_start_is_taken() -> None:
    # 100 frames at 10 a second take 10 s: 10 + 5 with openvino, 40 + 4 with compile.
    found = choose(100, {"torch": 10.0})
    assert found == Choice(
        "torch",
        "engine: torch, since 100 frames take about 10 s with it, and would take 15 s with openvino, its start included",
    )
    # 1,000 frames take 100 s: 10 + 50 and 40 + 40. Loaded, openvino makes 25 a second.
    found = choose(1000, {"torch": 10.0, "openvino": 25.0})
    words = "engine: openvino, with which 1,000 frames take about 40 s, not 100 s (measured: openvino 25.0 and torch 10.0 frames/s "
    assert found == Choice("openvino", words + "per worker)", "openvino")
    # 10,000 frames take 1,000 s: 10 + 500 and 40 + 400; with 10 workers 100 s again.
    found = choose(10_000, {"torch": 10.0, "compile": 20.0})
    assert found.engine == "compile"
    assert "10,000 frames take about 8 min, not 17 min" in found.words
    assert choose(10_000, {"torch": 10.0, "openvino": 20.0}, workers=10).engine == "openvino"


def test_an_engine_that_is_no_faster_here_is_not_taken() -> None:
    found = choose(1000, {"torch": 10.0, "openvino": 10.0})
    words = (
        "engine: torch, since openvino is no faster here (measured: openvino 10.0 and torch 10.0 frames/s per worker)"
    )
    assert found == Choice("torch", words)


def test_torch_is_taken_where_nothing_can_be_said() -> None:
    assert choose(None, {}).words == "engine: torch, since the corpus does not say how many frames it has"
    assert choose(10, {}, candidates=()) == Choice("torch", "engine: torch, since no other is installed here")


def test_candidates_are_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"g++"}
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    monkeypatch.setattr(choice.shutil, "which", lambda name: name if name in programs else None)
    assert [one.engine for one in candidates_of("cpu")] == ["openvino", "compile"]
    programs.clear()
    assert [one.engine for one in candidates_of("cpu")] == ["openvino"]
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert candidates_of("cpu") == []
    assert [one.engine for one in candidates_of("cuda:1")] == ["compile"]


def test_a_rate_is_measured_over_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5.0, 7.0, 5.0, 7.0])
    monkeypatch.setattr(choice, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    encoder: Encoder = load_encoder("reference-s", precision="float32", batch_size=8, device="cpu")
    assert measured_rate(encoder) == 4.0
    on_gpu = SimpleNamespace(device="cuda", batch_size=8, image_size=(2, 2), embed_images=lambda pixels: len(pixels))
    assert measured_rate(on_gpu) == 16.0
