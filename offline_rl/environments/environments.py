"""Environments to fine-tune and evaluate in: one frame per observation, one goal per episode, seeds that nothing was made of.

    settings, goals ──► make_environments ──► gymnasium.vector.SyncVectorEnv, autoreset off
                                                   observation  [N, H, W, 3] uint8, as the recorder renders
                                                   infos        goal_id of each new episode; ground truth, for evaluation alone

What an episode is, and which goal it is asked for: `offline_rl.environments.goal_environments`.

Shape letters: N environments, H and W sides of a frame, A width of a continuous action.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Sequence

import numpy as np

try:
    import gymnasium
    from gymnasium.spaces import Box, Discrete
    from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
except ImportError as error:
    raise ImportError(
        f"to play environments, gymnasium 1.1 or newer must be installed, got {error}; pip install 'gymnasium>=1.1'"
    ) from error

from vlm_rewards.labelers.domains.domain import (
    Domain,
    FrameSize,
    SeedRanges,
    check_cameras,
    check_frame_size,
    find_domain,
    suggest_environment,
)
from vlm_rewards.offline_rl.environments.goal_environments import (
    DomainEnvironment,
    FrameEnvironment,
    GoalEnvironment,
    Stream,
)
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.schemas.goals import Goal

SEEDS = {"live": "live", "held-out": "held_out"}
"""Seed ranges of a domain for fine-tuning and evaluation, by their names in the settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvironmentSettings:
    """Settings of the environments to make.

    Args:
        envs: Exact names of a domain's environments, or other names registered with gymnasium, or MODULE:NAME where a module must
            be imported first, as in `gymnasium.make`; environment i is of name i modulo their number. Environments outside every
            domain must have frames, see `frames`.
        num_envs: N, at least one per name.
        seeds: "live" to fine-tune in, "held-out" to evaluate on.
        seed: Seed of all levels and goals; two seeds share no stream.
        frame_size: (H, W) of the frames of a domain's environments; None for the domain's default. See `fit_to_corpus`.
        max_steps: Time limit in steps; None for the environment's own.
        frames: Place of the frames of environments outside every domain: "observation" where the observation is the frame,
            "render" for what the environment renders, else the key of a Dict observation.
        camera: Camera whose frames are shown, as the corpus names it; None for the domain's default.
        frame_shape: (H, W, 3) that the frames must have; None for any.

    Raises:
        ValueError: A setting is out of its range, or an environment is unknown.
    """

    envs: tuple[str, ...]
    num_envs: int = 8
    seeds: str = "live"
    seed: int = 0
    frame_size: FrameSize | None = None
    max_steps: int | None = None
    frames: str = "observation"
    camera: str | None = None
    frame_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "envs", tuple(self.envs))
        if self.frame_size is not None:
            object.__setattr__(self, "frame_size", tuple(self.frame_size))
        if not self.envs:
            raise ValueError(f"envs must name at least one environment: got none. {suggest_environment('')}")
        for name in self.envs:
            _check_name(name)
        for field, least in (("num_envs", 1), ("seed", 0), ("max_steps", 1)):
            value = getattr(self, field)
            if value is not None and value < least:
                raise ValueError(f"{field} must be at least {least}, got {value}; choose another")
        if self.num_envs < len(self.envs):
            raise ValueError(
                f"num_envs must be at least the number of environments named, {len(self.envs)}, got {self.num_envs}: some would "
                f"never be played; raise it, or name fewer"
            )
        if self.seeds not in SEEDS:
            raise ValueError(f"seeds must be one of {', '.join(SEEDS)}, got {self.seeds!r}; choose one of them")
        for domain in self.domains:
            if self.camera is not None:
                check_cameras(domain, (self.camera,))
            if self.frame_size is not None:
                check_frame_size(domain, self.frame_size)
        if not self.frames:
            raise ValueError("frames must be 'observation', 'render' or a key of the observation, got ''; leave it out")

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The domains of the environments, each once; environments outside every domain have none."""
        found = [domain for domain in map(find_domain, self.envs) if domain is not None]
        return tuple({domain.name: domain for domain in found}.values())


def make_environments(settings: EnvironmentSettings, goals: Sequence[Goal]) -> SyncVectorEnv:
    """Makes N environments, stepped one after the other in this process, which at these sizes is faster than in processes.

    Autoreset is off: `reset(options={"reset_mask": ended})` begins new episodes in those that ended. Which levels and goals an
    environment meets, in which order, depends on `settings.seed`, its index and its number of episodes alone, not on when the
    others end. `reset(seed=s)` begins another stream of episodes; the same seed gives the same episodes at any index. An
    environment that is reset with a True in `options["resting"]`, [N] bool, begins none: it shows its last frame until it is reset
    again, at no cost.

    Args:
        settings: Settings of the environments.
        goals: Goals that episodes may be asked for. An episode gets one that its level can be asked for; see
            `offline_rl.environments.goal_environments`.

    Returns:
        The vector environment. `call("episode_state")` gives what `reset(options={"episode_states": ...})` resumes from.

    Raises:
        ValueError: There are no goals, an environment has no such frames, or they are of another shape than `frame_shape`.
    """
    if not goals:
        raise ValueError("goals must be at least one, got none; give the goals of the labels, or fewer held-out kinds")

    def maker(index: int) -> Callable[[], GoalEnvironment]:
        return lambda: _make(settings, tuple(goals), index)

    envs = SyncVectorEnv([maker(index) for index in range(settings.num_envs)], autoreset_mode=AutoresetMode.DISABLED)
    shown = envs.single_observation_space.shape
    if settings.frame_shape not in (None, shown):
        envs.close()
        raise ValueError(
            f"frames of {settings.envs[0]} must have the shape of the corpus's, {list(settings.frame_shape or ())}, got "
            f"{None if shown is None else list(shown)}; choose others with --frames, or resize them as the recorder did"
        )
    return envs


def _make(settings: EnvironmentSettings, goals: tuple[Goal, ...], index: int) -> GoalEnvironment:
    name = settings.envs[index % len(settings.envs)]
    domain = find_domain(name)
    stream = Stream(
        name=name,
        index=index,
        key=f"{settings.seed}/{index}",
        seeds=SeedRanges() if domain is None else domain.seeds,
        use=SEEDS[settings.seeds],
        max_steps=settings.max_steps,
    )
    if domain is None:
        return FrameEnvironment(stream, goals, settings.frames)
    camera = domain.cameras[0] if settings.camera is None else settings.camera
    return DomainEnvironment(stream, goals, domain, settings.frame_size or domain.frame_sizes[0], camera)


def spaces_of(env: VectorEnv, goal_size: int, observation: str = "frames", frame_size: int | None = None) -> Spaces:
    """Returns the observations and actions of an agent in these environments.

    Args:
        env: Environment whose observation is a frame.
        goal_size: Size of a goal's embedding.
        observation: "frames" or "embeddings".
        frame_size: D of a frame's embedding, for "embeddings"; None for the goal's.

    Raises:
        ValueError: The observation is no uint8 RGB frame, or actions are neither discrete from 0 nor a vector in [-1, 1].
    """
    space, actions = env.single_observation_space, env.single_action_space
    if not (isinstance(space, Box) and len(space.shape) == 3 and space.shape[2] == 3 and space.dtype == np.uint8):
        raise ValueError(
            f"the observation must be an RGB frame, Box [H, W, 3] uint8, got {space}; choose the frame with "
            f"--frames: render, or the key of a Dict observation"
        )
    num_actions = int(actions.n) if isinstance(actions, Discrete) and actions.start == 0 else None
    action_size = int(actions.shape[0]) if isinstance(actions, Box) and len(actions.shape) == 1 else None
    if num_actions is None and action_size is None:
        raise ValueError(
            f"actions must be Discrete from 0 or Box [A], got {actions}; wrap the environment so that they are"
        )
    if isinstance(actions, Box) and not ((actions.low == -1).all() and (actions.high == 1).all()):
        raise ValueError(
            f"continuous actions must be from -1 to 1, got {actions}; register the environment in gymnasium's RescaleAction, and "
            f"scale the corpus's actions alike"
        )
    return Spaces(
        observation=observation,
        observation_shape=space.shape
        if observation == "frames"
        else (goal_size if frame_size is None else frame_size,),
        goal_size=goal_size,
        num_actions=num_actions,
        action_size=action_size,
    )


def _check_name(name: str) -> None:
    if find_domain(name) is not None:
        return
    module, _, registered = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the module of an environment must be importable, got {name!r}: {error}; install it, or put its folder on "
                "PYTHONPATH"
            ) from error
    if registered not in gymnasium.registry:
        known = list(gymnasium.registry)
        near = difflib.get_close_matches(registered, known, n=1, cutoff=0.4)
        advice = (
            "Name the module that registers it: MODULE:NAME" if not near else suggest_environment(registered, known)
        )
        raise ValueError(
            f"an environment must be one of a domain's, or registered with gymnasium: got {name!r}. {advice}"
        )
