"""Joins a corpus with its labels, and chooses the goal that each episode is judged by.

    corpus ──► episodes without pictures ──► id, frames, actions, instruction ──► goal
    labels ──► ids of every part         ──► where each episode's rows are ──► read when its values are asked for

What is held is a record per episode; scores are read a row group at a time.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.rewards.hindsight import (
    HindsightSettings,
    achievements,
    choose_goals,
    goal_groups,
    original_goals,
)
from vlm_rewards.labelers.rewards.rewards import rewards_of_scores, step_rewards, successes
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.files.remote_paths import Location
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.exports.interface import EpisodeValues, ExportEpisode, HindsightGoal
from vlm_rewards.schemas.formats.label_parts.reader import Labels, part_of_unit
from vlm_rewards.schemas.formats.label_parts.rows import EpisodeRows, PartRows, locate_episodes
from vlm_rewards.schemas.goals import Goal, normalize_instruction
from vlm_rewards.schemas.manifests import Failure, Unit


class _Place(NamedTuple):
    """Place of an episode's labels, and the timing of its frames and actions."""

    part: Location
    rows: EpisodeRows
    lacks_first_frame: bool


class JoinedCorpus:
    """A corpus with its labels; implements `schemas.formats.exports.interface.LabelledCorpus`.

    Args:
        corpus: The corpus.
        units: Units of the corpus, as they were labelled.
        labels: Labels of the corpus.
        goal: Id of the goal that all episodes are judged by; None for the one that each instruction asks for.
        model: Name of the model that made the labels.
        instructions: Whether instructions are read; without them no episode has a goal of its own, and one may change its task.

    Raises:
        ValueError: `goal` is none of the labels, or the labels are of another corpus.
    """

    def __init__(
        self,
        corpus: Corpus,
        units: Iterable[Unit],
        labels: Labels,
        *,
        goal: str | None,
        model: str,
        instructions: bool = True,
    ) -> None:
        self.corpus = corpus
        self.goals: tuple[Goal, ...] = labels.goals
        self.model = model
        self.is_sparse = labels.metadata.sparse
        self.episodes: list[ExportEpisode] = []
        self.left_out: dict[str, str] = {}
        self._labels = labels
        self._places: dict[str, _Place] = {}
        self._open: tuple[Location, PartRows] | None = None
        fixed = None if goal is None else self._index(goal)
        wordings = original_goals(labels.goals)
        fields = ("actions", "instruction") if instructions else ("actions",)
        for unit in units:
            part = part_of_unit(labels, unit)
            places = {rows.episode_id: rows for rows in locate_episodes(part)}
            for item in corpus.episodes(unit, frames=False, fields=fields):
                if isinstance(item, Failure):
                    self.left_out[item.episode_id or item.shard] = item.reason
                    continue
                self._add(item, part, places.get(item.episode_id), fixed, wordings)

    def _index(self, goal: str) -> int:
        for index, known in enumerate(self.goals):
            if known.id == goal:
                return index
        shown = ", ".join(known.id for known in self.goals[:5])
        raise ValueError(
            f"the goal must be 'own' or one of the {len(self.goals)} goals of the labels ({shown}, ...): got {goal!r}. Check its id"
        )

    def _add(
        self, episode: Episode, part: Location, rows: EpisodeRows | None, fixed: int | None, wordings: Mapping[str, int]
    ) -> None:
        labelled = 0 if rows is None else rows.stop - rows.start
        if rows is None or labelled != episode.num_frames:
            self.left_out[episode.episode_id] = f"{labelled} labels for {episode.num_frames} frames"
            return
        own = None if episode.instruction is None else wordings.get(normalize_instruction(episode.instruction))
        self._places[episode.episode_id] = _Place(part, rows, episode.lacks_first_frame)
        self.episodes.append(
            ExportEpisode(
                episode_id=episode.episode_id,
                file=episode.source,
                num_frames=episode.num_frames,
                num_steps=episode.num_steps,
                goal=own if fixed is None else fixed,
                instruction=episode.instruction,
            )
        )

    def values(self, episode: ExportEpisode) -> EpisodeValues:
        """Reads what the labels say of an episode that has a goal; see `LabelledCorpus`."""
        assert episode.goal is not None, episode
        place = self._places[episode.episode_id]
        scores = self._scores(place)
        rule = self._labels.metadata.rule.select([episode.goal])
        own = scores[:, [episode.goal]]
        achieved = successes(own, rule)
        rewards = np.zeros(episode.num_steps, np.float32)
        known = rewards_of_scores(own, rule)[:, 0]  # of the steps between two frames
        if place.lacks_first_frame:  # frame i is the one after action i, so that of the first action is there, too
            rewards[1:] = known
            first = step_rewards(own[0], own[0], achieved[0], rule)[0]
            rewards[0] = first if rule.reward != "difference" or len(known) == 0 else known[0]
        else:
            rewards[: len(known)] = known
            rewards[len(known) :] = known[-1] if len(known) else 0.0
        return EpisodeValues(
            goal=self.goals[episode.goal],
            scores=own[:, 0],
            successes=achieved[:, 0],
            rewards=rewards,
            all_scores=scores,
        )

    def hindsight_goals(self, strategy: str, seed: int) -> dict[str, HindsightGoal]:
        """Chooses one goal per episode among those that it achieved, balanced over the corpus; see `LabelledCorpus`."""
        settings = HindsightSettings(strategy=strategy, seed=seed, goals_per_episode=1, ratio=(0, 1, 0))
        counts = np.zeros(len(self.goals), np.int64)
        for episode in self.episodes:
            counts += np.any(achievements(self._successes(episode)), axis=0)
        groups = goal_groups(self.goals)
        found = {}
        for episode in self.episodes:
            for chosen in choose_goals(
                self._successes(episode),
                original=None,
                groups=groups,
                counts=counts,
                settings=settings,
                episode_id=episode.episode_id,
            ):
                found[episode.episode_id] = HindsightGoal(self.goals[chosen.goal], chosen.start, chosen.stop)
        return found

    def _successes(self, episode: ExportEpisode) -> np.ndarray:
        """Returns [F, G] bool, whether each goal holds in each frame."""
        return successes(self._scores(self._places[episode.episode_id]), self._labels.metadata.rule)

    def _scores(self, place: _Place) -> np.ndarray:
        if self._open is None or self._open[0] != place.part:
            self.close()
            self._open = (place.part, PartRows(place.part, self._labels.metadata))
        return self._open[1].read(place.rows).scores

    def close(self) -> None:
        """Closes the part that is open."""
        if self._open is not None:
            with contextlib.closing(self._open[1]):
                self._open = None
