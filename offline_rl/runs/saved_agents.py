"""Agents on disk: what `vlm-rewards train` and `finetune` leave behind, and what rollouts and fine-tuning begin with.

agent.json      algorithm and settings, spaces, the goals' ids and texts, what the labels were made with
agent.pt        weights, targets, optimisers and random state
goals.npy       [G, E] float32, the goals' text embeddings
replay/         beside an agent of train: what it was trained on, for fine-tuning
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.algorithms.learner import Learner
from vlm_rewards.offline_rl.interfaces import GoalTexts, Spaces
from vlm_rewards.offline_rl.replay.replay import DEFAULT_DISCOUNT
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import replacing, write_atomically

_RECORD, _STATE, _GOALS, _REPLAY = "agent.json", "agent.pt", "goals.npy", "replay"
_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedAgent:
    """A trained agent and what it must be used with.

    Args:
        algorithm: Its name in `offline_rl.algorithms.agents.ALGORITHMS`.
        agent: The agent.
        goals: The goals it was trained on, with their embeddings.
        labeler: JSON of the `LabelerSettings` whose rewards it was trained on.
        labels_fingerprint: Of the labels it was trained on.
        held_out_goals: Ids of goals that were left out of training.
        replay: Folder of the replay it was trained on: the one beside it if there is one, else where it was made.
        replay_fingerprint: Of that replay; None where no one recorded it.
        envs: Environments it was evaluated or fine-tuned in, by their names; none where no one said.
        steps: Gradient steps, or environment steps after fine-tuning.
        camera: Whose frames it was trained on; None where no one recorded it.
        frame_shape: (H, W, 3) of the corpus's frames, also of an agent that sees embeddings, where they may be unknown: None.
        frames: Where these environments have their frames, see `EnvironmentSettings`.
        digest: 32 hexadecimal digits of its weights; "" where it has not been saved.
    """

    algorithm: str
    agent: Learner
    goals: GoalTexts
    labeler: Mapping[str, Any]
    labels_fingerprint: Fingerprint
    held_out_goals: tuple[str, ...]
    replay: str
    envs: tuple[str, ...]
    steps: int
    replay_fingerprint: Fingerprint | None = None
    camera: str | None = None
    frame_shape: tuple[int, ...] | None = None
    frames: str = "observation"
    digest: str = ""

    @property
    def discount(self) -> float:
        """Of the returns it was trained on."""
        return getattr(self.agent.settings, "discount", DEFAULT_DISCOUNT)

    @property
    def labels_camera(self) -> str:
        """Whose frames were labelled."""
        return str(self.labels_fingerprint.parts["camera"])


def save_agent(saved: SavedAgent, folder: Path) -> None:
    """Writes an agent; its record, which says that the rest is whole, last."""
    with replacing(folder / _STATE) as temporary:  # a run that is done again and killed leaves the agent of before
        torch.save(saved.agent.state_dict(), temporary)
    with replacing(folder / _GOALS) as temporary, temporary.open("xb") as file:
        np.save(file, saved.goals.embeddings)
    record = {
        "kind": "agent",
        "version": _VERSION,
        "algorithm": saved.algorithm,
        "algorithm_settings": dataclasses.asdict(saved.agent.settings),
        "spaces": dataclasses.asdict(saved.agent.spaces),
        "goals": {
            "ids": saved.goals.ids,
            "texts": saved.goals.texts,
            "model": saved.goals.model,
            "fingerprint": dict(saved.goals.fingerprint.parts),
        },
        "labeler": dict(saved.labeler),
        "labels_fingerprint": dict(saved.labels_fingerprint.parts),
        "held_out_goals": saved.held_out_goals,
        "replay": saved.replay,
        "replay_fingerprint": None if saved.replay_fingerprint is None else dict(saved.replay_fingerprint.parts),
        "envs": saved.envs,
        "steps": saved.steps,
        "camera": saved.camera,
        "frame_shape": saved.frame_shape,
        "frames": saved.frames,
    }
    write_atomically(folder / _RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")


def load_agent(folder: str | Path, device: str = "cpu") -> SavedAgent:
    """Reads an agent back.

    Raises:
        ValueError: The folder holds no finished agent, one of another version, or one whose weights cannot be read.
    """
    folder = Path(folder)
    if not (folder / _RECORD).is_file():
        raise ValueError(
            f"an agent must be a folder that vlm-rewards train or finetune has finished, got {folder} without {_RECORD}; train "
            f"one, or run the same command again to finish it"
        )
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    if (record.get("kind"), record.get("version")) != ("agent", _VERSION):
        raise ValueError(
            f"{_RECORD} must be of an agent of version {_VERSION}, got {record.get('kind')} of version {record.get('version')} in "
            f"{folder}; train it again"
        )
    agent = build_agent(record["algorithm"], record["algorithm_settings"], Spaces(**record["spaces"]), 0, device)
    try:
        state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a missing file or a damaged archive makes torch raise
        raise ValueError(
            f"the weights of an agent must be readable, got {folder / _STATE} ({error}); copy the whole folder again, or run the "
            f"command that made it once more, which writes them anew"
        ) from error
    agent.load_state_dict(state)
    goals, beside = record["goals"], folder / _REPLAY
    replay_parts = record.get("replay_fingerprint")
    seen = agent.spaces.observation_shape if agent.spaces.observation == "frames" else None
    frame_shape = record.get("frame_shape") or seen
    return SavedAgent(
        algorithm=record["algorithm"],
        agent=agent,
        goals=GoalTexts(
            ids=tuple(goals["ids"]),
            texts=tuple(goals["texts"]),
            embeddings=np.load(folder / _GOALS),
            model=goals["model"],
            fingerprint=Fingerprint(goals["fingerprint"]),
        ),
        labeler=record["labeler"],
        labels_fingerprint=Fingerprint(record["labels_fingerprint"]),
        held_out_goals=tuple(record["held_out_goals"]),
        replay=str(beside.absolute()) if beside.is_dir() else record["replay"],
        replay_fingerprint=None if replay_parts is None else Fingerprint(replay_parts),
        envs=tuple(record["envs"]),
        steps=record["steps"],
        camera=record.get("camera"),
        frame_shape=None if frame_shape is None else tuple(frame_shape),
        frames=record.get("frames", "observation"),
        digest=hashlib.sha256((folder / _STATE).read_bytes()).hexdigest()[:32],
    )
