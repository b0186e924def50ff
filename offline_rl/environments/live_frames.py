"""The frames that a live environment shows, fitted to those that an agent's corpus has: their size and their camera."""

import dataclasses
from collections.abc import Sequence

from vlm_rewards.labelers.domains.babyai.goals import VIEW_SIZE
from vlm_rewards.labelers.domains.babyai.levels import CAMERA
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings
from vlm_rewards.offline_rl.interfaces import Spaces


def fit_tile_size(settings: EnvironmentSettings, spaces: Spaces) -> EnvironmentSettings:
    """The settings with the tile size at which BabyAI's frames are those that an agent of frames was trained on.

    Args:
        settings: Which environments.
        spaces: What the agent sees; of embeddings, which do not tell, the settings are left as they are: see `fit_to_corpus`.
    """
    return settings if spaces.observation != "frames" else _with_tiles(settings, spaces.observation_shape)


def fit_to_corpus(
    settings: EnvironmentSettings, spaces: Spaces, *, frame_shape: Sequence[int] | None, camera: str | None, labels: str
) -> EnvironmentSettings:
    """The settings with which the environments show what the corpus showed: frames of its shape by the labels' camera.

    Args:
        settings: Which environments.
        spaces: What the agent sees.
        frame_shape: (H, W, 3) of the corpus's frames, which those behind an agent's embeddings must be too; None where it is
            not known, which does for an agent of frames.
        camera: Whose frames the agent was trained on; None where it is not known.
        labels: Whose frames were labelled, which are those shown where the settings do not say; `scoring.check_labeler` compares.

    Returns:
        The settings with tile size, camera and, for embeddings, the shape that `make_environments` holds frames to.

    Raises:
        ValueError: The agent takes states, was trained on another camera than is shown, or sees embeddings of frames whose
            shape is not known.
    """
    if spaces.state_size is not None:
        raise ValueError(
            f"an agent in live environments must take no state, got one of {spaces.state_size} numbers: states are for offline "
            f"training alone; train an agent with --no-states"
        )
    shown = CAMERA if settings.shows_babyai else settings.camera or labels
    if camera not in (None, shown):
        raise ValueError(
            f"environments must show the camera that the agent was trained on, {camera!r}, got {shown!r}; train an agent with "
            f"--camera {shown}, or label the frames of {camera!r} and train on these labels"
        )
    settings = dataclasses.replace(settings, camera=shown)
    if spaces.observation == "frames":
        return _with_tiles(settings, spaces.observation_shape)
    if frame_shape is None:
        raise ValueError(
            "the frames behind an agent's embeddings must be of a known shape, got none: it was trained before replays and agents "
            "recorded it; train it again in another folder, which records it"
        )
    return _with_tiles(dataclasses.replace(settings, frame_shape=tuple(frame_shape)), frame_shape)


def _with_tiles(settings: EnvironmentSettings, frame_shape: Sequence[int]) -> EnvironmentSettings:
    side = frame_shape[0]
    return settings if side % VIEW_SIZE else dataclasses.replace(settings, tile_size=side // VIEW_SIZE)
