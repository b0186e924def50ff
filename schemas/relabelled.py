"""Relabelled trajectories: an episode's frames once, with K goals and [K, T] rewards; one row (or sample) per episode.

    frame         o_0   o_1   o_2   o_3   o_4   ...   o_T         F = T+1 frames, always
    action          a_0   a_1   a_2   a_3   ...  a_{T-1}
    rewards[k]      0     0     1     1     ...     .             the goal is achieved in frame o_3: r_2 = 1
                  |<- segment k ->|                               start[k] = 0, stop[k] = 3 (steps 0, 1, 2), terminated[k]

Only the steps start[k] <= t < stop[k] belong to goal k. A segment whose last reward is 1 is terminated there: the value of
what follows must not be added to it. Other segments run to the end of the episode and are not terminated. Steps outside
the segment hold what the labels say of them.

T is the number of steps with a frame after them, F-1. Where a corpus has no final frame (as many actions as frames), the
last action has no successor and is left out.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from vlm_rewards.schemas.episodes import (
    IMAGE_TYPE,
    METADATA_KEY,
    CorpusFeatures,
    Frames,
    huggingface_metadata,
    image_column,
)
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.goals import GOAL_KINDS

RELABELLED_TIME_CONVENTION = (
    "rewards[k][t] is the reward of step t under goal k and looks at frame o_(t+1), the frame after action t; only the steps "
    "start[k] <= t < stop[k] belong to goal k, and terminated[k] says whether its last step achieved the goal."
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RelabelledEpisode:
    """An episode's frames and actions once, with K goals to train it on.

    F is the number of frames, T = F-1 of steps, K of goals, S the width of the state vector, A of a continuous action.

    Args:
        episode_id: Key of the episode, that of the recorded one.
        images: F frames by camera; a list of encoded pictures as it is read back, and any `Frames` to be written.
        actions: [T] int64 (discrete) or [T, A] float32 (continuous); None if none were recorded.
        states: [F, S] float32; optional.
        instruction: Instruction of the agent in the recording; optional.
        goal_ids: K ids of goals.
        goal_texts: K texts, what a text encoder reads.
        goal_kinds: K of "original", "hindsight" and "negative".
        rewards: [K, T] float32; rewards[k, t] looks at frame t+1.
        start: [K] int32, the first step that belongs to the goal.
        stop: [K] int32, the end of those steps, exclusive.
        terminated: [K] bool, whether the last of those steps achieves the goal.

    Raises:
        ValueError: The parts disagree in length, a number is not finite, a kind is unknown or a segment is not one.
    """

    episode_id: str
    images: Mapping[str, Frames]
    actions: np.ndarray | None
    goal_ids: Sequence[str]
    goal_texts: Sequence[str]
    goal_kinds: Sequence[str]
    rewards: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    terminated: np.ndarray
    states: np.ndarray | None = None
    instruction: str | None = None

    def __post_init__(self) -> None:
        lengths = {camera: len(images) for camera, images in self.images.items()}
        if len(set(lengths.values())) != 1 or self.num_steps < 1:
            self._refuse(f"must have as many frames in every camera and at least two, got {lengths or 'no camera'}")
        if not self.num_goals:
            self._refuse("must have at least one goal, got none")
        for name, length in (
            ("actions", self.num_steps),
            ("states", self.num_frames),
            *((name, self.num_goals) for name in ("goal_texts", "goal_kinds", "start", "stop", "terminated")),
        ):
            value = getattr(self, name)
            if value is not None and len(value) != length:
                self._refuse(
                    f"must have {length} {name} for its {self.num_frames} frames and {self.num_goals} goals, got {len(value)}"
                )
        if np.shape(self.rewards) != (self.num_goals, self.num_steps):
            self._refuse(
                f"must have rewards of shape [{self.num_goals}, {self.num_steps}], one row per goal and one column per step, got "
                f"{list(np.shape(self.rewards))}"
            )
        for name in ("actions", "states", "rewards"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                index = np.argwhere(~np.isfinite(value))[0]
                self._refuse(f"must have finite {name}, got {value[tuple(index)]} at index {index.tolist()}")
        for kind, start, stop in zip(self.goal_kinds, self.start, self.stop, strict=True):
            if kind not in GOAL_KINDS:
                self._refuse(f"must have goal_kinds among {', '.join(GOAL_KINDS)}, got {kind!r}")
            if not 0 <= start < stop <= self.num_steps:
                self._refuse(
                    f"must have segments 0 <= start < stop <= {self.num_steps}, got start {start}, stop {stop}"
                )

    def __repr__(self) -> str:
        goals = ", ".join(f"{kind} {goal}" for kind, goal in zip(self.goal_kinds, self.goal_ids, strict=True))
        return (
            f"RelabelledEpisode({self.episode_id!r}: {self.num_frames} frames, {self.num_steps} steps, goals: {goals})"
        )

    def _refuse(self, rule: str) -> None:
        raise ValueError(f"relabelled episode {self.episode_id!r} {rule}; relabel the corpus again")

    @property
    def num_frames(self) -> int:
        """F."""
        return len(next(iter(self.images.values()), ()))

    @property
    def num_steps(self) -> int:
        """T: the steps with a frame after them."""
        return self.num_frames - 1

    @property
    def num_goals(self) -> int:
        """K."""
        return len(self.goal_ids)


def relabelled_schema(features: CorpusFeatures, fingerprint: Fingerprint) -> pa.Schema:
    """Returns the Arrow schema of relabelled trajectories, one row per episode.

    Columns: episode_id; observation.images.<camera>, F pictures; observation.state [F, S]; action [T] or [T, A];
    instruction; goal_ids, goal_texts, goal_kinds [K]; rewards [K, T] float32; start, stop [K] int32; terminated [K] bool.
    The environment's own reward is not among them: an agent trained on this never sees it.
    """

    def value(dtype: str) -> dict[str, str]:
        return {"dtype": dtype, "_type": "Value"}

    def sequence(feature: dict) -> dict:
        return {"feature": feature, "_type": "List"}

    columns: list[tuple[str, pa.DataType, object]] = [("episode_id", pa.string(), value("string"))]
    for camera in features.cameras:
        columns.append((image_column(camera), pa.list_(IMAGE_TYPE), sequence({"_type": "Image"})))
    if features.state_size is not None:
        columns.append(("observation.state", pa.list_(pa.list_(pa.float32())), sequence(sequence(value("float32")))))
    if features.action_size == 0:
        columns.append(("action", pa.list_(pa.int64()), sequence(value("int64"))))
    elif features.action_size is not None:
        columns.append(("action", pa.list_(pa.list_(pa.float32())), sequence(sequence(value("float32")))))
    if features.has_instruction:
        columns.append(("instruction", pa.string(), value("string")))
    columns += [
        ("goal_ids", pa.list_(pa.string()), sequence(value("string"))),
        ("goal_texts", pa.list_(pa.string()), sequence(value("string"))),
        ("goal_kinds", pa.list_(pa.string()), sequence(value("string"))),
        ("rewards", pa.list_(pa.list_(pa.float32())), sequence(sequence(value("float32")))),
        ("start", pa.list_(pa.int32()), sequence(value("int32"))),
        ("stop", pa.list_(pa.int32()), sequence(value("int32"))),
        ("terminated", pa.list_(pa.bool_()), sequence(value("bool"))),
    ]
    own = {
        "kind": "relabelled",
        "version": 1,
        "time": RELABELLED_TIME_CONVENTION,
        "fingerprint": dict(fingerprint.parts),
    }
    return pa.schema(
        [pa.field(name, dtype) for name, dtype, _ in columns],
        metadata={
            METADATA_KEY: json.dumps(own, sort_keys=True).encode(),
            b"huggingface": huggingface_metadata({name: feature for name, _, feature in columns}),
        },
    )
