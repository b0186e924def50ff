"""Writes labels in formats of other tools; `schemas.formats.exports.registry` lists the exports."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from vlm_rewards.pipelines.export.labelled import JoinedCorpus
from vlm_rewards.pipelines.export.settings import OWN_GOAL, ExportKeywords, ExportRun
from vlm_rewards.schemas.files.remote_paths import local_path
from vlm_rewards.schemas.folders import read_settings
from vlm_rewards.schemas.formats.exports.interface import ExportFormat, ExportSettings, local_folder
from vlm_rewards.schemas.formats.exports.publishing import (
    Changes,
    all_files,
    publish_folder,
    publish_in_place,
    undo_interrupted,
)
from vlm_rewards.schemas.formats.exports.registry import export_format
from vlm_rewards.schemas.formats.label_parts.reader import check_units, open_labels
from vlm_rewards.schemas.options import build_settings, shows_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """Result of an export.

    Args:
        folder: The folder that holds it: the output, or the corpus itself.
        episodes: Number of episodes that were judged, or looked at by an export that does not judge.
        lines: Description of the result for the user.
        was_undone: Whether an earlier export into the corpus, which was interrupted, was undone first.
    """

    folder: Path
    episodes: int
    lines: tuple[str, ...]
    was_undone: bool = False

    def __repr__(self) -> str:
        return f"ExportSummary({str(self.folder)!r}: {'; '.join(self.lines)})"


@shows_settings(ExportRun)
def export(corpus: str | Path, labels: str | Path, *, to: str, **settings: Unpack[ExportKeywords]) -> ExportSummary:
    """Writes labels in a format that other tools read.

    Nothing of the corpus is changed but with `in_place`; what is made is complete or absent.

    Args:
        corpus: Corpus that was labelled.
        labels: Folder of its labels, finished.
        to: Name of the export, such as "verdicts".
        settings: Fields of `ExportRun`.

    Raises:
        ValueError: Neither or both of `output` and `in_place` are given; the export does not take corpora of this format; or the
            corpus, the labels or the output do not fit.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.export("corpus/", "labels/", to="verdicts", output="verdicts/")
        ExportSummary('verdicts': ... of 12 episodes succeeded: verdicts.parquet, successful.json)
    """
    (run,) = build_settings(settings, ExportRun)
    chosen = export_format(to)
    told = ExportSettings(smooth=run.smooth, all_scores=run.all_scores, strategy=run.strategy, seed=run.seed)
    for field in dataclasses.fields(told):
        if getattr(told, field.name) != field.default and field.name not in chosen.takes:
            raise ValueError(
                f"the export {chosen.name!r} has no use for {field.name}: got {getattr(told, field.name)!r}. Leave it out"
            )
    if run.goal != OWN_GOAL and not chosen.judges:
        raise ValueError(
            f"the export {chosen.name!r} does not judge episodes by one goal: got the goal {run.goal!r}. Leave it out"
        )
    if run.link and (run.in_place or chosen.place != "copy"):
        raise ValueError("link is for exports that copy the corpus: got it for one that does not. Leave it out")
    if (run.output is None) != run.in_place:
        found = "both" if run.in_place else "neither"
        raise ValueError(
            f"an export needs either an output folder or in_place: got {found}. Give --output DIR, or --in-place to change the "
            "corpus itself"
        )
    if run.output is not None:
        local_path(run.output, "an export")  # refused before anything is read
    if run.in_place and chosen.place == "folder":
        raise ValueError(
            f"the export {chosen.name!r} makes files of its own: got in_place, with which it would change the corpus. Give an "
            "output folder"
        )
    was_undone = run.in_place and Path(corpus).is_dir() and undo_interrupted(Path(corpus))
    opened = open_labels(labels)
    source, units = opened.open_corpus(corpus)
    if chosen.corpus_formats and source.format_name not in chosen.corpus_formats:
        raise ValueError(
            f"the export {chosen.name!r} takes corpora of the format {' or '.join(chosen.corpus_formats)}: got {source}. Choose "
            "another export: verdicts takes all"
        )
    check_units(opened, source, units)
    model = str(read_settings(opened.folder)["settings"]["model"])
    goal = None if run.goal == OWN_GOAL else run.goal
    joined = JoinedCorpus(source, units, opened, goal=goal, model=model, instructions=chosen.judges and goal is None)
    with contextlib.closing(joined):

        def make(changes: Changes) -> list[str]:
            return chosen.write(joined, changes, told)

        folder, lines = _publish(chosen, joined, run, make)
    judged = sum(episode.goal is not None or not chosen.judges for episode in joined.episodes)
    return ExportSummary(folder=folder, episodes=judged, lines=tuple(lines), was_undone=was_undone)


def _publish(
    chosen: ExportFormat, joined: JoinedCorpus, run: ExportRun, make: Callable[[Changes], list[str]]
) -> tuple[Path, list[str]]:
    if run.in_place:
        folder = local_folder(joined.corpus)
        return folder, publish_in_place(folder, make)
    assert run.output is not None
    output = Path(run.output)
    if chosen.place != "copy":
        return output, publish_folder(output, make)
    folder = local_folder(joined.corpus)
    only = joined.corpus.folder.only
    if output.resolve().is_relative_to((folder / only).resolve()):
        raise ValueError(f"a copy must lie outside of what it copies: got {output} in {folder}. Give another folder")
    names = all_files(folder, only)
    return output, publish_folder(output, make, source=folder, names=names, link=run.link)
