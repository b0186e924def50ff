"""Counts the episodes of a corpus that achieve each goal, by its labels alone; summed by Beam over all parts.

part of labels ──► names and counts ──► sum by name ──► one dict ──► goal_statistics.json
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

import apache_beam as beam
import numpy as np

from vlm_rewards.labelers.rewards.hindsight import achievements
from vlm_rewards.labelers.rewards.rewards import successes
from vlm_rewards.pipelines.engine.driver import make_pipeline
from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.schemas.folders import write_atomically
from vlm_rewards.schemas.formats.label_parts.reader import EpisodeLabels, Labels, part_of_unit, read_labels
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Unit
from vlm_rewards.schemas.rules import RewardRule

STATISTICS_NAME = "goal_statistics.json"


def count_achievements(labels: Iterable[EpisodeLabels], goals: Sequence[Goal], rule: RewardRule) -> Counter[str]:
    """Counts in how many episodes each goal is achieved, and in how many it holds in some frame.

    Args:
        labels: Episodes; those with a gap in their frames count as incomplete and no further.
        goals: The G goals, in the order of the scores.
        rule: Reward rule that says where a goal holds.

    Returns:
        "episodes", "incomplete_episodes", and "achieved/<id>" and "holds/<id>" for the goals with any.
    """
    counts: Counter[str] = Counter()
    for _, frame_indices, scores in labels:
        if frame_indices[-1] != len(frame_indices) - 1:
            counts["incomplete_episodes"] += 1
            continue
        counts["episodes"] += 1
        holds = successes(scores, rule)
        for name, found in (("achieved", achievements(holds)), ("holds", holds)):
            counts.update(f"{name}/{goals[goal].id}" for goal in np.flatnonzero(np.any(found, axis=0)).tolist())
    return counts


class _CountUnit(beam.DoFn):
    def __init__(self, labels: Labels, output: OutputFolder) -> None:
        self._labels = labels
        self._output = output

    def process(self, unit: dict) -> Iterable[tuple[str, int]]:
        unit_to_count = Unit.from_json(unit)
        metadata = self._labels.metadata
        try:
            read = read_labels(part_of_unit(self._labels, unit_to_count))
            return list(count_achievements(read, metadata.goals, metadata.rule).items())
        except Exception as error:  # raised by the driver, in plain words
            self._output.record_error(unit_to_count, error)
            return []


class CountAchievements(beam.PTransform):
    """From units, as JSON objects, to one dict: the sums of `count_achievements` over all of them."""

    def __init__(self, labels: Labels, output: OutputFolder) -> None:
        super().__init__()
        self._labels = labels
        self._output = output

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        """Counts each unit, sums by name and gathers the sums."""
        return (
            units
            | "Spread" >> beam.Reshuffle()
            | "Count" >> beam.ParDo(_CountUnit(self._labels, self._output))
            | "Sum" >> beam.CombinePerKey(sum)
            | "Gather" >> beam.combiners.ToDict()
        )


def _write_statistics(counts: dict[str, int], goals: Sequence[Goal], output: OutputFolder) -> None:
    if output.has_recorded_error():  # the counts are not whole
        return
    statistics = {
        "episodes": counts.get("episodes", 0),
        "incomplete_episodes": counts.get("incomplete_episodes", 0),
        "goals": {
            goal.id: {name: counts.get(f"{name}/{goal.id}", 0) for name in ("achieved", "holds")} for goal in goals
        },
    }
    write_atomically(output.path / STATISTICS_NAME, json.dumps(statistics, indent=1, sort_keys=True) + "\n")


def goal_statistics(
    labels: Labels,
    units: Sequence[Unit],
    output: OutputFolder,
    *,
    beam_options: Sequence[str] = (),
    workers: int | None = None,
) -> dict:
    """Counts over the whole corpus how many episodes achieve each goal; reads goal_statistics.json if it is there.

    Args:
        labels: The labels of the corpus.
        units: All of its units.
        output: Folder in which the pipeline writes goal_statistics.json; claimed, and its fingerprint is of these labels.
        beam_options: Options for Beam, as given after a bare `--`.
        workers: Workers on this machine, see `pipelines.engine.driver.beam_arguments`.

    Returns:
        {"episodes", "incomplete_episodes", "goals": {id: {"achieved", "holds"}}}, numbers of episodes.

    Raises:
        RuntimeError: A part of the labels cannot be read, or the runner ended without having counted.
    """
    path = output.path / STATISTICS_NAME
    if not path.is_file():
        pipeline = make_pipeline(beam_options, workers)
        _ = (
            pipeline
            | "Units" >> beam.Create([unit.to_json() for unit in units])
            | "Achievements" >> CountAchievements(labels, output)
            | "Write" >> beam.Map(_write_statistics, labels.metadata.goals, output)
        )
        pipeline.run().wait_until_finish()
        output.raise_recorded_error()
    if not path.is_file():
        raise RuntimeError(
            f"the runner must have counted all goals when it has ended, got no {path}; use another runner"
        )
    return json.loads(path.read_text(encoding="utf-8"))
