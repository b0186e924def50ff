"""The held-out corpora that the reference models are judged on: recorded once, embedded once a model, then arrays in memory.

    record ──► corpus ──► truth [N, G], episode [N]
                  └─ label --embeddings, once a model ──► embeddings [N, D] ──► scores [N, G] of any wording, formula, negatives

Shape letters: N frames, G goals, D size of an embedding.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from vlm_rewards.cli import main as vlm_rewards
from vlm_rewards.labelers.domains.domain import domain_named
from vlm_rewards.labelers.encoders.checkpoints.loading import reference_models
from vlm_rewards.labelers.reference_models.pretraining import pretraining_of
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import Goal, read_goals
from vlm_rewards.schemas.manifests import Failure

LEVELS = ("BabyAI-GoToObj-v0", "BabyAI-GoToLocal-v0", "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0")
POLICIES = "bot:0.2,noisy-bot:0.5,random:0.3"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """What holds in every frame of a corpus, in its order.

    Args:
        goals: The G goals that the ground truth covers.
        truth: [N, G] bool.
        episode: [N] int64, the number of the frame's episode, from 0.
        keys: N pairs of episode_id and frame_index.
    """

    goals: tuple[Goal, ...]
    truth: np.ndarray
    episode: np.ndarray
    keys: tuple[tuple[str, int], ...]

    @property
    def num_episodes(self) -> int:
        """Episodes of the corpus."""
        return int(self.episode[-1]) + 1


def models_of(domain: str) -> list[str]:
    """The reference models of a domain that ship with the package, by size."""
    pretraining = pretraining_of(domain_named(domain))
    shipped = reference_models()
    return [name for size in pretraining.sizes if (name := f"{pretraining.prefix}-{size}") in shipped]


def run(arguments: list[str]) -> None:
    """Runs one command of vlm-rewards, which must succeed."""
    if vlm_rewards(arguments) != 0:
        raise SystemExit(f"the command must succeed: vlm-rewards {' '.join(arguments)}")


def record(
    folder: Path, *, episodes: int, seed: int, frame_size: int | None = 56, levels: Sequence[str] = LEVELS
) -> None:
    """Records a corpus of mixed policies; a finished one is left as it is.

    Args:
        folder: Where to.
        episodes: How many.
        seed: Of levels and policies.
        frame_size: Height and width of the frames in pixels; None for the domain's own.
        levels: Environments, of which each has the same number of episodes.
    """
    environments = [argument for level in levels for argument in ("--env", level)]
    size = ["--episodes", str(episodes), "--episodes-per-shard", "100"]
    if frame_size is not None:
        size += ["--frame-size", str(frame_size)]
    run(["record", *environments, "--policy", POLICIES, "--seed", str(seed), *size, "--output", str(folder)])


def read_truth(corpus: Path) -> GroundTruth:
    """Reads the ground truth of a recorded corpus; its pictures are not read."""
    goals = read_goals(corpus / "goals.jsonl")
    column = {goal.id: index for index, goal in enumerate(goals)}
    rows, numbers, keys = [], [], []
    number = 0
    opened = open_corpus(corpus)
    for unit in opened.units():
        for episode in opened.episodes(unit, frames=False):
            assert not isinstance(episode, Failure), episode
            assert episode.achieved_goals is not None, episode.episode_id
            truth = np.zeros((episode.num_frames, len(goals)), dtype=bool)
            for frame, achieved in enumerate(episode.achieved_goals):
                truth[frame, [column[goal] for goal in achieved]] = True
                keys.append((episode.episode_id, frame))
            rows.append(truth)
            numbers.append(np.full(episode.num_frames, number))
            number += 1
    return GroundTruth(
        goals=tuple(goals), truth=np.concatenate(rows), episode=np.concatenate(numbers), keys=tuple(keys)
    )


def embed(model: str, corpus: Path, folder: Path, truth: GroundTruth) -> np.ndarray:
    """The embeddings of every frame under a model, kept in a folder.

    Args:
        model: As for `vlm-rewards label`.
        corpus: Of `truth`.
        folder: Where embeddings and the labels made beside them are kept; finished ones are read.
        truth: In whose order the frames are returned.

    Returns:
        [N, D] float32, unit length.
    """
    kept = folder / "embeddings"
    if not (kept / "manifest.json").is_file():
        goals, labels = str(corpus / "goals.jsonl"), str(folder / "labels")
        source = ["--input", str(corpus), "--goals", goals, "--model", model]
        run(["label", *source, "--embeddings", str(kept), "--output", labels])
    rows, keys = [], []
    for part in sorted((kept / "parts").glob("*.parquet")):
        table = pq.read_table(part)
        keys += zip(table["episode_id"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
        vectors = table["embedding"].combine_chunks().flatten().to_numpy()
        rows.append(vectors.reshape(table.num_rows, -1))
    assert tuple(keys) == truth.keys, "embeddings must be of the frames of the corpus, in its order"
    return np.concatenate(rows)
