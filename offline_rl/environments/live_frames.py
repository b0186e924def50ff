"""Fits the frames of live environments to those that an agent's corpus has: their size and their camera."""

import dataclasses
from collections.abc import Sequence

from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings
from vlm_rewards.offline_rl.interfaces import Spaces


def fit_frame_size(settings: EnvironmentSettings, spaces: Spaces) -> EnvironmentSettings:
    """Returns the settings with the frame size that an agent of frames was trained on.

    Args:
        settings: Settings of the environments.
        spaces: Spaces of the agent; for embeddings, which do not tell, the settings are returned unchanged: see `fit_to_corpus`.
    """
    return settings if spaces.observation != "frames" else _with_size(settings, spaces.observation_shape)


def fit_to_corpus(
    settings: EnvironmentSettings, spaces: Spaces, *, frame_shape: Sequence[int] | None, camera: str | None, labels: str
) -> EnvironmentSettings:
    """Returns the settings with which the environments show what the corpus showed: frames of its shape by the labels' camera.

    Args:
        settings: Settings of the environments.
        spaces: Observations and actions of the agent.
        frame_shape: (H, W, 3) of the corpus's frames, which the frames behind an agent's embeddings must have too; None where it
            is not known, which is enough for an agent of frames.
        camera: Camera whose frames the agent was trained on; None where it is not known.
        labels: Camera that was labelled. It is shown where the settings name none and every domain has it;
            `labelers.live.check_labeler` compares.

    Returns:
        The settings with frame size, camera and, for embeddings, the shape that `make_environments` holds frames to.

    Raises:
        ValueError: The agent takes states, was trained on another camera than is shown, or sees embeddings of frames whose
            shape is not known.
    """
    if spaces.state_size is not None:
        raise ValueError(
            f"an agent in live environments must take no state, got one of {spaces.state_size} numbers: states are for offline "
            f"training alone; train an agent with --no-states"
        )
    lacking = [domain.cameras[0] for domain in settings.domains if labels not in domain.cameras]
    shown = settings.camera or (lacking[0] if lacking else labels)
    if camera not in (None, shown):
        raise ValueError(
            f"environments must show the camera that the agent was trained on, {camera!r}, got {shown!r}; train an agent with "
            f"--camera {shown}, or label the frames of {camera!r} and train on these labels"
        )
    settings = dataclasses.replace(settings, camera=shown)
    if spaces.observation == "frames":
        return _with_size(settings, spaces.observation_shape)
    if frame_shape is None:
        raise ValueError(
            "the frames behind an agent's embeddings must be of a known shape, got none: it was trained before replays and agents "
            "recorded it; train it again in another folder, which records it"
        )
    return _with_size(dataclasses.replace(settings, frame_shape=tuple(frame_shape)), frame_shape)


def _with_size(settings: EnvironmentSettings, frame_shape: Sequence[int]) -> EnvironmentSettings:
    """Returns the settings with this frame size where every domain can draw it; spaces and `frame_shape` are compared by others."""
    size = (frame_shape[0], frame_shape[1])
    fits = settings.domains and all(size in domain.frame_sizes for domain in settings.domains)
    return dataclasses.replace(settings, frame_size=size) if fits else settings
