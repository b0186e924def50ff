"""Reads in which environments a corpus was recorded, from the settings.json that `vlm-rewards record` leaves with it."""

import json

from vlm_rewards.schemas.folders import SETTINGS
from vlm_rewards.schemas.formats.folder import Folder


def recorded_environments(folder: Folder) -> tuple[str, ...]:
    """Returns the names of the environments that a corpus was recorded in; () for a corpus that `record` did not make.

    Args:
        folder: Folder of the corpus, or its folder `parts`.
    """
    places = [folder, folder.above] if folder.name == "parts" else [folder]
    for place in places:
        if place.has_file(SETTINGS):
            try:
                record = json.loads(place.read(SETTINGS))
            except ValueError:  # somebody else's file of this name
                continue
            if isinstance(record, dict) and record.get("kind") == "corpus":
                envs = record.get("settings", {}).get("envs", ())
                return tuple(name for name in envs if isinstance(name, str))
    return ()
