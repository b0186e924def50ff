"""Tiny models of every family, saved once a session."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_align, save_tiny_clip, save_tiny_siglip

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="session")
def tiny_align(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_align(tmp_path_factory.mktemp("align"))


@pytest.fixture
def random_frames() -> np.ndarray:
    """70 frames [70, 32, 32, 3]: one batch of 64 and a part of another."""
    return np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
