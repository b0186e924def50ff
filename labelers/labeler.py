"""The labeler: frames in, a score for every goal out. The batch pipeline and a live environment use the same object.

    frame ──► resize ──► embed ──► score ──► rewards
              S x S bytes  [N, D]    [N, G]    [F - 1, G], r_t from frame t + 1

Everything that a score depends on is in the fingerprint, and nothing else matters: neither N, nor the frame's place, nor what
stands beside it. Building is in two steps, so that goals can change without loading the model again:

    encoder = DualEncoder.load("reference-s")             # seconds; shared by the threads of a process
    labeler = Labeler(settings, encoder)                  # texts only
    labeler = settings.build()                            # both

Shape letters: N frames, F = T + 1 frames of one episode, H and W sides of a frame, S sides of the model's input, D size of an
embedding, G goals, P templates.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from labelers.encoders import DEFAULT_BATCH_SIZE, PRECISIONS, DualEncoder
from labelers.formulas import (
    FORMULAS,
    MIN_TEMPERATURE,
    SCORE_BLOCK,
    NegativeMask,
    cosine_similarity,
)
from labelers.negatives import NegativeSettings, choose_negatives
from labelers.prompts import DEFAULT_TEMPLATES, average_prompts, check_templates, fill_templates
from labelers.rewards import rewards_of_scores
from schemas.fingerprints import Fingerprint
from schemas.goals import Goal, check_goals, goals_from_json, goals_to_json
from schemas.rules import RewardRule

EMBEDDING_PARTS = ("weights", "preprocessing", "precision", "batch_size", "device", "attention")
"""The parts of a labeler's fingerprint that image embeddings depend on."""

_UNIT_TOLERANCE = 1e-3
_SCORE_ROWS = 1024  # frames scored at once, which bounds the memory of the [N, C] intermediates


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelerSettings:
    """Everything that makes a labeler. Plain data: it can be pickled, compared and saved.

    Args:
        model: A reference model's name, a local folder, or a Hugging Face hub id.
        goals: The G goals, in the order of the scores.
        templates: Prompts with `{goal}` in them; several are averaged.
        negatives: Where negatives come from; of no effect on "cosine".
        formula: A name of `labelers.formulas.FORMULAS`.
        temperature: Of the softmax, in units of cosine; None for the model's own, `1 / exp(logit_scale)`.
        threshold: A goal counts as achieved where its score is greater; one for all goals or one a goal; None for the formula's
            default (softmax 0.5). The cosine has none, because its scale depends on the model, and must be given one.
        hysteresis, min_frames, reward, discount, fire_rates: See `schemas.rules.RewardRule`.
        precision: "auto", "float32" or "bfloat16".
        batch_size: Rows of an image batch.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: A setting is not what it must be.
    """

    model: str
    goals: tuple[Goal, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    negatives: NegativeSettings = dataclasses.field(default_factory=NegativeSettings)
    formula: str = "softmax"
    temperature: float | None = None
    threshold: float | tuple[float, ...] | None = None
    hysteresis: float = 0.0
    min_frames: int = 1
    reward: str = "success"
    discount: float = 0.0
    fire_rates: tuple[float, ...] | None = None
    precision: str = "auto"
    batch_size: int = DEFAULT_BATCH_SIZE
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        object.__setattr__(self, "goals", check_goals(self.goals))
        object.__setattr__(self, "templates", check_templates(self.templates))
        if self.formula not in FORMULAS:
            raise ValueError(f"formula must be one of {', '.join(FORMULAS)}, got {self.formula!r}; choose one of them")
        if self.temperature is not None and not MIN_TEMPERATURE <= self.temperature < np.inf:
            raise ValueError(
                f"temperature must be at least {MIN_TEMPERATURE} and finite, got {self.temperature}; CLIP's own is about 0.01"
            )
        for name in ("threshold", "fire_rates"):
            if isinstance(getattr(self, name), list | tuple | np.ndarray):
                object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        _ = self.rule
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}; choose one of them"
            )
        if self.batch_size < 1:
            raise ValueError(
                f"batch_size must be at least 1, got {self.batch_size}; {DEFAULT_BATCH_SIZE} is a good start"
            )

    @property
    def rule(self) -> RewardRule:
        """When a goal counts as achieved, and what a step is worth.

        Raises:
            ValueError: There is no threshold, or not as many as goals, or a number is out of its range.
        """
        threshold = FORMULAS[self.formula].default_threshold if self.threshold is None else self.threshold
        if threshold is None:
            raise ValueError(
                f"threshold must be given for the formula {self.formula!r}, got None; its scale depends on the model: look at some "
                f"scores first, or let vlm-rewards calibrate choose it"
            )
        thresholds = threshold if isinstance(threshold, tuple) else (threshold,) * len(self.goals)
        if len(thresholds) != len(self.goals):
            raise ValueError(
                f"thresholds must be one for all or one a goal, {len(self.goals)}, got {len(thresholds)}; calibrate for these goals"
            )
        return RewardRule(
            thresholds=thresholds,
            hysteresis=self.hysteresis,
            min_frames=self.min_frames,
            reward=self.reward,
            discount=self.discount,
            fire_rates=self.fire_rates,
        )

    def to_json(self) -> dict[str, object]:
        """The settings as one JSON object, kept beside every output; `settings_from_json` is the inverse."""
        return {**dataclasses.asdict(self), "goals": goals_to_json(self.goals)}

    def load_encoder(self) -> DualEncoder:
        """Loads the model that these settings name."""
        return DualEncoder.load(self.model, precision=self.precision, batch_size=self.batch_size, device=self.device)

    def build(self) -> "Labeler":
        """Loads the model and embeds the goals."""
        return Labeler(self, self.load_encoder())


class Labeler:
    """Scores frames for every goal at once; immutable once built, and safe to share between threads.

    Args:
        settings: What to label with.
        encoder: The model that `settings.load_encoder()` gave, now or for settings that differ in goals, templates,
            negatives, formula, temperature or threshold only.

    Attributes:
        settings: As given.
        encoder: As given.
        goals: The G goals, in the order of the scores.
        dim: D.
        temperature: The softmax's temperature in force, or None for formulas without one.
        rule: When a goal counts as achieved, and what a step is worth.
        fingerprint: All that scores and rewards depend on.
        embedding_fingerprint: What image embeddings depend on; a subset of the fingerprint.

    Raises:
        ValueError: The encoder is not the one that the settings name, a goal has no negatives, the model has no temperature of
            its own and none is given, or a text is too long.
    """

    def __init__(self, settings: LabelerSettings, encoder: DualEncoder) -> None:
        checked = (
            ("model", encoder.name, settings.model),
            ("batch_size", encoder.batch_size, settings.batch_size),
            ("device", encoder.device, settings.device),
        )
        for name, got, wanted in checked:
            if got != wanted:
                raise ValueError(
                    f"{name} of the encoder must be that of the settings, {wanted}, got {got}; load it with them"
                )
        if settings.precision not in ("auto", encoder.precision):
            raise ValueError(
                f"precision of the encoder must be that of the settings, {settings.precision}, got "
                f"{encoder.precision}; load it with them"
            )
        formula = FORMULAS[settings.formula]
        self.settings = settings
        self.encoder = encoder
        self.goals = settings.goals
        self.dim = encoder.dim
        self.temperature = _temperature(settings, encoder) if formula.needs_negatives else None
        self.rule = settings.rule
        self._function = formula.function
        if formula.needs_negatives:
            negatives = choose_negatives(settings.negatives, self.goals)
            alone = ~negatives.mask.any(axis=0)
            if alone.any():
                raise ValueError(
                    f"every goal must have a negative, got none for {self.goals[int(alone.argmax())].id!r}: its probability would "
                    f"always be 1; add goals or explicit negatives"
                )
            texts, mask = negatives.texts, negatives.mask
            drawn: object = {**dataclasses.asdict(settings.negatives), "digest": negatives.digest}
        else:
            texts, mask = tuple(goal.text for goal in self.goals), np.zeros((len(self.goals),) * 2, dtype=bool)
            drawn = None
        prompts = [prompt for text in texts for prompt in fill_templates(settings.templates, text)]
        embeddings = encoder.embed_texts(prompts).reshape(len(texts), len(settings.templates), self.dim)
        self._texts = average_prompts(embeddings).astype(np.float64)
        self._negatives = NegativeMask(mask)
        self.fingerprint = Fingerprint(
            {
                **encoder.describe_images(),
                "text_encoding": encoder.describe_texts(),
                "templates": list(settings.templates),
                "goals": {"number": len(self.goals), "digest": _digest(goals_to_json(self.goals))},
                "negatives": drawn,
                "formula": settings.formula,
                "temperature": self.temperature,
                "rule": self.rule.to_json(),
                "score_block": SCORE_BLOCK,
            }
        )
        self.embedding_fingerprint = self.fingerprint.subset(EMBEDDING_PARTS)

    @classmethod
    def build(cls, settings: LabelerSettings) -> "Labeler":
        """Loads the model and embeds the goals."""
        return settings.build()

    @property
    def text_embeddings(self) -> np.ndarray:
        """`[G, D]` float32, unit length: the goals' embeddings."""
        return self._texts[: len(self.goals)].astype(np.float32)

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` uint8 to `[S, S, 3]` uint8, as the model's own image processor does."""
        return self.encoder.preprocessor.resize(frame)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, S, S, 3]` uint8 to `[N, D]` float32 of unit length; each row depends on its picture alone."""
        return self.encoder.embed_images(pixels)

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores frames by their embeddings.

        Args:
            embeddings: `[N, D]` float32, unit length, from `embed` or kept by an earlier run.

        Returns:
            `[N, G]` float32; 0..1 for "softmax", -1..1 for "cosine". Each row depends on its embedding alone, bit for bit.

        Raises:
            ValueError: The embeddings are not `[N, D]` float32, or not finite and of unit length.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim or embeddings.dtype != np.float32:
            raise ValueError(
                f"embeddings must be [N, {self.dim}] float32, got {list(embeddings.shape)} {embeddings.dtype}; embed the "
                f"frames with this labeler's model"
            )
        scores = np.empty((len(embeddings), len(self.goals)), dtype=np.float32)
        for start in range(0, len(embeddings), _SCORE_ROWS):
            rows = embeddings[start : start + _SCORE_ROWS]
            lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
            bad = ~(np.abs(lengths - 1.0) <= _UNIT_TOLERANCE)
            if bad.any():
                index = int(bad.argmax())
                raise ValueError(
                    f"embeddings must be finite and of unit length, got length {lengths[index]} in row {start + index}; embed the "
                    f"frames again"
                )
            similarity = cosine_similarity(rows, self._texts)
            scores[start : start + len(rows)] = self._function(similarity, self._negatives, self.temperature or 1.0)
        return scores

    def __call__(self, frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Scores frames of one size or of many.

        Args:
            frames: `[N, H, W, 3]` uint8, or N frames `[H, W, 3]` uint8.

        Returns:
            `[N, G]` float32.
        """
        pixels = [self.resize(frame) for frame in frames]
        size = (*self.encoder.preprocessor.size, 3)
        return self.score(self.embed(np.stack(pixels) if pixels else np.zeros((0, *size), dtype=np.uint8)))

    def rewards(self, scores: np.ndarray) -> np.ndarray:
        """`[F, G]` scores of an episode's frames to `[F - 1, G]` float32 rewards by the rule; row t looks at frame t + 1."""
        return rewards_of_scores(scores, self.rule)


def settings_from_json(record: Mapping) -> LabelerSettings:
    """The inverse of `LabelerSettings.to_json`: the labeler of an earlier run, from the settings kept beside its output."""
    return LabelerSettings(
        **{
            **record,
            "goals": goals_from_json(record["goals"]),
            "negatives": NegativeSettings(**record["negatives"]),
        }
    )


def _temperature(settings: LabelerSettings, encoder: DualEncoder) -> float:
    if settings.temperature is not None:
        return float(settings.temperature)
    if encoder.temperature is None:
        raise ValueError(
            f"temperature must be given for a model that has none of its own, got None for {settings.model}; try 0.01"
        )
    if not encoder.temperature >= MIN_TEMPERATURE:
        raise ValueError(
            f"temperature must be at least {MIN_TEMPERATURE}, got the model's own {encoder.temperature}; give one in the settings"
        )
    return encoder.temperature


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
