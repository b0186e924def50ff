"""Small finished folders of relabelled trajectories and of kept embeddings, as the commands leave them."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from labelled_corpora import relabelled

from vlm_rewards.offline_rl.interfaces import GoalTexts
from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.label_parts.writer import RowGroupWriter, Rows, key_columns, vector_column
from vlm_rewards.schemas.formats.relabelled_parts.writer import EXTENSIONS, open_writer
from vlm_rewards.schemas.labels import embedding_schema
from vlm_rewards.schemas.manifests import Unit
from vlm_rewards.schemas.relabelled import RelabelledEpisode

LABELS = {"weights": "sha256:1", "camera": "main", "threshold": 0.5}
GOALS = GoalTexts(
    ids=("box", "ball"),
    texts=("at the box", "at the ball"),
    embeddings=np.array([[0, 1, 0], [1, 0, 0]], np.float32),
    model="by hand",
    fingerprint=Fingerprint({"weights": "by hand"}),
)
"""Embeddings of the goals of `labelled_corpora.relabelled`, in another order than they occur there."""


def one_camera(episode_id: str = "a", **given: object) -> RelabelledEpisode:
    """`labelled_corpora.relabelled` with the camera "main" alone."""
    episode = relabelled(episode_id, **given)
    return relabelled(episode_id, **{**given, "images": {"main": episode.images["main"]}})


def write_relabelled(
    folder: Path,
    parts: Sequence[Sequence[RelabelledEpisode]],
    format_name: str = "parquet",
    labels: Mapping[str, object] = LABELS,
) -> Path:
    """Writes a part a list of episodes."""
    fingerprint = Fingerprint({"labels": dict(labels), "hindsight": {"seed": 0}})
    output = OutputFolder(
        folder, kind="relabelled", fingerprint=fingerprint, settings={}, extension=EXTENSIONS[format_name]
    )
    units = [Unit(name=f"shard-{number}") for number in range(len(parts))]
    with output.claim(units):
        for unit, episodes in zip(units, parts, strict=True):
            first = next(iter(episodes), one_camera())
            actions = first.actions
            features = CorpusFeatures(
                cameras=tuple(first.images),
                action_size=None if actions is None else 0 if actions.ndim == 1 else actions.shape[1],
                state_size=None if first.states is None else first.states.shape[1],
            )
            with output.writing(unit) as part:
                with contextlib.closing(open_writer(format_name, part.path, features, fingerprint)) as writer:
                    for episode in episodes:
                        writer.write(episode)
                part.rows = part.episodes = max(len(episodes), 1)  # an empty folder is refused by the readers, not here
        output.finish(units)
    return folder


def write_embeddings(
    folder: Path,
    parts: Sequence[Sequence[tuple[str, np.ndarray]]],
    parts_of_fingerprint: Mapping[str, object] = {"weights": "sha256:1", "camera": "main"},
) -> Path:
    """Writes a part a list of (episode_id, [F, D] embeddings)."""
    fingerprint = Fingerprint(parts_of_fingerprint)
    output = OutputFolder(folder, kind="embeddings", fingerprint=fingerprint, settings={}, extension="parquet")
    units = [Unit(name=f"shard-{number}") for number in range(len(parts))]
    with output.claim(units):
        for unit, episodes in zip(units, parts, strict=True):
            with output.writing(unit) as part:
                size = episodes[0][1].shape[1]
                with contextlib.closing(
                    RowGroupWriter(part.path, embedding_schema(size, fingerprint), 4 * size)
                ) as file:
                    for episode_id, vectors in episodes:
                        rows = Rows([episode_id] * len(vectors), list(range(len(vectors))), vectors)
                        file.write([*key_columns(rows), vector_column(vectors)])
                        part.rows += len(vectors)
        output.finish(units)
    return folder
