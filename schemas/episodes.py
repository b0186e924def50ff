"""One recorded episode, and its Arrow schema: one row per frame.

    frame       o_0   o_1   o_2   ...   o_T         F = T+1 frames (F = T where the last frame was not recorded)
    action        a_0   a_1   ...  a_{T-1}          T steps
    reward        r_0   r_1   ...  r_{T-1}          r_t looks at o_{t+1}, the frame after the action

Row t of a table holds frame o_t, the action a_t taken in it, and what followed: r_t and whether the episode ended.
The row of the final frame has no action: action, reward, terminated and truncated are null there.
"""

import copy
import dataclasses
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

TIME_CONVENTION = (
    "Row t holds frame o_t and the action a_t taken in it; reward, terminated and truncated of row t are of step t and "
    "look at frame o_(t+1), the frame after the action; in the row of the final frame they are null."
)
METADATA_KEY = b"vlm_rewards"
IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
IMAGE_PREFIX = "observation.images."
_NO_TEXT = ("Cc", "Cs")  # Unicode categories: control characters, and halves of surrogate pairs


Frame = bytes | np.ndarray
"""A frame: an encoded picture, or its pixels [H, W, 3] uint8 RGB where a format decodes (video, arrays)."""


class Frames(Protocol):
    """The frames of one camera in one episode, streamed: a list of frames is one, and so is what decodes a video in order.

    Each iteration starts at the first frame. An iterator may raise `schemas.formats.interface.InvalidEpisodeError` where the
    recording breaks off: the episode is then invalid as a whole. Frames are equal where their bytes, or their pixels, are.
    """

    def __len__(self) -> int:
        """Returns the number of frames."""

    def __iter__(self) -> Iterator[Frame]:
        """Returns the frames in order, all of one kind."""


def check_name(what: str, name: object) -> None:
    """Refuses an invalid id or name.

    Args:
        what: Kind of name, for the message.
        name: The name.

    Raises:
        ValueError: The name is not a text, is empty, or contains a control character or half a surrogate pair.
    """
    if not isinstance(name, str) or not name or any(unicodedata.category(character) in _NO_TEXT for character in name):
        raise ValueError(
            f"{what} must be a text that is not empty and holds no control characters: got {name!r}. Rename it"
        )


@dataclasses.dataclass(frozen=True)
class UnreadFrames:
    """Frames that were not requested; only their number is known.

    Args:
        num_frames: Number of the frames.
    """

    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[Frame]:
        raise AssertionError("these frames were not asked for: read the episode with frames=True")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One episode: frames, actions, rewards and instruction.

    F is the number of frames, T of steps, S the width of the state vector, A that of a continuous action.

    Args:
        episode_id: Key of the episode: any text that is not empty, without control characters.
        images: F frames by camera; a list of encoded pictures (PNG, JPEG or WebP bytes), or any other `Frames`.
        actions: [T] int64 (discrete) or [T, A] float32 (continuous); None if none were recorded.
        rewards: [T] float32, the environment's own; optional.
        terminations: [T] bool, true where the step ended the episode in a final state; optional.
        truncations: [T] bool, true where the step was the last for another reason; optional.
        successes: [T] bool, whether the recording says that the frame after the step shows what was asked for; optional.
        succeeded: Whether the recording says that the episode did what was asked for; optional.
        states: [F, S] float32; optional.
        instruction: Instruction of the agent; optional.
        achieved_goals: F lists of the ids of the goals that truly hold in each frame; optional ground truth.
        lacks_first_frame: Whether the F frames are o_1 to o_T, since the one before the first action was not recorded.
        source: Name of the file that it was read from, for messages; "" if it was not read from a file.

    Raises:
        ValueError: The parts disagree in length, or actions, rewards or states are not finite.

    Example:
        >>> import numpy as np, vlm_rewards as vr
        >>> frames = np.zeros((3, 64, 64, 3), np.uint8)
        >>> vr.Episode(
        ...     episode_id="mine-0", images={"front": frames}, actions=np.array([0, 1]), instruction="lift the cup"
        ... )
        Episode('mine-0': 3 frames of front, 2 steps, instruction 'lift the cup')
    """

    episode_id: str
    images: Mapping[str, Frames]
    actions: np.ndarray | None = None
    rewards: np.ndarray | None = None
    terminations: np.ndarray | None = None
    truncations: np.ndarray | None = None
    successes: np.ndarray | None = None
    succeeded: bool | None = None
    states: np.ndarray | None = None
    instruction: str | None = None
    achieved_goals: Sequence[Sequence[str]] | None = None
    lacks_first_frame: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        check_name("an episode_id", self.episode_id)
        lengths = {camera: len(images) for camera, images in self.images.items()}
        if not lengths or len(set(lengths.values())) != 1 or min(lengths.values()) == 0:
            self._refuse(f"must have as many frames in every camera and at least one, got {lengths or 'no camera'}")
        if self.actions is not None and len(self.actions) not in (self.num_frames, self.num_frames - 1):
            self._refuse(
                f"must have T actions and T+1 (or T) frames, got {len(self.actions)} actions and {self.num_frames} frames"
            )
        if self.lacks_first_frame and self.num_steps != self.num_frames:
            self._refuse(
                f"must have as many frames as actions where its first frame is missing, got {self.num_steps} actions and "
                f"{self.num_frames} frames"
            )
        for name, length in (
            ("rewards", self.num_steps),
            ("terminations", self.num_steps),
            ("truncations", self.num_steps),
            ("successes", self.num_steps),
            ("states", self.num_frames),
            ("achieved_goals", self.num_frames),
        ):
            value = getattr(self, name)
            if value is not None and len(value) != length:
                self._refuse(f"must have {length} {name} for its {self.num_frames} frames, got {len(value)}")
        for name in ("actions", "rewards", "states"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                index = np.argwhere(~np.isfinite(value))[0]
                self._refuse(f"must have finite {name}, got {value[tuple(index)]} at index {index.tolist()}")

    def __repr__(self) -> str:
        shown = [f"{self.num_frames} frames of {', '.join(self.images)}", f"{self.num_steps} steps"]
        if self.instruction is not None:
            shown.append(f"instruction {self.instruction!r}")
        if self.achieved_goals is not None:
            shown.append("ground truth")
        return f"Episode({self.episode_id!r}: {', '.join(shown)})"

    def with_frames(self, images: Mapping[str, Frames], source: str) -> "Episode":
        """Returns the same episode with as many other frames; nothing is checked again."""
        episode = copy.copy(self)
        object.__setattr__(episode, "images", images)
        object.__setattr__(episode, "source", source)
        return episode

    def _refuse(self, rule: str) -> None:
        raise ValueError(f"episode {self.episode_id!r} {rule}. Correct the recording, or leave the episode out")

    @property
    def num_frames(self) -> int:
        """F."""
        return len(next(iter(self.images.values())))

    @property
    def num_steps(self) -> int:
        """T: the number of actions; without recorded actions, the number of pairs of successive frames."""
        if self.actions is not None:
            return len(self.actions)
        return self.num_frames if self.lacks_first_frame else self.num_frames - 1

    @property
    def has_final_frame(self) -> bool:
        """Whether the frame after the last action was recorded."""
        return self.lacks_first_frame or self.num_frames == self.num_steps + 1

    @property
    def complete_steps(self) -> slice:
        """The F-1 steps with a frame before and one after them, step i of which lies between frames i and i+1 of `images`.

        Without the final frame the last action has no successor; without the first, the first action has no frame it was
        taken in. Such a step is left out of training data, never guessed.
        """
        start = 1 if self.lacks_first_frame else 0
        return slice(start, start + self.num_frames - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusFeatures:
    """The features of a corpus's episodes, the same in every shard.

    Args:
        cameras: Names of the cameras: any texts that are not empty, without control characters.
        action_size: None for no actions, 0 for discrete ones, otherwise the width A.
        state_size: None for no state vector, otherwise the width S.
        has_rewards: Whether rewards, terminations and truncations are recorded.
        has_instruction: Whether episodes may have an instruction.
        has_achieved_goals: Whether ground truth is recorded.
        missing_frame: "first" where every episode lacks the frame before its first action, "last" where every episode lacks
            the one after its last; None if each episode's numbers of frames and actions decide.
        truth_goals: Ids of the goals that the ground truth covers: one that a frame does not list does not hold there, and one
            that is not among them is unknown. None where there is no truth, or it does not say.

    Raises:
        ValueError: No camera, a camera's name is not one, a width is out of range, or truth_goals are no ids or of no truth.
    """

    cameras: tuple[str, ...]
    action_size: int | None = 0
    state_size: int | None = None
    has_rewards: bool = True
    has_instruction: bool = True
    has_achieved_goals: bool = False
    missing_frame: str | None = None
    truth_goals: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(self.cameras))
        if self.missing_frame not in (None, "first", "last"):
            raise ValueError(
                f"missing_frame must be 'first', 'last' or None, got {self.missing_frame!r}. Say which frame is not recorded"
            )
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras must be at least one name, each once, got {self.cameras!r}; name them")
        for camera in self.cameras:
            check_name("a camera's name", camera)
        if self.action_size is not None and self.action_size < 0:
            raise ValueError(
                f"action_size must be None, 0 (discrete) or a width, got {self.action_size}. Correct the number"
            )
        if self.state_size is not None and self.state_size < 1:
            raise ValueError(
                f"state_size must be None or a width of at least 1, got {self.state_size}. Correct the number"
            )
        if self.truth_goals is not None:
            object.__setattr__(self, "truth_goals", tuple(self.truth_goals))
            for goal in self.truth_goals:
                check_name("an id of truth_goals", goal)
            if not self.has_achieved_goals:
                raise ValueError(
                    f"truth_goals must be None without ground truth: got {len(self.truth_goals)} goals. Record achieved_goals, or "
                    "leave them out"
                )

    @classmethod
    def of(cls, episode: Episode) -> "CorpusFeatures":
        """Returns the features of this episode."""
        actions = episode.actions
        return cls(
            cameras=tuple(sorted(episode.images)),
            action_size=None if actions is None else 0 if actions.ndim == 1 else actions.shape[1],
            state_size=None if episode.states is None else episode.states.shape[1],
            has_rewards=episode.rewards is not None,
            has_instruction=episode.instruction is not None,
            has_achieved_goals=episode.achieved_goals is not None,
            missing_frame="first" if episode.lacks_first_frame else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the features without truth_goals as a JSON object, as corpora hold them in their metadata."""
        record = dataclasses.asdict(dataclasses.replace(self, truth_goals=None))
        del record["truth_goals"]
        if self.missing_frame is None:  # as version 0.2.0 wrote it
            del record["missing_frame"]
        return record

    def check(self, episode: Episode) -> None:
        """Refuses an episode that does not fit these features.

        Raises:
            ValueError: A camera, the actions, the states, the rewards or the ground truth are missing, extra or of another width.
        """
        own, other = (vars(features).copy() for features in (self, CorpusFeatures.of(episode)))
        own["cameras"] = tuple(sorted(self.cameras))
        own["truth_goals"] = None
        if own["missing_frame"] == "last" and not episode.has_final_frame:
            other["missing_frame"] = "last"
        if self.has_instruction:  # may have one, need not
            other["has_instruction"] = True
        differing = [name for name in own if own[name] != other[name]]
        for name in ("terminations", "truncations"):
            if (getattr(episode, name) is not None) != self.has_rewards:
                differing.append(name)
        if differing:
            raise ValueError(
                f"episode {episode.episode_id!r} must hold what its corpus holds, got other {', '.join(differing)}: "
                f"{CorpusFeatures.of(episode)} where the corpus has {self}; write it to a corpus of its own"
            )
        if self.truth_goals is not None:
            covered = set(self.truth_goals)
            for frame, achieved in enumerate(episode.achieved_goals or ()):
                if not covered.issuperset(achieved):
                    raise ValueError(
                        f"ground truth must name goals that it covers: got {min(set(achieved) - covered)!r} in frame {frame} of "
                        f"episode {episode.episode_id!r}. Add the goal to truth_goals, or fix its id"
                    )


def image_column(camera: str) -> str:
    """Returns the column that holds a camera's frames."""
    return IMAGE_PREFIX + camera


def huggingface_metadata(features: dict[str, object]) -> bytes:
    """Returns the value of the schema's `huggingface` key; without it `datasets` does not see images as images, silently."""
    return json.dumps({"info": {"features": features}}, sort_keys=True).encode()


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


def corpus_schema(features: CorpusFeatures) -> pa.Schema:
    """Returns the Arrow schema of a corpus, one row per frame, with the convention of time in its metadata.

    Columns: episode_id, frame_index, observation.images.<camera>, observation.state, action, reward, terminated,
    truncated, instruction, achieved_goals; those the corpus does not hold are absent.
    """
    fields = [pa.field("episode_id", pa.string()), pa.field("frame_index", pa.int32())]
    hf: dict[str, object] = {"episode_id": _value("string"), "frame_index": _value("int32")}

    def add(name: str, dtype: pa.DataType, feature: object) -> None:
        fields.append(pa.field(name, dtype))
        hf[name] = feature

    for camera in features.cameras:
        add(image_column(camera), IMAGE_TYPE, {"_type": "Image"})
    if features.state_size is not None:
        size = features.state_size
        add(
            "observation.state",
            pa.list_(pa.float32(), size),
            {"feature": _value("float32"), "length": size, "_type": "List"},
        )
    if features.action_size == 0:
        add("action", pa.int64(), _value("int64"))
    elif features.action_size is not None:
        # Not of fixed size: pyarrow writes a null in a column of fixed-size lists, but cannot read it back.
        add("action", pa.list_(pa.float32()), {"feature": _value("float32"), "_type": "List"})
    if features.has_rewards:
        add("reward", pa.float32(), _value("float32"))
        add("terminated", pa.bool_(), _value("bool"))
        add("truncated", pa.bool_(), _value("bool"))
    if features.has_instruction:
        add("instruction", pa.string(), _value("string"))
    if features.has_achieved_goals:
        add("achieved_goals", pa.list_(pa.string()), {"feature": _value("string"), "_type": "List"})
    own = {"kind": "corpus", "version": 1, "time": TIME_CONVENTION, "features": features.to_json()}
    if features.truth_goals is not None:
        own["truth_goals"] = features.truth_goals
    return pa.schema(
        fields,
        metadata={METADATA_KEY: json.dumps(own, sort_keys=True).encode(), b"huggingface": huggingface_metadata(hf)},
    )
