"""Chooses the engine of a run: the fastest that pays back its own start within the run.

    measure torch ──► candidates by known gains and starts ──► load the best, measure it ──► it, or torch where it is no faster

Known gains only decide which engine is worth loading; the choice itself rests on rates measured on this machine. The driver of a
run chooses once, and a resumed run keeps its choice.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from vlm_rewards.labelers.encoders.encoder import DEFAULT_ENGINE, Encoder

_GPU_BATCHES = 4
"""Batches of a measurement on a GPU; on a CPU it is one."""
_MIN_GAIN = 1.1
"""How many times as fast a run must be expected to be for another engine to be loaded at all."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An engine that may be faster than torch as it is.

    Args:
        engine: Name of the engine.
        gain: How many times as fast as torch its encoder was, the least of the machines that it was measured on.
        start_s: Seconds of its start: conversion or compilation.
    """

    engine: str
    gain: float
    start_s: float


# ViT-B/32's shape in float32 on a Xeon with AVX-512 and on Zen 5 (OpenVINO 2026.4.1, torch 2.13). On an H100 in bfloat16
# (torch 2.11), compile took 13 to 25 s to start, and gained 2.1 with ViT-B/32's shape and 1.3 with ViT-L/14's.
OPENVINO = Candidate("openvino", 1.4, 5.0)
COMPILE = Candidate("compile", 1.3, 40.0)
COMPILE_GPU = Candidate("compile", 1.3, 25.0)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The engine of a run.

    Args:
        engine: Name of the engine.
        words: Why, in one sentence.
        encoder: The encoder on that engine, where it was loaded for the run; None to load it.
    """

    engine: str
    words: str
    encoder: Encoder | None = None


def candidates_of(device: str) -> list[Candidate]:
    """Returns the engines beside torch that can be had on a device of this machine."""
    if device != "cpu":
        return [COMPILE_GPU]
    found = [OPENVINO] if find_spec("openvino") else []
    return [*found, *([COMPILE] if shutil.which("g++") or shutil.which("clang++") else [])]


def choose_engine(
    num_frames: int | None,
    workers: int,
    candidates: list[Candidate],
    load: Callable[[str], Encoder],
    rate_of: Callable[[Encoder], float],
) -> Choice:
    """Chooses the engine of a run.

    Args:
        num_frames: Frames to encode; None where the plan does not know.
        workers: Workers that encode at once.
        candidates: Engines beside torch.
        load: Loads the encoder on the engine of a name, torch for the measurement alone and others for the run.
        rate_of: Frames a second that one worker encodes, measured.
    """
    if num_frames is None:
        return Choice(DEFAULT_ENGINE, "engine: torch, since the corpus does not say how many frames it has")
    if not candidates:
        return Choice(DEFAULT_ENGINE, "engine: torch, since no other is installed here")
    rate = rate_of(load(DEFAULT_ENGINE))
    seconds = num_frames / (rate * workers)
    best = min(candidates, key=lambda one: one.start_s + seconds / one.gain)
    expected = best.start_s + seconds / best.gain
    if expected * _MIN_GAIN > seconds:
        words = (
            f"engine: torch, since {num_frames:,} frames take about {_duration(seconds)} with it, and would take "
            f"{_duration(expected)} with {best.engine}, its start included"
        )
        return Choice(DEFAULT_ENGINE, words)
    encoder = load(best.engine)
    measured = rate_of(encoder)
    both = f"measured: {best.engine} {measured:,.1f} and torch {rate:,.1f} frames/s per worker"
    if measured <= rate:
        return Choice(DEFAULT_ENGINE, f"engine: torch, since {best.engine} is no faster here ({both})")
    found = _duration(num_frames / (measured * workers))
    words = (
        f"engine: {best.engine}, with which {num_frames:,} frames take about {found}, not {_duration(seconds)} ({both})"
    )
    return Choice(best.engine, words, encoder)


def measured_rate(encoder: Encoder) -> float:
    """Returns the frames a second that an encoder makes of noise in this thread; its load has made the first pass."""
    rows = encoder.batch_size * (1 if encoder.device == "cpu" else _GPU_BATCHES)
    pixels = np.random.default_rng(0).integers(0, 256, (rows, *encoder.image_size, 3), dtype=np.uint8)
    started = time.perf_counter()
    encoder.embed_images(pixels)
    return rows / (time.perf_counter() - started)


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 180 else f"{seconds / 60:,.0f} min"
