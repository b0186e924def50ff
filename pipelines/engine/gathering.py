"""Gathers evidence of every unit in a pipeline and merges it; see `pipelines.engine.packed` for how it travels.

units ──► spread ──► work ──► merge ──► write, in a worker ──► a file that the driver reads
"""

import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apache_beam as beam

from vlm_rewards.pipelines.engine.driver import make_pipeline
from vlm_rewards.pipelines.engine.packed import merge_packed, pack_evidence
from vlm_rewards.schemas.manifests import Unit

EvidenceT = TypeVar("EvidenceT")


def gather_evidence(
    units: Sequence[Unit],
    work: Callable[[Unit], EvidenceT],
    refused: Callable[..., EvidenceT],
    merge: Callable[[Iterable[EvidenceT]], EvidenceT],
    scratch: Path,
    *,
    beam_options: Sequence[str],
    workers: int | None,
) -> EvidenceT:
    """Runs the work on every unit and returns the merged evidence.

    Args:
        units: The units.
        work: Gathers the evidence of a unit; a ValueError becomes a refusal.
        refused: Makes evidence of `refusals`, a list of texts.
        merge: Merges evidence.
        scratch: File that carries the evidence to this process; removed.
        beam_options: Options for Beam.
        workers: Number of workers; None for one per core.
    """
    try:
        write_merged(
            units, work, refused, merge, _write_packed, str(scratch), beam_options=beam_options, workers=workers
        )
        evidence: EvidenceT = pickle.loads(scratch.read_bytes())
    finally:
        scratch.unlink(missing_ok=True)
    return evidence


def write_merged(
    units: Sequence[Unit],
    work: Callable[[Unit], EvidenceT],
    refused: Callable[..., EvidenceT],
    merge: Callable[[Iterable[EvidenceT]], EvidenceT],
    write: Callable[..., None],
    *arguments: Any,
    beam_options: Sequence[str],
    workers: int | None,
) -> None:
    """Runs the work on every unit and has a worker write the merged evidence; see `gather_evidence` for arguments.

    Args:
        write: Takes the packed evidence and `arguments`.
    """
    pipeline = make_pipeline(beam_options, workers)
    _ = (
        pipeline
        | "Units" >> beam.Create([unit.to_json() for unit in units])
        | "Spread" >> beam.Reshuffle()
        | "Gather" >> beam.Map(pack_evidence, work, refused)
        | "Merge" >> beam.CombineGlobally(merge_packed, merge).without_defaults()
        | "Write" >> beam.Map(write, *arguments)
    )
    pipeline.run().wait_until_finish()


def _write_packed(packed: bytes, path: str) -> None:
    Path(path).write_bytes(packed)
