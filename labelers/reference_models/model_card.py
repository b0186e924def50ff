"""Figures and card of a reference model.

Shape letters: N frames, G goals, E embedding.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel, PreTrainedTokenizerFast

from vlm_rewards.labelers.domains.pretraining import CardText, Validation
from vlm_rewards.labelers.quality.rankings import average_precision
from vlm_rewards.labelers.reference_models.architecture import normalise, resize_frames
from vlm_rewards.schemas.goals import Goal

_TEXTS = 1024


def validation_figures(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, drawn: Validation) -> dict[str, float]:
    """Returns the mean average precision of each family on frames that nothing was trained on.

    Args:
        model: The trained model, in evaluation mode.
        tokenizer: Its tokenizer.
        drawn: The frames, whose truth is known.

    Returns:
        Family to the mean, over its goals that some frame achieves, of the cosine's average precision, 0..1.
    """
    ids = tokenizer([goal.text for goal in drawn.goals], padding=True, return_tensors="pt").input_ids.to(model.device)
    size = model.config.vision_config.image_size
    with torch.inference_mode():
        features = [model.get_text_features(input_ids=part).pooler_output for part in ids.split(_TEXTS)]
        texts = F.normalize(torch.cat(features), dim=-1)
        images = []
        for frames in drawn.batches:
            pixels = normalise(resize_frames(torch.from_numpy(np.array(frames)).to(model.device), size)).permute(
                0, 3, 1, 2
            )
            images.append(F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1))
        scores = (torch.cat(images) @ texts.T).cpu().numpy()
    return mean_average_precision(scores, drawn.truth, drawn.goals)


def mean_average_precision(scores: np.ndarray, truth: np.ndarray, goals: Sequence[Goal]) -> dict[str, float]:
    """Averages the average precision of goals over each family.

    Args:
        scores: `[N, G]` float32.
        truth: `[N, G]` bool.
        goals: The G goals.

    Returns:
        Family to mean, 0..1, over the goals achieved in some frame; families without any are left out.
    """
    found: dict[str, list[float]] = {}
    for column, goal in enumerate(goals):
        if truth[:, column].any():
            found.setdefault(goal.family, []).append(average_precision(scores[:, column], truth[:, column]))
    return {family: round(float(np.mean(values)), 4) for family, values in found.items()}


def write_card(output: Path, card: dict[str, Any], text: CardText) -> None:
    """Writes card.json, and README.md made from it.

    Args:
        output: Folder of the model.
        card: What `labelers.reference_models.pretraining.pretrain` returns; more entries under "figures" become more rows of
            the table.
        text: What the domain says of it.
    """
    (output / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (output / "README.md").write_text(card_text(card, text))


def card_text(card: Mapping[str, Any], text: CardText) -> str:
    """Writes the card as a page in the format of the Hugging Face hub.

    Args:
        card: The card, as for `write_card`.
        text: What the domain says of it.

    Returns:
        Markdown with a metadata header.
    """
    settings = card["settings"]
    rows = [
        f"| {frames} | "
        + " | ".join(f"{figures[family]:.3f}" if family in figures else "-" for family in text.families)
        + " |"
        for frames, figures in card["figures"].items()
    ]
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: transformers",
        "pipeline_tag: zero-shot-image-classification",
        f"tags: [{', '.join(['clip', *text.tags, 'reward-model'])}]",
        "---",
        "",
        f"# {card['name']}",
        "",
        *text.about,
        "",
        "## Figures",
        "",
        "Mean average precision over the goals that some frame achieves, one wording a goal; of the cosine, or of",
        "the formula that the row names, at the temperature of the model.",
        "",
        f"| frames | {' | '.join(family.capitalize() for family in text.families)} |",
        f"|{'---|' * (1 + len(text.families))}",
        *rows,
        "",
        *card.get("notes", []),
        "",
        "## How it was made",
        "",
        f"`{card['command']}`",
        "",
        *text.data,
        "",
        f"- image tower {card['parameters']['vision_model']:,} parameters, text tower {card['parameters']['text_model']:,}",
        f"- {card['steps']:,} steps of {settings['batch_size']} frames ({card['frames']:,} in all), seed {card['seed']}, "
        f"{card['precision']}",
        f"- {card['seconds']:,} seconds on {card['machine']}",
        *_limit_lines(card["steps"], settings["steps"]),
        f"- temperature of the softmax (1 / exp(logit_scale)): {card['temperature']:.4f}",
        f"- versions: {', '.join(f'{name} {version}' for name, version in card['versions'].items())}",
        "- every setting is in card.json",
        "",
    ]
    return "\n".join(lines)


def _limit_lines(steps: int, planned: int) -> list[str]:
    """Says of a run that a time limit ended that it cannot be repeated exactly."""
    if steps == planned:
        return []
    return [
        f"- a time limit ended the training after {steps:,} of the {planned:,} steps of the recipe, with a schedule that",
        "  followed the clock, so that it cannot be repeated exactly: the command comes near it",
    ]
