"""Figures and card of a reference model.

Shape letters: N frames, G goals, E embedding.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel, PreTrainedTokenizerFast

from vlm_rewards.labelers.domains.babyai.captions import NEUTRAL
from vlm_rewards.labelers.domains.babyai.goals import goal_bank, ground_truth
from vlm_rewards.labelers.domains.babyai.scenes import VALIDATION_SEEDS, draw_scenes, load_layouts, render
from vlm_rewards.labelers.quality.rankings import average_precision
from vlm_rewards.labelers.reference_models.architecture import normalise

FAMILIES = ("find", "lift", "place")
_BATCH = 256


def scene_figures(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, num_scenes: int) -> dict[str, float]:
    """Mean average precision of each family on scenes drawn in layouts of seeds that were not trained on.

    Args:
        model: the trained model, in evaluation mode.
        tokenizer: its tokenizer.
        num_scenes: N, frames drawn.

    Returns:
        Family to the mean, over its goals that some frame achieves, of the cosine's average precision, 0..1.
    """
    scenes = draw_scenes(load_layouts(VALIDATION_SEEDS), np.random.default_rng(VALIDATION_SEEDS.start), num_scenes)
    goals = goal_bank()
    tokens = tokenizer([goal.text for goal in goals], padding=True, return_tensors="pt")
    with torch.inference_mode():
        texts = F.normalize(model.get_text_features(input_ids=tokens.input_ids).pooler_output, dim=-1)
        images = []
        for start in range(0, num_scenes, _BATCH):
            pixels = normalise(torch.from_numpy(render(scenes.tiles[start : start + _BATCH]))).permute(0, 3, 1, 2)
            images.append(F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1))
        scores = (torch.cat(images) @ texts.T).numpy()
    return mean_average_precision(scores, ground_truth(scenes.view, scenes.carrying))


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Averages the average precision of BabyAI's goals over each family.

    Args:
        scores: `[N, G]` float32, in the order of `labelers.domains.babyai.goals.goal_bank`.
        truth: `[N, G]` bool.

    Returns:
        Family to mean, 0..1, over the goals achieved in some frame; families without any are left out.
    """
    found: dict[str, list[float]] = {}
    for column, goal in enumerate(goal_bank()):
        if truth[:, column].any():
            found.setdefault(goal.family, []).append(average_precision(scores[:, column], truth[:, column]))
    return {family: round(float(np.mean(found[family])), 4) for family in FAMILIES if family in found}


def write_card(output: Path, card: dict[str, Any]) -> None:
    """Writes card.json, and README.md made from it.

    Args:
        output: the model's folder.
        card: what `labelers.reference_models.pretraining.pretrain` returns; more entries under "figures" become more rows of the
        table.
    """
    (output / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (output / "README.md").write_text(card_text(card))


def card_text(card: dict[str, Any]) -> str:
    """Writes the card as a page in the format of the Hugging Face hub.

    Args:
        card: as for `write_card`.

    Returns:
        Markdown with a metadata header.
    """
    settings = card["settings"]
    rows = [
        f"| {frames} | "
        + " | ".join(f"{figures[family]:.3f}" if family in figures else "-" for family in FAMILIES)
        + " |"
        for frames, figures in card["figures"].items()
    ]
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: transformers",
        "pipeline_tag: zero-shot-image-classification",
        "tags: [clip, babyai, minigrid, reward-model]",
        "---",
        "",
        f"# {card['name']}",
        "",
        "A small CLIP (`transformers.CLIPModel`) that labels frames of BabyAI as its agent sees them: 56x56 pixels, 7x7 cells of",
        "8 pixels (`RGBImgPartialObsWrapper(tile_size=8)`), or larger ones such as 224x224, which its image processor resizes.",
        "It knows three families of goals over six colours and three types, in many wordings:",
        "",
        "- Find: *the agent is in front of a red ball*",
        "- Lift: *the agent carries a red ball*",
        "- Place: *a red ball is next to a blue box*",
        "",
        f"The neutral caption *{NEUTRAL[0]}* lies between true and false captions in every frame: as a goal's only",
        "negative it makes the softmax the probability that the goal holds (threshold 0.5), whatever other goals hold.",
        "",
        "It judges what the frame shows. It knows no doors, rooms or locations, and nothing outside BabyAI; for real images use a",
        "public CLIP checkpoint, through the same code.",
        "",
        "## Figures",
        "",
        "Mean average precision over the goals that some frame achieves, one wording a goal; of the cosine, or of",
        "the formula that the row names, at the temperature of the model.",
        "",
        "| frames | Find | Lift | Place |",
        "|---|---|---|---|",
        *rows,
        "",
        *card.get("notes", []),
        "",
        "## How it was made",
        "",
        f"`{card['command']}`",
        "",
        "Trained contrastively from nothing on scenes drawn on the fly: walls and doors of BabyAI levels (seeds below",
        f"{card['layout_seeds'][1]:,}), objects and agent placed at random, frames rendered with MiniGrid's own tiles,",
        "captions written from templates. No recorded episode and no other data was used.",
        "",
        f"- image tower {card['parameters']['vision_model']:,} parameters, text tower {card['parameters']['text_model']:,}",
        f"- {card['steps']:,} steps of {settings['batch_size']} frames ({card['frames']:,} in all), seed {card['seed']}, "
        f"{card['precision']}",
        f"- {card['seconds']:,} seconds on {card['machine']}",
        f"- temperature of the softmax (1 / exp(logit_scale)): {card['temperature']:.4f}",
        f"- versions: {', '.join(f'{name} {version}' for name, version in card['versions'].items())}",
        "- every setting is in card.json",
        "",
    ]
    return "\n".join(lines)
