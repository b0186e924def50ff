"""The architecture of the reference models: small CLIPs of square frames.

    frame [S, S, 3] ──► side x side patches ──► image tower ──► embedding [E]
    caption ──► words ──► text tower, read at the end token ──► embedding [E]

They are plain `transformers.CLIPModel`s. Two things are particular: how they start out (`start_local`), and that in training the
image tower can be given some of the patches only (`encode_patches`).

Shape letters: S side of a frame in pixels, B batch, K patches kept, P values per patch, D width, E embedding.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)

from vlm_rewards.labelers.reference_models.recipe import PretrainSettings, position_channels
from vlm_rewards.labelers.reference_models.tokenizer import MAX_TOKENS

PIXEL_MEAN, PIXEL_STD = 0.5, 0.5


def build_model(
    tokenizer: PreTrainedTokenizerFast, settings: PretrainSettings, *, image_size: int, patch_size: int
) -> CLIPModel:
    """Makes an untrained CLIP whose first layer starts out looking at the neighbours.

    Args:
        tokenizer: Tokenizer with the vocabulary and the ids of the special tokens.
        settings: Sizes of the towers.
        image_size: Height and width of a frame in pixels.
        patch_size: Height and width of a patch in pixels.
    """
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.text_width,
        intermediate_size=4 * settings.text_width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=settings.text_heads,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="relu",
        projection_dim=settings.embedding,
        **special,
    )
    vision = CLIPVisionConfig(
        hidden_size=settings.width,
        intermediate_size=4 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        image_size=image_size,
        patch_size=patch_size,
        hidden_act="relu",
        projection_dim=settings.embedding,
    )
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=settings.embedding,
        **special,
    )
    model = CLIPModel._from_config(config, attn_implementation="eager")  # the fused one is slow backwards in bfloat16
    if settings.layers > 1:
        start_local(model)
    return model


@torch.no_grad()
def start_local(model: CLIPModel, sharpness: float = 1.25) -> None:
    """Sets positions to orthogonal sinusoids and four heads of the first layer to look at the four neighbours, in place.

    Position p on an axis of n patches gets (cos w p, sin w p) for the m = ceil(n / 2) frequencies w = pi / 2m * (1, 3, 5, ...),
    whose inner product over all w is m at distance 0, and 0 at distances 1 to n - 1. A head's query is turned by w * d, d one
    patch left, right, up or down, so that its largest logit is at that neighbour.

    Args:
        model: A freshly made model; the last 4m channels of its image tower are given to positions.
        sharpness: Logit between a position and its match on one of the two axes, over m.
    """
    embeddings, attention = model.vision_model.embeddings, model.vision_model.encoder.layers[0].self_attn
    side = embeddings.image_size // embeddings.patch_size
    channels = position_channels(side)
    count = channels // 4
    frequencies = torch.arange(1.0, 2 * count, 2) * math.pi / (2 * count)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = torch.cat([columns.reshape(-1, 1) * frequencies, rows.reshape(-1, 1) * frequencies], dim=1)
    sinusoids = torch.stack([angles.cos(), angles.sin()], dim=2).reshape(side**2, channels)

    scale = 0.4  # as large as the patches' own channels
    embeddings.patch_embedding.weight[-channels:] = 0
    embeddings.class_embedding[-channels:] = 0
    embeddings.position_embedding.weight[:, -channels:] = 0
    embeddings.position_embedding.weight[1:, -channels:] = scale * sinusoids

    gain = math.sqrt(sharpness * attention.head_dim**0.5 / 2)
    for head, (dx, dy) in enumerate([(-1, 0), (1, 0), (0, -1), (0, 1)]):
        turn = torch.zeros(channels, channels)
        for pair, angle in enumerate(torch.cat([frequencies * dx, frequencies * dy])):
            block = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
            turn[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = block
        first = head * attention.head_dim
        attention.q_proj.weight[first : first + channels] = 0
        attention.k_proj.weight[first : first + channels] = 0
        attention.q_proj.weight[first : first + channels, -channels:] = gain * turn
        attention.k_proj.weight[first : first + channels, -channels:] = gain * torch.eye(channels)


def encode_patches(model: CLIPModel, patches: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Encodes frames of which only some patches are given; with all patches, the same as `get_image_features`.

    Args:
        model: The model.
        patches: `[B, K, P]` float normalised pixels, channel-major as in a convolution's kernel.
        index: `[B, K]` int64, place of each patch in the frame, row-major.

    Returns:
        `[B, E]` image embeddings, not normalised, and `[B, K, D]` the patches' states before the last layer.
    """
    vision = model.vision_model
    embeddings = vision.embeddings
    positions = embeddings.position_embedding.weight
    tokens = F.linear(patches, embeddings.patch_embedding.weight.flatten(1)) + F.embedding(index, positions[1:])
    start = (embeddings.class_embedding + positions[0]).expand(len(patches), 1, -1)
    states = vision.pre_layrnorm(torch.cat([start, tokens], dim=1))
    for layer in vision.encoder.layers[:-1]:
        states = _layer(layer, states, states)
    pooled = _layer(vision.encoder.layers[-1], states[:, :1], states)[:, 0]
    return model.visual_projection(vision.post_layernorm(pooled)), states[:, 1:]


def _layer(layer: Any, queries: Tensor, states: Tensor) -> Tensor:
    """A CLIPEncoderLayer whose output is wanted for some tokens only."""
    attention = layer.self_attn

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)

    normed = layer.layer_norm1(states)
    normed_queries = normed if queries is states else layer.layer_norm1(queries)
    q, k, v = attention.q_proj(normed_queries), attention.k_proj(normed), attention.v_proj(normed)
    if q.is_cuda:
        mixed = F.scaled_dot_product_attention(heads(q), heads(k), heads(v), scale=attention.scale)
    else:  # plain products: torch's fused attention is ten times slower backwards
        with torch.autocast("cpu", enabled=False):
            weights = (heads(q) @ heads(k).transpose(2, 3) * attention.scale).softmax(dim=-1)
            mixed = weights @ heads(v)
    mixed = mixed.transpose(1, 2).flatten(2)
    queries = queries + attention.out_proj(mixed)
    return queries + layer.mlp(layer.layer_norm2(queries))


def patchify(tiles: np.ndarray) -> np.ndarray:
    """Lines up the pixels of patches as a patch convolution's kernel does, channel-major.

    Args:
        tiles: `[N, rows, columns, height, width, 3]` pixels.

    Returns:
        `[N, rows * columns, P]`, P = 3 * height * width.
    """
    height, width = tiles.shape[-3:-1]
    return np.moveaxis(tiles, -1, -3).reshape(len(tiles), -1, 3 * height * width)


def normalise(pixels: Tensor) -> Tensor:
    """Rescales and normalises as the image processor does: uint8 pixels of any shape to float32, -1..1."""
    return (pixels.float() / 255 - PIXEL_MEAN) / PIXEL_STD


def resize_frames(frames: Tensor, size: int) -> Tensor:
    """Stretches frames to a square as the image processor does, up to one level of rounding.

    Args:
        frames: `[N, H, W, 3]` uint8.
        size: S.

    Returns:
        `[N, S, S, 3]` uint8; frames of that size as they are.
    """
    if tuple(frames.shape[1:3]) == (size, size):
        return frames
    pixels = frames.permute(0, 3, 1, 2).float()
    for shape in ((frames.shape[1], size), (size, size)):  # as Pillow: across, rounded, then down
        pixels = F.interpolate(pixels, shape, mode="bicubic", antialias=True).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1)


def save_model(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, output: Path, *, stretch: bool = False) -> None:
    """Writes weights, tokenizer and image processor, as `CLIPModel.from_pretrained` and `AutoProcessor` read them.

    Args:
        model: The trained model.
        tokenizer: Its tokenizer.
        output: Folder to write; made if missing.
        stretch: Whether frames that are not square are stretched into the model's input; else their middle is cut out.
    """
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)  # it is written for its owner only
    tokenizer.save_pretrained(output)
    pixels = model.config.vision_config.image_size
    side = {"height": pixels, "width": pixels}
    how: dict[str, Any] = {"size": side, "do_center_crop": False} if stretch else {"size": {"shortest_edge": pixels}}
    processor = CLIPImageProcessorPil(**how, crop_size=side, image_mean=[PIXEL_MEAN] * 3, image_std=[PIXEL_STD] * 3)
    processor.save_pretrained(output)
