"""Every engine: near torch in float32, the same bits wherever a picture stands, and named in the fingerprint."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from vlm_rewards.labelers.encoders.checkpoints.loading import load_checkpoint
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder
from vlm_rewards.labelers.encoders.engines import openvino_towers
from vlm_rewards.labelers.encoders.engines.compiled_towers import CompiledTowers
from vlm_rewards.labelers.encoders.engines.loading import check_agreement, check_pixels, load_towers
from vlm_rewards.labelers.encoders.engines.openvino_towers import MAX_ROWS, OpenVinoTowers
from vlm_rewards.labelers.encoders.engines.patch_products import PatchProduct, use_patch_products
from vlm_rewards.labelers.encoders.preprocessing import Preprocessor

HAS_BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
NEEDS_OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
NEEDS_BFLOAT16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="no bfloat16")

OPENVINO = [
    pytest.param(family, "openvino", precision, marks=[NEEDS_OPENVINO, *marks], id=f"openvino-{family}-{precision}")
    for family in ("tiny_clip", "tiny_siglip")
    for precision, marks in (("float32", []), ("bfloat16", [NEEDS_BFLOAT16]))
]
COMPILED = [pytest.param("tiny_clip", "compile", "float32", marks=NEEDS_COMPILER, id="compile-tiny_clip")]
LEAST = {"float32": 1 - 1e-6, "bfloat16": 0.999}


@pytest.mark.parametrize(("family", "engine", "precision"), [*OPENVINO, *COMPILED])
def test_an_engine_is_near_float32_and_a_row_depends_on_its_own_picture_alone(
    family: str, engine: str, precision: str, random_frames: np.ndarray, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(family)
    exact = DualEncoder.load(folder).embed_images(random_frames)
    encoder = DualEncoder.load(folder, engine=engine, precision=precision)
    rows = encoder.embed_images(random_frames)
    assert (exact * rows).sum(axis=1).min() > LEAST[precision]
    order = np.random.default_rng(1).permutation(len(rows))
    assert np.array_equal(encoder.embed_images(random_frames[order]), rows[order])
    # The first picture alone, at the start, in the middle and at the end of a pass, among others and among zeros.
    for place in (0, 1, 15, 16, 63):
        pixels = np.zeros((64, *random_frames.shape[1:]), dtype=np.uint8)
        pixels[place] = random_frames[0]
        assert np.array_equal(encoder.embed_images(pixels)[place], rows[0])
    for cut in (1, 30, 64):
        parts = [encoder.embed_images(random_frames[:cut]), encoder.embed_images(random_frames[cut:])]
        assert np.array_equal(np.concatenate(parts), rows)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(encoder.embed_images, np.array_split(random_frames, 9)))
    assert np.array_equal(np.concatenate(parts), rows)
    assert encoder.embed_images(random_frames[:0]).shape == (0, encoder.dim)


@NEEDS_OPENVINO
def test_openvino_says_in_the_fingerprint_what_computes(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip, engine="openvino")
    found = version("openvino")
    assert encoder.engine == "openvino"
    assert encoder.describe_images()["engine"] == {"name": "openvino", "version": found, "rows": MAX_ROWS}
    assert encoder.versions()["openvino"] == found
    assert DualEncoder.load(tiny_clip, engine="openvino", batch_size=8).towers.rows == 8
    plain = DualEncoder.load(tiny_clip)
    assert plain.engine == "torch"
    assert "engine" not in plain.describe_images()
    assert "openvino" not in plain.versions()
    assert np.array_equal(encoder.embed_texts(["a red ball"]), plain.embed_texts(["a red ball"]))


@NEEDS_OPENVINO
def test_a_reference_model_runs_on_openvino(random_frames: np.ndarray) -> None:
    pixels = np.zeros((20, 56, 56, 3), dtype=np.uint8)
    pixels[:, :32, :32] = random_frames[:20]
    exact, fast = (DualEncoder.load("reference-s", engine=engine) for engine in ("torch", "openvino"))
    assert (exact.embed_images(pixels) * fast.embed_images(pixels)).sum(axis=1).min() > 1 - 1e-6


@NEEDS_OPENVINO
def test_openvino_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    code = (
        "import sys; from vlm_rewards.labelers.encoders.engines.openvino_towers import _import_quietly; "
        "_import_quietly(); print('openvino_telemetry' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert found.stdout == "False\n", found.stderr
    assert list(tmp_path.iterdir()) == []


def test_openvino_that_is_not_installed_is_refused(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(openvino_towers, "version", missing)
    with pytest.raises(
        ValueError, match=r"needs the package openvino: got none. Install it with 'pip install vlm-rewards\["
    ):
        DualEncoder.load(tiny_clip, engine="openvino")


class Strange(torch.nn.Module):
    """A model whose image tower does what no converter and no compiler follows."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.fixture
def preprocessor(tiny_clip: Path) -> Preprocessor:
    return DualEncoder.load(tiny_clip).preprocessor


@NEEDS_OPENVINO
def test_a_model_that_openvino_cannot_compute_is_refused(tiny_align: Path) -> None:
    # ALIGN averages over kernels that are larger than what is left of the picture.
    with pytest.raises(
        ValueError, match="cannot compute the image tower of a AlignModel: got .*Choose the engine torch or"
    ):
        DualEncoder.load(tiny_align, engine="openvino")


@NEEDS_OPENVINO
def test_what_openvino_cannot_convert_is_refused(preprocessor: Preprocessor) -> None:
    with pytest.raises(
        ValueError, match="cannot compute the image tower of a Strange: got no such operator. Choose the e"
    ):
        OpenVinoTowers(Strange(RuntimeError("no such operator\nmore")), preprocessor, "float32", 8)


def test_what_torch_cannot_compile_is_refused(preprocessor: Preprocessor) -> None:
    with pytest.raises(ValueError, match="cannot compile the image tower of a Strange: got .*Install a C"):
        CompiledTowers(Strange(RuntimeError("no such operator")), preprocessor, "cpu", "float32", 8)


def test_an_engine_that_computes_something_else_is_refused() -> None:
    expected = torch.eye(3)
    check_agreement("compile", "float32", expected * 5, expected)  # lengths do not count
    with pytest.raises(
        ValueError, match="engine compile computes other embeddings than torch in float32: got a cosine of 0.9"
    ):
        check_agreement("compile", "bfloat16", expected + torch.tensor([0.1, 0, 0]), expected)
    with pytest.raises(
        ValueError, match="got a cosine of nan in float32, where 0.99999 is the least. Choose the engine t"
    ):
        check_agreement("compile", "float32", expected[:, :2], expected)


def test_pictures_of_the_check_are_all_different(preprocessor: Preprocessor) -> None:
    pixels = check_pixels((30, 50))
    assert (pixels.shape, pixels.dtype) == ((4, 30, 50, 3), np.uint8)
    assert pixels[2, 0, :, 0].tolist() == sorted(pixels[2, 7, :, 1].tolist())
    assert len({picture.tobytes() for picture in pixels}) == 4


def test_openvino_is_for_the_cpu(tiny_clip: Path, preprocessor: Preprocessor) -> None:
    model = load_checkpoint(tiny_clip).model
    with pytest.raises(
        ValueError, match="openvino computes on the CPU: got the device 'cuda:0'. Choose the engine compile"
    ):
        load_towers("openvino", model, preprocessor, device="cuda:0", precision="float32", rows=8)


def test_an_unknown_engine_is_refused(tiny_clip: Path) -> None:
    with pytest.raises(ValueError, match="engine must be one of torch, compile, openvino, got 'tensorrt'; choose one"):
        DualEncoder.load(tiny_clip, engine="tensorrt")


def test_the_convolution_over_patches_is_a_product() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 5, (2, 4), stride=(2, 4)), torch.nn.Conv2d(5, 2, 3))
    pictures = torch.rand(2, 3, 8, 12)
    expected = layers[0](pictures)
    assert use_patch_products(layers, (8, 12)) == 1
    assert [type(layer) for layer in layers] == [PatchProduct, torch.nn.Conv2d]
    torch.testing.assert_close(layers[0](pictures), expected)
    # Overlapping, padded or grouped kernels, other channels, and pictures that are no whole number of patches stay.
    others = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 4, stride=2),
        torch.nn.Conv2d(3, 5, 4, stride=4, padding=1),
        torch.nn.Conv2d(3, 3, 4, stride=4, groups=3),
        torch.nn.Conv2d(4, 5, 4, stride=4),
        torch.nn.Conv2d(3, 5, 5, stride=5),
    )
    assert use_patch_products(others, (8, 12)) == 0
