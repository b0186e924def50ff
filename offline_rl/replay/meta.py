"""meta.json of a replay: what the folder was made from, its goals and counts. Written last, so a folder that has it is complete."""

from pathlib import Path
from typing import Any

from vlm_rewards.schemas.files.digests import check_seal
from vlm_rewards.schemas.files.json_records import (
    FILLED,
    OBJECT,
    SHAPE,
    TEXT,
    TEXTS,
    WHOLE,
    check_fields,
    optional,
    read_json_object,
)

REPLAY_VERSION = 1
"""Version of the layout of the folder."""

_FIELDS = {
    "fingerprint.relabelled": OBJECT,
    "goals.ids": TEXTS,
    "goals.texts": TEXTS,
    "goals.model": TEXT,
    "goals.fingerprint": FILLED,
    "written.num_episodes": WHOLE,
    "written.num_frames": WHOLE,
    "written.num_observations": WHOLE,
    "written.max_action": optional(WHOLE),
    "written.camera": optional(TEXT),
    "written.frame_shape": optional(SHAPE),
}
_REMEDY = "Put back what was moved, or train again, which builds the replay, in another folder."


def read_replay_meta(folder: Path) -> dict[str, Any]:
    """Reads meta.json of a finished replay.

    Raises:
        ValueError: It is missing, of another kind or version, or not as it was written.
    """
    path = folder / "meta.json"
    meta = read_json_object(path, _REMEDY) if path.is_file() else {}
    if meta.get("kind") != "replay" or meta.get("version") != REPLAY_VERSION:
        raise ValueError(
            f"a replay must be a folder that build_replay has made, with meta.json of version {REPLAY_VERSION}, got {folder} with "
            f"{meta.get('kind', 'none')} of version {meta.get('version')}. {_REMEDY}"
        )
    check_fields(meta, _FIELDS, path, _REMEDY)
    check_seal(meta, path, "Remove the folder, and train again, which builds it anew.")
    return meta
