"""The labeler: frames in, a score for every goal out. The batch pipeline and a live environment use the same object.

    frame ──► resize ──► embed ──► score ──► rewards
              S x S bytes  [N, D]    [N, G]    [F - 1, G], r_t from frame t + 1

Everything that a score depends on is in the fingerprint, and nothing else matters: neither N, nor the frame's place, nor what
stands beside it. Building is in two steps, so that goals can change without loading the model again:

    encoder = DualEncoder.load("reference-s")             # seconds; shared by the threads of a process
    labeler = Labeler(settings, encoder)                  # goals only
    labeler = settings.build()                            # both

Shape letters: N frames, F = T + 1 frames of one episode, H and W sides of a frame, S sides of the model's input, D size of an
embedding, G goals, P templates.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from labelers.encoders import DEFAULT_BATCH_SIZE, PRECISIONS, DualEncoder
from labelers.formulas import FORMULAS, MIN_TEMPERATURE, score_frames
from labelers.negatives import SCORE_BLOCK, NegativeSettings
from labelers.prompts import DEFAULT_TEMPLATES, check_templates
from labelers.rewards import rewards_of_scores
from labelers.targets import build_targets
from labelers.windows import EpisodeScorer, WindowSettings
from schemas.fingerprints import Fingerprint
from schemas.goals import Goal, check_goals, goals_from_json, goals_to_json
from schemas.rules import NEVER, RewardRule

EMBEDDING_PARTS = ("weights", "preprocessing", "precision", "batch_size", "device", "attention")
"""The parts of a labeler's fingerprint that image embeddings depend on."""

_UNIT_TOLERANCE = 1e-3
_THRESHOLD_TOLERANCE = 1e-3  # calibration may put a threshold just below the lowest score
_CHECK_ROWS = 1024  # embeddings whose lengths are checked at once, which bounds the memory of that
DEFAULT_ALPHA = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelerSettings:
    """Everything that makes a labeler. Plain data: it can be pickled, compared and saved.

    Args:
        model: A reference model's name, a local folder, or a Hugging Face hub id.
        goals: The G goals, in the order of the scores.
        templates: Prompts with `{goal}` in them, of goals without prompts or images of their own; several are averaged.
        negatives: Where negatives come from; of no effect on "cosine".
        formula: A name of `labelers.formulas.FORMULAS`.
        temperature: Of the softmax, in units of cosine; None for the model's own, `1 / exp(logit_scale)`.
        baseline: The text of "goal-baseline" for goals that have none of their own.
        alpha: Strength of its projection, 0..1: 0 is the cosine; None for 0.5.
        threshold: A goal counts as achieved where its score is greater; one for all goals or one a goal; None for the formula's
            default: 0.5 for "softmax" and "sigmoid", 0 for "shifted-softmax". The others have none, because their scale depends
            on the model, and must be given one.
        hysteresis, min_frames, reward, discount, fire_rates: See `schemas.rules.RewardRule`.
        window: How many frames a score looks at.
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
    baseline: str | None = None
    alpha: float | None = None
    threshold: float | tuple[float, ...] | None = None
    hysteresis: float = 0.0
    min_frames: int = 1
    reward: str = "success"
    discount: float = 0.0
    fire_rates: tuple[float, ...] | None = None
    window: WindowSettings = dataclasses.field(default_factory=WindowSettings)
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
        self._check_baseline()
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

    def _check_baseline(self) -> None:
        if not FORMULAS[self.formula].needs_baseline:
            for name in ("baseline", "alpha"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} must be left out for the formula {self.formula!r}, got {getattr(self, name)!r}; it is for "
                        f"'goal-baseline'"
                    )
            return
        if self.baseline is not None and not (isinstance(self.baseline, str) and self.baseline.strip()):
            raise ValueError(f"baseline must be a text that is not empty, got {self.baseline!r}; write one")
        if not 0 <= self.alpha_in_force <= 1:
            raise ValueError(f"alpha must be 0 to 1, got {self.alpha}; 0 is the cosine, {DEFAULT_ALPHA} the default")
        missing = [goal.id for goal in self.goals if goal.baseline is None]
        if missing and self.baseline is None:
            raise ValueError(
                f"every goal must have a baseline for the formula {self.formula!r}, got none for {missing[0]!r}; give one for all, "
                f"or the field baseline in the goals file"
            )

    @property
    def alpha_in_force(self) -> float:
        """The strength of the goal-baseline projection, 0..1."""
        return DEFAULT_ALPHA if self.alpha is None else self.alpha

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
        scores = FORMULAS[self.formula].score_range
        if scores is not None:
            for value in thresholds:
                if value != NEVER and np.isfinite(value) and not scores[0] - _THRESHOLD_TOLERANCE <= value < scores[1]:
                    raise ValueError(
                        f"threshold must be from {scores[0]:g} to below {scores[1]:g} for the formula {self.formula!r}, got "
                        f"{value}: {'no' if value >= scores[1] else 'every'} score is greater; choose one in between"
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
        encoder: The model that `settings.load_encoder()` gave, now or for settings with the same model, precision, batch size and
            device.

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
        ValueError: The encoder is not the one that the settings name, or what `labelers.targets.build_targets` refuses.
        FileNotFoundError: A goal's picture does not exist.
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
        targets = build_targets(settings, encoder)
        self.settings = settings
        self.encoder = encoder
        self.goals = settings.goals
        self.dim = encoder.dim
        self.temperature = targets.context.temperature
        self.rule = settings.rule
        self._candidates = targets.candidates
        self._context = targets.context
        window = {} if settings.window.frames == 1 else {"window": dataclasses.asdict(settings.window)}
        self.fingerprint = Fingerprint(
            {
                **encoder.describe_images(),
                "text_encoding": encoder.describe_texts(),
                "templates": list(settings.templates),
                "goals": {"number": len(self.goals), "digest": _digest_goals(self.goals)},
                "formula": settings.formula,
                "rule": self.rule.to_json(),
                "score_block": SCORE_BLOCK,
                **targets.parts,
                **window,
            }
        )
        self.embedding_fingerprint = self.fingerprint.subset(EMBEDDING_PARTS)

    @classmethod
    def build(cls, settings: LabelerSettings) -> "Labeler":
        """Loads the model and embeds the goals."""
        return settings.build()

    def at_temperature(self, temperature: float) -> "Labeler":
        """The same labeler at another temperature of its softmax; nothing is embedded again.

        Raises:
            ValueError: The temperature is too low, or the formula has none.
        """
        if self.temperature is None:
            raise ValueError(
                f"a temperature must be left out for the formula {self.settings.formula!r}, got {temperature}; it has none"
            )
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, temperature=temperature)
        other.temperature = temperature
        other._context = dataclasses.replace(self._context, temperature=temperature)
        other.fingerprint = Fingerprint({**self.fingerprint.parts, "temperature": temperature})
        return other

    @property
    def goal_embeddings(self) -> np.ndarray:
        """`[G, D]` float32, unit length: of the goals' prompts or pictures."""
        return self._candidates[: len(self.goals)].astype(np.float32)

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` uint8 to `[S, S, 3]` uint8, as the model's own image processor does."""
        return self.encoder.preprocessor.resize(frame)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, S, S, 3]` uint8 to `[N, D]` float32 of unit length; each row depends on its picture alone."""
        return self.encoder.embed_images(pixels)

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores frames by their embeddings, each by itself.

        Args:
            embeddings: `[N, D]` float32, unit length, from `embed` or kept by an earlier run.

        Returns:
            `[N, G]` float32, in the range of the formula. Each row depends on its embedding alone, bit for bit.

        Raises:
            ValueError: The embeddings are not `[N, D]` float32, or not finite and of unit length, or a window is of more than one
                frame: frames of episodes in order are for `episodes`.
        """
        if self.settings.window.frames > 1:
            raise ValueError(
                f"frames must come in the order of their episodes for a window of {self.settings.window.frames}, got frames alone; "
                f"score them by Labeler.episodes, or set the window to 1"
            )
        return self._score(embeddings)

    def episodes(self) -> EpisodeScorer:
        """What scores the frames of episodes in order, each by its window: one for every unit of work or live run."""
        return EpisodeScorer(self._score, self.settings.window)

    def _score(self, embeddings: np.ndarray) -> np.ndarray:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim or embeddings.dtype != np.float32:
            raise ValueError(
                f"embeddings must be [N, {self.dim}] float32, got {list(embeddings.shape)} {embeddings.dtype}; embed the "
                f"frames with this labeler's model"
            )
        for start in range(0, len(embeddings), _CHECK_ROWS):
            rows = embeddings[start : start + _CHECK_ROWS]
            lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
            bad = ~(np.abs(lengths - 1.0) <= _UNIT_TOLERANCE)
            if bad.any():
                index = int(bad.argmax())
                raise ValueError(
                    f"embeddings must be finite and of unit length, got length {lengths[index]} in row {start + index}; embed the "
                    f"frames again"
                )
        return score_frames(self.settings.formula, embeddings, self._candidates, self._context)

    def __call__(self, frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Scores frames of one size or of many.

        Args:
            frames: `[N, H, W, 3]` uint8, or N frames `[H, W, 3]` uint8.

        Returns:
            `[N, G]` float32.

        Raises:
            ValueError: A window is of more than one frame; see `score`.
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
            "window": WindowSettings(**record["window"]),
        }
    )


def _digest_goals(goals: Sequence[Goal]) -> str:
    """32 hexadecimal digits of the goals; of a picture's, its contents count, not where it lies."""
    records = goals_to_json(goals)
    for record, goal in zip(records, goals, strict=True):
        if goal.images:
            record["images"] = [image.sha256 for image in goal.images]
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()[:32]
