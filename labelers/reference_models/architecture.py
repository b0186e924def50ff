"""The architecture of the reference models: CLIPs of 56x56 frames whose patches are BabyAI's 8x8 cells.

    frame [56, 56, 3] ──► 49 patches of one cell ──► image tower ──► embedding [E]
    caption ──► words ──► text tower, read at the end token ──► embedding [E]

They are plain `transformers.CLIPModel`s. What is particular is how they start out (`start_local`), and that in training the image
tower can be given some patches only (`encode_patches`).

Shape letters: B batch, K patches kept, P values a patch (192), D width, E embedding.
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
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)

from vlm_rewards.labelers.domains.babyai.captions import MAX_TOKENS
from vlm_rewards.labelers.domains.babyai.goals import VIEW_SIZE

PATCH_SIZE = 8
IMAGE_SIZE = PATCH_SIZE * VIEW_SIZE
NUM_PATCHES = VIEW_SIZE**2
PIXEL_MEAN, PIXEL_STD = 0.5, 0.5


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    width: int,
    layers: int,
    heads: int,
    text_width: int,
    text_layers: int,
    text_heads: int,
    embedding: int,
) -> CLIPModel:
    """Makes an untrained CLIP of 56x56 frames, patch 8, whose first layer starts out looking at the neighbours.

    Args:
        tokenizer: gives the vocabulary and the ids of the special tokens.
        width: D, width of the image tower.
        layers: layers of the image tower.
        heads: attention heads of the image tower, at least 4 and at least 16 wide.
        text_width: width of the text tower.
        text_layers: layers of the text tower.
        text_heads: attention heads of the text tower.
        embedding: E, size of the shared embedding.

    Returns:
        The model.
    """
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=text_layers,
        num_attention_heads=text_heads,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="relu",
        projection_dim=embedding,
        **special,
    )
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_act="relu",
        projection_dim=embedding,
    )
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=embedding,
        **special,
    )
    model = CLIPModel._from_config(config, attn_implementation="eager")  # the fused one is slow backwards in bfloat16
    if layers > 1:
        start_local(model)
    return model


@torch.no_grad()
def start_local(model: CLIPModel, sharpness: float = 1.25) -> None:
    """Sets positions to orthogonal sinusoids and four heads of the first layer to look at the four neighbours, in place.

    Position p on an axis of 7 gets (cos w p, sin w p) for w = pi/8 * (1, 3, 5, 7), whose inner product over all four w is 4
    at distance 0 and 0 at distances 1 to 6. A head's query is turned by w * d, d one cell left, right, up or down, so that its
    largest logit is at that neighbour.

    Args:
        model: a freshly made model; the last 16 channels of its image tower are given to positions.
        sharpness: logit between a position and its match on one of the two axes, over 4.
    """
    embeddings, attention = model.vision_model.embeddings, model.vision_model.encoder.layers[0].self_attn
    frequencies = torch.tensor([1.0, 3.0, 5.0, 7.0]) * math.pi / 8
    rows, columns = torch.meshgrid(torch.arange(VIEW_SIZE), torch.arange(VIEW_SIZE), indexing="ij")
    angles = torch.cat([columns.reshape(-1, 1) * frequencies, rows.reshape(-1, 1) * frequencies], dim=1)  # [49, 8]
    channels = 2 * angles.shape[1]
    sinusoids = torch.stack([angles.cos(), angles.sin()], dim=2).reshape(NUM_PATCHES, channels)

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
        model: the model.
        patches: `[B, K, P]` float normalised pixels, channel-major as in a convolution's kernel.
        index: `[B, K]` int64, each patch's place in the frame, row-major, 0..48.

    Returns:
        `[B, E]` image embeddings, not normalised, and `[B, K, D]` the patches' states before the last layer.
    """
    vision = model.vision_model
    embeddings = vision.embeddings
    positions = embeddings.position_embedding.weight
    tokens = F.linear(patches, embeddings.patch_embedding.weight.flatten(1)) + positions[1:][index]
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
    with torch.autocast("cpu", enabled=False):  # plain products: torch's fused attention is ten times slower backwards
        weights = (heads(q) @ heads(k).transpose(2, 3) * attention.scale).softmax(dim=-1)
        mixed = (weights @ heads(v)).transpose(1, 2).flatten(2)
    queries = queries + attention.out_proj(mixed)
    return queries + layer.mlp(layer.layer_norm2(queries))


def patchify(tiles: np.ndarray) -> np.ndarray:
    """Lines up the pixels of tiles as a patch convolution's kernel does, channel-major.

    Args:
        tiles: `[N, rows, columns, 8, 8, 3]` pixels.

    Returns:
        `[N, rows * columns, P]`, P = 3 * 8 * 8.
    """
    return np.moveaxis(tiles, -1, -3).reshape(len(tiles), -1, 3 * PATCH_SIZE**2)


def normalise(pixels: Tensor) -> Tensor:
    """The image processor's rescaling and normalisation: uint8 pixels of any shape to float32, -1..1."""
    return (pixels.float() / 255 - PIXEL_MEAN) / PIXEL_STD


def save_model(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Writes weights, tokenizer and image processor, as `CLIPModel.from_pretrained` and `AutoProcessor` read them.

    Args:
        model: the trained model.
        tokenizer: its tokenizer.
        output: folder to write; made if missing.
    """
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)  # it is written for its owner only
    tokenizer.save_pretrained(output)
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE}, crop_size=side, image_mean=[PIXEL_MEAN] * 3, image_std=[PIXEL_STD] * 3
    )
    processor.save_pretrained(output)
