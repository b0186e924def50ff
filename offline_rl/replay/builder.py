"""Builds the replay of relabelled trajectories once, whole or not at all.

    lock ──► meta.json there? ── yes ──► same fingerprint? ──► open
                 └─ no ──► .<name>.building/: arrays, goals.npy, meta.json last ──► rename to <name>/ ──► open

What a killed build has left is in the hidden folder alone, and the next build removes it. The layout is drawn in
`offline_rl.replay.writer`, the transitions in `offline_rl.replay.replay`.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlm_rewards.labelers.encoders.encoder import Encoder
from vlm_rewards.labelers.scoring.prompts import DEFAULT_TEMPLATES, average_prompts, check_templates, fill_templates
from vlm_rewards.offline_rl.interfaces import GoalTexts
from vlm_rewards.offline_rl.replay.meta import REPLAY_VERSION, read_replay_meta
from vlm_rewards.offline_rl.replay.replay import (
    DEFAULT_DISCOUNT,
    ReplayData,
)
from vlm_rewards.offline_rl.replay.replay_files import check_replay_files
from vlm_rewards.offline_rl.replay.writer import write_arrays
from vlm_rewards.schemas.files.digests import seal
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import FinishedFolder, locked, open_finished, publish, sync_file, write_atomically


def build_replay(
    source: str | Path,
    folder: str | Path,
    *,
    goals: Encoder | GoalTexts,
    embeddings: str | Path | None = None,
    camera: str | None = None,
    exclude_goals: Sequence[str] = (),
    discount: float = DEFAULT_DISCOUNT,
    num_actions: int | None = None,
    use_states: bool = True,
    frame_stack: int = 1,
) -> ReplayData:
    """Builds the replay of relabelled trajectories, or opens the one that is there.

    The folder appears when it is complete. A build that was killed leaves a hidden folder beside it, which the next one
    removes; of several processes that build the same replay one does, and the others wait and open it.

    Args:
        source: Folder that `vlm-rewards hindsight` has finished, Parquet or WebDataset.
        folder: Folder of the replay.
        goals: Text tower to embed the goals with, or their embeddings; of an encoder the default templates are used.
        embeddings: Folder that `vlm-rewards label --embeddings` filled: keep these image embeddings instead of frames.
        camera: Camera of the frames; may be None where the corpus has one.
        exclude_goals: Argument of `open_replay`; like the next four not part of the folder.
        discount: Argument of `open_replay`.
        num_actions: Argument of `open_replay`.
        use_states: Argument of `open_replay`.
        frame_stack: Argument of `open_replay`.

    Returns:
        The replay, open.

    Raises:
        ValueError: The folder holds something else or a replay of another making, the source is unfinished, an episode has
            no actions, a goal no text or no embedding, features are mixed, the embeddings are not those that the labels were
            made from, or what `open_replay` raises.
    """
    folder = Path(folder)
    relabelled = open_finished(source, "relabelled")
    kept = None if embeddings is None else open_finished(embeddings, "embeddings")
    if kept is not None:
        camera = _check_embeddings(kept, relabelled, camera)
    fingerprint = Fingerprint(
        {
            "version": REPLAY_VERSION,
            "relabelled": dict(relabelled.fingerprint.parts),
            "relabelled_digest": relabelled.digest,
            "observation": "frames" if kept is None else "embeddings",
            "embeddings_digest": None if kept is None else kept.digest,
            "camera": camera,
            "goal_embeddings": dict(_goal_fingerprint(goals).parts),
            "goals": _digest([goals.ids, goals.texts]) if isinstance(goals, GoalTexts) else None,
        }
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), wait=True):
        if (folder / "meta.json").is_file():
            Fingerprint(read_replay_meta(folder)["fingerprint"]).check_equal(
                fingerprint, f"the replay {folder}", "give another folder, or remove this one to build it anew"
            )
            check_replay_files(folder)
        else:
            _build(relabelled, kept, folder, fingerprint, goals, camera)
    return ReplayData(
        folder,
        exclude_goals=exclude_goals,
        discount=discount,
        num_actions=num_actions,
        use_states=use_states,
        frame_stack=frame_stack,
    )


def embed_goals(
    encoder: Encoder, ids: Sequence[str], texts: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES
) -> GoalTexts:
    """Embeds goals by a dual encoder's text tower, as the labeler does: the average over templates, of unit length.

    Args:
        encoder: The dual encoder.
        ids: G ids.
        texts: G texts.
        templates: Prompts with `{goal}` in them.

    Raises:
        ValueError: A template or text is not one; see `Encoder.embed_texts`.
    """
    prompts = [prompt for text in texts for prompt in fill_templates(check_templates(templates), text)]
    embeddings = encoder.embed_texts(prompts).reshape(len(texts), len(templates), encoder.dim)
    return GoalTexts(
        ids=tuple(ids),
        texts=tuple(texts),
        embeddings=average_prompts(embeddings, texts),
        model=encoder.name,
        fingerprint=_text_fingerprint(encoder, templates),
    )


def _build(
    source: FinishedFolder,
    kept: FinishedFolder | None,
    folder: Path,
    fingerprint: Fingerprint,
    goals: Encoder | GoalTexts,
    camera: str | None,
) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"the folder of a replay must be empty or hold a finished replay, got {folder} with other files; give another folder"
        )
    building = folder.with_name(f".{folder.name}.building")
    if building.is_symlink():
        building.unlink()
    elif building.exists():
        shutil.rmtree(building)
    building.mkdir()
    try:
        written = write_arrays(source, building, camera=camera, embeddings=kept)
        if not written.num_episodes:
            raise ValueError(
                f"relabelled trajectories must hold an episode, got none in {source.path}; relabel a corpus that has some"
            )
        if not isinstance(goals, GoalTexts):
            goals = embed_goals(goals, written.goal_ids, written.goal_texts)
        _use_goals(building / "segments.npy", written.goal_ids, written.goal_texts, goals)
        np.save(building / "goals.npy", goals.embeddings.astype(np.float32))
        meta = {
            "kind": "replay",
            "version": REPLAY_VERSION,
            "fingerprint": dict(fingerprint.parts),
            "written": dataclasses.asdict(written),
            "goals": {
                "ids": goals.ids,
                "texts": goals.texts,
                "model": goals.model,
                "fingerprint": dict(goals.fingerprint.parts),
            },
            "files": {path.name: sync_file(path)[0] for path in sorted(building.iterdir())},
        }
        write_atomically(building / "meta.json", json.dumps(seal(meta), indent=1, sort_keys=True))
        publish(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _use_goals(path: Path, ids: Sequence[str], texts: Sequence[str], goals: GoalTexts) -> None:
    text_of = dict(zip(goals.ids, goals.texts, strict=True))
    for goal_id, text in zip(ids, texts, strict=True):
        if text_of.get(goal_id) != text:
            raise ValueError(
                f"goals must hold every goal of the relabelled trajectories with its text, got {text_of.get(goal_id)!r} for goal "
                f"{goal_id!r}, which is {text!r} there; embed the goals of this corpus"
            )
    segments = np.load(path)
    segments["goal"] = np.array([goals.ids.index(goal_id) for goal_id in ids])[segments["goal"]]
    np.save(path, segments)


def _check_embeddings(kept: FinishedFolder, relabelled: FinishedFolder, camera: str | None) -> str:
    labels = relabelled.fingerprint.parts.get("labels")
    assert isinstance(labels, dict), "relabelled trajectories say what their labels depend on"
    of_labels = Fingerprint({name: labels.get(name) for name in kept.fingerprint.parts})
    kept.fingerprint.check_equal(
        of_labels,
        f"the kept embeddings {kept.path}",
        "give the embeddings that these labels were made from, or build the replay of frames",
    )
    own = str(kept.fingerprint.parts["camera"])
    if camera not in (None, own):
        raise ValueError(f"the camera must be that of the kept embeddings, {own!r}, got {camera!r}; leave it out")
    return own


def _goal_fingerprint(goals: Encoder | GoalTexts) -> Fingerprint:
    return goals.fingerprint if isinstance(goals, GoalTexts) else _text_fingerprint(goals, DEFAULT_TEMPLATES)


def _text_fingerprint(encoder: Encoder, templates: Sequence[str]) -> Fingerprint:
    parts = {"weights": encoder.weights_digest, "text_encoding": encoder.describe_texts()}
    return Fingerprint({**parts, "templates": list(templates)})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
