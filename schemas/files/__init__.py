"""Files on disk: digests, locks, JSON records, and what errors of the operating system mean; see `schemas.folders`."""
