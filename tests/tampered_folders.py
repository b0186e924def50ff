"""Finished folders whose parts a test has changed: their records are made to fit, so that what comes after them is tested."""

import hashlib
import json
from pathlib import Path

from vlm_rewards.schemas.files.digests import seal


def fit_records(folder: Path) -> None:
    """Writes sizes and digests of the parts as they are now into markers and manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for record in manifest["parts"]:
        part = folder / record["path"]
        now = {"num_bytes": part.stat().st_size, "sha256": hashlib.sha256(part.read_bytes()).hexdigest()}
        record |= now
        marker = folder / "markers" / f"{part.stem}.json"
        marker.write_text(json.dumps({**json.loads(marker.read_text()), **now}))
    (folder / "manifest.json").write_text(json.dumps(seal(manifest)))
