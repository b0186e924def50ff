"""Derives ground truth of single frames from a recording's own statements of success.

    frame              o_0   o_1   o_2   o_3         of the goal of the episode, and of no other
    action               a_0   a_1   a_2
    next.success, or         0     0     1           a statement of step i speaks of the frame after it, o_(i+1)
    reward > 0
    known               ?    no    no    yes         nothing is said of o_0

Where the frame after the last action is not recorded, the last statement speaks of the last frame there is, in place of that of the
step before. A success of the episode as a whole, such as DROID's path says it, speaks of the last frame alone.

The first that an episode has counts: success of every step, success of the episode, rewards. An episode is of the goal that its
instruction asks for, or of one goal that is given for all. Every other pair of a frame and a goal is unknown.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.rewards.hindsight import original_goals
from vlm_rewards.pipelines.evaluate.known_truth import KnownTruth, Verdict
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.exports.own_labels import REWARDS as REWARDS_FIELD
from vlm_rewards.schemas.formats.exports.own_labels import SUCCESS as SUCCESS_FIELD
from vlm_rewards.schemas.goals import Goal, normalize_instruction
from vlm_rewards.schemas.manifests import Failure, Unit

STEPS, EPISODE, REWARDS = "success of every step", "success of the episode", "rewards"
NOTHING_RECORDED = "no success and no rewards are recorded"
NO_GOAL = "its instruction asks for none of the labelled goals"


class Statements(NamedTuple):
    """A recording's statements on an episode.

    Attributes:
        holds: [F] bool, whether the goal holds.
        known: [F] bool, whether the recording says so.
        achieved: Whether the episode is a success.
        source: Source of the statements: STEPS, EPISODE or REWARDS.
    """

    holds: np.ndarray
    known: np.ndarray
    achieved: bool
    source: str


def recorded_statements(episode: Episode) -> Statements | None:
    """Returns what the recording says of an episode's own goal, by the module's rule; None for nothing.

    Raises:
        ValueError: A reward is below 0.
    """
    holds, known = np.zeros((2, episode.num_frames), dtype=bool)
    if episode.successes is not None:
        steps, source = episode.successes, STEPS
    elif episode.succeeded is not None:
        holds[-1], known[-1] = episode.succeeded, True
        return Statements(holds, known, episode.succeeded, EPISODE)
    elif episode.rewards is not None:
        if (episode.rewards < 0).any():
            raise ValueError(
                f"rewards that tell success must be 0 or, where the goal is achieved, greater: got {episode.rewards.min():g} in "
                f"episode {episode.episode_id!r} of {episode.source}. Mark some frames and give --marks"
            )
        steps, source = episode.rewards > 0, REWARDS
    else:
        return None
    if len(steps) == 0:
        return None
    first = 0 if episode.lacks_first_frame else 1
    told = steps[: episode.num_frames - first]
    holds[first : first + len(told)], known[first : first + len(told)] = told, True
    if not episode.has_final_frame:
        holds[-1], known[-1] = steps[-1], True
    return Statements(holds, known, bool(steps.any()), source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedTruth:
    """Truth from the recording's own success; picklable.

    Args:
        corpus: The corpus.
        goals: G goals of the labels.
        goal: Number of the goal that all episodes are of; None for the one that each instruction asks for.
        camera: Camera of the labels.
    """

    corpus: Corpus
    goals: tuple[Goal, ...]
    goal: int | None
    camera: str | None

    def of_unit(self, unit: Unit) -> "_UnitStatements":
        """Reads what the recording says of a unit's episodes, without their pictures.

        Raises:
            ValueError: A reward is below 0, or what tells success are labels that an export wrote.
        """
        cameras = None if self.camera is None else [self.camera]
        fields = ("rewards", "success", *(("instruction",) if self.goal is None else ()))
        wordings = original_goals(self.goals)
        labels = self.corpus.labelled_by(unit)
        held: dict[str, tuple[int, int, Statements] | str] = {}
        for episode in self.corpus.episodes(unit, cameras, frames=False, fields=fields):
            if isinstance(episode, Failure):
                if episode.episode_id is not None:
                    held[episode.episode_id] = episode.reason
                continue
            goal = wordings.get(normalize_instruction(episode.instruction or "")) if self.goal is None else self.goal
            said = recorded_statements(episode)
            if said is None or goal is None:
                held[episode.episode_id] = NOTHING_RECORDED if said is None else NO_GOAL
            else:
                field = REWARDS_FIELD if said.source == REWARDS else SUCCESS_FIELD
                if field in labels:
                    raise ValueError(
                        f"success to evaluate by must be the recording's own: got {field} in {self.corpus.place(unit)} that an "
                        f"export wrote, labels of {labels[field]}. Give the corpus as it was before the export, or mark some "
                        "frames and give --marks"
                    )
                held[episode.episode_id] = (goal, episode.num_frames, said)
        return _UnitStatements(self.corpus.place(unit), held, len(self.goals))


class _UnitStatements(NamedTuple):
    place: str
    held: Mapping[
        str, tuple[int, int, Statements] | str
    ]  # by episode: goal, number of frames and statements, or why none
    num_goals: int

    def of_episode(self, episode_id: str, frame_indices: np.ndarray) -> KnownTruth | None:
        found = self.held.get(episode_id)
        if found is None or (not isinstance(found, str) and frame_indices[-1] >= found[1]):
            frame = frame_indices[0 if found is None else -1]
            raise ValueError(
                f"labels must be of frames that the corpus holds: got frame {frame} of episode {episode_id!r}, which is not in "
                f"{self.place}. Give the corpus that was labelled, or label it again"
            )
        truth, known = np.zeros((2, len(frame_indices), self.num_goals), dtype=bool)
        if isinstance(found, str):
            return KnownTruth(truth, known, unknown_because=found)
        goal, num_frames, said = found
        truth[:, goal], known[:, goal] = said.holds[frame_indices], said.known[frame_indices]
        return KnownTruth(truth, known, verdict=Verdict(goal, said.achieved, num_frames), source=said.source)
