"""Everything that makes a labeler, as plain data: model, goals, prompts, negatives, formula, operating point, windows.

Nothing here loads a model: `labelers.labeler.Labeler.build` does.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from vlm_rewards.labelers.encoders.encoder import DEFAULT_BATCH_SIZE, DEFAULT_ENGINE, ENGINES, PRECISIONS
from vlm_rewards.labelers.reference_models.defaults import default_model
from vlm_rewards.labelers.scoring.formulas import FORMULAS, MIN_TEMPERATURE, Formula, formula_named
from vlm_rewards.labelers.scoring.negatives import REWARD_GROUP, NegativeSettings
from vlm_rewards.labelers.scoring.prompts import DEFAULT_TEMPLATES, check_templates, fill_templates
from vlm_rewards.labelers.scoring.windows import WindowSettings
from vlm_rewards.schemas.goals import Goal, check_goals, goals_from_json, goals_to_json
from vlm_rewards.schemas.options import as_declared, brief_repr, option
from vlm_rewards.schemas.rules import NEVER, REWARDS, RewardRule

_THRESHOLD_TOLERANCE = 1e-3  # calibration may put a threshold just below the lowest score
DEFAULT_ALPHA = 0.5
_MODEL_GROUP = "the model's run"
AUTO_ENGINE = "auto"
"""The setting that leaves the choice of an engine to the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelerSettings:
    """Everything that makes a labeler. Plain data: it can be pickled, compared and saved.

    Args:
        model: A reference model's name, a local folder, or a Hugging Face hub id; "" for the default model of the domain whose
            words all texts use, which then stands here.
        goals: The G goals, in the order of the scores.
        templates: Prompts with `{goal}` in them, of goals without prompts or images of their own; several are averaged.
        negatives: Where negatives come from; of no effect on "cosine".
        formula: Name of a formula: one of `labelers.scoring.formulas.FORMULAS`, or of another installed package.
        temperature: Of the softmax, in units of cosine; None for the model's own, `1 / exp(logit_scale)`.
        baseline: The text of "goal-baseline" for goals that have none of their own.
        alpha: Strength of its projection, 0..1: 0 is the cosine; None for 0.5.
        threshold: A goal counts as achieved where its score is greater; one for all goals or one a goal; None for the formula's
            default: 0.5 for "softmax" and "sigmoid", 0 for "shifted-softmax". The others have none, because their scale depends
            on the model, and must be given one.
        hysteresis, min_frames, reward, discount, fire_rates: See `schemas.rules.RewardRule`.
        window: How many frames a score looks at.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the processor computes in it. A labeler's own settings say
            which one is in force.
        batch_size: Rows of an image batch.
        device: "cpu", "cuda" or "cuda:N".
        engine: What computes the model: "torch", "compile" (torch.compile), "openvino" (on a CPU), or "auto": in a run of `label`
            the fastest that pays back its own start, elsewhere "torch". A labeler's own settings say which one is in force.

    Raises:
        ValueError: A setting is not what it must be.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.LabelerSettings(model="reference-s", goals=[vr.Goal("find-ball", "a red ball")], threshold=0.6)
        LabelerSettings(model='reference-s', goals=(Goal(id='find-ball', text='a red ball'),), threshold=0.6)
    """

    model: str = dataclasses.field(
        default="",
        metadata=option(
            "MODEL",
            "a shipped reference model (reference-s, reference-m, reference-l), the folder of a Hugging Face dual encoder, or its "
            "hub name",
            unset="the default model of a domain, where it knows every word of the goals",
        ),
    )
    goals: tuple[Goal, ...]
    templates: tuple[str, ...] = dataclasses.field(
        default=DEFAULT_TEMPLATES,
        metadata=option(
            "TEXT", "prompt with {goal} in it; repeat to average several", name="template", group=REWARD_GROUP
        ),
    )
    negatives: NegativeSettings = dataclasses.field(default_factory=NegativeSettings)
    formula: str = dataclasses.field(
        default="softmax",
        metadata=option(
            "NAME",
            "; ".join(f"{name}: {formula.summary}" for name, formula in FORMULAS.items()),
            group=REWARD_GROUP,
        ),
    )
    temperature: float | None = dataclasses.field(
        default=None, metadata=option("T", "temperature of the softmax", unset="the model's own", group=REWARD_GROUP)
    )
    baseline: str | None = dataclasses.field(
        default=None,
        metadata=option("TEXT", "baseline of goal-baseline, for goals that have none of their own", group=REWARD_GROUP),
    )
    alpha: float | None = dataclasses.field(
        default=None,
        metadata=option(
            "A",
            "how far goal-baseline projects, 0 to 1; 0 is the cosine",
            unset=str(DEFAULT_ALPHA),
            group=REWARD_GROUP,
        ),
    )
    threshold: float | tuple[float, ...] | None = dataclasses.field(
        default=None,
        metadata=option(
            "B",
            "a goal is achieved where its score is over this",
            read=float,
            unset="0.5 for softmax and sigmoid, 0 for shifted-softmax",
            group=REWARD_GROUP,
        ),
    )
    hysteresis: float = dataclasses.field(
        default=0.0,
        metadata=option(
            "H", "a success that has begun lasts until the score is at or under threshold - H", group=REWARD_GROUP
        ),
    )
    min_frames: int = dataclasses.field(
        default=1,
        metadata=option("N", "successive frames over the threshold that begin a success", group=REWARD_GROUP),
    )
    reward: str = dataclasses.field(
        default="success",
        metadata=option(
            "",
            "what a step is worth: 1 for a success in the frame after it; that frame's score; how much the score rose; or the "
            "success less --discount times how often the goal fires where it does not hold, as calibrated",
            choices=REWARDS,
            group=REWARD_GROUP,
        ),
    )
    discount: float = dataclasses.field(
        default=0.0, metadata=option("C", "factor of the fire rate, for --reward discounted", group=REWARD_GROUP)
    )
    fire_rates: tuple[float, ...] | None = None
    window: WindowSettings = dataclasses.field(default_factory=WindowSettings)
    precision: str = dataclasses.field(
        default="float32",
        metadata=option(
            "",
            "number format of the model. bfloat16 is faster for large models on some processors, and changes scores: by up to 0.07 "
            "with reference-s, which moves 2 to 3 successes in 100 over the threshold; auto takes it where the processor has it",
            choices=PRECISIONS,
            group=_MODEL_GROUP,
        ),
    )
    batch_size: int = dataclasses.field(
        default=DEFAULT_BATCH_SIZE,
        metadata=option("N", "frames per forward pass; part of the fingerprint", group=_MODEL_GROUP),
    )
    device: str = dataclasses.field(default="cpu", metadata=option("DEVICE", "cpu, cuda or cuda:N", group=_MODEL_GROUP))
    engine: str = dataclasses.field(
        default=DEFAULT_ENGINE,
        metadata=option(
            "",
            "what computes the model; part of the fingerprint, since engines round differently. compile: torch.compile, a CUDA "
            "graph on a GPU; openvino: on a CPU (pip install vlm-rewards[openvino]); auto: the fastest that pays back its start in "
            "the run",
            choices=(AUTO_ENGINE, *ENGINES),
            group=_MODEL_GROUP,
        ),
    )

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        as_declared(self)
        for name, kind in (("negatives", NegativeSettings), ("window", WindowSettings)):
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, kind(**getattr(self, name)))
        object.__setattr__(self, "goals", check_goals(self.goals))
        object.__setattr__(self, "templates", check_templates(self.templates))
        _ = self._formula
        if self.temperature is not None and not MIN_TEMPERATURE <= self.temperature < np.inf:
            raise ValueError(
                f"temperature must be at least {MIN_TEMPERATURE} and finite, got {self.temperature}; CLIP's own is about 0.01"
            )
        self._check_baseline()
        if not self.model:
            object.__setattr__(self, "model", default_model(self._texts()))
        _ = self.rule
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}; choose one of them"
            )
        if self.engine not in (AUTO_ENGINE, *ENGINES):
            raise ValueError(
                f"engine must be one of {', '.join((AUTO_ENGINE, *ENGINES))}, got {self.engine!r}; choose one of them"
            )
        if self.batch_size < 1:
            raise ValueError(
                f"batch_size must be at least 1, got {self.batch_size}; {DEFAULT_BATCH_SIZE} is a good start"
            )

    def _texts(self) -> list[str]:
        """Returns all texts that the model reads."""
        texts = [prompt for goal in self.goals if not goal.images for prompt in goal.prompts or self._filled(goal.text)]
        others = [*self.negatives.explicit, *(text for goal in self.goals for text in goal.negatives)]
        others += [text for text in (self.baseline, *(goal.baseline for goal in self.goals)) if text is not None]
        return texts + [prompt for text in others for prompt in self._filled(text)]

    def _filled(self, text: str) -> list[str]:
        return fill_templates(self.templates, text)

    def _check_baseline(self) -> None:
        if not self._formula.needs_baseline:
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
    def _formula(self) -> Formula:
        return formula_named(self.formula)

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
        threshold = self._formula.default_threshold if self.threshold is None else self.threshold
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
        scores = self._formula.score_range
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
        """Returns the settings as one JSON object, kept beside every output; `settings_from_json` is the inverse."""
        return {**dataclasses.asdict(self), "goals": goals_to_json(self.goals)}


def settings_from_json(record: Mapping) -> LabelerSettings:
    """Reads the settings of an earlier run, which are kept beside its output; the inverse of `LabelerSettings.to_json`."""
    return LabelerSettings(**{**record, "goals": goals_from_json(record["goals"])})


class LabelerKeywords(TypedDict, total=False):
    """`LabelerSettings` as keyword arguments, without model and goals."""

    templates: Sequence[str]
    negatives: NegativeSettings | Mapping[str, Any]
    formula: str
    temperature: float | None
    baseline: str | None
    alpha: float | None
    threshold: float | Sequence[float] | None
    hysteresis: float
    min_frames: int
    reward: str
    discount: float
    fire_rates: Sequence[float] | None
    window: WindowSettings | Mapping[str, Any]
    precision: str
    batch_size: int
    device: str
    engine: str
