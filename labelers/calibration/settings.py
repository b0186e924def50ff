"""Settings of a calibration."""

import dataclasses

from vlm_rewards.schemas.options import as_declared, option

OBJECTIVES = ("f1", "precision", "fpr", "quantile")
DEFAULT_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """Objective of a calibration.

    Args:
        objective: "f1": the highest F1 of the frames, at a precision that is not below that of the labels; where that is worse
            than the labels on episodes that did not choose it, their own thresholds. "precision": the lowest threshold at which
            the share of right frames among those that fire reaches `precision`, on the calibration data: an estimate, not a bound.
            "fpr": the lowest threshold at which the false-positive rate is at most `level` with probability `confidence`, see
            `bounded_depth`. "quantile": the threshold that a share `quantile` of all frames is at or under; needs no truth.
        precision: Wanted precision, only for "precision".
        level: Highest false-positive rate, only for "fpr".
        confidence: With which that holds, only for "fpr"; 0.95 if left out.
        quantile: Only for "quantile".
        min_examples: Fewest episodes in which some goal holds to choose a temperature by. For "f1" and "precision": a goal that
            holds in some frame of fewer episodes than this, or fails to hold in fewer, takes the threshold of its family, and a
            family with fewer that of all goals.

    Raises:
        ValueError: An unknown objective, a number that the objective needs is missing or out of its range, or one is given that it
            has no use for.
    """

    objective: str = dataclasses.field(
        default="f1",
        metadata=option(
            "",
            "f1: the best F1 that costs no precision; precision: the most recall with this precision, estimated; fpr: the most "
            "recall while false positives stay under a level, with stated confidence; quantile: a share of all frames fires, "
            "without any truth",
            choices=OBJECTIVES,
        ),
    )
    precision: float | None = dataclasses.field(
        default=None,
        metadata=option("P", "wanted share of right frames among those that fire, for --objective precision"),
    )
    level: float | None = dataclasses.field(
        default=None, metadata=option("A", "highest false-positive rate, over episodes, for --objective fpr")
    )
    confidence: float | None = dataclasses.field(
        default=None, metadata=option("C", "probability with which the level holds", unset=str(DEFAULT_CONFIDENCE))
    )
    quantile: float | None = dataclasses.field(
        default=None, metadata=option("Q", "share of frames that do not fire, for --objective quantile")
    )
    min_examples: int = dataclasses.field(
        default=10,
        metadata=option(
            "N", "f1, precision: goals that hold in fewer episodes than this take the threshold of their family"
        ),
    )

    def __post_init__(self) -> None:
        as_declared(self)
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}; choose one of them"
            )
        if self.objective == "fpr" and self.confidence is None:
            object.__setattr__(self, "confidence", DEFAULT_CONFIDENCE)
        uses = {"precision": ("precision",), "fpr": ("level", "confidence"), "quantile": ("quantile",)}
        for name in ("precision", "level", "confidence", "quantile"):
            value = getattr(self, name)
            if name in uses.get(self.objective, ()):
                if value is None or not 0 < value < 1:
                    raise ValueError(
                        f"{name} must be greater than 0 and less than 1 for the objective {self.objective!r}, got {value}; give one"
                    )
            elif value is not None:
                raise ValueError(
                    f"{name} must be left out for the objective {self.objective!r}, got {value}; it is for another one"
                )
        if self.min_examples < 1:
            raise ValueError(
                f"min_examples must be at least 1, got {self.min_examples}; 1 shares only what never occurs"
            )

    def to_json(self) -> dict[str, object]:
        """Returns the settings that matter for the objective."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
