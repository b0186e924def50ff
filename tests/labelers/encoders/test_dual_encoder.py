import dataclasses
import http.server
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import build_tokenizer, save_tiny_align, save_tiny_clip, save_tiny_naflex
from transformers import (
    AlignModel,
    AutoProcessor,
    BertConfig,
    BertModel,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    SiglipModel,
)

from vlm_rewards.labelers.encoders import checkpoints, hub
from vlm_rewards.labelers.encoders.checkpoints import resolve_model
from vlm_rewards.labelers.encoders.devices import check_device, resolve_precision
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder, _logit_scale_and_bias
from vlm_rewards.labelers.encoders.exact_float32 import EXACT_FLOAT32
from vlm_rewards.schemas.pictures import to_rgb

HAS_BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
PRECISIONS = ["float32", pytest.param("bfloat16", marks=pytest.mark.skipif(not HAS_BFLOAT16, reason="no bfloat16"))]
FAMILIES = ("tiny_clip", "tiny_siglip", "tiny_align")
TEXTS = ["a red ball", "the agent is in front of a blue box", "the agent carries nothing", "a"]


def pictures() -> list[Image.Image]:
    """Pictures of many sizes and modes."""
    random = np.random.default_rng(0)
    found = []
    for height, width in ((32, 32), (200, 90), (1, 50), (70, 3), (33, 31), (400, 300)):
        rgba = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8), mode="RGBA")
        rgb = rgba.convert("RGB")
        found += [
            rgb,
            rgba,
            rgb.convert("L"),
            rgb.convert("P"),
            rgb.convert("CMYK"),
            rgb.convert("1"),
            rgba.convert("LA"),
        ]
        found.append(Image.fromarray(random.integers(0, 65536, (height, width), dtype=np.uint16)))
    return found


def unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors, dim=-1).detach().numpy()


def test_clip_embeddings_equal_those_of_the_library(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip, precision="float32", batch_size=8)
    model, processor = (
        CLIPModel.from_pretrained(tiny_clip).eval(),
        CLIPProcessor.from_pretrained(tiny_clip, backend="pil"),
    )
    images = encoder.embed_images(np.stack([encoder.resize(to_rgb(picture)) for picture in pictures()]))
    texts = encoder.embed_texts(TEXTS)
    with torch.no_grad():
        # Padding as the processor does it, to the longest text, and one picture at a time.
        for row, picture in zip(images, pictures(), strict=True):
            output = model(**processor(text=TEXTS, images=picture, padding=True, return_tensors="pt"))
            np.testing.assert_allclose(row, unit(output.image_embeds)[0], atol=1e-5)
            np.testing.assert_allclose(row @ texts.T * encoder.logit_scale, output.logits_per_image[0], atol=1e-4)
            np.testing.assert_allclose(texts, unit(output.text_embeds), atol=1e-5)
    assert encoder.temperature == pytest.approx(float(torch.exp(-model.logit_scale.detach())), rel=1e-6)
    assert encoder.logit_bias is None


@pytest.mark.parametrize(("family", "model_class"), [("tiny_siglip", SiglipModel), ("tiny_align", AlignModel)])
def test_other_families_equal_the_library(family: str, model_class: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    encoder = DualEncoder.load(folder, precision="float32", batch_size=8)
    model, processor = model_class.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder, backend="pil")
    originals = [picture.convert("RGB") for picture in pictures()]
    images = encoder.embed_images(np.stack([encoder.resize(to_rgb(picture)) for picture in originals]))
    texts = encoder.embed_texts(TEXTS)
    with torch.no_grad():
        output = model(**processor(text=TEXTS, images=originals, padding="max_length", return_tensors="pt"))
    np.testing.assert_allclose(images, unit(output.image_embeds), atol=1e-5)
    np.testing.assert_allclose(texts, unit(output.text_embeds), atol=1e-5)
    logits = images @ texts.T * encoder.logit_scale + (encoder.logit_bias or 0.0)
    np.testing.assert_allclose(logits, output.logits_per_image, atol=1e-4)


def test_openai_tokens_and_their_old_end_token_equal_the_library(tiny_clip: Path, tmp_path: Path) -> None:
    # OpenAI's checkpoints pad with the end token, and their configs call it 2, by which CLIPTextModel means the largest id.
    shutil.copytree(tiny_clip, tmp_path / "clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: index for index, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16).save_pretrained(tmp_path / "clip")
    model = CLIPModel.from_pretrained(tiny_clip)
    model.text_model.set_input_embeddings(torch.nn.Embedding(len(vocabulary), 32))
    model.config.text_config.update({"vocab_size": len(vocabulary), "eos_token_id": 2, "pad_token_id": 1})
    model.save_pretrained(tmp_path / "clip")
    encoder = DualEncoder.load(tmp_path / "clip", precision="float32")
    model, tokenizer = (
        CLIPModel.from_pretrained(tmp_path / "clip").eval(),
        CLIPTokenizer.from_pretrained(tmp_path / "clip"),
    )
    with torch.no_grad():
        expected = model.get_text_features(
            **tokenizer([*TEXTS[:1], "a", "box"], padding=True, return_tensors="pt")
        ).pooler_output
    np.testing.assert_allclose(encoder.embed_texts([*TEXTS[:1], "a", "box"]), unit(expected), atol=1e-5)


def test_temperature_and_bias_of_each_family(tiny_siglip: Path, tiny_align: Path) -> None:
    # The tiny SigLIP has log scale 2 and bias -3, the tiny ALIGN temperature 0.25.
    siglip, align = DualEncoder.load(tiny_siglip), DualEncoder.load(tiny_align)
    assert siglip.logit_scale == pytest.approx(np.exp(2.0))
    assert (siglip.temperature, siglip.logit_bias) == (pytest.approx(np.exp(-2.0)), -3.0)
    assert (align.temperature, align.logit_scale, align.logit_bias) == (0.25, 4.0, None)
    encoder = dataclasses.replace(align, logit_scale=None)
    assert encoder.temperature is None
    assert _logit_scale_and_bias(torch.nn.Linear(1, 1)) == (None, None)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="no bfloat16")
def test_temperature_is_not_rounded_to_bfloat16(tiny_clip: Path) -> None:
    # bfloat16 has 8 bits: it would move CLIP's log(100) = 4.605 to 4.594, the temperature by 1 %.
    exact, fast = (DualEncoder.load(tiny_clip, precision=precision) for precision in ("float32", "bfloat16"))
    assert exact.temperature == fast.temperature


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_embedding_depends_on_its_own_picture_or_text_alone(
    family: str, precision: str, random_frames: np.ndarray, request: pytest.FixtureRequest
) -> None:
    encoder = DualEncoder.load(request.getfixturevalue(family), precision=precision)
    pixels, number = random_frames, len(random_frames)
    embeddings = encoder.embed_images(pixels)
    assert (embeddings.dtype, embeddings.shape) == (np.float32, (number, encoder.dim))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    order = np.random.default_rng(1).permutation(number)
    assert np.array_equal(encoder.embed_images(pixels[order]), embeddings[order])
    for cut in (1, 30, 64):
        assert np.array_equal(
            np.concatenate([encoder.embed_images(pixels[:cut]), encoder.embed_images(pixels[cut:])]), embeddings
        )
    texts = [
        f"{text} {colour}" for text in TEXTS for colour in ("red", "green ball", "next to a blue key", "box", "photo")
    ]
    together = encoder.embed_texts(texts)
    assert np.array_equal(encoder.embed_texts(texts[::-1]), together[::-1])
    assert np.array_equal(np.concatenate([encoder.embed_texts([text]) for text in texts]), together)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="no bfloat16")
def test_bfloat16_is_near_float32(tiny_clip: Path, random_frames: np.ndarray) -> None:
    exact, fast = (DualEncoder.load(tiny_clip, precision=precision) for precision in ("float32", "bfloat16"))
    cosine = (exact.embed_images(random_frames) * fast.embed_images(random_frames)).sum(axis=1)
    assert 0.999 < cosine.min() < 1 - 1e-7


@pytest.fixture
def own_precision() -> Iterator[None]:
    """Lets a test turn torch's switches for the precision of products."""
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("switch", ["older", "newer"])
def test_float32_is_exact_whatever_precision_the_program_chose_for_its_own_products(
    switch: str, tiny_clip: Path, random_frames: np.ndarray, own_precision: None
) -> None:
    encoder = DualEncoder.load(tiny_clip, precision="float32")
    expected = encoder.embed_images(random_frames)

    def switches() -> tuple[str, str, bool]:
        products = (torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision)
        return *products, torch.backends.cudnn.allow_tf32

    if switch == "older":
        torch.set_float32_matmul_precision("medium")
    else:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    chosen = switches()
    assert chosen[:2] == ("tf32", "bf16")
    within = []
    handle = encoder.towers.model.visual_projection.register_forward_hook(lambda *_: within.append(switches()))
    got = encoder.embed_images(random_frames)
    handle.remove()
    assert set(within) == {("ieee", "ieee", False)}
    assert switches() == chosen
    assert np.array_equal(got, expected)


def test_float32_stays_exact_until_the_last_thread_is_done(tiny_clip: Path, own_precision: None) -> None:
    # The first thread comes in first and goes out first; what the second does afterwards must still be exact.
    torch.set_float32_matmul_precision("medium")
    second_is_in, first_is_out = threading.Event(), threading.Event()
    found = []

    def first() -> None:
        with EXACT_FLOAT32:
            assert second_is_in.wait(10)
        first_is_out.set()

    thread = threading.Thread(target=first)
    thread.start()
    with EXACT_FLOAT32:
        second_is_in.set()
        assert first_is_out.wait(10)
        found.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    thread.join()
    found.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    assert found == [("highest", False), ("medium", True)]


def test_nothing_gives_no_rows(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip)
    assert encoder.embed_images(np.zeros((0, 32, 32, 3), dtype=np.uint8)).shape == (0, 24)
    assert encoder.embed_texts([]).shape == (0, 24)


def test_description_names_what_embeddings_depend_on(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip, precision="float32", batch_size=8)
    description = encoder.describe_images()
    assert sorted(description) == ["attention", "batch_size", "device", "precision", "preprocessing", "weights"]
    assert (description["attention"], description["batch_size"], description["device"]) == ("sdpa", 8, "cpu")
    before = encoder.describe_texts()
    encoder.embed_texts(["a red ball"])
    assert encoder.describe_texts() == before
    assert before["max_tokens"] == 16


def test_weights_digest_is_of_the_weights(tiny_clip: Path, tmp_path: Path) -> None:
    digest = DualEncoder.load(tiny_clip).weights_digest
    assert DualEncoder.load(save_tiny_clip(tmp_path / "again")).weights_digest == digest
    assert DualEncoder.load(save_tiny_clip(tmp_path / "other", seed=1)).weights_digest != digest
    # The same weights in two files instead of one.
    CLIPModel.from_pretrained(tiny_clip).save_pretrained(tmp_path / "again", max_shard_size="100KB")
    (tmp_path / "again" / "model.safetensors").unlink()
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 1
    assert DualEncoder.load(tmp_path / "again").weights_digest == digest


def test_text_length_is_the_least_that_tokenizer_tower_and_processor_allow(tiny_align: Path) -> None:
    # AlignProcessor pads to 64 though the tiny BERT reads 80.
    assert DualEncoder.load(tiny_align).max_tokens == 64


def test_text_of_too_many_tokens_is_refused(tiny_clip: Path) -> None:
    # 16 tokens with start and end: 14 words fit.
    encoder = DualEncoder.load(tiny_clip)
    assert len(encoder.embed_texts(["ball " * 14])) == 1
    with pytest.raises(ValueError, match="at most 16 tokens for this model, got 17 tokens in 'ball"):
        encoder.embed_texts(["a", "ball " * 15])


def test_pixels_that_are_not_of_the_models_size_are_refused(tiny_clip: Path) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \[B, 32, 32, 3\] uint8"):
        DualEncoder.load(tiny_clip).embed_images(np.zeros((2, 33, 32, 3), dtype=np.uint8))


def test_weights_that_are_not_numbers_are_refused(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip, precision="float32")
    torch.nn.init.constant_(encoder.towers.model.visual_projection.weight, float("nan"))
    with pytest.raises(
        ValueError, match="embeddings of pictures must be finite and not zero, got a vector of length nan in float32"
    ):
        encoder.embed_images(np.zeros((1, 32, 32, 3), dtype=np.uint8))


def test_features_that_are_not_one_vector_a_row_are_refused(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip)
    tokens = SimpleNamespace(image_features=lambda pixels: torch.ones(64, 17, 24))
    with pytest.raises(ValueError, match=r"must give pictures one vector each, got \[64, 17, 24\]"):
        dataclasses.replace(encoder, towers=tokens).embed_images(np.zeros((1, 32, 32, 3), dtype=np.uint8))


def test_batch_size_must_be_positive(tiny_clip: Path) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        DualEncoder.load(tiny_clip, batch_size=0)


def test_devices() -> None:
    check_device("cpu")
    for device in ("gpu", "cuda:x", "CPU"):
        with pytest.raises(ValueError, match=f"device must be cpu, cuda or cuda:N, got '{device}'"):
            check_device(device)
    with pytest.raises(ValueError, match="must be one that this machine has, got 'cuda:99'"):
        check_device("cuda:99")


def test_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, got 'half'"):
        resolve_precision("half", "cpu")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert resolve_precision("auto", "cpu") == resolve_precision("float32", "cpu") == "float32"
    with pytest.raises(ValueError, match="bfloat16 must be computed by the device, got cpu without it"):
        resolve_precision("bfloat16", "cpu")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert resolve_precision("auto", "cpu") == resolve_precision("bfloat16", "cpu") == "bfloat16"


def test_a_reference_model_goes_before_a_folder(
    monkeypatch: pytest.MonkeyPatch, tiny_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_clip, tmp_path / "reference-x")
    monkeypatch.setattr(checkpoints, "REFERENCE_FOLDER", tmp_path)
    assert resolve_model("reference-x") == str(tmp_path / "reference-x")
    assert checkpoints.reference_models() == ["reference-x"]
    assert resolve_model("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"


def test_incomplete_folders_are_refused(tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold config.json, got .* without it"):
        DualEncoder.load(tmp_path)
    shutil.copy(tiny_clip / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"must hold its weights as .*safetensors, got none in"):
        DualEncoder.load(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"got only pickled weights \(pytorch_model.bin\)"):
        DualEncoder.load(tmp_path)
    shutil.copy(tiny_clip / "model.safetensors", tmp_path)
    with pytest.raises(
        ValueError,
        match=r"must have an image processor that can be loaded, got none from .*; save the model, its tokenizer",
    ):
        DualEncoder.load(tmp_path)


def test_a_name_that_is_neither_folder_nor_id_is_refused(tmp_path: Path) -> None:
    for name in (
        tmp_path / "missing",
        str(tmp_path / "missing"),
        "a/b/c",
        "./missing",
        "../missing",
        "~/missing",
        "reference_s",
    ):
        with pytest.raises(
            ValueError,
            match=r"must be a folder or a Hugging Face hub id \(owner/name\), got .* which is neither; .*: reference-l, ",
        ):
            DualEncoder.load(name)
    with pytest.raises(
        ValueError, match=r"must be one that ships with vlm-rewards \(reference-l, .*\), got reference-xl; choose one"
    ):
        DualEncoder.load("reference-xl")


def test_a_hub_model_without_a_network_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError,
        match=r"must have a config that can be loaded, got none from 'nobody/nothing' .* 'hf download nobody/nothing",
    ):
        DualEncoder.load("nobody/nothing")


def test_a_hub_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    # Nothing listens on port 9. The library's own retries would wait 1 + 2 + 4 + 8 + 8 s, with two lines of log for each.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    verbosity = huggingface_hub.logging.get_verbosity()
    start = time.monotonic()
    with pytest.raises(
        ValueError, match="got none from 'nobody/nothing' .*; check the path or the id, and the network"
    ):
        DualEncoder.load("nobody/nothing")
    assert time.monotonic() - start < 15
    assert "Retry" not in capfd.readouterr().err
    assert huggingface_hub.logging.get_verbosity() == verbosity


@pytest.mark.parametrize("status", [404, 503])
def test_a_hub_that_has_no_such_model_or_is_down(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert hub.hub_answers("nobody/nothing") is (status == 404)
        server.shutdown()


def change_weights(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    if tensor is not None:
        weights[name] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_or_mismatched_weights_are_refused(tiny_clip: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_clip, tmp_path / "missing")
    change_weights(tmp_path / "missing", "visual_projection.weight", None)
    with pytest.raises(
        ValueError, match=r"must be complete, got 1 missing keys in .*, such as visual_projection.weight; random"
    ):
        DualEncoder.load(tmp_path / "missing")
    shutil.copytree(tiny_clip, tmp_path / "other")
    change_weights(tmp_path / "other", "visual_projection.weight", torch.zeros(7, 32))
    with pytest.raises(ValueError, match="must be complete, got 1 mismatched keys"):
        DualEncoder.load(tmp_path / "other")
    shutil.copytree(tiny_clip, tmp_path / "cut")
    content = (tiny_clip / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="must have safetensors weights that can be loaded, got none"):
        DualEncoder.load(tmp_path / "cut")


def test_models_that_are_no_dual_encoders_are_refused(tmp_path: Path) -> None:
    tower = BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    )
    tower.save_pretrained(tmp_path / "bert")
    with pytest.raises(
        ValueError, match="must be a dual encoder with get_image_features and get_text_features, got 'bert'"
    ):
        DualEncoder.load(tmp_path / "bert")
    with pytest.raises(ValueError, match="embed pictures and texts in one space, got sizes 24 and 12"):
        DualEncoder.load(save_tiny_align(tmp_path / "align", text_size=12))
    with pytest.raises(ValueError, match="NaFlex"):
        DualEncoder.load(save_tiny_naflex(tmp_path / "naflex"))


def test_a_tokenizer_without_a_pad_token_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_clip, tmp_path / "clip")
    tokenizer = build_tokenizer(16)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match="a tokenizer must have a pad token, got none"):
        DualEncoder.load(tmp_path / "clip")


@pytest.mark.parametrize("family", ["tiny_clip", "tiny_align"])
def test_a_folder_without_tokenizer_files_is_refused(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # transformers then makes up a tokenizer of the special tokens alone, which reads every text as unknown words.
    folder = shutil.copytree(request.getfixturevalue(family), tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(
        ValueError,
        match=r"must know words besides its special tokens, got 0 from .*model, tokenizer.json \(or .*\) missing; save the",
    ):
        DualEncoder.load(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_the_tokenizer_does_not_know_are_refused(family: str, request: pytest.FixtureRequest) -> None:
    encoder = DualEncoder.load(request.getfixturevalue(family))
    for text in ("zebra", "Zebra lion", " "):
        with pytest.raises(ValueError, match=f"must have at least one word .* knows, got '{text}'; reword it"):
            encoder.embed_texts(["a red ball", text])
    with pytest.raises(
        ValueError, match=r"must differ in words .* got 'a red zebra' and 'a red lion', which it reads as"
    ):
        encoder.embed_texts(["a red zebra", "a blue zebra", "a red lion"])


def test_texts_that_differ_in_case_alone_or_in_a_known_word_are_embedded(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip)
    same, again, other = encoder.embed_texts(["a red zebra", "A red  Zebra", "a blue zebra"])
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)
    assert len(encoder.embed_texts(["a red ball", "A red ball", "a red ball"])) == 3


def test_words_of_a_model_in_another_language_need_no_english(tiny_clip: Path, tmp_path: Path) -> None:
    # The letter "a", by which the loader tries the text tower, is unknown to it.
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer.replace('"a":', '"один":'))
    encoder = DualEncoder.load(folder)
    assert len(encoder.embed_texts(["один"])) == 1
