"""The playroom for Gymnasium: `gymnasium.make("vlm-rewards/Playroom-Find-v0")`."""

from typing import Any

from vlm_rewards.labelers.domains.domain import FrameSize, Look
from vlm_rewards.labelers.domains.gymnasium_environment import DomainEnvironment
from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM


class PlayroomEnvironment(DomainEnvironment):
    """A room in which the agent is asked to find, lift or place a toy. The reward is 1 when that is done, which ends the episode.

    The observation is what the agent sees. Infos hold `mission`, the instruction, `goal_id`, and `achieved`, the ids of all goals
    that hold. `reset(seed=s)` shows the room that `Domain.make` shows for seed s; the option `{"goal_id": "find-red-ball"}` asks
    for that goal, if the room has it. Actions: 0 left, 1 right, 2 forward, 3 back, 4 grab, 5 drop.

    Args:
        env: Name of the level.
        frame_size: (H, W) of the frames: one of (96, 96), (224, 224), (64, 64), (128, 128) and (160, 160).
        render_mode: "rgb_array" or None.

    Raises:
        ImportError: Panda3D is not installed.
        ValueError: Frames are not drawn in this size, or the render mode is unknown.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(
        self, env: str, frame_size: FrameSize = PLAYROOM.frame_sizes[0], render_mode: str | None = None
    ) -> None:
        super().__init__(PLAYROOM, env, frame_size, render_mode)

    def infos(self, look: Look) -> dict[str, Any]:
        """Returns the ids of all goals that hold."""
        return {"achieved": sorted(self._level.facts(look))}
