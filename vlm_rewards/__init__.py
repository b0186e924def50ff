"""Labels recorded trajectories with rewards from vision-language models, for many language goals at once.

    import vlm_rewards as vr

    labeler = vr.load_labeler("reference-s", vr.read_goals("corpus/goals.jsonl"))
    vr.label("corpus/", labeler.settings, output="labels/")

This is all of the public API. Importing it takes milliseconds: each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_rewards.labelers.labeler import Labeler, load_labeler
    from vlm_rewards.labelers.settings import LabelerSettings
    from vlm_rewards.offline_rl.evaluation.rollout import rollout
    from vlm_rewards.offline_rl.online.live_rewards import LiveRewards
    from vlm_rewards.offline_rl.runs.saved_agents import load_agent
    from vlm_rewards.offline_rl.training.finetune import finetune
    from vlm_rewards.offline_rl.training.train import train
    from vlm_rewards.pipelines.calibrate.calibration import calibrate
    from vlm_rewards.pipelines.diff.comparison import diff
    from vlm_rewards.pipelines.evaluate.evaluation import evaluate
    from vlm_rewards.pipelines.export.exporting import export
    from vlm_rewards.pipelines.hindsight.relabelling import hindsight
    from vlm_rewards.pipelines.inspect.inspection import inspect_corpus
    from vlm_rewards.pipelines.label.labelling import label
    from vlm_rewards.pipelines.record.recording import record
    from vlm_rewards.schemas.episodes import Episode
    from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus
    from vlm_rewards.schemas.formats.corpus_writer import write_corpus
    from vlm_rewards.schemas.formats.label_parts.reader import Labels, open_labels
    from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
    from vlm_rewards.schemas.goals import Goal, read_goals

__all__ = [
    "Corpus",
    "Episode",
    "Goal",
    "Labeler",
    "LabelerSettings",
    "Labels",
    "LiveRewards",
    "calibrate",
    "diff",
    "evaluate",
    "export",
    "finetune",
    "hindsight",
    "inspect_corpus",
    "label",
    "load_agent",
    "load_labeler",
    "open_corpus",
    "open_labels",
    "read_goals",
    "read_relabelled",
    "record",
    "rollout",
    "train",
    "write_corpus",
]

_MODULES = {
    "Corpus": "schemas.formats.corpus",
    "Episode": "schemas.episodes",
    "Goal": "schemas.goals",
    "Labeler": "labelers.labeler",
    "LabelerSettings": "labelers.settings",
    "Labels": "schemas.formats.label_parts.reader",
    "LiveRewards": "offline_rl.online.live_rewards",
    "calibrate": "pipelines.calibrate.calibration",
    "diff": "pipelines.diff.comparison",
    "evaluate": "pipelines.evaluate.evaluation",
    "export": "pipelines.export.exporting",
    "finetune": "offline_rl.training.finetune",
    "hindsight": "pipelines.hindsight.relabelling",
    "inspect_corpus": "pipelines.inspect.inspection",
    "label": "pipelines.label.labelling",
    "load_agent": "offline_rl.runs.saved_agents",
    "load_labeler": "labelers.labeler",
    "open_corpus": "schemas.formats.corpus",
    "open_labels": "schemas.formats.label_parts.reader",
    "read_goals": "schemas.goals",
    "read_relabelled": "schemas.formats.relabelled_parts.reader",
    "record": "pipelines.record.recording",
    "rollout": "offline_rl.evaluation.rollout",
    "train": "offline_rl.training.train",
    "write_corpus": "schemas.formats.corpus_writer",
}
"""By name, the module below `vlm_rewards` that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vlm_rewards' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vlm_rewards.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
