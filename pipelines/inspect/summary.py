"""What a corpus is, in a few lines for people, and the command to run next."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_rewards.labelers.reference_models.defaults import default_model
from vlm_rewards.pipelines.inspect.pictures import CameraCounts
from vlm_rewards.pipelines.inspect.tally import Tally
from vlm_rewards.schemas.formats.common_options import ReadSettings
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.passed_over import passed_over_lines
from vlm_rewards.schemas.manifests import Failure

SHOWN_INSTRUCTIONS, SHOWN_FAILURES = 5, 3
PUBLIC_MODEL = "openai/clip-vit-large-patch14"
_MANY_GOALS = 2000
_OTHER = "something else"
_FRAMES = {
    "none": "one more than actions",
    "last": "as many as actions: the one after the last action is missing, so the last step is left out of training",
    "first": "as many as actions: the one before the first action is missing, so the first step is left out of training",
    "no actions": "no actions: a step lies between two frames",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """What a corpus is.

    Args:
        path: Folder or file that was looked at.
        corpus: The open corpus.
        read_with: What the corpus was told when it was opened.
        num_files: Number of files that it consists of.
        num_bytes: Their size together.
        tally: Counts over all episodes that could be read, or that `label` can read.
        cameras: What frames look like, by camera.
        is_decoded: Whether all frames were decoded, or one in each of some units.
        failures: What `label` cannot read.
        later_failures: What `label` can read, and a command that needs actions, rewards, states, instructions or truth cannot.
        repeated_ids: Ids of episodes that occur in two units; `label` refuses such a corpus.
        goals_path: The goals.jsonl of the corpus; None where it has none.
        passed_over: By reason, names of what lies below the folder and is not read.
    """

    path: str
    corpus: Corpus
    read_with: ReadSettings
    num_files: int
    num_bytes: int
    tally: Tally
    cameras: Mapping[str, CameraCounts]
    is_decoded: bool
    failures: Sequence[Failure]
    later_failures: Sequence[Failure]
    repeated_ids: Sequence[str]
    goals_path: str | None
    passed_over: Mapping[str, list[str]]

    def __repr__(self) -> str:
        return "\n".join(summary_lines(self))

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        tally, features = self.tally, self.corpus.features
        return {
            "kind": "corpus",
            "path": self.path,
            "format": self.corpus.format_name,
            "options": dict(self.corpus.options),
            "num_files": self.num_files,
            "num_bytes": self.num_bytes,
            "num_episodes": tally.num_episodes,
            "num_frames": tally.num_frames,
            "num_steps": tally.num_steps,
            "frames_per_episode": [min(tally.lengths), tally.median_length, max(tally.lengths)]
            if tally.lengths
            else None,
            "missing_frame": dict(tally.missing_frames),
            "cameras": {
                name: {
                    "num_episodes": tally.cameras[name],
                    "num_looked_at": counts.num_frames + counts.num_unreadable,
                    "sizes": [[*size, count] for size, count in counts.sizes.most_common()],
                    "num_black": counts.num_black,
                    "num_repeated": counts.num_repeated if self.is_decoded else None,
                    "num_unreadable": counts.num_unreadable,
                }
                for name, counts in self.cameras.items()
            },
            "are_all_frames_decoded": self.is_decoded,
            "action_size": features.action_size,
            "action_range": tally.action_range,
            "state_size": features.state_size,
            "reward_range": tally.reward_range,
            "num_instructions": len(tally.instructions),
            "num_episodes_without_instruction": tally.num_without_instruction,
            "num_episodes_of_several_instructions": tally.num_changing,
            "instructions": dict(tally.instructions.most_common()),
            "num_episodes_with_truth": tally.num_with_truth,
            "truth_goals": None if features.truth_goals is None else list(features.truth_goals),
            "achieved_goals": dict(tally.achieved.most_common()),
            "goals_path": self.goals_path,
            "failures": [failure.to_json() for failure in self.failures],
            "failures_of_later_commands": [failure.to_json() for failure in self.later_failures],
            "repeated_episode_ids": list(self.repeated_ids),
            "notes": list(self.corpus.notes),
            "passed_over": dict(self.passed_over),
        }


def summary_lines(report: CorpusReport) -> list[str]:
    """Lines for people."""
    tally, features = report.tally, report.corpus.features
    files = f"{report.num_files:,} file{'s' if report.num_files != 1 else ''}, {_size(report.num_bytes)}"
    lines = [
        f"{report.path}: a corpus of the format {report.corpus.format_name} ({files})",
        f"  {tally.num_episodes:,} episodes of {_lengths(report)}: {tally.num_frames:,} frames, {tally.num_steps:,} steps",
        *_camera_lines(report),
        f"  actions: {_actions(report)}; states: {'none' if features.state_size is None else _numbers(features.state_size)}; "
        f"rewards: {_rewards(report)}",
        *_frame_lines(tally.missing_frames),
        *_instruction_lines(report),
        f"  ground truth: {_truth(report)}",
    ]
    if tally.lengths[1]:
        lines.append(f"  {tally.lengths[1]:,} episodes have one frame, and so no step: hindsight leaves them out")
    if report.repeated_ids:
        first = report.repeated_ids[0]
        lines.append(
            f"  ids that occur twice: {len(report.repeated_ids):,}, the first {first!r}; label refuses such a corpus"
        )
    lines += _failure_lines("cannot be read", report.failures)
    if report.failures:
        lines.append(
            "    label stops where more than 1 % of frames, episodes or files fail, or as --max-failure-share says"
        )
    lines += _failure_lines("label can read, later commands cannot", report.later_failures)
    lines += [f"  note: {note}" for note in report.corpus.notes]
    return [*lines, *(f"  {line}" for line in passed_over_lines(report.passed_over))]


def next_commands(report: CorpusReport, goals: Path | None = None) -> list[list[object]]:
    """The words of the `label` command to run next.

    Args:
        report: What the corpus is.
        goals: File of goals to label with; None for what the corpus offers.
    """
    tally = report.tally
    words: list[object] = ["label", "--input", report.path]
    told = report.read_with
    for name, given in (("--corpus-option", told.corpus_options), ("--column", told.columns)):
        words += [word for pair in given.items() for word in (name, "=".join(pair))]
    if told.picture_range is not None:
        words += ["--picture-range", told.picture_range]
    cameras = list(report.cameras)
    if len(cameras) > 1:
        words += ["--camera", next((name for name in cameras if not _is_black(report.cameras[name])), cameras[0])]
    texts = list(tally.instructions)
    if goals is None and tally.num_with_truth and report.goals_path is not None:
        words += ["--goals", report.goals_path]
    elif texts:
        words += ["--goals", goals or "from-corpus"]
        if len(texts) == 1:  # in a softmax, a goal needs something beside it
            words += ["--negative", _OTHER]
            texts.append(_OTHER)
        if len(texts) > _MANY_GOALS:
            words.append("--sparse")
    else:
        words += ["--goals", report.goals_path or "goals.jsonl"]
    return [[*words, "--model", _model(texts), "--output", "labels/"]]


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:,.1f} kB"


def _model(texts: Sequence[str]) -> str:
    try:
        return default_model(texts) if texts else PUBLIC_MODEL
    except ValueError:  # no domain's own model reads them
        return PUBLIC_MODEL


def _lengths(report: CorpusReport) -> str:
    lengths = report.tally.lengths
    if not lengths:
        return "no frames"
    if len(lengths) == 1:
        return f"{next(iter(lengths)):,} frames each"
    return f"{min(lengths):,} to {max(lengths):,} frames (median {report.tally.median_length:,g})"


def _camera_lines(report: CorpusReport) -> list[str]:
    lines = []
    for name, counts in report.cameras.items():
        notes = _camera_notes(counts, is_decoded=report.is_decoded)
        have = report.tally.cameras[name]
        if have < report.tally.num_episodes:
            notes.insert(0, f"in {have:,} of {report.tally.num_episodes:,} episodes only")
        lines.append(f"  camera {name}: {'; '.join([_sizes(counts), *notes])}")
    if not report.is_decoded:
        looked = max((counts.num_frames for counts in report.cameras.values()), default=0)
        lines.append(f"    seen in {looked:,} frame{'s' if looked != 1 else ''} per camera; --frames decodes all")
    return lines


def _sizes(counts: CameraCounts) -> str:
    if not counts.sizes:
        return "no frame could be decoded"
    shown = [f"{width}x{height}" for (width, height), _ in counts.sizes.most_common(3)]
    if len(counts.sizes) == 1:
        return shown[0]
    more = len(counts.sizes) - len(shown)
    return f"sizes differ: {', '.join(shown)}{f' and {more} more' if more else ''}"


def _camera_notes(counts: CameraCounts, *, is_decoded: bool) -> list[str]:
    notes = []
    if counts.num_unreadable:
        notes.append(f"{counts.num_unreadable:,} frames cannot be decoded")
    if _is_black(counts):
        notes.append("all black")
    elif counts.num_black:
        notes.append(f"{counts.num_black / counts.num_frames:.1%} black")
    if is_decoded and counts.num_repeated:
        notes.append(f"{counts.num_repeated / counts.num_frames:.1%} the same as the frame before")
    return notes


def _is_black(counts: CameraCounts) -> bool:
    return 0 < counts.num_frames == counts.num_black


def _actions(report: CorpusReport) -> str:
    size, bounds = report.corpus.features.action_size, report.tally.action_range
    if size is None:
        return "none"
    if size:
        return _numbers(size)
    return "discrete" if bounds is None else f"discrete, {bounds[0]} to {bounds[1]} occur"


def _numbers(count: int) -> str:
    return f"{count} number{'s' if count > 1 else ''}"


def _rewards(report: CorpusReport) -> str:
    bounds = report.tally.reward_range
    if bounds is None:
        return "none"
    return f"all {bounds[0]:g}" if bounds[0] == bounds[1] else f"{bounds[0]:g} to {bounds[1]:g}"


def _frame_lines(missing: Mapping[str, int]) -> list[str]:
    if len(missing) == 1:
        return [f"  frames: {_FRAMES[next(iter(missing))]}"]
    return [f"  frames of {count:,} episodes: {_FRAMES[name]}" for name, count in missing.items()]


def _instruction_lines(report: CorpusReport) -> list[str]:
    tally = report.tally
    if not tally.instructions:
        example = report.goals_path or '{"id": "cup-in-sink", "text": "a cup in the sink"}'
        return [f"  instructions: none, so goals come from a file, one per line, such as {example}"]
    without = tally.num_without_instruction
    none = f"; none in {without:,} of {tally.num_episodes:,} episodes" if without else ""
    none += f"; several in {tally.num_changing:,} episodes" if tally.num_changing else ""
    shown = tally.instructions.most_common(SHOWN_INSTRUCTIONS)
    lines = [f"  instructions: {len(tally.instructions):,} distinct{none}"]
    lines += [f"    {count:,} x {text!r}" for text, count in shown]
    more = len(tally.instructions) - len(shown)
    return [*lines, f"    and {more:,} more"] if more else lines


def _truth(report: CorpusReport) -> str:
    tally, covered = report.tally, report.corpus.features.truth_goals
    if not tally.num_with_truth:
        return "none"
    some = f" in {tally.num_with_truth:,} episodes" if tally.num_with_truth < tally.num_episodes else ""
    of_goals = f" for {len(covered):,} goals" if covered is not None else ""
    beside = f"; see {report.goals_path}" if report.goals_path is not None else ""
    return f"recorded{some}{of_goals}; {len(tally.achieved):,} goals hold somewhere{beside}"


def _failure_lines(what: str, failures: Sequence[Failure]) -> list[str]:
    if not failures:
        return []
    counts = Counter((failure.scope, failure.reason) for failure in failures)
    told = ", ".join(f"{count:,} {reason} ({scope})" for (scope, reason), count in counts.items())
    shown = [f"    {failure}" for failure in failures[:SHOWN_FAILURES]]
    more = len(failures) - len(shown)
    return [f"  {what}: {told}", *shown, *([f"    and {more:,} more"] if more else [])]
