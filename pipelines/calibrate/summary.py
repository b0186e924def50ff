"""Describes a calibration for people: the choices, their quality, and the command that labels with it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_rewards.labelers.settings import LabelerSettings, settings_from_json
from vlm_rewards.pipelines.evaluate.summary import first_ids
from vlm_rewards.schemas.calibrations import Calibration, read_calibration
from vlm_rewards.schemas.files.remote_paths import Location, location_of
from vlm_rewards.schemas.folders import read_settings
from vlm_rewards.schemas.formats.passed_over import passed_over_lines
from vlm_rewards.schemas.formats.truth import goals_beside
from vlm_rewards.schemas.goals import Goal, read_goals

_SHOWN_GROUPS = 6
_SOURCES = {
    "goal": "have a threshold of their own",
    "all goals": "have a threshold of all goals",
    "labels": "keep the threshold of the labels",
}
_SHOWN_GOALS = 3


def describe(calibration: Calibration) -> list[str]:
    """Returns lines for people: the choices and their quality."""
    data, search, objective = calibration.data, calibration.temperature_search, calibration.objective
    names = {
        "f1": "the best F1",
        "precision": "precision",
        "fpr": "a bounded false-positive rate",
        "quantile": "a quantile",
    }
    lines = [
        f"calibrated {len(calibration.goals)} goals for {names[str(objective['objective'])]} on {data['frames']:,} frames of "
        f"{data['episodes']:,} episodes (truth: {data['truth']})",
        _temperature_line(calibration.temperature, search),
    ]
    if missing := data.get("goals_without_ground_truth"):
        assert isinstance(missing, Sequence)
        lines.append(f"  {len(missing):,} goals have no ground truth: {first_ids(missing)}")
    if passed_over := data.get("passed_over"):
        assert isinstance(passed_over, Mapping)
        lines += [f"  {line}" for line in passed_over_lines(passed_over)]
    if "holds" in objective:
        lines.append(f"  holds {objective['holds']}")
    if calibration.quality:
        is_kept = all(detail["chosen_from"] == "labels" for detail in calibration.details)
        held_out = "held out (at thresholds that were not taken)" if is_kept else "held out"
        for title, key in (("on these data", "on_calibration_data"), (held_out, "held_out")):
            own, one = (_macro(calibration.quality, key, name) for name in ("a_threshold_a_goal", "one_threshold"))
            lines.append(f"  macro F1 {title}: {own} with one threshold per goal, {one} with one for all")
        own, before = (_pooled(calibration.quality, name) for name in ("a_threshold_a_goal", "before"))
        lines.append(f"  precision and recall of all frames, {held_out}: {own}; of the labels as they are: {before}")
    groups: dict[str, list[str]] = {}
    for detail in calibration.details:
        never = detail["threshold"] == "never fires"
        source = (
            "never fire"
            if never
            else _SOURCES.get(str(detail["chosen_from"]), f"have a threshold of the {detail['chosen_from']}")
        )
        groups.setdefault(f"{source}" + (f": {detail['reason']}" if detail["reason"] else ""), []).append(
            str(detail["id"])
        )
    shown = sorted(groups.items(), key=lambda group: -len(group[1]))
    for text, ids in shown[:_SHOWN_GROUPS]:
        lines.append(
            f"  {len(ids)} goals {text} ({', '.join(ids[:_SHOWN_GOALS])}{', ...' * (len(ids) > _SHOWN_GOALS)})"
        )
    if len(shown) > _SHOWN_GROUPS:
        rest = sum(len(ids) for _, ids in shown[_SHOWN_GROUPS:])
        lines.append(f"  {rest} more goals with other reasons: see the file")
    return lines


def _macro(quality: Mapping[str, object], key: str, name: str) -> str:
    figures = quality[key]
    assert isinstance(figures, dict)
    value = figures[name]["macro_f1"]
    return value if isinstance(value, str) else f"{value:.3f}"


def _pooled(quality: Mapping[str, object], name: str) -> str:
    figures = quality["held_out"]
    assert isinstance(figures, dict)
    return " and ".join(
        "none" if value is None else f"{value:.3f}" for value in (figures[name][key] for key in ("precision", "recall"))
    )


def _temperature_line(temperature: float | None, search: Mapping[str, object]) -> str:
    outcome = search["outcome"]
    if temperature is None:
        return f"  temperature: {outcome}"
    if "tried" not in search:
        return f"  temperature {temperature:.4g} ({outcome})"
    edge = "; at the end of those tried: look at it" if search["at_the_end_of_the_grid"] else ""
    if str(search["outcome"]).startswith("kept: "):
        return f"  temperature {temperature:.4g} ({search['outcome']})"
    return (
        f"  temperature {temperature:.4g}, was {search['before']:.4g}: log loss {search['log_loss']:.6f}, was "
        f"{search['log_loss_before']:.6f}; held out {search['log_loss_held_out']:.6f}{edge}"
    )


def next_label(
    labels: str | Path, calibration: str | Path, corpus: str | Path | None, embeddings: str | Path | None
) -> list[str]:
    """Returns the command that labels again with the calibration: the settings of the labels, without temperature and threshold.

    The goals file is the corpus's where it holds the goals of the labels as they are, else a placeholder. Hysteresis is left out
    where the calibration bounds false positives, since the two do not go together.
    """
    path = None if corpus is None else goals_beside(corpus)
    source = ["--input", str(corpus or "CORPUS")] if embeddings is None else ["--embeddings", str(embeddings)]
    record = read_settings(location_of(labels))["settings"].get("labeler")
    if record is None:
        words = ["--goals", "GOALS.jsonl" if path is None else str(path)]
    else:
        settings = settings_from_json(record)
        if read_calibration(calibration).objective["objective"] == "fpr":
            settings = dataclasses.replace(settings, hysteresis=0.0)
        words = [*_goal_words(path, settings.goals), *_words_of(settings)]
    return ["label", *source, *words, "--calibration", str(calibration), "--output", "labels-calibrated/"]


def _goal_words(path: Location | None, goals: Sequence[Goal]) -> list[str]:
    bank = () if path is None else read_goals(path)
    if not set(goals) <= set(bank):
        return ["--goals", "GOALS.jsonl"]
    chosen = () if tuple(goals) == bank else goals
    return ["--goals", str(path), *(word for goal in chosen for word in ("--goal", goal.id))]


def _words_of(settings: LabelerSettings) -> list[str]:
    """Returns the options of `vlm-rewards label` that are not at their defaults."""
    default = LabelerSettings(model=settings.model, goals=settings.goals, threshold=0.5)
    words = ["--model", settings.model]
    if settings.templates != default.templates:
        words += [word for template in settings.templates for word in ("--template", template)]
    for option, value, usual in (
        ("formula", settings.formula, default.formula),
        ("negatives", settings.negatives.kind, default.negatives.kind),
        ("num-negatives", settings.negatives.k, None),
        ("negatives-seed", settings.negatives.seed, default.negatives.seed),
        ("baseline", settings.baseline, default.baseline),
        ("alpha", settings.alpha, default.alpha),
        ("window", settings.window.frames, default.window.frames),
        ("window-over", settings.window.over, default.window.over),
        ("window-reduce", settings.window.reduce, default.window.reduce),
        ("min-frames", settings.min_frames, default.min_frames),
        ("hysteresis", settings.hysteresis, default.hysteresis),
        ("reward", settings.reward, default.reward),
        ("discount", settings.discount, default.discount),
        ("precision", settings.precision, default.precision),
        ("batch-size", settings.batch_size, default.batch_size),
        ("device", settings.device, default.device),
    ):
        if value != usual:
            words += [f"--{option}", str(value)]
    return words + [word for text in settings.negatives.explicit for word in ("--negative", text)]
