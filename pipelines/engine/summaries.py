"""What a run tells about itself when it has ended."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Summary of a run.

    Args:
        manifest: The output's manifest.
        num_units: Number of all units.
        num_skipped: Number of units that were done before.
    """

    manifest: dict
    num_units: int
    num_skipped: int

    def __repr__(self) -> str:
        rows, episodes = self.manifest["rows"], self.manifest["episodes"]
        failures = sum(self.manifest["failures"].values())
        return (
            f"{type(self).__name__}({self.manifest['kind']}: {rows:,} rows of {episodes:,} episodes in {self.num_units} units, "
            f"{self.num_skipped} of them done before, {failures} failures)"
        )
