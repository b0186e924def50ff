"""The architecture of the reference models against transformers' own forward pass."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPTextModel

from vlm_rewards.labelers.reference_models.architecture import (
    build_model,
    encode_patches,
    normalise,
    patchify,
    save_model,
    start_local,
)
from vlm_rewards.labelers.reference_models.recipe import PretrainSettings, position_channels
from vlm_rewards.labelers.reference_models.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["a red ball is next to a blue box", "facing a grey key", "the agent"])


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    sizes = {"width": 64, "layers": 2, "heads": 4, "text_width": 32, "text_layers": 1, "text_heads": 2, "embedding": 16}
    return build_model(tokenizer, PretrainSettings(size="x", steps=1, **sizes), image_size=56, patch_size=8).eval()


def random_frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, 56, 56, 3), dtype=np.uint8)


def patches_of(frames: np.ndarray) -> torch.Tensor:
    tiles = frames.reshape(len(frames), 7, 8, 7, 8, 3).swapaxes(2, 3)
    return normalise(torch.from_numpy(patchify(tiles)))


def test_all_patches_encode_as_the_whole_frame(model):
    frames = random_frames(3)
    pixels = normalise(torch.from_numpy(frames)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=pixels).pooler_output
        got, states = encode_patches(model, patches_of(frames), torch.arange(49).expand(3, 49))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert states.shape == (3, 49, 64)


def test_the_order_of_patches_does_not_matter_but_their_place_does(model):
    patches = patches_of(random_frames(2))
    order = torch.randperm(49, generator=torch.Generator().manual_seed(0)).expand(2, 49)
    with torch.no_grad():
        expected, _ = encode_patches(model, patches, torch.arange(49).expand(2, 49))
        shuffled, _ = encode_patches(model, patches[:, order[0]], order)
        misplaced, _ = encode_patches(model, patches[:, order[0]], torch.arange(49).expand(2, 49))
    torch.testing.assert_close(shuffled, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(misplaced, expected, atol=1e-3)


def test_four_heads_start_out_looking_at_the_four_neighbours(model):
    start_local(model)
    vision = model.vision_model
    layer = vision.encoder.layers[0]
    pixels = torch.zeros(1, 3, 56, 56)
    with torch.no_grad():
        states = layer.layer_norm1(vision.pre_layrnorm(vision.embeddings(pixels)))
        query, key = layer.self_attn.q_proj(states), layer.self_attn.k_proj(states)
    heads = (x.unflatten(-1, (4, 16)).transpose(1, 2)[0] for x in (query, key))
    query, key = heads
    attention = (query @ key.transpose(1, 2) * layer.self_attn.scale).softmax(dim=-1)
    middle = 1 + 3 * 7 + 3  # row 3, column 3, after the class token
    assert attention[:, middle].argmax(dim=-1).tolist() == [middle - 1, middle + 1, middle - 7, middle + 7]
    assert attention[:, middle].max(dim=-1).values.min() > 0.5


@pytest.mark.parametrize("side", [3, 4, 7, 8, 10])
def test_positions_of_any_number_of_patches_are_told_apart(tokenizer, side):
    width = 4 * position_channels(side)
    sizes = {
        "width": width,
        "layers": 2,
        "heads": 4,
        "text_width": 8,
        "text_layers": 1,
        "text_heads": 1,
        "embedding": 8,
    }
    settings = PretrainSettings(size="x", steps=1, **sizes)
    model = build_model(tokenizer, settings, image_size=4 * side, patch_size=4)
    positions = model.vision_model.embeddings.position_embedding.weight[1:, -position_channels(side) :].detach()
    products = positions @ positions.T
    row, column = torch.arange(side**2) // side, torch.arange(side**2) % side
    same_row, same_column = row[:, None] == row, column[:, None] == column
    half = products.diagonal().mean() / 2
    # Inner products: whole at distance 0, half where one axis agrees, 0 where none does.
    torch.testing.assert_close(products, half * (same_row.float() + same_column.float()), atol=1e-5, rtol=0)


def test_patchify_is_channel_major_as_a_convolutions_kernel():
    tile = np.arange(8 * 8 * 3).reshape(1, 1, 1, 8, 8, 3)
    patch = patchify(tile)
    assert patch.shape == (1, 1, 192)
    assert patch[0, 0, :3].tolist() == [0, 3, 6]  # the first channel of the first row, pixel by pixel
    assert patch[0, 0, 64] == 1  # then the second channel


def test_a_saved_folder_loads_through_transformers_auto_classes(model, tokenizer, tmp_path):
    save_model(model, tokenizer, tmp_path)
    loaded, processor = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, CLIPModel)
    assert list(tmp_path.glob("*.safetensors"))
    frames = random_frames(2)
    inputs = processor(images=list(frames), text=["a red ball", "facing a grey key"], padding=True, return_tensors="pt")
    torch.testing.assert_close(inputs.pixel_values, normalise(torch.from_numpy(frames)).permute(0, 3, 1, 2))
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits_per_image, model(**inputs).logits_per_image)


def test_larger_frames_are_resized_by_the_processor(model, tokenizer, tmp_path):
    save_model(model, tokenizer, tmp_path)
    frame = np.zeros((224, 224, 3), dtype=np.uint8)
    assert AutoProcessor.from_pretrained(tmp_path)(images=frame, return_tensors="pt").pixel_values.shape == (
        1,
        3,
        56,
        56,
    )


def test_the_text_tower_reads_the_whole_caption(model, tokenizer, tmp_path):
    """With eos_token_id 2 in its config CLIPTextModel would pool at the largest id, wherever that stands."""
    save_model(model, tokenizer, tmp_path)
    text_model = CLIPTextModel.from_pretrained(tmp_path).eval()
    texts = ["a red ball is next to a blue box", "a red ball is next to a blue key", "a red key is next to a blue box"]
    inputs = tokenizer([*texts, "the agent"], padding=True, return_tensors="pt")
    with torch.no_grad():
        pooled = text_model(**inputs).pooler_output
        alone = text_model(**tokenizer(texts[:1], return_tensors="pt")).pooler_output
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3  # the last word counts
    assert (pooled[0] - pooled[2]).abs().max() > 1e-3  # so does the third
    torch.testing.assert_close(pooled[:1], alone, rtol=1e-4, atol=1e-5)  # and the padding does not
