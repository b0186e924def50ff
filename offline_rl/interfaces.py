"""Interfaces between replay, agents and loops: batches of transitions, spaces, goal texts, and the interface of every agent.

    replay ──► Batch ──► Agent.update ──► losses            observation, goal ──► Agent.act ──► action

A transition under goal g; the frame after the action decides the reward:

    observation o_t ── action a_t ──► next observation o_(t+1)        reward r_t looks at o_(t+1)
    mask     0 if the step achieved the goal, as the value of what follows must not be added; else 1
    return   r_t + discount * r_(t+1) + ... to the end of the segment

Shape letters: B transitions or environments, H and W sides of a frame, D size of a kept embedding, S width of a state, A width of a
continuous action, E size of a goal's text embedding.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from vlm_rewards.schemas.fingerprints import Fingerprint


class Batch(NamedTuple):
    """Transitions, each under one goal.

    Attributes:
        observations: [B, H, W, 3] uint8 frames, or [B, D] float32 kept embeddings; those of an agent with a memory of n frames are
            joined along the last axis, the oldest first: [B, H, W, 3 n] or [B, n D].
        actions: [B] int64 (discrete) or [B, A] float32 in [-1, 1] (continuous).
        rewards: [B] float32.
        next_observations: Like observations.
        masks: [B] float32, 0 if the step achieved the goal and ended the segment, else 1.
        goals: [B, E] float32 of unit length, text embeddings of the goals.
        returns: [B] float32, discounted return to go of the recorded segment: a lower bound of the optimal value (Cal-QL). A
            segment that ends without success counts the rewards that were recorded.
        successes: [B] bool, whether the segment of the transition ends in success (filtered BC).
        states: [B, S] float32, or None.
        next_states: Like states.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    next_observations: torch.Tensor
    masks: torch.Tensor
    goals: torch.Tensor
    returns: torch.Tensor
    successes: torch.Tensor
    states: torch.Tensor | None = None
    next_states: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spaces:
    """Observations and actions of an agent. Saved with the agent, and compared with every corpus and environment that it meets.

    Args:
        observation: "frames" or "embeddings".
        observation_shape: (H, W, 3) or (D,).
        goal_size: E.
        num_actions: Number of discrete actions; None if they are continuous.
        action_size: A; None if actions are discrete.
        state_size: S; None without a state.
        frame_stack: Number of observations that the agent sees at once: the last one and those before it in the episode. Before
            an episode's first observation, that one is repeated.

    Raises:
        ValueError: Not exactly one of num_actions and action_size is given, the kind of observation is unknown, or frame_stack
            is below 1.
    """

    observation: str
    observation_shape: tuple[int, ...]
    goal_size: int
    num_actions: int | None = None
    action_size: int | None = None
    state_size: int | None = None
    frame_stack: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "observation_shape", tuple(self.observation_shape))
        if self.observation not in ("frames", "embeddings"):
            raise ValueError(
                f"observation must be 'frames' or 'embeddings', got {self.observation!r}. Choose one of them."
            )
        if (self.num_actions is None) == (self.action_size is None):
            raise ValueError(
                f"actions must be either discrete or continuous, got num_actions {self.num_actions} and action_size "
                f"{self.action_size}. Give exactly one of them."
            )
        if self.frame_stack < 1:
            raise ValueError(f"frame_stack must be at least 1, got {self.frame_stack}. 1 is an agent without a memory.")

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """Shape of what the agent sees at once: (H, W, 3 n) or (n D,), for a frame_stack of n."""
        return (*self.observation_shape[:-1], self.frame_stack * self.observation_shape[-1])

    def to_json(self) -> dict[str, Any]:
        """Returns the fields; frame_stack only where it is not 1, as agents that were saved before it existed."""
        fields = dataclasses.asdict(self)
        return fields if self.frame_stack > 1 else {name: fields[name] for name in fields if name != "frame_stack"}

    def check_equal(self, other: "Spaces", what: str) -> None:
        """Refuses spaces that differ, naming the first difference. The memory of an agent is its own and is not compared.

        Args:
            other: The spaces of `what`.
            what: Name of the object with the other spaces, such as "the environment CartPole-v1".

        Raises:
            ValueError: The two differ.
        """
        for field in dataclasses.fields(self):
            if field.name == "frame_stack":
                continue
            mine, its = getattr(self, field.name), getattr(other, field.name)
            if mine != its:
                remedy = "Use an agent and an environment of one corpus"
                if field.name == "num_actions" and None not in (mine, its):  # more than were ever recorded, perhaps
                    remedy += f", or train one with --num-actions {its}"
                raise ValueError(
                    f"{what} must have the {field.name} that the agent was trained on, {mine}, got {its}. {remedy}."
                )


class Agent(Protocol):
    """Interface of every algorithm: built from its settings and `Spaces`, updated with batches, asked for actions.

    Each algorithm has a file of its own and one line in `offline_rl.algorithms.agents.ALGORITHMS`.
    """

    spaces: Spaces

    def update(self, batch: Batch) -> Mapping[str, float]:
        """Makes one gradient step on every part of the agent; returns losses and statistics by name."""

    def act(
        self,
        observations: torch.Tensor,
        goals: torch.Tensor,
        states: torch.Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Returns actions, [B] int64 or [B, A] float32, for observations [B, ...] and goals [B, E].

        They are sampled with the generator at this temperature of the policy; without a generator, the most likely ones.
        """

    def state_dict(self) -> dict[str, object]:
        """Returns everything needed to resume learning: weights, targets, optimisers, number of updates; for torch.save."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restores what `state_dict` returned, in an agent of the same settings and spaces."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoalTexts:
    """Goals that an agent is trained on or asked for, with their text embeddings.

    Args:
        ids: G ids.
        texts: G texts.
        embeddings: [G, E] float32 of unit length, by the text encoder of `model`.
        model: Name or folder of the model, as in `LabelerSettings.model`.
        fingerprint: Fingerprint of the embeddings: weights and text encoding.

    Raises:
        ValueError: The numbers of ids, texts and embeddings differ.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    embeddings: np.ndarray
    model: str
    fingerprint: Fingerprint

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.texts) == len(self.embeddings):
            raise ValueError(
                f"goals must have one text and one embedding per id, got {len(self.ids)} ids, {len(self.texts)} texts and "
                f"{len(self.embeddings)} embeddings. Give them for the same goals."
            )
