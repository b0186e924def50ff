"""Assembles one recorded episode of an HDF5 file from its parts.

    group            data/demo_0                     /
    observations     obs/<camera> [T, H, W, 3]       observations/images/<camera>
    next             next_obs/<camera>, its last     -
    actions          actions [T, A]                  action

A layout (`demos.py`, `aloha.py`) finds the parts; this module assembles them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vlm_rewards.schemas.episodes import Episode, UnreadFrames
from vlm_rewards.schemas.formats.hdf5_corpus.files import read_all
from vlm_rewards.schemas.formats.hdf5_corpus.frames import Piece, SliceFrames
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError, Wanted

if TYPE_CHECKING:
    import h5py

RGB, BGR = "rgb", "bgr"
YES, NO = "yes", "no"


@dataclasses.dataclass(frozen=True)
class Told:
    """Options that the user gave for a corpus, beside what its files say.

    Args:
        filter: Name of the list in `mask/` of the demos to read; None for all demos.
        states: Observations that make up the state vector, in order.
        bgr: Whether the first channel of the pictures is blue.
        upside_down: Whether the pictures are upside down; None where the file says.
        instruction: Name of the observation that is the instruction; None for the usual one.
    """

    filter: str | None = None
    states: tuple[str, ...] = ()
    bgr: bool = False
    upside_down: bool | None = None
    instruction: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, str]) -> "Told":
        """Reads the options of the format.

        Raises:
            ValueError: A value is none of those allowed.
        """
        for name, allowed in (("channels", (RGB, BGR)), ("upside-down", (YES, NO))):
            if name in options and options[name] not in allowed:
                raise ValueError(
                    f"the option {name} must be {' or '.join(allowed)}: got {options[name]!r}. Choose one of them"
                )
        turned = options.get("upside-down")
        return cls(
            filter=options.get("filter"),
            states=tuple(filter(None, options.get("states", "").split(","))),
            bgr=options.get("channels") == BGR,
            upside_down=None if turned is None else turned == YES,
            instruction=options.get("instruction"),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """The places of an episode's parts.

    Args:
        cameras: The frames of each camera.
        states: The pieces of each observation that is part of the state vector.
        actions: [T] or [T, A]; None if none were recorded.
        odd_actions: Description of what was recorded instead of such actions; "" for nothing.
        rewards: [T]; None if none were recorded.
        dones: [T], whether the step ended the episode; None if none were recorded.
        truncations: [T], whether the episode was cut off there; None where its last step was, unless that ended it.
        instruction: Instruction of the agent; None if the file does not state it.
        lacks_first_frame: Whether frame i is the one after action i.
        notes: Notes for the user on how it is read.
    """

    cameras: Mapping[str, SliceFrames]
    states: Sequence[Sequence[Piece]] = ()
    actions: "h5py.Dataset | None" = None
    odd_actions: str = ""
    rewards: "h5py.Dataset | None" = None
    dones: "h5py.Dataset | None" = None
    truncations: "h5py.Dataset | None" = None
    instruction: str | None = None
    lacks_first_frame: bool = False
    notes: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        """Number of frames of the first camera."""
        return len(next(iter(self.cameras.values())))

    @property
    def missing_frame(self) -> str | None:
        """The missing frame, as in `CorpusFeatures`."""
        if self.lacks_first_frame:
            return "first"
        return "last" if self.actions is not None and len(self.actions) == self.num_frames else None

    @property
    def action_size(self) -> int | None:
        """Width of the actions, as `CorpusFeatures` says it."""
        if self.actions is None:
            return None
        if self.actions.ndim == 1:
            return 0 if self.actions.dtype.kind in "iu" else 1
        return int(np.prod(self.actions.shape[1:], dtype=np.int64))

    @property
    def state_size(self) -> int | None:
        """Width of the state vector, as `CorpusFeatures` says it."""
        widths = [int(np.prod(pieces[0].dataset.shape[1:], dtype=np.int64)) for pieces in self.states]
        return sum(widths) or None

    def episode(self, episode_id: str, wanted: Wanted) -> Episode:
        """Assembles the episode.

        Raises:
            ValueError: Its parts do not fit together, or the file is broken.
        """
        chosen = self.cameras if wanted.cameras is None else {name: self.cameras[name] for name in wanted.cameras}
        parts: dict[str, Any] = {}
        if "actions" in wanted.fields and self.odd_actions:
            raise not_numbers("actions", self.odd_actions)
        if "actions" in wanted.fields and self.actions is not None:
            parts["actions"] = as_actions(read_all(self.actions))
        if "rewards" in wanted.fields and self.rewards is not None:
            ends = [None if found is None else read_all(found) for found in (self.dones, self.truncations)]
            parts |= as_outcome(read_all(self.rewards), *ends)
        if "states" in wanted.fields and self.states:
            parts["states"] = np.concatenate([_rows(pieces) for pieces in self.states], axis=1)
        if "instruction" in wanted.fields:
            parts["instruction"] = self.instruction
        return Episode(
            episode_id=episode_id,
            images={name: found if wanted.frames else UnreadFrames(len(found)) for name, found in chosen.items()},
            lacks_first_frame=self.lacks_first_frame,
            **parts,
        )


class Layout(NamedTuple):
    """A layout of episodes in an HDF5 file.

    Attributes:
        name: Name for users.
        path: Path of its pictures, for messages.
        holds: Whether a file is of this layout.
        keys: Keys of a file's episodes in order; "" where the file is one episode. Raises ValueError where none can be read.
        recording: Finds the parts of an episode. Raises ValueError.
    """

    name: str
    path: str
    holds: Callable[["h5py.File"], bool]
    keys: Callable[["h5py.File", Told], list[str]]
    recording: Callable[["h5py.File", str, Told], Recording]


def as_actions(values: np.ndarray) -> np.ndarray:
    """Returns actions as an Episode holds them: whole numbers [T] int64, or vectors [T, A] float32."""
    if values.ndim == 1 and values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind not in "biuf" or values.ndim == 0:
        raise not_numbers("actions", f"{list(values.shape)} {values.dtype}")
    return values.reshape(len(values), -1).astype(np.float32)


def not_numbers(what: str, found: str) -> InvalidEpisodeError:
    """Returns the error for actions or states that are not numbers."""
    return InvalidEpisodeError("invalid episode", f"{what} must be numbers or vectors: got {found}. Convert them")


def as_outcome(
    rewards: np.ndarray, dones: np.ndarray | None = None, truncations: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Returns rewards, terminations and truncations of T steps.

    Args:
        rewards: [T] or [T, 1].
        dones: [T] or [T, 1], whether the step ended the episode; None for no step.
        truncations: [T] or [T, 1], whether the episode was cut off there; None where the recording tells by its end.
    """
    over = np.zeros(len(rewards), np.bool_) if dones is None else dones.reshape(-1).astype(np.bool_)
    last = np.arange(len(over)) == len(over) - 1
    cut = last & ~over if truncations is None else truncations.reshape(-1).astype(np.bool_)
    return {
        "rewards": rewards.reshape(-1).astype(np.float32),
        "terminations": over,
        "truncations": cut,
    }


def _rows(pieces: Sequence[Piece]) -> np.ndarray:
    rows = np.concatenate([read_all(piece.dataset)[piece.start : piece.stop] for piece in pieces])
    if rows.dtype.kind not in "biuf":
        raise not_numbers("states", f"{rows.dtype} in {pieces[0].dataset.name!r}")
    return rows.reshape(len(rows), -1).astype(np.float32)
