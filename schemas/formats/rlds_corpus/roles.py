"""Chooses the features of a data set that are cameras, action, state and instruction.

steps/observation/<camera>                    every encoded picture, or array [H, W, 3] uint8; depth and grids are none
steps/action, or steps/action/<part>          the action; parts one after the other, sorted by name
steps/observation/state                       the state vector
steps/language_instruction, or steps/observation/natural_language_instruction
steps/reward, is_terminal, is_last            rewards and ends
episode_metadata/file_path                    whether the episode is a success, where it lies below success/ or failure/ (DROID)
episode_metadata/has_<camera>                 0 where the camera was not there in the episode, and a filler stands for it
"""

import dataclasses
import math
from collections.abc import Mapping

from vlm_rewards.schemas.formats.rlds_corpus.features import Declared

OBSERVATION = "steps/observation"
ACTION = "steps/action"
REWARD, IS_LAST, IS_TERMINAL = "steps/reward", "steps/is_last", "steps/is_terminal"
METADATA = "episode_metadata"
FILE_PATH = f"{METADATA}/file_path"
LAST_ACTIONS = ("auto", "recorded", "invalid")

OPTIONS = {
    "channels": "order of the channels of all pictures, rgb or bgr (default: rgb)",
    "cameras": "cameras to read, such as image_0,wrist_image (default: all that the first episodes have)",
    "split": "splits to read, such as train or train,val (default: all)",
    "action": "features that make the action, such as action_dict/joint_velocity,action_dict/gripper_position (default: action)",
    "state": "feature that is the state vector (default: observation/state, where there is one)",
    "instruction": "feature that is the instruction (default: language_instruction or observation/natural_language_instruction)",
    "last-action": "recorded: the last step's action was taken, the frame after it is missing; invalid: the last step is the final "
    "frame (default: invalid where the first episodes end with is_last and an action and a reward of zeros)",
}

_INSTRUCTIONS = ("steps/language_instruction", f"{OBSERVATION}/natural_language_instruction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roles:
    """The roles of a data set's features, by their paths.

    Args:
        declared: All that is declared.
        cameras: Paths by the names of cameras.
        actions: Features whose values, one after the other, are the action; none where none is recorded.
        state: The state vector; None where there is none.
        instructions: Texts that say what was asked for; the first that is not empty counts.
    """

    declared: Mapping[str, Declared]
    cameras: Mapping[str, str]
    actions: tuple[str, ...]
    state: str | None
    instructions: tuple[str, ...]

    @property
    def action_size(self) -> int | None:
        """Width of the action; 0 for a discrete one, None where there is none."""
        if not self.actions:
            return None
        first = self.declared[self.actions[0]]
        if len(self.actions) == 1 and first.is_integer and not first.shape:
            return 0
        return sum(self.width(path) for path in self.actions)

    @property
    def state_size(self) -> int | None:
        """Width of the state vector."""
        return None if self.state is None else self.width(self.state)

    def has_number(self, path: str) -> bool:
        """Returns whether there is such a feature, of one number per step."""
        return path in self.declared and _is_vector(self.declared[path]) and self.width(path) == 1

    def width(self, path: str) -> int:
        """Returns the number of values per step of a feature."""
        return math.prod(size or 0 for size in self.declared[path].shape)


def choose_roles(declared: Mapping[str, Declared], options: Mapping[str, str], place: str) -> Roles:
    """Chooses the roles of a data set's features.

    Args:
        declared: Declarations of features.json.
        options: Options that the user gave; see OPTIONS.
        place: Place of the data set, for messages.

    Raises:
        ValueError: There is no camera, or an option names a feature that cannot have its part.
    """
    cameras: dict[str, str] = {}
    refused = []
    for path, feature in declared.items():
        why = feature.why_no_camera if is_observation(path) else ""
        if why is None:
            cameras[path.removeprefix("steps/").removeprefix("observation/")] = path
        elif why:
            refused.append(f"{path} has {why}")
    if not cameras:
        raise ValueError(
            f"a data set must have pictures of 3 channels below {OBSERVATION}: got {'; '.join(refused) or 'none'} in {place}. Give "
            "one with a camera"
        )
    if "cameras" in options:
        chosen = [name.strip() for name in options["cameras"].split(",")]
        for name in chosen:
            if name not in cameras:
                raise ValueError(
                    f"a camera must be one of {', '.join(sorted(cameras))}: got {name!r} for {place}. Choose one of them"
                )
        cameras = {name: cameras[name] for name in chosen}
    state = _numbers(declared, options["state"], place) if "state" in options else f"{OBSERVATION}/state"
    texts: tuple[str, ...] = _INSTRUCTIONS
    if "instruction" in options:
        texts = (_path(declared, options["instruction"], place),)
        if not (declared[texts[0]].is_text or declared[texts[0]].is_spelled):
            raise ValueError(
                f"an instruction must be a text: got {texts[0]} of {declared[texts[0]]} in {place}. Choose another"
            )
    return Roles(
        declared=declared,
        cameras=dict(sorted(cameras.items())),
        actions=_actions(declared, options, place),
        state=state if state in declared and _is_vector(declared[state]) else None,
        instructions=tuple(
            text for text in texts if text in declared and (declared[text].is_text or declared[text].is_spelled)
        ),
    )


def is_observation(path: str) -> bool:
    """Returns whether a feature is an observation, or the one observation that there is."""
    return path == OBSERVATION or path.startswith(f"{OBSERVATION}/")


def _actions(declared: Mapping[str, Declared], options: Mapping[str, str], place: str) -> tuple[str, ...]:
    if "action" in options:
        return tuple(_numbers(declared, name.strip(), place) for name in options["action"].split(","))
    parts = [ACTION] if ACTION in declared else sorted(path for path in declared if path.startswith(f"{ACTION}/"))
    for path in parts:
        if not _is_vector(declared[path]):
            raise ValueError(
                f"an action must be numbers, as many in every step: got {path} of {declared[path]} in {place}. Name the "
                "features that make the action with the option action"
            )
    return tuple(parts)


def _is_vector(feature: Declared) -> bool:
    """Returns whether a feature has the same number of numbers in every step."""
    return feature.is_number and feature.depth == 1 and None not in feature.shape and 0 not in feature.shape


def _numbers(declared: Mapping[str, Declared], name: str, place: str) -> str:
    path = _path(declared, name, place)
    if not _is_vector(declared[path]):
        raise ValueError(
            f"a feature of numbers must have as many in every step: got {path} of {declared[path]} in {place}. Choose another"
        )
    return path


def _path(declared: Mapping[str, Declared], name: str, place: str) -> str:
    for path in (name, f"steps/{name}"):
        if path in declared:
            return path
    raise ValueError(f"a feature must be one of {', '.join(declared)}: got {name!r} for {place}. Choose one")
