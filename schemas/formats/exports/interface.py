"""Interface of exports, which write the labels of a corpus in formats that other tools read.

    corpus + labels ──► LabelledCorpus ──► ExportFormat.write(labelled, changes, settings) ──► Changes ──► published at once
                          .episodes                                                              new files by name, apart
                          .values(episode)                                                       until all of them are whole

An export names the files that it creates or replaces, and writes them to paths from `Changes`. Whether they go into a new
folder, into a copy of the corpus or into the corpus itself is decided by `schemas.formats.exports.publishing`.
An exporter is in the package of its format and is one line of `schemas.formats.exports.registry`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.goals import Goal


class ExportEpisode(NamedTuple):
    """An episode that was labelled, without its labels.

    Attributes:
        episode_id: Id of the episode in the corpus.
        file: Name of the file that holds it, below the corpus's folder.
        num_frames: F, the number of its frames.
        num_steps: T, the number of its actions.
        goal: Index of the goal that it is judged by; None if its instruction asks for none of the goals.
        instruction: Instruction of the agent; None if it is unknown or changes.
    """

    episode_id: str
    file: str
    num_frames: int
    num_steps: int
    goal: int | None
    instruction: str | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeValues:
    """The labels of one episode for its goal. F is the number of frames, T of actions, G of goals.

    Args:
        goal: The goal it is judged by.
        scores: [F] float32 of this goal, one per frame.
        successes: [F] bool, whether the goal counts as achieved in each frame.
        rewards: [T] float32, one per recorded action, by the rule of the labels: the reward of an action looks at the frame after
            it. An action without that frame has the reward of the action before it, or 0 where there is none.
        all_scores: [F, G] float32 of all goals.
    """

    goal: Goal
    scores: np.ndarray
    successes: np.ndarray
    rewards: np.ndarray
    all_scores: np.ndarray

    @property
    def first_success(self) -> int | None:
        """Index of the first frame in which the goal counts as achieved."""
        found = np.flatnonzero(self.successes)
        return int(found[0]) if len(found) else None


class HindsightGoal(NamedTuple):
    """A goal that an episode achieved, by the labels, and the frames that lead to it.

    Attributes:
        goal: The goal.
        start: First frame that belongs to it: the one after the last in which it held before, or 0.
        achieved: The frame in which it begins to hold.
    """

    goal: Goal
    start: int
    achieved: int


class LabelledCorpus(Protocol):
    """A corpus with its labels, as exports see it."""

    @property
    def corpus(self) -> Corpus:
        """The corpus."""

    @property
    def goals(self) -> Sequence[Goal]:
        """The G goals of the labels."""

    @property
    def model(self) -> str:
        """Name of the model that made the labels."""

    @property
    def is_sparse(self) -> bool:
        """Whether scores at or under a goal's threshold are not known."""

    @property
    def episodes(self) -> Sequence[ExportEpisode]:
        """All episodes that were labelled in every frame, in the order of the corpus."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """Reasons why episodes of the corpus have no values (unreadable, or labels are missing), by id."""

    def values(self, episode: ExportEpisode) -> EpisodeValues:
        """Reads the labels of an episode that has a goal; cheap in the order of the corpus."""

    def hindsight_goals(self, strategy: str, seed: int) -> Mapping[str, HindsightGoal]:
        """Returns one achieved goal per episode id, chosen as in `vlm-rewards hindsight`; reads all labels twice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Options of exports.

    Args:
        smooth: Frames of the centred moving average that scores go through; 1 for none.
        all_scores: Whether the scores of all goals are written beside those of the episode's own, as a vector.
        strategy: Which achievement of a goal ends its rows, as of `hindsight`.
        seed: Seed of the draw of hindsight goals.

    Raises:
        ValueError: `smooth` is not an odd number of at least 1.
    """

    smooth: int = 1
    all_scores: bool = False
    strategy: str = "first"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise ValueError(
                f"smooth must be an odd number of frames: got {self.smooth}. Give 1 for none, or a number such as 5"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """One export of labels.

    Args:
        name: Name for users, of `schemas.formats.exports.summaries`.
        write: Function that writes the files, and returns lines that describe them.
        corpus_formats: Names of the corpus formats that it accepts; () for all.
        takes: Fields of `ExportSettings` that it reads; others are refused.
        place: Place of its files: "folder" (new files alone, in a folder of their own), "copy" (a copy of the corpus in which
            some files are replaced), or "beside" (new files, in a folder of their own, or beside the corpus's with --in-place).
        judges: Whether it judges each episode by one goal, so that the user may name one for all.
    """

    name: str
    write: "Callable[[LabelledCorpus, Changes, ExportSettings], list[str]]"
    corpus_formats: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    place: str = "folder"
    judges: bool = True


def smoothed(scores: np.ndarray, width: int) -> np.ndarray:
    """Returns the centred moving average of scores; near the ends, over the existing frames.

    Args:
        scores: [F] or [F, G] float32.
        width: An odd number of frames; 1 returns the scores themselves.

    Returns:
        float32 of the same shape.
    """
    if width == 1 or not len(scores):
        return scores
    half = width // 2
    sums = np.concatenate([np.zeros_like(scores[:1], np.float64), np.cumsum(scores, axis=0, dtype=np.float64)])
    frames = np.arange(len(scores))
    start, stop = np.maximum(frames - half, 0), np.minimum(frames + half + 1, len(scores))
    counts = (stop - start).reshape(-1, *[1] * (scores.ndim - 1))
    return ((sums[stop] - sums[start]) / counts).astype(np.float32)


def require_all(labelled: LabelledCorpus, export: str) -> None:
    """Refuses a corpus with episodes without values, for exports that fill every row.

    Raises:
        ValueError: An episode is not labelled completely, or its instruction asks for none of the goals.
    """
    if labelled.left_out:
        episode_id, reason = next(iter(labelled.left_out.items()))
        raise ValueError(
            f"{export} fills every row of the corpus: got {len(labelled.left_out)} episodes without complete labels, the first "
            f"being {episode_id!r} ({reason}). Label them, or export verdicts, which may lack episodes"
        )
    aimless = [episode for episode in labelled.episodes if episode.goal is None]
    if aimless:
        raise ValueError(
            f"{export} needs a goal for every episode: got {len(aimless)} episodes without one, the first being "
            f"{aimless[0].episode_id!r} with the instruction {aimless[0].instruction!r}. Add the wording to a goal's "
            "instructions and label again, or name one goal for all with --goal"
        )


def require_all_scores(labelled: LabelledCorpus, export: str) -> None:
    """Refuses sparse labels, for exports that write scores.

    Raises:
        ValueError: They are sparse.
    """
    if labelled.is_sparse:
        raise ValueError(
            f"{export} writes the score of every frame: got sparse labels, which hold those over the threshold alone. Label "
            "again without --sparse"
        )


def local_folder(corpus: Corpus) -> Path:
    """Returns the local folder of a corpus that is copied or changed.

    Raises:
        ValueError: The corpus is not local.
    """
    folder = Path(corpus.folder.path(""))
    if "://" in corpus.folder.location or not folder.is_dir():
        raise ValueError(
            f"a corpus is exported from a local folder: got {corpus.folder}. Copy it to a local folder first"
        )
    return folder
