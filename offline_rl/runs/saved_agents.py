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

from vlm_rewards.labelers.settings import settings_from_json
from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.algorithms.learner import Learner
from vlm_rewards.offline_rl.interfaces import GoalTexts, Spaces
from vlm_rewards.offline_rl.replay.replay import DEFAULT_DISCOUNT
from vlm_rewards.schemas.files.digests import check_digest
from vlm_rewards.schemas.files.json_records import (
    FILLED,
    OBJECT,
    POSITIVE,
    SHAPE,
    TEXT,
    TEXTS,
    WHOLE,
    check_fields,
    optional,
    read_json_object,
)
from vlm_rewards.schemas.files.remote_paths import local_input
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import replacing, sync_file, write_atomically

_RECORD, _STATE, _GOALS, _REPLAY = "agent.json", "agent.pt", "goals.npy", "replay"
_VERSION = 1
_SHOWN = 200  # characters of what went wrong in a message
_REMEDY = "Copy the whole folder again, or train the agent again."
_FIELDS = {
    "algorithm": TEXT,
    "algorithm_settings": OBJECT,
    "spaces.observation": TEXT,
    "spaces.observation_shape": SHAPE,
    "spaces.goal_size": POSITIVE,
    "spaces.num_actions": optional(POSITIVE),
    "spaces.action_size": optional(POSITIVE),
    "spaces.state_size": optional(POSITIVE),
    "spaces.frame_stack": optional(POSITIVE),
    "goals.ids": TEXTS,
    "goals.texts": TEXTS,
    "goals.model": TEXT,
    "goals.fingerprint": FILLED,
    "labeler": OBJECT,
    "labels_fingerprint.camera": TEXT,
    "held_out_goals": TEXTS,
    "replay": TEXT,
    "replay_fingerprint": optional(FILLED),
    "envs": TEXTS,
    "steps": WHOLE,
    "camera": optional(TEXT),
    "frame_shape": optional(SHAPE),
    "frames": optional(TEXT),
    "files": optional(OBJECT),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedAgent:
    """A trained agent and what it must be used with.

    Args:
        algorithm: Name of its algorithm in `offline_rl.algorithms.agents.ALGORITHMS`.
        agent: The agent.
        goals: The goals it was trained on, with their embeddings.
        labeler: JSON of the `LabelerSettings` whose rewards it was trained on.
        labels_fingerprint: Fingerprint of the labels it was trained on.
        held_out_goals: Ids of goals that were left out of training.
        replay: Folder of the replay it was trained on: the one beside it if there is one, else where it was made.
        replay_fingerprint: Fingerprint of that replay; None where no one recorded it.
        envs: Environments it was evaluated or fine-tuned in, by their names; none where no one said.
        steps: Gradient steps, or environment steps after fine-tuning.
        camera: Camera of the frames it was trained on; None where no one recorded it.
        frame_shape: (H, W, 3) of the corpus's frames, also of an agent that sees embeddings, where they may be unknown: None.
        frames: Place of the frames in these environments, see `EnvironmentSettings`.
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

    def __repr__(self) -> str:
        held_out = f", {len(self.held_out_goals)} held out" if self.held_out_goals else ""
        envs = f", environments {', '.join(self.envs)}" if self.envs else ""
        return (
            f"SavedAgent({self.algorithm}, {self.steps:,} steps, {len(self.goals.ids)} goals{held_out}, sees "
            f"{self.agent.spaces.observation}{envs})"
        )

    @property
    def discount(self) -> float:
        """Discount factor of the returns it was trained on."""
        return getattr(self.agent.settings, "discount", DEFAULT_DISCOUNT)

    @property
    def labels_camera(self) -> str:
        """Returns the camera whose frames were labelled."""
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
        "algorithm_settings": saved.agent.settings.to_json(),
        "spaces": saved.agent.spaces.to_json(),
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
    record["files"] = {name: sync_file(folder / name)[0] for name in (_STATE, _GOALS)}
    write_atomically(folder / _RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")


def load_agent(folder: str | Path, device: str = "cpu") -> SavedAgent:
    """Reads an agent back. The folder may come from elsewhere: it is checked, and nothing that it names is imported.

    Args:
        folder: Folder that `train` or `finetune` has finished.
        device: Device of the agent.

    Raises:
        ValueError: The folder is in an object store, or holds no finished agent, one of another version, or something that cannot
            be one.

    Example:
        >>> import vlm_rewards as vr
        >>> agent = vr.load_agent("agent/")
        >>> agent
        SavedAgent(iql, 10 steps, 342 goals, sees frames)
        >>> agent.goals.ids[:2]
        ('find-red-key', 'find-red-ball')
    """
    folder = local_input(folder, "an agent, with all files of its folder,")
    path = folder / _RECORD
    if not path.is_file():
        raise ValueError(
            f"an agent must be a folder that vlm-rewards train or finetune has finished, got {folder} without {_RECORD}. Train "
            f"one, or run the same command again to finish it."
        )
    record = read_json_object(path, _REMEDY)
    if (record.get("kind"), record.get("version")) != ("agent", _VERSION):
        raise ValueError(
            f"{_RECORD} must be of an agent of version {_VERSION}, got {record.get('kind')} of version {record.get('version')} in "
            f"{folder}. Train it again."
        )
    check_fields(record, _FIELDS, path, _REMEDY)
    for name, digest in (record.get("files") or {}).items():
        if (folder / name).is_file():
            check_digest(folder / name, digest, _REMEDY)
    held_out = tuple(record["held_out_goals"])
    unknown = sorted(set(held_out) - set(record["goals"]["ids"]))
    if unknown:
        raise ValueError(f"held_out_goals in {path} must be among its goals, got {unknown[0]!r}. {_REMEDY}")
    try:
        spaces = Spaces(**_only_known(record["spaces"], Spaces))
        agent = build_agent(record["algorithm"], record["algorithm_settings"], spaces, 0, device)
        settings_from_json(record["labeler"])
    except ValueError as error:
        error.add_note(f"in {path}")
        raise
    except (TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} must describe an agent and its labeler, got {_words(error)}. {_REMEDY}") from error
    _load_weights(agent, folder / _STATE)
    goals, beside = record["goals"], folder / _REPLAY
    replay_parts = record.get("replay_fingerprint")
    seen = spaces.observation_shape if spaces.observation == "frames" else None
    frame_shape = record.get("frame_shape") or seen
    return SavedAgent(
        algorithm=record["algorithm"],
        agent=agent,
        goals=GoalTexts(
            ids=tuple(goals["ids"]),
            texts=tuple(goals["texts"]),
            embeddings=_load_goals(folder / _GOALS, len(goals["ids"]), spaces.goal_size),
            model=goals["model"],
            fingerprint=Fingerprint(goals["fingerprint"]),
        ),
        labeler=record["labeler"],
        labels_fingerprint=Fingerprint(record["labels_fingerprint"]),
        held_out_goals=held_out,
        replay=str(beside.absolute()) if beside.is_dir() else record["replay"],
        replay_fingerprint=None if replay_parts is None else Fingerprint(replay_parts),
        envs=tuple(record["envs"]),
        steps=record["steps"],
        camera=record.get("camera"),
        frame_shape=None if frame_shape is None else tuple(frame_shape),
        frames=record.get("frames", "observation"),
        digest=hashlib.sha256((folder / _STATE).read_bytes()).hexdigest()[:32],
    )


def _only_known(record: Mapping[str, Any], of: type) -> Mapping[str, Any]:
    unknown = sorted(record.keys() - {field.name for field in dataclasses.fields(of)})
    if unknown:
        raise ValueError(f"spaces must be of known fields alone, got {unknown[0]!r}. {_REMEDY}")
    return record


def _load_weights(agent: Learner, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a missing file or a damaged archive makes torch raise
        raise ValueError(
            f"the weights of an agent must be a file of tensors, got {path} ({type(error).__name__}). Copy the whole folder again, "
            f"or run the command that made it once more, which writes them again."
        ) from error  # whose words may advise to load the file unsafely
    try:
        agent.load_state_dict(state)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"the weights in {path} must be those of the agent in {_RECORD} beside it, got {_words(error)}. {_REMEDY}"
        ) from error


def _load_goals(path: Path, num_goals: int, goal_size: int) -> np.ndarray:
    try:
        embeddings = np.load(path)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} must be a NumPy array, got {_words(error)}. {_REMEDY}") from error
    if embeddings.shape != (num_goals, goal_size) or embeddings.dtype != np.float32:
        raise ValueError(
            f"the goals in {path} must be [{num_goals}, {goal_size}] float32, as {_RECORD} says, got {list(embeddings.shape)} "
            f"{embeddings.dtype}. {_REMEDY}"
        )
    return embeddings


def _words(error: Exception) -> str:
    """Returns the message of an error, short and without advice; for a KeyError, which gives the key alone, with "no"."""
    text = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return text.splitlines()[0].split("; ")[0].split(". ")[0][:_SHOWN].rstrip(".")
