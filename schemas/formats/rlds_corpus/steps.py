"""Assembles an episode from the features of its record.

step i of a record     observation i, the action taken in it, the reward and the flags that followed

Open X-Embodiment      o_0 a_0  o_1 a_1  ...  o_(T-1) a_(T-1)              the last action is real; no frame after it
the RLDS specification o_0 a_0  o_1 a_1  ...  o_(T-1) a_(T-1)  o_T  -      is_last in the last step, whose action is a filler
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from vlm_rewards.schemas.episodes import Episode, UnreadFrames
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError, SeveralInstructionsError, Wanted
from vlm_rewards.schemas.formats.rlds_corpus.examples import Example
from vlm_rewards.schemas.formats.rlds_corpus.frames import camera_frames, count_frames, decoded_tensor, is_filler
from vlm_rewards.schemas.formats.rlds_corpus.roles import FILE_PATH, IS_LAST, IS_TERMINAL, METADATA, REWARD, Roles


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """An open data set of the corpus.

    Args:
        folder: Name of its folder below the corpus's.
        prefix: Prefix of its episodes' ids.
        roles: Roles of its features.
        has_final_steps: Whether a last step with the flag is_last holds the final frame, and no action.
        all_cameras: Names of the cameras that were asked for, those that the first episodes lack among them.
    """

    folder: str
    prefix: str
    roles: Roles
    has_final_steps: bool
    all_cameras: tuple[str, ...]


def present_cameras(example: Example, roles: Roles) -> tuple[str, ...]:
    """Returns the cameras that the episode has: all but those that its metadata denies, and whose frames are a filler.

    The flags alone are no proof: BridgeData V2 has has_image_0 = 0 beside real pictures.

    Raises:
        ValueError: Values are of another kind than is declared.
    """
    missing = set()
    for camera, path in roles.cameras.items():
        flag = f"{METADATA}/has_{camera}"
        denied = flag in example.features and not example.numbers(flag).all()
        if denied and is_filler(camera_frames(example, path, roles.declared[path], reverse=False)):
            missing.add(camera)
    return tuple(camera for camera in roles.cameras if camera not in missing)


def count_in(example: Example, roles: Roles, cameras: Sequence[str]) -> int:
    """Returns the number of frames of the first of some cameras; 0 where there is none."""
    if not cameras:
        return 0
    path = roles.cameras[cameras[0]]
    return count_frames(example, path, roles.declared[path])


def build_episode(
    episode_id: str, example: Example, data_set: DataSet, cameras: Sequence[str], wanted: Wanted, reverse: bool
) -> Episode:
    """Assembles an episode.

    Args:
        episode_id: Id of the episode.
        example: Record of the episode.
        data_set: Data set of the episode.
        cameras: Cameras of the episode.
        wanted: Parts that are needed.
        reverse: Whether channels are stored in the order BGR.

    Raises:
        ValueError: The parts are not as they are declared, or do not fit together.
    """
    roles = data_set.roles
    if not cameras:
        detail = f"an episode must have a camera, got single-coloured fillers for all of {', '.join(roles.cameras)}. Leave it out"
        raise InvalidEpisodeError("missing camera", detail)
    images = {}
    for camera in cameras if wanted.cameras is None else wanted.cameras:
        path = roles.cameras[camera]
        frames = camera_frames(example, path, roles.declared[path], reverse=reverse)
        images[camera] = frames if wanted.frames else UnreadFrames(len(frames))
    num_frames = len(next(iter(images.values())))
    ends_with_frame = False
    if data_set.has_final_steps and wanted.fields & {"actions", "rewards"}:
        ends_with_frame = bool(_flags(example, IS_LAST, roles, num_frames)[-1:].any())
    fields: dict[str, object] = {}
    if "actions" in wanted.fields and roles.actions:
        fields["actions"] = _actions(example, roles, num_frames)[: -1 if ends_with_frame else None]
    if "rewards" in wanted.fields and roles.has_number(REWARD):
        num_steps = num_frames - (ends_with_frame or not roles.actions)
        terminal = _flags(example, IS_TERMINAL, roles, num_frames)[num_frames - num_steps :]
        fields["rewards"] = _rows(example, REWARD, roles, num_frames)[:num_steps, 0].astype(np.float32)
        fields["terminations"] = terminal
        fields["truncations"] = (np.arange(num_steps) == num_steps - 1) & ~terminal
    if "success" in wanted.fields:
        fields["succeeded"] = _succeeded(example, roles)
    if "states" in wanted.fields and roles.state is not None:
        fields["states"] = _rows(example, roles.state, roles, num_frames).astype(np.float32)
    if "instruction" in wanted.fields:
        fields["instruction"] = _instruction(example, roles)
    return Episode(episode_id=episode_id, images=images, **fields)  # type: ignore[arg-type]


def _values(example: Example, path: str, roles: Roles) -> np.ndarray:
    """Returns the values of a feature of numbers, [T, N]."""
    declared = roles.declared[path]
    width = roles.width(path)
    if declared.encoding in ("bytes", "zlib"):
        rows = [decoded_tensor(data, declared) for data in example.byte_strings(path)]
        return np.stack(rows) if rows else np.zeros((0, width), declared.dtype)
    values = example.numbers(path)
    if len(values) % width:
        raise ValueError(
            f"{path} must have {width} values in every step, got {len(values)} in all. Leave the episode out"
        )
    return values.reshape(-1, width)


def _rows(example: Example, path: str, roles: Roles, num_frames: int) -> np.ndarray:
    """Returns the values of a feature of numbers, [num_frames, N]."""
    values = _values(example, path, roles)
    if len(values) != num_frames:
        raise ValueError(
            f"{path} must have as many steps as there are frames, {num_frames}, got {len(values)}. Leave the episode out"
        )
    return values


def _actions(example: Example, roles: Roles, num_frames: int) -> np.ndarray:
    parts = [_rows(example, path, roles, num_frames) for path in roles.actions]
    return (
        parts[0][:, 0].astype(np.int64) if roles.action_size == 0 else np.concatenate(parts, axis=1).astype(np.float32)
    )


def _flags(example: Example, path: str, roles: Roles, num_frames: int) -> np.ndarray:
    """Returns [num_frames] bool; False where the flag is not recorded."""
    if not roles.has_number(path):
        return np.zeros(num_frames, bool)
    return _rows(example, path, roles, num_frames)[:, 0].astype(bool)


def _instruction(example: Example, roles: Roles) -> str | None:
    for path in roles.instructions:
        texts = [_text(path, data) for data in dict.fromkeys(_texts(example, path, roles)) if data]
        if len(texts) > 1:
            raise SeveralInstructionsError(texts)
        if texts:
            return texts[0]
    return None


def _succeeded(example: Example, roles: Roles) -> bool | None:
    """Returns whether the episode is a success, as DROID's path of its file says; None where it does not."""
    if FILE_PATH not in roles.declared or not roles.declared[FILE_PATH].is_text:
        return None
    parts = {part for data in example.byte_strings(FILE_PATH) for part in _text(FILE_PATH, data).split("/")[:-1]}
    told = parts & {"success", "failure"}
    return told == {"success"} if len(told) == 1 else None


def _text(path: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text, got {data[:40]!r} ({error}). Leave the episode out") from error


def _texts(example: Example, path: str, roles: Roles) -> Iterator[bytes]:
    if roles.declared[path].is_text:
        yield from example.byte_strings(path)
        return
    for row in _values(example, path, roles):
        if row.min() < 0 or row.max() > 255:
            raise ValueError(
                f"{path} must spell a text in bytes of 0 to 255, got {row.min()} to {row.max()}. Leave the episode out"
            )
        yield row.astype(np.uint8).tobytes().rstrip(b"\0")


def ends_with_filler(example: Example, roles: Roles) -> bool:
    """Returns whether the last step is a final frame with a filler for an action, as the RLDS specification says.

    So it is where it has is_last, and its action and reward hold nothing but zeros. Many data sets set is_last and yet record a
    real action there.

    Raises:
        ValueError: Values are not as they are declared.
    """
    if not roles.actions or not roles.has_number(IS_LAST) or not _values(example, IS_LAST, roles)[-1:].any():
        return False
    paths = [*roles.actions, *([REWARD] if roles.has_number(REWARD) else [])]
    last = np.concatenate([_values(example, path, roles)[-1:].astype(np.float64).ravel() for path in paths])
    return not np.nan_to_num(last).any()
