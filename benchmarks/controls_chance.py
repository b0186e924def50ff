"""Chance levels and the bot, on the held-out levels that agents are evaluated on.

random        every action is as likely as any other
goal-blind    actions have fixed probabilities: their frequencies in the recorded episodes that succeeded
bot           the expert of the level acts
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vlm_rewards.labelers.domains.domain import ExpertGaveUpError, domain_of_environment
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments, spaces_of
from vlm_rewards.offline_rl.evaluation.episode_records import EpisodeRecord, Evaluation
from vlm_rewards.offline_rl.evaluation.evaluation import environments_at_once, evaluate_agent
from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import Goal


class FixedPolicy:
    """An agent whose actions have fixed probabilities, whatever it sees and is asked for.

    Args:
        spaces: Observations and actions of the environments.
        probabilities: [M] of the actions.
    """

    def __init__(self, spaces: Spaces, probabilities: np.ndarray) -> None:
        self.spaces = spaces
        self._probabilities = torch.from_numpy(probabilities)

    def act(
        self,
        observations: torch.Tensor,
        goals: torch.Tensor,
        states: torch.Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Draws actions [B] int64."""
        return torch.multinomial(self._probabilities, len(goals), replacement=True, generator=generator).numpy()

    def update(self, batch: Batch) -> Mapping[str, float]:
        """Learns nothing."""
        return {}

    def state_dict(self) -> dict[str, object]:
        """Returns nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restores nothing."""


def action_frequencies(corpus: Path, num_actions: int) -> np.ndarray:
    """Returns the frequencies [M] float64 of the actions in the recorded episodes that end with a reward.

    Raises:
        ValueError: No recorded episode ends with a reward.
    """
    counts = np.zeros(num_actions)
    opened = open_corpus(corpus)
    for unit in opened.units():
        for episode in opened.episodes(unit, fields=("actions", "rewards"), frames=False):
            assert isinstance(episode, Episode), episode
            assert episode.rewards is not None
            assert episode.actions is not None
            if episode.rewards[-1] > 0:
                counts += np.bincount(episode.actions, minlength=num_actions)
    if not counts.any():
        raise ValueError(f"a recorded episode must succeed, got none in {corpus}. Record more episodes")
    return counts / counts.sum()


def play_chance(
    name: str, level: str, goals: Sequence[Goal], *, corpus: Path, num_episodes: int, seed: int
) -> Evaluation:
    """Plays a policy of `controls_plan.CHANCE`.

    Args:
        name: Name of the policy.
        level: Name of the environment.
        goals: Goals that episodes may be asked for.
        corpus: Recorded corpus, for the frequencies of actions.
        num_episodes: Number of episodes.
        seed: Seed of the held-out levels.
    """
    environments = EnvironmentSettings(
        envs=(level,), num_envs=environments_at_once((level,)), seed=seed, seeds="held-out"
    )
    labeler = Labeler.build(LabelerSettings(model="reference-s", goals=tuple(goals)))
    envs = make_environments(environments, goals)
    spaces = spaces_of(envs, labeler.dim)
    envs.close()
    assert spaces.num_actions is not None
    if name == "goal-blind":
        probabilities = action_frequencies(corpus, spaces.num_actions)
    else:
        probabilities = np.full(spaces.num_actions, 1 / spaces.num_actions)
    evaluation = evaluate_agent(
        FixedPolicy(spaces, probabilities), labeler, environments, num_episodes=num_episodes, temperature=1.0
    )
    if name != "bot":
        return evaluation
    return Evaluation(episodes=tuple(_play_bot(level, record) for record in evaluation.episodes))


def _play_bot(name: str, record: EpisodeRecord) -> EpisodeRecord:
    """Plays the level and goal of a record by the level's expert, who does not know what the model thinks."""
    domain = domain_of_environment(name)
    level = domain.make(name, frame_size=domain.frame_sizes[0], cameras=domain.cameras[:1])
    level.reset(record.level_seed)
    if level.goals()[:1] != (record.goal_id,):
        level.ask(record.goal_id)
    expert = level.expert()
    assert expert is not None
    taken, success, done, over, steps = None, False, False, False, 0
    while not (success or over):
        try:
            taken = expert.act(taken)
        except ExpertGaveUpError:
            break
        look, reward, _, over = level.step(taken)
        steps += 1
        done = done or reward > 0
        success = record.goal_id in level.facts(look)
    level.close()
    played = {"num_steps": steps, "success": success, "mission_done": done}
    unknown = {"vlm_success": False, "vlm_step": None, "vlm_true": None, "vlm_return": 0.0, "vlm_false_frames": 0}
    known = {"episode": record.episode, "env": name, "level_seed": record.level_seed, "goal_id": record.goal_id}
    return EpisodeRecord(**known, family=record.family, **played, **unknown, false_frames=0)
