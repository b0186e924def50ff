"""Shared base of all algorithms: parts with one optimiser each, slowly moving targets, checks, and an exact state to resume from.

One update encodes the observations once. The heads learn on a detached copy of the features, which accumulates their gradients; the
encoder then takes one step on the sum:

    features = encoder(o, g) ──┬─ cut ─► features' ──► head 1: loss, backward, step ──► head 2: loss, backward, step ...
                               │             │
                               └◄── gradient ┘   encoder: backward once, step once

So the loss of a head sees the heads that were updated before it, in the order of the paper, but the encoder from before the update.

Shape letters as in `offline_rl.interfaces`; F width of the features.
"""

import abc
import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.offline_rl.networks.encoder import NetworkSettings, check_rules
from vlm_rewards.offline_rl.networks.grid_heads import GridCritic, GridHead
from vlm_rewards.offline_rl.networks.heads import (
    CategoricalPolicy,
    ContinuousCritic,
    DiscreteCritic,
    GaussianPolicy,
    Head,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerSettings(NetworkSettings):
    """Settings of every algorithm.

    Args:
        learning_rate: Learning rate of Adam, for every part.
        acting_polyak: Share by which the acting weights move towards the learned ones per update, so that an agent does not act by
            what its last few batches happened to be; 1 to act with the learned weights themselves.

    Raises:
        ValueError: A value is out of its range.
    """

    learning_rate: float = 3e-4
    acting_polyak: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rules(
            learning_rate=(self.learning_rate > 0, "above 0", self.learning_rate),
            acting_polyak=(0 < self.acting_polyak <= 1, "above 0 and at most 1", self.acting_polyak),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticSettings(LearnerSettings):
    """Settings of every algorithm with critics.

    Args:
        discount: Discount factor per step.
        polyak: Share by which the targets move towards the weights per update.
        num_critics: N, number of critics in the ensemble.
        num_min_critics: Number of critics whose smallest value makes a target; if fewer than N, drawn anew for each update.
        bound_by_returns: Whether targets are at least the recorded return from there, so that a success reaches all steps before it
            at once, not one step per update of the targets (optimality tightening, He et al. 2017, with the bound of the segment
            only). It is a bound of the optimal value if steps and rewards are deterministic.

    Raises:
        ValueError: A value is out of its range.
    """

    discount: float = 0.99
    polyak: float = 0.005
    num_critics: int = 2
    num_min_critics: int = 2
    bound_by_returns: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rules(
            discount=(0 <= self.discount < 1, "at least 0 and below 1", self.discount),
            polyak=(0 < self.polyak <= 1, "above 0 and at most 1", self.polyak),
            num_critics=(self.num_critics >= 1, "at least 1", self.num_critics),
            num_min_critics=(
                1 <= self.num_min_critics <= self.num_critics,
                f"between 1 and num_critics {self.num_critics}",
                self.num_min_critics,
            ),
        )


SettingsT = TypeVar("SettingsT", bound=LearnerSettings)


class Learner(abc.ABC, Generic[SettingsT]):
    """Base class of agents made of parts; see `offline_rl.interfaces.Agent` for the interface.

    A subclass defines its parts (`build_parts`), which of them have a target (`target_names`), which act (`acting_names`), one
    update (`learn`) and how it acts on features (`choose`). The same seed gives the same weights, whatever ran before, and building
    an agent does not change torch's global random state.

    Args:
        settings: Settings of the algorithm.
        spaces: Observations and actions of the agent.
        seed: Seed of the weights and of all draws of updates.
        device: Device on which the agent learns.

    Raises:
        ValueError: The algorithm does not fit the spaces.
    """

    target_names: tuple[str, ...] = ()
    acting_names: tuple[str, ...] = ("encoder", "policy")

    def __init__(self, settings: SettingsT, spaces: Spaces, *, seed: int, device: str | torch.device = "cpu") -> None:
        _check_action_grid(settings, spaces)
        self.check_spaces(spaces)
        self.settings = settings
        self.spaces = spaces
        self.device = torch.device(device)
        self.num_updates = 0
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            self.parts: dict[str, Any] = {name: part.to(self.device) for name, part in self.build_parts().items()}
        self.targets: dict[str, Any] = {
            name: copy.deepcopy(self.parts[name]).requires_grad_(False) for name in self.target_names
        }
        self.acting: dict[str, Any] = {name: self.parts[name] for name in self.acting_names}
        if settings.acting_polyak < 1:
            self.acting = {name: copy.deepcopy(part).requires_grad_(False) for name, part in self.acting.items()}
        self.optimisers = {
            name: torch.optim.Adam(part.parameters(), lr=settings.learning_rate, fused=True)
            for name, part in self.parts.items()
        }

    def check_spaces(self, spaces: Spaces) -> None:
        """Refuses spaces that the algorithm does not support."""

    @abc.abstractmethod
    def build_parts(self) -> dict[str, nn.Module]:
        """Builds the networks by name, one of them "encoder"; each gets its own optimiser."""

    @abc.abstractmethod
    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """Makes one step of every part on a checked batch with prepared observations; returns scalars to log."""

    @abc.abstractmethod
    def choose(self, features: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Returns actions for features [B, F], on the CPU."""

    def update(self, batch: Batch) -> dict[str, float]:
        """Makes one gradient step on every part.

        Args:
            batch: Transitions, on any device.

        Returns:
            Losses and statistics by name.

        Raises:
            ValueError: The batch does not fit the spaces or holds values that are not finite.
        """
        check_batch(batch, self.spaces)
        batch = batch_to(batch, self.device)
        prepare = self.parts["encoder"].prepare
        info = self.learn(
            batch._replace(observations=prepare(batch.observations), next_observations=prepare(batch.next_observations))
        )
        self.num_updates += 1
        if self.settings.acting_polyak < 1:  # a plain mean at first, so that the untrained weights are soon forgotten
            self._move(self.acting, max(self.settings.acting_polyak, 1 / self.num_updates))
        return dict(zip(info, torch.stack([value.detach() for value in info.values()]).tolist(), strict=True))

    @torch.no_grad()
    def act(
        self,
        observations: Tensor,
        goals: Tensor,
        states: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Returns actions for a batch of observations.

        Args:
            observations: [B, H, W, 3] uint8 or [B, D] float32.
            goals: [B, E] float32.
            states: [B, S] float32, or None.
            generator: Random generator on the CPU; None for the most likely actions.
            temperature: Temperature of the policy, above 0; lower is more deterministic.

        Returns:
            [B] int64, or [B, A] float32 in [-1, 1].

        Raises:
            ValueError: Something does not fit the spaces, or the temperature is not above 0.
        """
        if not temperature > 0:
            raise ValueError(
                f"temperature must be above 0, got {temperature}. Leave the generator out for the most likely action."
            )
        _check_seen(self.spaces, "", observations, goals, states)
        states = None if states is None else states.to(self.device)
        features = self.acting["encoder"](observations.to(self.device), goals.to(self.device), states)
        return self.choose(features, generator, temperature).numpy()

    def encode(self, batch: Batch, parts: Mapping[str, Any]) -> Tensor:
        """Returns features [B, F] of the observations, by the encoder of the parts or the targets."""
        return parts["encoder"](batch.observations, batch.goals, batch.states)

    def encode_next(self, batch: Batch, parts: Mapping[str, Any]) -> Tensor:
        """Returns features [B, F] of the next observations, by the encoder of the parts or the targets."""
        return parts["encoder"](batch.next_observations, batch.goals, batch.next_states)

    def step(self, name: str, loss: Tensor, *cut: Tensor) -> None:
        """Makes one step of a head on its loss; adds the gradient of the detached features, if given, to that of other heads."""
        self.optimisers[name].zero_grad()
        loss.backward(inputs=[*self.parts[name].parameters(), *cut])
        self.optimisers[name].step()

    def step_encoder(self, features: Tensor, cut: Tensor) -> None:
        """Makes one step of the encoder on the gradients that the heads have left at the detached features."""
        self.optimisers["encoder"].zero_grad()
        features.backward(cut.grad)
        self.optimisers["encoder"].step()

    def move_targets(self, polyak: float) -> None:
        """Moves every target by this share towards its part."""
        self._move(self.targets, polyak)

    @torch.no_grad()
    def _move(self, copies: Mapping[str, Any], share: float) -> None:
        moving = [weight for part in copies.values() for weight in part.parameters()]
        leading = [weight for name in copies for weight in self.parts[name].parameters()]
        torch._foreach_lerp_(moving, leading, share)

    def state_dict(self) -> dict[str, object]:
        """Returns everything needed to resume, bit for bit; a copy, which later updates do not change."""
        return copy.deepcopy(
            {
                **self._identity(),
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
                "targets": {name: part.state_dict() for name, part in self.targets.items()},
                "acting": {name: part.state_dict() for name, part in self.acting.items()},
                "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
                "num_updates": self.num_updates,
                "generator": self.generator.get_state(),
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, also if it was saved by torch.save on another device.

        Raises:
            ValueError: The state has another algorithm, other settings or other spaces.
        """
        for what, mine in self._identity().items():
            _check_same(what, mine, state[what])
        state = copy.deepcopy(dict(state))
        for kept, mine in (("parts", self.parts), ("targets", self.targets), ("acting", self.acting)):
            for name, part in mine.items():
                part.load_state_dict(state[kept][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.num_updates = state["num_updates"]
        self.generator.set_state(state["generator"].cpu())

    def _identity(self) -> dict[str, object]:
        return {
            "algorithm": type(self).__name__,
            "settings": self.settings.to_json(),
            "spaces": self.spaces.to_json(),
        }


def batch_to(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch on a device."""
    return Batch._make(None if part is None else part.to(device) for part in batch)


def cut_features(features: Tensor) -> Tensor:
    """Returns the features detached from the encoder, to accumulate the gradients of the heads."""
    return features.detach().requires_grad_()


def build_cloned_policy(settings: LearnerSettings, spaces: Spaces) -> CategoricalPolicy | GaussianPolicy:
    """Builds the policy that recorded actions are cloned into, for the kind of action."""
    if spaces.num_actions is None:
        assert spaces.action_size is not None
        return GaussianPolicy(settings.width, spaces.action_size)
    scale = 0.01  # so that the policy starts nearly uniform
    if settings.grid_shape is None:
        return CategoricalPolicy(Head(settings.width, spaces.num_actions, scale=scale))
    num_cells = math.prod(settings.grid_shape)
    return CategoricalPolicy(GridHead(settings.width, num_cells, settings.channels, spaces.num_actions, scale=scale))


def bounds_of(settings: CriticSettings, batch: Batch) -> Tensor | None:
    """Returns the returns [B] that bound the targets from below, or None."""
    return batch.returns if settings.bound_by_returns else None


def build_critic(settings: CriticSettings, spaces: Spaces) -> DiscreteCritic | GridCritic | ContinuousCritic:
    """Builds the ensemble of critics, for the kind of action."""
    if spaces.num_actions is None:
        assert spaces.action_size is not None
        return ContinuousCritic(settings.width, spaces.action_size, settings.num_critics)
    if settings.grid_shape is None:
        return DiscreteCritic(settings.width, spaces.num_actions, settings.num_critics)
    num_cells = math.prod(settings.grid_shape)
    return GridCritic(settings.width, num_cells, settings.channels, spaces.num_actions, settings.num_critics)


def _check_action_grid(settings: LearnerSettings, spaces: Spaces) -> None:
    grid = settings.grid_shape
    if grid is None:
        return
    if spaces.observation != "frames":
        raise ValueError(
            f"action_grid must be left out for an agent of {spaces.observation}, got {settings.action_grid}. Only "
            "frames have cells."
        )
    if spaces.num_actions is None or math.prod(grid) > spaces.num_actions:
        actions = "continuous actions" if spaces.num_actions is None else f"{spaces.num_actions} actions"
        raise ValueError(
            f"action_grid must have at most one cell per discrete action, got {settings.action_grid} for {actions}. Correct it, or "
            "give the environment's --num-actions."
        )


def check_batch(batch: Batch, spaces: Spaces) -> None:
    """Refuses a batch that does not fit the spaces or has numbers that are not finite.

    Args:
        batch: Transitions.
        spaces: Observations and actions of the agent.

    Raises:
        ValueError: A shape or dtype differs, a number is not finite, an action is out of its range, or the batch is empty.
    """
    size = len(batch.rewards)
    if size == 0:
        raise ValueError("a batch must have at least 1 transition, got 0. Give a corpus with steps.")
    _check_seen(spaces, "", batch.observations, batch.goals, batch.states, size)
    _check_seen(spaces, "next_", batch.next_observations, batch.goals, batch.next_states, size)
    for name, dtype in (
        ("rewards", torch.float32),
        ("masks", torch.float32),
        ("returns", torch.float32),
        ("successes", torch.bool),
    ):
        _check_tensor(name, getattr(batch, name), (size,), dtype)
    if spaces.num_actions is not None:
        _check_tensor("actions", batch.actions, (size,), torch.int64)
        low, high, limits = batch.actions.amin(), batch.actions.amax(), (0, spaces.num_actions - 1)
    else:
        assert spaces.action_size is not None
        _check_tensor("actions", batch.actions, (size, spaces.action_size), torch.float32)
        low, high, limits = batch.actions.amin(), batch.actions.amax(), (-1, 1)
    if not (low >= limits[0] and high <= limits[1]):
        raise ValueError(
            f"actions must be between {limits[0]} and {limits[1]}, got {low.item()} to {high.item()}. "
            + (
                "Build the agent for as many actions as the corpus has."
                if limits[0] == 0
                else "Scale the corpus's actions."
            )
        )


def _check_seen(
    spaces: Spaces, prefix: str, observations: Tensor, goals: Tensor, states: Tensor | None, size: int | None = None
) -> None:
    size = len(goals) if size is None else size
    dtype = torch.uint8 if spaces.observation == "frames" else torch.float32
    _check_tensor(f"{prefix}observations", observations, (size, *spaces.seen_shape), dtype)
    _check_tensor("goals", goals, (size, spaces.goal_size), torch.float32)
    if (states is None) != (spaces.state_size is None):
        raise ValueError(
            f"{prefix}states must be {'left out' if spaces.state_size is None else 'given'} for an agent of state_size "
            f"{spaces.state_size}, got {'none' if states is None else f'shape {tuple(states.shape)}'}. Build the agent with the "
            f"state_size of the corpus."
        )
    if states is not None and spaces.state_size is not None:
        _check_tensor(f"{prefix}states", states, (size, spaces.state_size), torch.float32)


def _check_tensor(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(value.shape) != shape or value.dtype != dtype:
        raise ValueError(
            f"{name} must be {list(shape)} {_name(dtype)}, got {list(value.shape)} {_name(value.dtype)}. Use the agent with the "
            "corpus or environment that its spaces were read from."
        )
    if value.is_floating_point() and not torch.isfinite(value).all():
        count = int((~torch.isfinite(value)).sum())
        raise ValueError(
            f"{name} must be finite, got {count} values that are not. Look for failed labels in the corpus."
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_same(what: str, mine: object, other: object) -> None:
    if isinstance(mine, dict) and isinstance(other, dict):
        for name in mine | other:
            _check_same(f"{what}: {name}", mine.get(name), other.get(name))
    elif mine != other:
        raise ValueError(
            f"a saved state must be of the agent's own {what}, {mine!r}, got {other!r}. Build the agent as the saved one was."
        )
