"""The labeler: frames in, a score for every goal out. The batch pipeline and a live environment use the same object.

    frame ──► resize ──► embed ──► score ──► rewards
              S x S bytes  [N, D]    [N, G]    [F - 1, G], r_t from frame t + 1

Everything that a score depends on is in the fingerprint, and nothing else matters: neither N, nor the frame's place, nor what
stands beside it. Building is in two steps, so that goals can change without loading the model again:

    encoder = load_encoder(settings)                      # seconds; shared by the threads of a process
    labeler = Labeler(settings, encoder)                  # goals only
    labeler = Labeler.build(settings)                     # both

Shape letters: N frames, F = T + 1 frames of one episode, H and W sides of a frame, S sides of the model's input, D size of an
embedding, G goals, P templates.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Unpack

import numpy as np

from vlm_rewards.labelers.alike_goals import join_alike
from vlm_rewards.labelers.encoders import known
from vlm_rewards.labelers.encoders.encoder import DEFAULT_ENGINE, ENGINES, Encoder
from vlm_rewards.labelers.rewards.rewards import rewards_of_scores
from vlm_rewards.labelers.scoring.frame_scorer import FrameScorer
from vlm_rewards.labelers.scoring.negatives import SCORE_BLOCK
from vlm_rewards.labelers.scoring.windows import EpisodeScorer
from vlm_rewards.labelers.settings import AUTO_ENGINE, LabelerKeywords, LabelerSettings
from vlm_rewards.labelers.targets import build_targets
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.instruction_goals import goals_of_corpus
from vlm_rewards.schemas.goals import Goal, as_goals, goals_to_json
from vlm_rewards.schemas.options import build_settings, shows_settings


def load_encoder(settings: LabelerSettings) -> Encoder:
    """Loads the model that the settings name; the engine "auto" stands for the default where no run is planned."""
    return known.load_encoder(
        settings.model,
        precision=settings.precision,
        batch_size=settings.batch_size,
        device=settings.device,
        engine=DEFAULT_ENGINE if settings.engine == AUTO_ENGINE else settings.engine,
    )


@shows_settings(LabelerSettings)
def load_labeler(
    model: str | Path, goals: Iterable[Goal | str] | Corpus, **settings: Unpack[LabelerKeywords]
) -> "Labeler":
    """Loads a model and embeds the goals.

    Args:
        model: A reference model's name, a local folder, or a Hugging Face hub id.
        goals: Goals, or texts of goals: "a red ball" becomes the goal `a-red-ball`; or an open corpus, each of whose instructions
            is then a goal (those that the model reads as one text are one goal).
        settings: Other fields of `LabelerSettings`.

    Returns:
        The labeler: `labeler(frames)` is `[N, G]` float32, and `labeler.settings` is what `label` takes.

    Raises:
        ValueError: The model, the goals or the settings do not go together; see the message.

    Example:
        >>> import numpy as np, vlm_rewards as vr
        >>> goals = vr.read_goals("corpus/goals.jsonl")
        >>> labeler = vr.load_labeler("reference-s", goals, threshold=0.6)
        >>> labeler
        Labeler('reference-s': 342 goals, softmax, threshold 0.6)
        >>> frames = np.zeros((5, 56, 56, 3), np.uint8)
        >>> labeler(frames).shape
        (5, 342)
    """
    listed = goals_of_corpus(goals).goals if isinstance(goals, Corpus) else as_goals(goals)
    (made,) = build_settings({**settings, "model": str(model), "goals": listed}, LabelerSettings)
    encoder = load_encoder(made)
    if isinstance(goals, Corpus):
        joined = join_alike(made.goals, {goal.id for goal in made.goals}, made.templates, encoder)
        made = dataclasses.replace(made, goals=joined)
    return Labeler(made, encoder)


class Labeler:
    """Scores frames for every goal at once; immutable once built, and safe to share between threads.

    Args:
        settings: What to label with.
        encoder: The model that `load_encoder` gave, now or for settings with the same model, precision, batch size, device and
            engine.

    Attributes:
        settings: As given, with precision and engine in force, and the commit of a model of the hub.
        encoder: As given.
        goals: The G goals, in the order of the scores.
        dim: D.
        temperature: The softmax's temperature in force, or None for formulas without one.
        rule: When a goal counts as achieved, and what a step is worth.
        scorer: Scoring of embeddings, without the model.
        fingerprint: All that scores and rewards depend on.
        embedding_fingerprint: What image embeddings depend on; a subset of the fingerprint.

    Raises:
        ValueError: The encoder is not the one that the settings name, or what `labelers.targets.build_targets` refuses.
        FileNotFoundError: A goal's picture does not exist.

    Example:
        >>> import numpy as np, vlm_rewards as vr
        >>> labeler = vr.load_labeler("reference-s", ["a red ball", "a green box"], negatives={"explicit": ["a wall"]})
        >>> scores = labeler(np.zeros((5, 56, 56, 3), np.uint8))
        >>> labeler.rewards(scores).shape
        (4, 2)
    """

    def __init__(self, settings: LabelerSettings, encoder: Encoder) -> None:
        model = settings.model if settings.model == encoder.pinned_name else encoder.name
        checked = (
            ("model", model, settings.model),
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
        engine = (
            encoder.engine if encoder.engine in ENGINES else DEFAULT_ENGINE
        )  # others' encoders have one of their own
        if settings.engine not in (AUTO_ENGINE, engine):
            raise ValueError(
                f"engine of the encoder must be that of the settings, {settings.engine}, got {encoder.engine}; load it with them"
            )
        targets = build_targets(settings, encoder)
        # What was left open is settled here, so that whoever gets these settings builds the same labeler.
        self.settings = dataclasses.replace(
            settings, model=encoder.pinned_name, precision=encoder.precision, engine=engine
        )
        self.encoder = encoder
        self.goals = settings.goals
        self.dim = encoder.dim
        self.temperature = targets.context.temperature
        self.rule = settings.rule
        self.scorer = FrameScorer(
            formula=settings.formula, candidates=targets.candidates, context=targets.context, window=settings.window
        )
        window = {} if settings.window.frames == 1 else {"window": dataclasses.asdict(settings.window)}
        named = {} if encoder.engine == DEFAULT_ENGINE else {"engine": encoder.engine}
        of_images = {**named, **encoder.describe_images()}
        self.fingerprint = Fingerprint(
            {
                **of_images,
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
        self.embedding_fingerprint = self.fingerprint.subset(tuple(of_images))

    def __repr__(self) -> str:
        threshold = self.rule.common_threshold
        thresholds = "thresholds per goal" if threshold is None else f"threshold {threshold:g}"
        return f"Labeler({self.settings.model!r}: {len(self.goals)} goals, {self.settings.formula}, {thresholds})"

    @classmethod
    def build(cls, settings: LabelerSettings) -> "Labeler":
        """Loads the model and embeds the goals."""
        return cls(settings, load_encoder(settings))

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
        context = dataclasses.replace(self.scorer.context, temperature=temperature)
        other.scorer = dataclasses.replace(self.scorer, context=context)
        other.fingerprint = Fingerprint({**self.fingerprint.parts, "temperature": temperature})
        return other

    def versions(self) -> dict[str, str]:
        """Returns the versions of the software that computes its scores, by name."""
        ours = {"numpy": np.__version__, "vlm-rewards": version("vlm-rewards")}
        return {**self.encoder.versions(), **ours}

    @property
    def goal_embeddings(self) -> np.ndarray:
        """`[G, D]` float32, unit length: of the goals' prompts or pictures."""
        return self.scorer.candidates[: len(self.goals)].astype(np.float32)

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` uint8 to `[S, S, 3]` uint8, as the model's own image processor does."""
        return self.encoder.resize(frame)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds resized frames.

        Args:
            pixels: `[N, S, S, 3]` uint8, or `[N, V, S, S, 3]` for an encoder that looks at windows of V frames.

        Returns:
            `[N, D]` float32 of unit length; each row depends on its own frame or window alone.
        """
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
        return self.scorer.score(embeddings)

    def episodes(self) -> EpisodeScorer:
        """What scores the frames of episodes in order, each by its window: one for every unit of work or live run."""
        return self.scorer.episodes()

    def __call__(self, frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Scores frames of one size or of many.

        Args:
            frames: `[N, H, W, 3]` uint8, or N frames `[H, W, 3]` uint8.

        Returns:
            `[N, G]` float32.

        Raises:
            ValueError: A window is of more than one frame; see `score`.
        """
        if self.encoder.window > 1:
            raise ValueError(
                f"{self.settings.model} looks at {self.encoder.window} frames of an episode at once: got frames alone. Label a "
                f"corpus with it, or give windows of pixels to Labeler.embed."
            )
        pixels = [self.resize(frame) for frame in frames]
        size = (*self.encoder.image_size, 3)
        return self.score(self.embed(np.stack(pixels) if pixels else np.zeros((0, *size), dtype=np.uint8)))

    def rewards(self, scores: np.ndarray) -> np.ndarray:
        """`[F, G]` scores of an episode's frames to `[F - 1, G]` float32 rewards by the rule; row t looks at frame t + 1."""
        return rewards_of_scores(scores, self.rule)


def _digest_goals(goals: Sequence[Goal]) -> str:
    """32 hexadecimal digits of the goals; of a picture's, its contents count, not where it lies."""
    records = goals_to_json(goals)
    for record, goal in zip(records, goals, strict=True):
        if goal.images:
            record["images"] = [image.sha256 for image in goal.images]
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()[:32]
