"""Writes episodes as a corpus: a folder of shards."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus, writable_format, write_episodes
from vlm_rewards.schemas.goals import Goal, write_goals


def write_corpus(
    episodes: Iterable[Episode],
    *,
    output: str | Path,
    goals: Sequence[Goal] = (),
    format: str = "parquet",
    episodes_per_shard: int = 20,
) -> Corpus:
    """Writes episodes as a corpus that `label` and every other command reads.

    Args:
        episodes: Episodes, read one at a time; all must have the cameras and the fields of the first.
        output: Folder to write; absent or empty.
        goals: Goals that the ground truth covers, written to goals.jsonl if there are any. The ground truth may name
            no others.
        format: Container, such as "parquet" or "webdataset".
        episodes_per_shard: Largest number of episodes per file.

    Returns:
        The corpus.

    Raises:
        ValueError: The folder is not empty, the format is not writable, there are no episodes, or one does not fit the others.

    Example:
        >>> import numpy as np, vlm_rewards as vr
        >>> frames = np.zeros((3, 64, 64, 3), np.uint8)
        >>> episodes = [vr.Episode(episode_id=f"mine-{i}", images={"front": frames}) for i in range(4)]
        >>> vr.write_corpus(episodes, output="mine/")
        Corpus('mine': parquet, cameras front)
    """
    output = Path(output)
    extension = writable_format(format).extension or format
    if episodes_per_shard < 1:
        raise ValueError(f"episodes_per_shard must be at least 1: got {episodes_per_shard}. Choose another number")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ValueError(
            f"the output must be an empty folder: got {output}, which holds something. Give another folder"
        )
    remaining = iter(episodes)
    first = next(remaining, None)
    if first is None:
        raise ValueError("a corpus needs at least one episode: got none. Give some")
    features = CorpusFeatures.of(first)
    if goals and features.has_achieved_goals:
        features = dataclasses.replace(features, truth_goals=tuple(goal.id for goal in goals))
    output.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(_shards(itertools.chain([first], remaining), episodes_per_shard)):
        write_episodes(output / f"shard-{number:05d}.{extension}", features, shard, format)
    if goals:
        write_goals(goals, output / "goals.jsonl")
    return open_corpus(output)


def _shards(episodes: Iterator[Episode], size: int) -> Iterator[Iterator[Episode]]:
    """Splits a stream into streams of `size`; each must be read to its end before the next is requested."""
    for first in episodes:
        yield itertools.chain([first], itertools.islice(episodes, size - 1))
