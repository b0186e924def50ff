"""The calibration file: thresholds of all goals and the temperature, with their objective and origin.

    kind, version        what this is
    labeler              what scores depend on besides the temperature: parts of the labels' fingerprint
    temperature          null for formulas without one
    thresholds           by goal id, in the order of the scores; a goal is achieved where its score is greater
    fire_rates           by goal id: how often it fires without holding; null if no frame shows it
    objective            objective of the thresholds, with its settings
    data, temperature_search, quality, goals       data of the choice, and quality of the result; for people to read
    digest               of all the above

A calibration fits one labeler: scores of another encoder, formula, prompt or list of goals lie on another scale.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from vlm_rewards.schemas.files.remote_paths import Location, location_of
from vlm_rewards.schemas.fingerprints import READING_PARTS, Fingerprint

NOT_COMPARED = (*READING_PARTS, "temperature", "rule", "batch_size", "device", "attention", "score_block")
"""Parts of labels' fingerprints that a calibration sets, that say nothing of the labeler, or that move scores by rounding only. The
camera is among them: whether thresholds of one camera fit another is for the user to say."""

_REMEDY = "label with the settings that were calibrated, or run vlm-rewards calibrate on labels of these"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The chosen thresholds and temperature.

    Args:
        goals: Ids of the G goals, in the order of the scores.
        labeler: Fingerprint parts that a labeler must share, see `compared_parts`.
        thresholds: G float32 numbers.
        temperature: Temperature of the softmax; None for formulas without one.
        fire_rates: G numbers 0..1, None for goals that no frame shows.
        objective: Name and settings of the objective.
        data: Source of the ground truth, with numbers of frames and episodes.
        temperature_search: Record of the choice of the temperature.
        quality: Quality of the thresholds.
        details: One mapping per goal: data and reason of its threshold.

    Raises:
        ValueError: The number of values differs from that of the goals, or a value is out of range.
    """

    goals: tuple[str, ...]
    labeler: Mapping[str, object]
    thresholds: tuple[float, ...]
    temperature: float | None
    fire_rates: tuple[float | None, ...]
    objective: Mapping[str, object]
    data: Mapping[str, object]
    temperature_search: Mapping[str, object]
    quality: Mapping[str, object]
    details: Sequence[Mapping[str, object]]

    def __post_init__(self) -> None:
        for name in ("thresholds", "fire_rates", "details"):
            if len(getattr(self, name)) != len(self.goals):
                raise ValueError(
                    f"{name} of a calibration must be one a goal, {len(self.goals)}, got {len(getattr(self, name))}; calibrate "
                    f"again"
                )
        for goal, threshold in zip(self.goals, self.thresholds, strict=True):
            if not math.isfinite(threshold):
                raise ValueError(
                    f"threshold of goal {goal!r} must be a finite number, got {threshold}; calibrate again"
                )
        for goal, rate in zip(self.goals, self.fire_rates, strict=True):
            if rate is not None and not 0 <= rate <= 1:
                raise ValueError(f"fire rate of goal {goal!r} must be 0 to 1, got {rate}; calibrate again")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature of a calibration must be greater than 0 and finite, got {self.temperature}; calibrate again"
            )

    def __repr__(self) -> str:
        low, high = min(self.thresholds), max(self.thresholds)
        temperature = "" if self.temperature is None else f", temperature {self.temperature:.4g}"
        return f"Calibration({len(self.goals)} goals, thresholds {low:.3g} to {high:.3g}{temperature})"

    def to_json(self) -> dict[str, object]:
        """Returns the calibration as one JSON object."""
        record: dict[str, object] = {
            "kind": "calibration",
            "version": 1,
            "labeler": dict(self.labeler),
            "temperature": self.temperature,
            "thresholds": dict(zip(self.goals, self.thresholds, strict=True)),
            "fire_rates": dict(zip(self.goals, self.fire_rates, strict=True)),
            "objective": dict(self.objective),
            "data": dict(self.data),
            "temperature_search": dict(self.temperature_search),
            "quality": dict(self.quality),
            "goals": [dict(detail) for detail in self.details],
        }
        return {**record, "digest": _digest(record)}

    @property
    def digest(self) -> str:
        """32 hexadecimal digits of all of it."""
        return str(self.to_json()["digest"])

    def check_goals(self, goals: Sequence[str]) -> None:
        """Refuses goals that differ from the calibrated ones, or are in another order.

        Raises:
            ValueError: The goals differ.
        """
        if tuple(goals) != self.goals:
            missing = sorted(set(self.goals) - set(goals))
            strange = sorted(set(goals) - set(self.goals))
            difference = (
                f"{len(strange)} goals that are not calibrated ({', '.join(strange[:3]) or 'none'}), and {len(missing)} missing "
                f"that are ({', '.join(missing[:3]) or 'none'})"
                if missing or strange
                else "the same goals in another order"
            )
            raise ValueError(f"goals must be those of the calibration, got {difference}; {_REMEDY}")

    def operating_point(
        self, goals: Sequence[str], *, formula: str, reward: str = "success", hysteresis: float = 0.0
    ) -> dict[str, object]:
        """Returns the fields of `labelers.labeler.LabelerSettings` that the calibration sets.

        Args:
            goals: Ids of the goals to label, in order.
            formula: Formula of the scores.
            reward: Kind of reward of a step; "discounted" takes the fire rates.
            hysteresis: Hysteresis of the reward rule.

        Returns:
            temperature, threshold and fire_rates.

        Raises:
            ValueError: Other goals or another formula; a fire rate is needed and not known; or hysteresis, which lets a success
                last where the score is under the threshold, with thresholds that bound false positives.
        """
        self.check_goals(goals)
        if formula != self.labeler["formula"]:
            raise ValueError(
                f"formula must be that of the calibration, {self.labeler['formula']!r}, got {formula!r}; {_REMEDY}"
            )
        if self.objective["objective"] == "fpr" and hysteresis:
            raise ValueError(
                f"hysteresis must be 0 with a calibration that bounds false positives, got {hysteresis}: a success that lasts "
                f"under the threshold is not bounded; leave it out, or calibrate for another objective"
            )
        if reward == "discounted" and None in self.fire_rates:
            goal = self.goals[self.fire_rates.index(None)]
            raise ValueError(
                f"the fire rate of every goal must be known for the reward 'discounted', got none for {goal!r}: the calibration "
                f"data show no frame in which it does not hold; calibrate with truth and more episodes"
            )
        return {
            "temperature": self.temperature,
            "threshold": self.thresholds,
            "fire_rates": self.fire_rates if reward == "discounted" else None,
        }

    def check_labeler(self, fingerprint: Fingerprint) -> None:
        """Refuses a labeler whose scores lie on another scale, naming the parts that differ.

        Args:
            fingerprint: Fingerprint of the labeler or of labels.

        Raises:
            ValueError: A part differs.
        """
        Fingerprint(self.labeler).check_equal(Fingerprint(compared_parts(fingerprint)), "the calibration", _REMEDY)


def compared_parts(fingerprint: Fingerprint) -> dict[str, object]:
    """Returns the parts of a labeler's fingerprint, or of labels', that a calibration holds for."""
    return {name: value for name, value in fingerprint.parts.items() if name not in NOT_COMPARED}


def read_calibration(path: str | Location) -> Calibration:
    """Reads the file that `vlm-rewards calibrate` wrote.

    Raises:
        ValueError: The file does not exist, is not a calibration, has another version, or was changed.
    """
    path = location_of(path)
    remedy = "give the file that vlm-rewards calibrate wrote"
    if not path.is_file():
        raise ValueError(f"a calibration must be a file, got {path}, which is not there; {remedy}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a calibration must be JSON, got {path} ({error}); {remedy}") from error
    kind = record.get("kind") if isinstance(record, dict) else type(record).__name__
    if kind != "calibration":
        raise ValueError(f"a calibration must say that it is one, got {path} of kind {kind!r}; {remedy}")
    if record.get("version") != 1:
        raise ValueError(
            f"a calibration must be of version 1, got {record.get('version')!r} in {path}; calibrate again"
        )
    if record.pop("digest", None) != _digest(record):
        raise ValueError(
            f"a calibration must be as it was written, got {path} with another digest; calibrate again, or give a threshold of "
            f"your own with --threshold"
        )
    return Calibration(
        goals=tuple(record["thresholds"]),
        labeler=record["labeler"],
        thresholds=tuple(record["thresholds"].values()),
        temperature=record["temperature"],
        fire_rates=tuple(record["fire_rates"].values()),
        objective=record["objective"],
        data=record["data"],
        temperature_search=record["temperature_search"],
        quality=record["quality"],
        details=record["goals"],
    )


def _digest(record: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]
