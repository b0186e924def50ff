"""Trains reference models: small CLIPs that read the frames of a domain, contrastively, on scenes that the domain draws.

    scenes ──► patches ──► image tower ──► [B, E] ──┐
          └──► truth [B, C]                         ├──► logits [B, C] ──► masked softmaxes both ways + sigmoid
    a wording per state ──► text tower ──► [C, E] ──┘

Every step scores the batch against one caption of every state of the batch (`labelers.domains.pretraining`), of which a few are
true of an image and most are false. Three losses: a softmax over captions, shared equally by the true ones; a softmax over frames,
in which a caption's true frames are ranked against those where it is false, which is what average precision measures; and a
sigmoid that keeps a neutral caption between the true and the false ones. Four things make small differences between frames
learnable in minutes on one core:

- attention starts out local: positions are orthogonal sinusoids, and four heads of the first layer start by looking at the
  four neighbours (`start_local`);
- helpers, thrown away afterwards, ask every patch what it shows and what else the domain marks of it;
- for most of the training only some patches, which the domain chooses, enter the image tower, as in FLIP (Li et al. 2023); the last
  steps see all of them, as at inference;
- the last layer is computed for the class token only, which is all that CLIP reads.

The result is a plain `transformers.CLIPModel` with tokenizer and image processor. On a CPU with one thread and the same versions,
the same settings and seed give the same weights; on a GPU they give the same batches, and sums that round in another order.

Shape letters: B batch, C states of a batch, K patches kept, M marks, D width, E embedding.
"""

import contextlib
import dataclasses
import math
import platform
import tempfile
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

from vlm_rewards.labelers.domains.domain import Domain
from vlm_rewards.labelers.domains.pretraining import Pretraining, Resources
from vlm_rewards.labelers.encoders.devices import check_device, resolve_precision
from vlm_rewards.labelers.reference_models.architecture import build_model, encode_patches, save_model
from vlm_rewards.labelers.reference_models.contrastive import masked_softmax_loss, shared_softmax_loss, sigmoid_loss
from vlm_rewards.labelers.reference_models.model_card import validation_figures, write_card
from vlm_rewards.labelers.reference_models.recipe import PretrainSettings
from vlm_rewards.labelers.reference_models.tokenizer import build_tokenizer
from vlm_rewards.schemas.files.remote_paths import local_path


def pretraining_of(domain: Domain) -> Pretraining:
    """Returns how the reference models of a domain are trained.

    Raises:
        ValueError: The domain has none.
    """
    found = domain.pretraining()
    if found is None:
        raise ValueError(
            f"the domain {domain.name} trains no reference models. Choose another domain, or label with a CLIP"
        )
    return found


def recipe_of(domain: Domain, size: str) -> PretrainSettings:
    """Returns the recipe of one size of a domain's reference models.

    Raises:
        ValueError: The domain trains no reference models, or none of this size.
    """
    sizes = pretraining_of(domain).sizes
    if size not in sizes:
        raise ValueError(
            f"{domain.name} has no reference model of this size: got {size!r}. Choose one of {', '.join(sizes)}"
        )
    return sizes[size]


def tokenizer_of(pretraining: Pretraining) -> PreTrainedTokenizerFast:
    """Builds the tokenizer that reads all captions of a domain."""
    texts = [text for captions in pretraining.wordings() for text in captions]
    return build_tokenizer(texts, pretraining.vocabulary.more_words, pretraining.vocabulary.spellings)


def pretrain(
    domain: Domain,
    settings: PretrainSettings,
    output: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    stock: str | Path | None = None,
    processes: int = 1,
    max_minutes: float = math.inf,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Trains a reference model and writes it as a folder that `CLIPModel.from_pretrained` and `AutoProcessor` load.

    Args:
        domain: The domain whose frames it is to read.
        settings: The recipe, for example `recipe_of(domain, "s")`.
        output: Folder to write, missing or empty.
        seed: Seed of weights, scenes and captions.
        device: "cpu", "cuda" or "cuda:N".
        precision: "bfloat16" (mixed, several times as fast where the processor computes in it), "float32", or "auto".
        stock: Folder in which frames are kept and found again, for domains that draw a stock of them; None for none after the run.
        processes: Processes that draw such a stock.
        max_minutes: Time limit; the run then finishes as if the steps were over, and cannot be repeated exactly.
        progress: Function called every 50 steps, and at the end, with step, loss and its parts, and seconds.

    Returns:
        The card: how the model was made. It is also written to the folder, as card.json and README.md.

    Raises:
        ValueError: The domain trains no reference models, the recipe does not fit its frames, the device is missing, the precision
            is unknown, bfloat16 is asked of a device without it, or the output is not an empty folder.
        ImportError: What the domain needs is not installed.
    """
    pretraining = pretraining_of(domain)
    image_size, patch_size = frame_geometry(pretraining, settings)
    side = image_size // patch_size
    settings.check_frames(side, pretraining.least_kept)
    check_device(device)
    output = local_path(output, "a model")
    if output.exists() and not (output.is_dir() and next(output.iterdir(), None) is None):
        found = "one that holds files" if output.is_dir() else "a file"
        raise ValueError(f"the output folder must be empty, got {found}, {output}; give another folder")
    precision = resolve_precision(precision, device)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if stock is None else stock)
        resources = Resources(device, processes, folder)
        return _trained(domain, settings, output, seed, precision, resources, max_minutes, progress)


def frame_geometry(pretraining: Pretraining, settings: PretrainSettings) -> tuple[int, int]:
    """Returns the height and width of a recipe's input, and of its patches, in pixels."""
    return settings.image_size or pretraining.image_size, settings.patch_size or pretraining.patch_size


def _trained(
    domain: Domain,
    settings: PretrainSettings,
    output: Path,
    seed: int,
    precision: str,
    resources: Resources,
    max_minutes: float,
    progress: Callable[[dict[str, float]], None] | None,
) -> dict[str, Any]:
    pretraining, device = pretraining_of(domain), resources.device
    image_size, patch_size = frame_geometry(pretraining, settings)
    side = image_size // patch_size
    start = time.monotonic()
    versions = {name: version(name) for name in ("torch", "transformers", *pretraining.packages, "numpy")}
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    tokenizer = tokenizer_of(pretraining)
    captions = _Captions(pretraining.wordings(), tokenizer, device)
    scenes = pretraining.open(settings, rng, resources)

    model = build_model(tokenizer, settings, image_size=image_size, patch_size=patch_size).to(device)
    helpers = _Helpers(settings.width, pretraining.num_classes, pretraining.num_marks).to(device)
    parameters = [*model.parameters(), *helpers.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)

    model.train()
    sums: dict[str, Tensor] = {}
    step, done = 0, 0.0
    while done < 1:
        done_steps = step / settings.steps
        done_time = (time.monotonic() - start) / 60 / max_minutes
        done = max(done_steps, done_time)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, min(done, 1.0), settings.warmup_steps)
        kept = settings.patches_kept if done < 1 - settings.full_share else side**2
        batch = scenes.draw(rng, kept)
        batch = batch._replace(**{name: getattr(batch, name).to(device) for name in _TENSORS})
        input_ids = captions.draw(batch.states, rng)
        kind = torch.device(device).type
        autocast = torch.autocast(kind, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
        with autocast:
            image_embeds, states = encode_patches(model, batch.patches, batch.places)
            text_embeds = model.get_text_features(input_ids=input_ids).pooler_output
            helper_loss = helpers(states, batch.classes, batch.marks)
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
            sums[name] = sums.get(name, 0.0) + value.detach().double()  # read later: a GPU is not waited for
        if progress and (step % 50 == 0 or done >= 1):
            count = step % 50 or 50
            mean = {name: value.item() / count for name, value in sums.items()}
            progress(
                {"step": step, **mean, "scale": model.logit_scale.exp().item(), "seconds": time.monotonic() - start}
            )
            sums.clear()

    if settings.stored == "float16":
        model.half()  # what is measured is what is stored
    save_model(model.eval(), tokenizer, output, stretch=settings.stretch)
    model.float()
    seconds = time.monotonic() - start
    name = f"{pretraining.prefix}-{settings.size}"
    of = f"--domain {domain.name} --size {settings.size} --steps {step} --seed {seed}"
    if device != "cpu":
        of += f" --device {device}"
    card = {
        "name": name,
        "command": f"vlm-rewards pretrain {of} --output FOLDER",
        "settings": dataclasses.asdict(settings),
        "seed": seed,
        "precision": precision,
        "steps": step,
        "frames": step * settings.batch_size,
        "seconds": round(seconds),
        "machine": _machine(device),
        "versions": versions,
        **pretraining.provenance,
        "temperature": math.exp(-model.logit_scale.item()),
        "parameters": {name: _count(getattr(model, name)) for name in ("vision_model", "text_model")},
        "final_loss": loss.item(),
        "figures": {
            title: validation_figures(model, tokenizer, drawn)
            for title, drawn in pretraining.validation(settings.num_evaluated, _EVALUATED, resources).items()
        },
    }
    write_card(output, card, pretraining.describe(card))
    return card


_TENSORS = ("patches", "places", "truth", "classes", "marks")
_EVALUATED = 256


def _machine(device: str) -> str:
    if device == "cpu":
        return f"{torch.get_num_threads()} thread(s) of a {platform.machine()} processor"
    return f"one {torch.cuda.get_device_name(device)}"


class _Captions:
    """All wordings of all states as token ids, and one drawn for each state of a batch."""

    def __init__(self, wordings: list[list[str]], tokenizer: PreTrainedTokenizerFast, device: str) -> None:
        encodings = tokenizer.backend_tokenizer.encode_batch([text for captions in wordings for text in captions])
        self.ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(encoding.ids) for encoding in encodings],
            batch_first=True,
            padding_value=tokenizer.pad_token_id,
        ).to(device)
        self.counts = np.array([len(captions) for captions in wordings])
        self.starts = np.cumsum(self.counts) - self.counts

    def draw(self, states: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Draws a caption of each state, and a neutral one at the end.

        Returns:
            [C + 1, tokens] int64; without attention mask, since the end token never looks at the padding after it.
        """
        rows = np.append(states, len(self.counts) - 1)
        chosen = self.starts[rows] + (rng.random(len(rows)) * self.counts[rows]).astype(np.int64)
        return self.ids[torch.from_numpy(chosen).to(self.ids.device)]


class _Helpers(nn.Module):
    """Asks patches, before the last layer, what they show and which marks they have."""

    def __init__(self, width: int, num_classes: int, num_marks: int) -> None:
        super().__init__()
        self.asked = num_classes > 0
        if self.asked:
            self.kind = nn.Linear(width, num_classes)
            self.marks = nn.Linear(width, num_marks)

    def forward(self, states: Tensor, classes: Tensor, marks: Tensor) -> Tensor:
        if not self.asked:
            return states.new_zeros(())
        if states.is_cuda:
            return self.weighted(states, classes, marks)
        return self.selected(states, classes, marks)

    def selected(self, states: Tensor, classes: Tensor, marks: Tensor) -> Tensor:
        """Asks those patches alone that show something to be learned."""
        shown = classes >= 0
        if not shown.any():
            return states.new_zeros(())
        states = states[shown]
        kind = F.cross_entropy(self.kind(states).float(), classes[shown])
        found = F.binary_cross_entropy_with_logits(self.marks(states).float(), marks[shown].float(), reduction="none")
        return kind + found.sum(dim=-1).mean()

    def weighted(self, states: Tensor, classes: Tensor, marks: Tensor) -> Tensor:
        """Asks all patches and counts those alone: the same loss, without a GPU being waited for to learn which they are."""
        shown = (classes >= 0).flatten()
        count = shown.sum().clamp(min=1)
        kind = F.cross_entropy(
            self.kind(states).float().flatten(0, 1), classes.flatten(), ignore_index=-1, reduction="sum"
        )
        found = F.binary_cross_entropy_with_logits(self.marks(states).float(), marks.float(), reduction="none")
        return (kind + (found.sum(dim=-1).flatten() * shown).sum()) / count


def _schedule(step: int, done: float, warmup_steps: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    return min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * done))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
