"""Labels every frame of a corpus for all goals at once.

    plan: units, without the finished (pipelines/label/planning.py) ─► each unit (pipelines/label/units.py) ─► manifest

One unit is one input shard, or a range of a large one.
"""

import dataclasses
import importlib
import threading
from pathlib import Path
from typing import Unpack

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.summaries import RunSummary
from vlm_rewards.pipelines.label.planning import check_episode_ids, plan_label
from vlm_rewards.pipelines.label.settings import LabelKeywords, LabelRun
from vlm_rewards.pipelines.label.shared_labelers import one_run
from vlm_rewards.schemas.folders import write_atomically
from vlm_rewards.schemas.formats.truth import tells_of
from vlm_rewards.schemas.goals import goals_to_lines
from vlm_rewards.schemas.options import build_settings, shows_settings

GOALS = "goals.jsonl"
"""The goals in the folder of the labels, to be edited and labelled with again."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LabelSummary(RunSummary):
    """Summary of a run of `label`.

    Args:
        has_ground_truth: Whether the corpus says of one of the goals in which frames it holds; False where no corpus was read.
    """

    has_ground_truth: bool


@shows_settings(LabelRun)
def label(
    corpus: str | Path | None, labeler: LabelerSettings, *, output: str | Path, **settings: Unpack[LabelKeywords]
) -> LabelSummary:
    """Labels every frame of a corpus; run again after an interruption, it does what is missing.

    Args:
        corpus: Corpus to label, a folder or one shard, or a URL; None to label from kept embeddings alone.
        labeler: Encoder, goals, prompts, formula, windows and reward rule.
        output: Folder for the labels, or a URL of an object store, such as "s3://bucket/labels".
        settings: Fields of `LabelRun`.

    Returns:
        What was done, with the manifest of the labels.

    Raises:
        ValueError: The corpus, the camera, the output folder or the embeddings do not fit; see the message.

    Example:
        >>> import vlm_rewards as vr
        >>> labeler = vr.load_labeler("reference-s", vr.read_goals("corpus/goals.jsonl"))
        >>> vr.label("corpus/", labeler.settings, output="labels-2/")
        LabelSummary(labels: ... rows of 12 episodes in 1 units, 0 of them done before, 0 failures)
    """
    (run,) = build_settings(settings, LabelRun)
    with one_run():
        return _label(corpus, labeler, output, run)


def _load_beam() -> None:
    """Begins to import the driver, which imports Beam, while this process is busy with what needs no interpreter."""
    driver = "vlm_rewards.pipelines.engine.driver"
    threading.Thread(target=importlib.import_module, args=(driver,), name="load-beam", daemon=True).start()


def _label(corpus: str | Path | None, labeler: LabelerSettings, output: str | Path, run: LabelRun) -> LabelSummary:
    plan = plan_label(corpus, labeler, output, run, when_loaded=_load_beam)
    kept = [plan.work.embeddings] if plan.work.embeddings is not None and corpus is not None else []
    if plan.work.corpus is not None and any(plan.output.to_do(plan.units)):
        check_episode_ids(plan.work.corpus, plan.units)
    from vlm_rewards.pipelines.engine.driver import (
        run_units,  # imports Beam: not before it is clear that there is a run
    )

    summary = run_units(
        plan.units,
        plan.work,
        plan.output,
        also_filled=kept,
        beam_options=run.beam_options,
        log_format=run.log_format,
        workers=run.workers if run.workers is not None else run.decoders or None,
        max_failure_share=run.max_failure_share,
        title="label",
        counted_name="frames",
        total=plan.num_frames,
        manifest_extra={"passed_over": dict(plan.passed_over), "notes": list(plan.notes)},
    )
    goals_path = plan.output.path / GOALS
    if not goals_path.is_file():  # an edited one stays
        write_atomically(goals_path, goals_to_lines(labeler.goals))
    ids = [goal.id for goal in labeler.goals]
    has_truth = plan.work.corpus is not None and tells_of(plan.work.corpus.features, ids)
    return LabelSummary(**vars(summary), has_ground_truth=has_truth)
