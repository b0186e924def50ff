"""OpenApp for Gymnasium: `gymnasium.make("vlm-rewards/OpenApp-v0")`."""

from typing import Any

from vlm_rewards.labelers.domains.domain import FrameSize, Look
from vlm_rewards.labelers.domains.gymnasium_environment import DomainEnvironment
from vlm_rewards.labelers.domains.openapp.domain import OPENAPP


class OpenAppEnvironment(DomainEnvironment):
    """A phone that is asked for an app. The reward is 1 when the app is in front, which ends the episode.

    The observation is the screen. Infos hold `mission`, the instruction, `goal_id`, and `app`, the app in front ("" where there is
    none). `reset(seed=s)` shows the phone that `Domain.make` shows for seed s; `reset(options={"goal_id": "open-chess"})` asks for
    that app, if the phone has it. Actions: see `labelers.domains.openapp.levels`.

    Args:
        env: Name of the level.
        frame_size: (H, W) of the frames: one of (160, 96), (96, 96), (160, 160), (224, 224) and (320, 192).
        render_mode: "rgb_array" or None.

    Raises:
        ValueError: Frames are not drawn in this size, or the render mode is unknown.
    """

    def __init__(
        self, env: str, frame_size: FrameSize = OPENAPP.frame_sizes[0], render_mode: str | None = None
    ) -> None:
        super().__init__(OPENAPP, env, frame_size, render_mode)

    def infos(self, look: Look) -> dict[str, Any]:
        """Returns the app in front."""
        return {"app": look.state or ""}
