"""Registers the package's own environments with Gymnasium when it is imported.

    import gymnasium
    import vlm_rewards.environments

    env = gymnasium.make("vlm-rewards/OpenApp-v0", render_mode="rgb_array")

Gymnasium 1 looks for no entry points, so an import must say that they are wanted;
`gymnasium.make("vlm_rewards.environments:vlm-rewards/OpenApp-v0")` imports it by itself.
"""

try:
    import gymnasium
except ImportError as error:
    raise ImportError(
        "to register environments, gymnasium must be installed: got none. pip install 'gymnasium>=1.1'"
    ) from error

ENVIRONMENTS = {
    "vlm-rewards/OpenApp-v0": "vlm_rewards.labelers.domains.openapp.environment:OpenAppEnvironment",
    "vlm-rewards/OpenAppHard-v0": "vlm_rewards.labelers.domains.openapp.environment:OpenAppEnvironment",
    "vlm-rewards/Playroom-Find-v0": "vlm_rewards.labelers.domains.playroom.environment:PlayroomEnvironment",
    "vlm-rewards/Playroom-Lift-v0": "vlm_rewards.labelers.domains.playroom.environment:PlayroomEnvironment",
    "vlm-rewards/Playroom-Place-v0": "vlm_rewards.labelers.domains.playroom.environment:PlayroomEnvironment",
    "vlm-rewards/Playroom-FindNear-v0": "vlm_rewards.labelers.domains.playroom.environment:PlayroomEnvironment",
    "vlm-rewards/Playroom-LiftNear-v0": "vlm_rewards.labelers.domains.playroom.environment:PlayroomEnvironment",
    "vlm-rewards/Playroom-PlaceNear-v0": "vlm_rewards.labelers.domains.playroom.environment:PlayroomEnvironment",
}
"""Environments by name, each made by `module:object`, which is imported then and is given the name as `env`."""

for _name, _maker in ENVIRONMENTS.items():
    gymnasium.register(id=_name, entry_point=_maker, kwargs={"env": _name})
