"""What made labels: the labeler's fingerprint and the versions of what computes it. Workers check themselves against the driver's.

    driver: labeler ──► Provenance.of ──► travels with the work ──► worker: labeler of its own ──► check, before its first frame

A fingerprint says what labels depend on; it is computed from what a process has loaded. A worker with other weights at the same
path, or with another release of torch, would write other labels under the driver's fingerprint.
"""

import dataclasses
import platform
from collections.abc import Mapping
from pathlib import Path

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.schemas.fingerprints import Fingerprint

_OPERATING_POINT = ("temperature",)
_PROCESSOR_FILE = Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What a process makes labels with.

    Args:
        fingerprint: The labeler's.
        versions: Versions of the libraries that compute its labels, by name.
    """

    fingerprint: Fingerprint
    versions: Mapping[str, str]

    @classmethod
    def of(cls, labeler: Labeler) -> "Provenance":
        """Returns what this process makes labels with."""
        return cls(labeler.fingerprint, labeler.versions())

    def check(self, labeler: Labeler) -> None:
        """Refuses a labeler that this process built otherwise than the driver of the run built its own.

        The temperature is not compared: it is a number of the settings that calibration varies.

        Args:
            labeler: Built by this process for the same settings.

        Raises:
            ValueError: A part of the fingerprint or a version differs; the message names both.
        """
        ours, theirs = (
            Fingerprint({name: part for name, part in one.parts.items() if name not in _OPERATING_POINT})
            for one in (labeler.fingerprint, self.fingerprint)
        )
        differing = theirs.differing_parts(ours)
        if differing:
            values = theirs.describe_differences(ours, here="in this worker", there="in the driver")
            raise ValueError(
                f"this worker's labeler is not that of the run: got other {', '.join(differing)} ({values}). Give every worker the "
                f"same model files, software and kind of processor as the driver."
            )
        versions = labeler.versions()
        names = sorted(
            name for name in self.versions.keys() | versions.keys() if self.versions.get(name) != versions.get(name)
        )
        if names:
            found = ", ".join(f"{name} {versions.get(name)} in place of {self.versions.get(name)}" for name in names)
            raise ValueError(
                f"this worker computes with other versions than the driver of the run: got {found}. Install the same versions on "
                f"every worker."
            )

    def record(self) -> dict[str, str]:
        """Returns what made a part, for its marker: versions, precision and device, and this machine's processor."""
        parts = {
            name: str(self.fingerprint.parts[name])
            for name in ("precision", "device")
            if name in self.fingerprint.parts
        }
        return {**self.versions, **parts, "processor": describe_processor()}


def describe_processor() -> str:
    """Returns the name of this machine's processor, as far as the system tells."""
    lines = _PROCESSOR_FILE.read_text().splitlines() if _PROCESSOR_FILE.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
