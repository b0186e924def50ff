"""What frames are compared with: the embeddings of goals, of their negatives or baselines, and what the formula knows of them.

    candidates   c = 0 .. G-1   the goals: the mean over their prompts, or over their pictures
                 c = G .. C-1   negatives that are no goal's text, or the distinct baselines

Pictures are nearer to pictures than to texts, whatever either shows: the two towers of a dual encoder leave a gap between them.
So a goal given by pictures never stands in one softmax with texts, nor in a sigmoid whose bias was learned with texts.

Shape letters: G goals, C candidates, P prompts or pictures of one candidate, D size of an embedding.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from vlm_rewards.labelers.encoders.encoder import Encoder
from vlm_rewards.labelers.encoders.frame_windows import FrameWindows
from vlm_rewards.labelers.encoders.readings import (
    check_prompts_differ,
    check_readings,
    check_texts_differ,
    check_vectors_differ,
)
from vlm_rewards.labelers.scoring.formulas import (
    MIN_BASELINE_DISTANCE,
    MIN_TEMPERATURE,
    Context,
    baselines_of,
    formula_named,
)
from vlm_rewards.labelers.scoring.negatives import NegativeMask, Negatives, choose_negatives
from vlm_rewards.labelers.scoring.prompts import average_prompts, fill_templates
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import decode_image


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """What frames are compared with.

    Args:
        candidates: `[C, D]` float64, unit length in float32; the first G are the goals.
        context: What the formula needs besides.
        parts: The parts of the fingerprint that tell of negatives, temperature and baselines, where the formula has them.
    """

    candidates: np.ndarray
    context: Context
    parts: dict[str, object]


def build_targets(settings: LabelerSettings, encoder: Encoder) -> Targets:
    """Embeds goals, negatives and baselines, and checks that the formula can be computed.

    Args:
        settings: Goals, templates, negatives, formula, temperature, baseline and alpha.
        encoder: The settings' model.

    Raises:
        ValueError: A goal has no negatives, or pictures among texts; the model has no temperature or bias of its own; a baseline is
            at its goal; a text is too long; a picture is not the one that the goal was read with or cannot be decoded.
        FileNotFoundError: A picture does not exist.
    """
    formula, goals = formula_named(settings.formula), settings.goals
    if formula.needs_negatives:
        negatives = choose_negatives(settings.negatives, goals)
        _check_negatives(negatives, goals, settings.formula)
        temperature = _temperature(settings, encoder)
        return Targets(
            candidates=_embed(settings, encoder, negatives.texts[len(goals) :]),
            context=Context(num_goals=len(goals), negatives=NegativeMask(negatives.mask), temperature=temperature),
            parts={
                "negatives": {**dataclasses.asdict(settings.negatives), "digest": negatives.digest},
                "temperature": temperature,
            },
        )
    none: dict[str, object] = {"negatives": None, "temperature": None}
    if formula.needs_baseline:
        texts = [goal.baseline or settings.baseline or "" for goal in goals]
        distinct = list(dict.fromkeys(texts))
        candidates = _embed(settings, encoder, distinct, others_differ=False)
        columns = np.array([len(goals) + distinct.index(text) for text in texts])
        baselines = baselines_of(candidates, columns)
        nearest = int(baselines.distance.argmin())
        if not baselines.distance[nearest] >= MIN_BASELINE_DISTANCE:
            raise ValueError(
                f"a baseline must differ from its goal, got {texts[nearest]!r} for goal {goals[nearest].id!r}, "
                f"{goals[nearest].text!r}, at distance {baselines.distance[nearest]:.3g} for this model; reword the baseline"
            )
        context = Context(num_goals=len(goals), baselines=baselines, alpha=settings.alpha_in_force)
        digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]
        return Targets(
            candidates=candidates,
            context=context,
            parts={**none, "baseline": {"alpha": settings.alpha_in_force, "digest": digest}},
        )
    scale, bias = encoder.logit_scale, encoder.logit_bias
    if formula.needs_bias:
        if scale is None or bias is None:
            raise ValueError(
                f"the model must have a logit scale and bias of its own for the formula {settings.formula!r}, got none in "
                f"{settings.model}; choose a SigLIP model, or another formula"
            )
        if not (0 < scale < np.inf and np.isfinite(bias)):
            raise ValueError(
                f"logit scale and bias of the model must be finite and the scale over 0, got {scale} and {bias} in "
                f"{settings.model}; check its weights"
            )
        pictured = [goal.id for goal in goals if goal.images]
        if pictured:
            raise ValueError(
                f"goals must be texts for the formula {settings.formula!r}, got pictures for goal {pictured[0]!r}: scale and bias "
                f"were learned with texts; choose cosine or goal-baseline"
            )
    context = Context(num_goals=len(goals), logit_scale=scale, logit_bias=bias)
    return Targets(candidates=_embed(settings, encoder, ()), context=context, parts=none)


def _check_negatives(negatives: Negatives, goals: Sequence[Goal], formula: str) -> None:
    alone = ~negatives.mask.any(axis=0)
    if alone.any():
        raise ValueError(
            f"every goal must have a negative, got none for {goals[int(alone.argmax())].id!r}: its probability would "
            f"always be 1; add goals or explicit negatives"
        )
    pictured = np.array([c < len(goals) and bool(goals[c].images) for c in range(len(negatives.texts))])
    mixed = negatives.mask & (pictured[:, None] != pictured[None, : len(goals)])
    if mixed.any():
        goal, negative = np.argwhere(mixed.T)[0]
        own, other = ("pictures", "a text") if pictured[goal] else ("a text", "pictures")
        raise ValueError(
            f"a goal and its negatives must be all texts or all pictures for the formula {formula!r}, got {own} "
            f"for goal {goals[goal].id!r} and {other} for its negative {negatives.texts[negative]!r}: pictures "
            f"are nearer to pictures than to texts, whatever they show; choose cosine or goal-baseline, or give the goals of "
            f"pictures a family of their own and no texts as negatives"
        )


def _temperature(settings: LabelerSettings, encoder: Encoder) -> float:
    if settings.temperature is not None:
        return float(settings.temperature)
    if encoder.logit_scale is None:
        raise ValueError(
            f"temperature must be given for a model that has none of its own, got None for {settings.model}; try 0.01"
        )
    temperature = 1.0 / encoder.logit_scale
    if not temperature >= MIN_TEMPERATURE:
        raise ValueError(
            f"temperature must be at least {MIN_TEMPERATURE}, got the model's own {temperature}; give one in the settings"
        )
    return temperature


def _embed(
    settings: LabelerSettings, encoder: Encoder, others: Sequence[str], *, others_differ: bool = True
) -> np.ndarray:
    """Embeds the goals, then the other texts in the templates: `[C, D]` float64.

    Args:
        settings: Goals and templates.
        encoder: The settings' model.
        others: Texts beside the goals.
        others_differ: Whether these must differ from the goals and each other: negatives, unlike baselines.
    """
    goals = settings.goals
    names = [f"goal {goal.id!r} ({goal.text!r})" for goal in goals] + [f"the negative {text!r}" for text in others]
    prompts = {
        index: list(goal.prompts) or fill_templates(settings.templates, goal.text)
        for index, goal in enumerate(goals)
        if not goal.images
    }
    prompts |= {len(goals) + i: fill_templates(settings.templates, text) for i, text in enumerate(others)}
    num_compared = len(names) if others_differ else len(goals)
    _check_prompts(encoder, prompts, names, num_compared)
    candidates = np.empty((len(names), encoder.dim), dtype=np.float32)
    texts = [prompt for several in prompts.values() for prompt in several]
    flat = encoder.embed_texts(texts) if texts else candidates[:0]
    starts = np.cumsum([0] + [len(several) for several in prompts.values()])
    counts = np.diff(starts)
    indices = np.array(list(prompts), dtype=int)
    for count in np.unique(counts):
        chosen = np.flatnonzero(counts == count)
        embeddings = flat[starts[chosen][:, None] + np.arange(count)]
        candidates[indices[chosen]] = average_prompts(embeddings, [names[index] for index in indices[chosen]])
    for index, goal in enumerate(goals):
        if goal.images:
            candidates[index] = average_prompts(_embed_pictures(goal, encoder)[None], [names[index]])[0]
    check_vectors_differ(names[:num_compared], candidates[:num_compared])
    return candidates.astype(np.float64)


def _check_prompts(
    encoder: Encoder, prompts: Mapping[int, Sequence[str]], names: Sequence[str], num_compared: int
) -> None:
    """Refuses prompts that the encoder would not read as they stand, and candidates that it reads as one."""
    texts = [prompt for several in prompts.values() for prompt in several]
    flat = iter(encoder.read_texts(texts) if texts else [])
    read = {index: [next(flat) for _ in several] for index, several in prompts.items()}
    for index, readings in read.items():
        several = prompts[index]
        try:
            check_readings(several, readings)
        except ValueError as error:
            error.add_note(f"in a prompt of {names[index]}")
            raise
        check_prompts_differ(names[index], several, readings)
    compared = [index for index in read if index < num_compared]
    check_texts_differ([names[index] for index in compared], [read[index] for index in compared])


def _embed_pictures(goal: Goal, encoder: Encoder) -> np.ndarray:
    """Embeds the goal's pictures as frames are, each as an episode of one frame: `[P, D]` float32."""
    windows, pixels = FrameWindows(encoder.window), []
    for index, image in enumerate(goal.images):
        try:
            pixels.append(windows.push(index, encoder.resize(decode_image(image.read(), of_corpus=False))))
        except (ValueError, FileNotFoundError) as error:
            error.add_note(f"in the picture {image.path} of goal {goal.id!r}")
            raise
    return encoder.embed_images(np.stack(pixels))
