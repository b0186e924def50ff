"""Makes the reference models: small CLIPs that read BabyAI frames, trained contrastively on scenes drawn on the fly.

    draw_scenes ──► tiles ──► image tower ──► [B, E] ──┐
                      └──► truth [B, C]                ├──► logits [B, C] ──► masked softmaxes both ways + sigmoid
    a wording a state ──► text tower ──► [C, E] ───────┘

Every step scores the batch against one caption of every state (`labelers.domains.babyai.captions`), so an image has about five
true captions
and 187 false ones. Three losses: a softmax over captions, shared equally by the true ones; a softmax over frames, in which a
caption's true frames are ranked against those where it is false, which is what average precision measures; and a sigmoid
that keeps a neutral caption between the true and the false ones. Four things make two objects side by side learnable in minutes
on one core:

- attention starts out local: positions are orthogonal sinusoids, and four heads of the first layer start by looking at the
  four neighbours (`start_local`);
- helpers, thrown away afterwards, ask every object's patch what it is and what it stands next to;
- for most of the training only the patches with something on them, and a few of the others, enter the image tower, as in FLIP
  (Li et al. 2023); the last steps see all of them, as at inference;
- the last layer is computed for the class token only, which is all that CLIP reads.

The result is a plain `transformers.CLIPModel` with tokenizer and image processor. With one thread and the same versions, the same
settings and seed give the same weights.

Shape letters: B batch, C states (192), K patches kept, D width, E embedding, P values a patch (192).
"""

import contextlib
import dataclasses
import math
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from vlm_rewards.labelers.domains.babyai.captions import build_tokenizer, state_captions, state_truth
from vlm_rewards.labelers.domains.babyai.goals import (
    AGENT_CELL,
    FRONT_CELL,
    NUM_KINDS,
    VIEW_SIZE,
    ground_truth,
    kind_indices,
)
from vlm_rewards.labelers.domains.babyai.scenes import (
    TRAIN_SEEDS,
    Layouts,
    draw_scenes,
    load_layouts,
    render,
    tile_table,
)
from vlm_rewards.labelers.encoders.devices import resolve_precision
from vlm_rewards.labelers.reference_models.architecture import (
    IMAGE_SIZE,
    NUM_PATCHES,
    PATCH_SIZE,
    build_model,
    encode_patches,
    normalise,
    patchify,
    save_model,
)
from vlm_rewards.labelers.reference_models.contrastive import masked_softmax_loss, shared_softmax_loss, sigmoid_loss
from vlm_rewards.labelers.reference_models.model_card import scene_figures, write_card


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """The recipe of one reference model.

    Args:
        size: name of the size, as in `reference-<size>`.
        width: D, width of the image tower.
        layers: layers of the image tower. One alone cannot tell what stands next to what.
        heads: attention heads of the image tower, at least 4 and at least 16 wide.
        text_width: width of the text tower.
        text_layers: layers of the text tower.
        text_heads: attention heads of the text tower.
        embedding: E, size of the shared embedding.
        steps: optimizer steps.
        batch_size: B, frames a step.
        patches_kept: K, patches of a frame that enter the image tower before `full_share`; at least 16.
        full_share: share of the steps, at the end, that see all 49 patches.
        resized_share: share of a batch that are 224x224 frames resized by the image processor's filter.
        num_resized: how many such frames are drawn, once, at the start.
        learning_rate: peak of the cosine schedule.
        weight_decay: AdamW's, on matrices.
        warmup_steps: linear warm-up.
        max_scale: largest factor of the cosines in the softmaxes, the inverse of the smallest temperature.
        sigmoid_weight: weight of the sigmoid loss, which gives cosines an absolute meaning.
        helper_weight: weight of the patches' helper losses.
        num_evaluated: held-out scenes drawn at the end for the figures of the card.

    Raises:
        ValueError: a value is out of its range.
    """

    size: str
    width: int
    layers: int
    heads: int
    text_width: int
    text_layers: int
    text_heads: int
    embedding: int
    steps: int
    batch_size: int = 512
    patches_kept: int = 20
    full_share: float = 0.1
    resized_share: float = 0.125
    num_resized: int = 4096
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    max_scale: float = 50.0
    sigmoid_weight: float = 0.2
    helper_weight: float = 1.0
    num_evaluated: int = 4096

    def __post_init__(self) -> None:
        rules = {
            "layers": (self.layers >= 1, "at least 1", self.layers),
            "heads": (self.heads >= 4, "at least 4", self.heads),
            "width": (self.width % self.heads == 0 and self.width // self.heads >= 16, "16 or more a head", self.width),
            "text_width": (self.text_width % self.text_heads == 0, "a multiple of text_heads", self.text_width),
            "steps": (self.steps >= 1, "at least 1", self.steps),
            "patches_kept": (16 <= self.patches_kept <= NUM_PATCHES, "between 16 and 49", self.patches_kept),
            "full_share": (0 <= self.full_share <= 1, "between 0 and 1", self.full_share),
            "resized_share": (0 <= self.resized_share <= 1, "between 0 and 1", self.resized_share),
        }
        for name, (holds, rule, value) in rules.items():
            if not holds:
                raise ValueError(f"{name} must be {rule}, got {value}; change the settings of size {self.size!r}")


SIZES = {
    "s": PretrainSettings(
        size="s",
        width=64,
        layers=2,
        heads=4,
        text_width=64,
        text_layers=2,
        text_heads=4,
        embedding=24,
        steps=3000,
        learning_rate=2e-3,
    ),
    "m": PretrainSettings(
        size="m",
        width=128,
        layers=3,
        heads=4,
        text_width=96,
        text_layers=2,
        text_heads=4,
        embedding=128,
        steps=2000,
        learning_rate=1.5e-3,
    ),
    "l": PretrainSettings(
        size="l",
        width=192,
        layers=3,
        heads=6,
        text_width=128,
        text_layers=2,
        text_heads=4,
        embedding=256,
        steps=3000,
    ),
}
"""The shipped recipes."""


def pretrain(
    settings: PretrainSettings,
    output: str | Path,
    *,
    seed: int = 0,
    precision: str = "auto",
    max_minutes: float = math.inf,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Trains a reference model and writes it as a folder that `CLIPModel.from_pretrained` and `AutoProcessor` load.

    Args:
        settings: the recipe, for example `SIZES["s"]`.
        output: folder to write, missing or empty.
        seed: of weights, scenes and captions.
        precision: "bfloat16" (mixed, several times as fast where the processor computes in it), "float32", or "auto".
        max_minutes: stop after that time and finish as if the steps were over; such a run cannot be repeated exactly.
        progress: called every 50 steps, and at the end, with step, loss and its parts, and seconds.

    Returns:
        The card: how the model was made. It is also written to the folder, as card.json and README.md.

    Raises:
        ValueError: an unknown precision, bfloat16 on a processor without it, or an output that is not an empty folder.
        ImportError: MiniGrid is not installed.
    """
    output = Path(output)
    if output.exists() and not (output.is_dir() and next(output.iterdir(), None) is None):
        found = "one that holds files" if output.is_dir() else "a file"
        raise ValueError(f"the output folder must be empty, got {found}, {output}; give another folder")
    precision = resolve_precision(precision, "cpu")
    start = time.monotonic()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    tokenizer = build_tokenizer()
    captions = _Captions(tokenizer)
    layouts = load_layouts(TRAIN_SEEDS)
    resized = _Resized(layouts, rng, settings.num_resized if settings.resized_share else 0)
    table = normalise(torch.from_numpy(patchify(tile_table(PATCH_SIZE)[:, None, None])[:, 0]))

    model = build_model(
        tokenizer,
        width=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        text_width=settings.text_width,
        text_layers=settings.text_layers,
        text_heads=settings.text_heads,
        embedding=settings.embedding,
    )
    helpers = _Helpers(settings.width)
    parameters = [*model.parameters(), *helpers.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)

    model.train()
    sums: dict[str, float] = {}
    step, done = 0, 0.0
    while done < 1:
        done_steps = step / settings.steps
        done_time = (time.monotonic() - start) / 60 / max_minutes
        done = max(done_steps, done_time)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, min(done, 1.0), settings.warmup_steps)
        kept = settings.patches_kept if done < 1 - settings.full_share else NUM_PATCHES
        batch = _draw_batch(layouts, resized, table, rng, settings, kept)
        input_ids = captions.draw(rng)
        autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
        with autocast:
            image_embeds, states = encode_patches(model, batch.patches, batch.index)
            text_embeds = model.get_text_features(input_ids=input_ids).pooler_output
            helper_loss = helpers(states, batch.kinds, batch.beside)
        image_embeds, text_embeds = (F.normalize(x.float(), dim=-1) for x in (image_embeds, text_embeds))
        logits, neutral = (model.logit_scale.exp() * image_embeds @ text_embeds.T).split(
            [batch.truth.shape[1], 1], dim=1
        )
        losses = {
            "image_to_text": shared_softmax_loss(logits, batch.truth),
            "text_to_image": masked_softmax_loss(logits.T, batch.truth.T),
            "sigmoid": settings.sigmoid_weight * sigmoid_loss(logits - neutral, batch.truth),
            "helper": settings.helper_weight * helper_loss,
        }
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(settings.max_scale))

        step += 1
        done = max(step / settings.steps, done_time)
        for name, value in {"loss": loss, **losses}.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        if progress and (step % 50 == 0 or done >= 1):
            count = step % 50 or 50
            mean = {name: value / count for name, value in sums.items()}
            progress(
                {"step": step, **mean, "scale": model.logit_scale.exp().item(), "seconds": time.monotonic() - start}
            )
            sums.clear()

    save_model(model.eval(), tokenizer, output)
    card = {
        "name": f"reference-{settings.size}",
        "command": f"vlm-rewards pretrain --size {settings.size} --steps {step} --seed {seed} --output FOLDER",
        "settings": dataclasses.asdict(settings),
        "seed": seed,
        "precision": precision,
        "steps": step,
        "frames": step * settings.batch_size,
        "seconds": round(time.monotonic() - start),
        "machine": f"{torch.get_num_threads()} thread(s) of a {platform.machine()} processor",
        "versions": {name: version(name) for name in ("torch", "transformers", "minigrid", "numpy")},
        "layout_seeds": [TRAIN_SEEDS.start, TRAIN_SEEDS.stop],
        "temperature": math.exp(-model.logit_scale.item()),
        "parameters": {name: _count(getattr(model, name)) for name in ("vision_model", "text_model")},
        "final_loss": loss.item(),
        "figures": {"drawn scenes": scene_figures(model, tokenizer, settings.num_evaluated)},
    }
    write_card(output, card)
    return card


class _Captions:
    """All wordings of all states as token ids, and one drawn for each state."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        captions = state_captions()
        encodings = tokenizer.backend_tokenizer.encode_batch([text for wordings in captions for text in wordings])
        self.ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(encoding.ids) for encoding in encodings],
            batch_first=True,
            padding_value=tokenizer.pad_token_id,
        )
        self.counts = np.array([len(wordings) for wordings in captions])
        self.starts = np.cumsum(self.counts) - self.counts

    def draw(self, rng: np.random.Generator) -> Tensor:
        """[C, tokens] int64; without attention mask, since the end token never looks at the padding after it."""
        chosen = self.starts + (rng.random(len(self.counts)) * self.counts).astype(np.int64)
        return self.ids[torch.from_numpy(chosen)]


class _Resized:
    """A stock of scenes rendered at 224x224 and resized to 56x56 with the image processor's bicubic filter."""

    def __init__(self, layouts: Layouts, rng: np.random.Generator, count: int) -> None:
        self.scenes = draw_scenes(layouts, rng, max(count, 1))
        patches = []
        for start in range(0, count, 256):
            frames = torch.from_numpy(render(self.scenes.tiles[start : start + 256], 4 * PATCH_SIZE)).permute(
                0, 3, 1, 2
            )
            small = F.interpolate(frames, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
            tiles = small.unflatten(2, (VIEW_SIZE, PATCH_SIZE)).unflatten(1, (VIEW_SIZE, PATCH_SIZE)).transpose(2, 3)
            patches.append(torch.from_numpy(patchify(tiles.numpy())))
        self.patches = (
            torch.cat(patches) if patches else torch.zeros(0, NUM_PATCHES, 3 * PATCH_SIZE**2, dtype=torch.uint8)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Batch:
    patches: Tensor  # [B, K, P] float32
    index: Tensor  # [B, K] int64
    truth: Tensor  # [B, C] bool
    kinds: Tensor  # [B, K] int64, object kind of each kept patch or -1
    beside: Tensor  # [B, K, 18] bool, kinds that stand next to it


def _draw_batch(
    layouts: Layouts, resized: _Resized, table: Tensor, rng: np.random.Generator, settings: PretrainSettings, kept: int
) -> _Batch:
    num_resized = round(settings.resized_share * settings.batch_size)
    fresh = draw_scenes(layouts, rng, settings.batch_size - num_resized)
    stock = rng.integers(len(resized.scenes.view), size=num_resized)
    view = np.concatenate([fresh.view, resized.scenes.view[stock]])
    carrying = np.concatenate([fresh.carrying, resized.scenes.carrying[stock]])

    kinds = kind_indices(view[..., 0], view[..., 1]).swapaxes(1, 2)  # [B, y, x]
    wanted = rng.random((len(view), NUM_PATCHES), dtype=np.float32) + (kinds >= 0).reshape(len(view), -1)
    for x, y in (AGENT_CELL, FRONT_CELL):
        wanted[:, y * VIEW_SIZE + x] += 2
    index = np.sort(np.argpartition(-wanted, kept - 1, axis=1)[:, :kept], axis=1)

    standing = kinds.copy()
    standing[:, AGENT_CELL[1], AGENT_CELL[0]] = -1
    present = np.zeros((len(view), VIEW_SIZE + 2, VIEW_SIZE + 2, NUM_KINDS), dtype=bool)
    present[:, 1:-1, 1:-1] = standing[..., None] == np.arange(NUM_KINDS)
    beside = present[:, :-2, 1:-1] | present[:, 2:, 1:-1] | present[:, 1:-1, :-2] | present[:, 1:-1, 2:]
    rows = np.arange(len(view))[:, None]
    where = torch.from_numpy(index)
    tiles = torch.from_numpy(fresh.tiles.reshape(len(fresh.tiles), -1)).long().gather(1, where[: len(fresh.tiles)])
    old = resized.patches[torch.from_numpy(stock)[:, None], where[len(fresh.tiles) :]]
    return _Batch(
        patches=torch.cat([table[tiles], normalise(old)]),
        index=where,
        truth=torch.from_numpy(state_truth(ground_truth(view, carrying))),
        kinds=torch.from_numpy(standing.reshape(len(view), -1)[rows, index]),
        beside=torch.from_numpy(beside.reshape(len(view), -1, NUM_KINDS)[rows, index]),
    )


class _Helpers(nn.Module):
    """Asks object patches, before the last layer, what they are and what stands next to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, NUM_KINDS)
        self.beside = nn.Linear(width, NUM_KINDS)

    def forward(self, states: Tensor, kinds: Tensor, beside: Tensor) -> Tensor:
        objects = kinds >= 0
        states = states[objects]
        kind = F.cross_entropy(self.kind(states).float(), kinds[objects])
        near = F.binary_cross_entropy_with_logits(
            self.beside(states).float(), beside[objects].float(), reduction="none"
        )
        return kind + near.sum(dim=-1).mean()


def _schedule(step: int, done: float, warmup_steps: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    return min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * done))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
