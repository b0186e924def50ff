"""Finds which goals the ground truth of a corpus covers, and in which frames they hold.

features.truth_goals                    as stated by the corpus, as our writers do
goals.jsonl beside the corpus           for corpora that do not state it, such as those of version 0.2.0 or of other tools
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
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


def goals_beside(path: str | Path) -> Path:
    """Returns the path of goals.jsonl: in the corpus's folder, beside a folder called parts, or beside or above a single shard."""
    corpus = Path(path)
    folder = corpus if corpus.is_dir() else corpus.parent
    above = folder.absolute().parent
    if not (folder / _GOALS).is_file() and (folder.absolute().name == "parts" or not corpus.is_dir()):
        return above / _GOALS if (above / _GOALS).is_file() else folder / _GOALS
    return folder / _GOALS


def truth_goals(corpus: Corpus) -> TruthGoals:
    """Returns the goals that a corpus's ground truth covers.

    Raises:
        FileNotFoundError: The corpus does not state it, and there is no goals.jsonl.
        ValueError: The file lists no goals, or the corpus is remote and does not state it.
    """
    if corpus.features.truth_goals is not None:
        return TruthGoals(frozenset(corpus.features.truth_goals), f"the metadata of {corpus.folder}")
    if not corpus.folder.is_local:
        raise ValueError(
            f"a corpus must say which goals its ground truth covers: got {corpus.folder} without truth_goals in its metadata. Copy "
            "it to this machine and lay goals.jsonl beside it"
        )
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
