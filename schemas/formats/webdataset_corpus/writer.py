"""Writes corpora in WebDataset: tar files, one sample per episode; `schemas.formats.webdataset_corpus.reader` reads them."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vlm_rewards.schemas.episodes import TIME_CONVENTION, CorpusFeatures, Episode
from vlm_rewards.schemas.formats.member_names import check_fields, escape_name
from vlm_rewards.schemas.pictures import encoded_frame, image_extension

ARRAYS = {
    "action.npy": "actions",
    "reward.npy": "rewards",
    "terminated.npy": "terminations",
    "truncated.npy": "truncations",
    "state.npy": "states",
}
"""Members of a sample that hold arrays, and the parts of an Episode they are."""
TRUTH_GOALS = "VLM_REWARDS.truth_goals"
"""The keyword in a tar's global header whose value is a JSON list of the goals that the ground truth covers."""
FLAGS = ("terminations", "truncations")
"""Those of them that hold true or false."""


def write_webdataset(path: str | Path, features: CorpusFeatures, episodes: Iterable[Episode]) -> None:
    """Writes episodes to one tar file; the same episodes give the same bytes. Frames stream.

    Args:
        path: The file; replaced if it exists.
        features: Features that every episode has.
        episodes: The episodes, read one at a time.

    Raises:
        ValueError: An episode holds other things than `features` says, occurs twice, or has a picture that is none; two
            cameras differ in nothing but their case.
    """
    check_fields(features.cameras)
    seen: set[str] = set()
    # Once in the file, not in every sample; readers that do not know of it, `webdataset` and `datasets`, pass over it.
    covered = None if features.truth_goals is None else {TRUTH_GOALS: json.dumps(features.truth_goals)}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=covered) as tar:
        for episode in episodes:
            features.check(episode)
            if episode.episode_id in seen:
                raise ValueError(
                    f"an episode_id must occur once in a file, got {episode.episode_id!r} again; rename one"
                )
            seen.add(episode.episode_id)
            for suffix, data in _members(features, episode):
                member = tarfile.TarInfo(f"{escape_name(episode.episode_id)}.{suffix}")
                member.size = len(data)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(data))
                tar.members = []  # type: ignore[attr-defined]  # or it keeps a record of every frame ever written


def _members(features: CorpusFeatures, episode: Episode) -> Iterator[tuple[str, bytes]]:
    record: dict[str, object] = {
        "num_frames": episode.num_frames,
        "cameras": list(features.cameras),
        "time": TIME_CONVENTION,
        "features": features.to_json(),
    }
    if episode.instruction is not None:
        record["instruction"] = episode.instruction
    if episode.achieved_goals is not None:
        record["achieved_goals"] = [list(goals) for goals in episode.achieved_goals]
    yield "json", json.dumps(record, ensure_ascii=False, sort_keys=True).encode()
    for suffix, name in ARRAYS.items():
        values = getattr(episode, name)
        if values is not None:
            dtype: type = np.float32 if name in ("rewards", "states") or values.ndim == 2 else np.int64
            if name in FLAGS:
                dtype = np.bool_
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(values, dtype), allow_pickle=False)
            yield suffix, buffer.getvalue()
    for camera in features.cameras:
        for index, frame in enumerate(episode.images[camera]):
            try:
                data = encoded_frame(frame)
                yield f"{escape_name(camera)}.{index:06d}.{image_extension(data)}", data
            except ValueError as error:
                error.add_note(f"in frame {index} of camera {camera!r} of episode {episode.episode_id!r}")
                raise
