"""Finds which goals the ground truth of a corpus covers, and in which frames they hold.

features.truth_goals                    as stated by the corpus, as our writers do
goals.jsonl beside the corpus           for corpora that do not state it, such as those of version 0.2.0 or of other tools
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.files.remote_paths import Location, location_of
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.goals import read_goals

_GOALS = "goals.jsonl"


class TruthGoals(NamedTuple):
    """The goals that a corpus's ground truth covers.

    Attributes:
        ids: Ids of the goals; any other goal is unknown in every frame.
        where: Source of this list, for messages.
    """

    ids: frozenset[str]
    where: str


def goals_beside(path: str | Location) -> Location:
    """Returns the path of goals.jsonl: in the corpus's folder, beside a folder called parts, or beside or above a single shard."""
    corpus = location_of(path)
    is_folder = corpus.is_dir()
    folder = corpus if is_folder else corpus.parent
    if not (folder / _GOALS).is_file():
        whole = folder.absolute() if isinstance(folder, Path) else folder
        above = whole.parent / _GOALS
        if (whole.name == "parts" or not is_folder) and above.is_file():
            return above
    return folder / _GOALS


def truth_goals(corpus: Corpus) -> TruthGoals:
    """Returns the goals that a corpus's ground truth covers.

    Raises:
        FileNotFoundError: The corpus does not state it, and there is no goals.jsonl.
        ValueError: The file lists no goals.
    """
    if corpus.features.truth_goals is not None:
        return TruthGoals(frozenset(corpus.features.truth_goals), f"the metadata of {corpus.folder}")
    path = goals_beside(str(corpus.folder))
    return TruthGoals(frozenset(goal.id for goal in read_goals(path)), str(path))


def tells_of(features: CorpusFeatures, ids: Iterable[str]) -> bool:
    """Returns whether the ground truth may cover one of these goals: it covers one, or its coverage is not stated."""
    covered = features.truth_goals
    return features.has_achieved_goals and (covered is None or not set(covered).isdisjoint(ids))


def goals_that_hold(episode: Episode, covered: TruthGoals, columns: Mapping[str, int]) -> np.ndarray:
    """Returns which goals hold in which frames of an episode with ground truth.

    Args:
        episode: The episode.
        covered: Goals that the ground truth covers.
        columns: Numbers of the requested goals, by id.

    Returns:
        [K, 2] int32: frame and goal number, for each goal that holds.

    Raises:
        ValueError: The ground truth names a goal that it does not cover.
    """
    assert episode.achieved_goals is not None
    pairs = []
    for frame, achieved in enumerate(episode.achieved_goals):
        for goal in achieved:
            if goal in columns:
                pairs.append((frame, columns[goal]))
            elif goal not in covered.ids:
                raise ValueError(
                    f"ground truth must name goals that it covers: got {goal!r} in frame {frame} of episode "
                    f"{episode.episode_id!r} of {episode.source}, which {covered.where} does not list. Add the goal there, or fix "
                    "its id in achieved_goals"
                )
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)
