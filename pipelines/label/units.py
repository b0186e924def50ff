"""Labels one unit of a corpus: its frames to a part of labels and, if asked for, a part of embeddings.

    read ─► encode (see pipelines/label/encoding.py) ─► score ─► write part
     └─ or read its kept embeddings ─┘

With kept embeddings the same rows are scored without reading a frame, and the labels have the same bytes. Embeddings are kept as
the encoder gives them: windows of several frames are taken when they are scored, within an episode, and a frame that failed is in
none.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Generator, Iterable, Iterator, Mapping

import pyarrow as pa

from vlm_rewards.labelers.provenance import Provenance
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.label.encoding import FrameLabeler, encode_unit
from vlm_rewards.pipelines.label.reading import Ended, Group, frame_groups, read_ahead
from vlm_rewards.pipelines.label.shared_labelers import SharedLabeler, shared_labeler
from vlm_rewards.pipelines.label.unit_processes import unit_processes
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.formats.label_parts.embeddings import read_embedding_rows
from vlm_rewards.schemas.formats.label_parts.writer import (
    RowGroupWriter,
    Rows,
    drop_episodes,
    key_columns,
    score_columns,
    vector_column,
)
from vlm_rewards.schemas.labels import LabelMetadata, embedding_schema, label_schema
from vlm_rewards.schemas.manifests import Failure, Unit

DECODERS = "decoders"
"""Part of the fingerprint of labels and embeddings whose pixels come from video."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelUnit:
    """Labels one unit; see the module's picture.

    Args:
        labeler: Settings of the labeler, with nothing left open; every worker process builds it once.
        provenance: Provenance of the driver's labeler; a worker whose own differs refuses the unit.
        metadata: Metadata of the labels.
        camera: Camera whose frames are labelled.
        corpus: The corpus; None where the embeddings are all there is, units that failed included.
        embeddings: Folder of kept embeddings: read where the unit is done there, else filled.
        decoders: Number of processes beside the model that do units; None to choose, see `unit_processes`.
    """

    labeler: LabelerSettings
    provenance: Provenance
    metadata: LabelMetadata
    camera: str
    corpus: Corpus | None
    embeddings: OutputFolder | None = None
    decoders: int | None = None

    def is_kept(self, unit: Unit) -> bool:
        """Whether the unit is labelled from its kept embeddings."""
        return self.embeddings is not None and (self.corpus is None or self.embeddings.is_done(unit))

    def __call__(self, unit: Unit, part: PartWriter) -> None:
        """Writes the unit's labels and, if asked for, its embeddings."""
        shared = shared_labeler(self.labeler)
        self.provenance.check(shared.labeler)
        part.made_by = self.provenance.record()
        if self.is_kept(unit):
            assert self.embeddings is not None
            self._label(shared, read_embeddings(self.embeddings, unit, part), part)
            return
        assert self.corpus is not None
        check_decoders(self.metadata.fingerprint, self.corpus.decoders(self.camera))
        if self.embeddings is None:
            self._fill(shared, unit, part, None)
            return
        with self.embeddings.writing(unit) as kept:
            kept.made_by = part.made_by
            self._fill(shared, unit, part, kept)
        part.seconds.update(kept.seconds)

    def _fill(self, shared: SharedLabeler, unit: Unit, part: PartWriter, kept: PartWriter | None) -> None:
        processes = unit_processes(shared, self.decoders)
        if processes is None:
            self.fill(shared, unit, part, kept)
        else:
            processes.fill(self, unit, part, kept)

    def fill(self, labeler: FrameLabeler, unit: Unit, part: PartWriter, kept: PartWriter | None) -> None:
        """Reads, embeds, scores and writes the unit.

        Args:
            labeler: What labels the frames.
            unit: The unit.
            part: Part for the labels.
            kept: Part for the embeddings; None where they are not kept.
        """
        broken: set[str] = set()
        if kept is None:
            self._label(labeler, self._encode(labeler, unit, part, broken), part)
        else:
            assert self.embeddings is not None
            kept_schema = embedding_schema(labeler.dim, self.embeddings.fingerprint)
            row_bytes = 4 * labeler.dim + 16
            rows = self._encode(labeler, unit, kept, broken)
            with contextlib.closing(RowGroupWriter(kept.path, kept_schema, row_bytes)) as writer:
                self._label(labeler, _keep(rows, writer, kept), part)
            _drop(kept, broken, kept_schema, row_bytes)
            part.episodes = kept.episodes
            part.failures, part.failed_frames = kept.failures, kept.failed_frames
            part.counts.update({name: kept.counts[name] for name in ("encoded_frames", "cached_frames")})
        _drop(part, broken, self._schema, self._row_bytes)

    @functools.cached_property
    def _schema(self) -> pa.Schema:
        return label_schema(self.metadata)

    @property
    def _row_bytes(self) -> int:
        return 4 * len(self.metadata.goals) + 16

    def frames(self, unit: Unit) -> Iterator[Group | Ended | Failure]:
        """Reads the unit's frames; of the episodes nothing else."""
        assert self.corpus is not None
        return frame_groups(self.corpus.episodes(unit, cameras=[self.camera], fields=()), self.camera)

    def _encode(self, labeler: FrameLabeler, unit: Unit, part: PartWriter, broken: set[str]) -> Iterator[Rows]:
        with contextlib.closing(read_ahead(lambda: self.frames(unit), part)) as groups:
            yield from encode_unit(labeler, groups, part, broken)
        for failure in part.failures:
            if failure.scope == "shard" and unit.num_frames is not None:
                part.failed_frames = max(part.failed_frames, unit.num_frames - part.rows)

    def _label(self, labeler: FrameLabeler, rows: Iterable[Rows], part: PartWriter) -> None:
        scorer = labeler.episodes()
        with contextlib.closing(RowGroupWriter(part.path, self._schema, self._row_bytes)) as writer:
            for group in rows:
                with part.timing("score"):
                    scores = scorer.push(group.episode_ids, group.embeddings)
                    scorer.end_all_but(group.episode_ids[-1])  # an episode's frames follow one another
                with part.timing("write"):
                    writer.write(key_columns(group) + score_columns(scores, self.metadata))
                part.advance(len(group.episode_ids))


def _drop(part: PartWriter, broken: set[str], schema: pa.Schema, row_bytes: int) -> None:
    """Takes back what was written of episodes that failed later, and what was said of their frames: they failed as a whole."""
    if not broken:
        return
    part.rows -= drop_episodes(part.path, broken, schema, row_bytes)
    frames = [failure for failure in part.failures if failure.scope == "frame" and failure.episode_id in broken]
    part.failures = [failure for failure in part.failures if failure not in frames]
    part.failed_frames -= len(frames)


def _keep(rows: Iterable[Rows], writer: RowGroupWriter, part: PartWriter) -> Iterator[Rows]:
    for group in rows:
        writer.write([*key_columns(group), vector_column(group.embeddings)])
        part.advance(len(group.episode_ids))
        yield group


def read_embeddings(folder: OutputFolder, unit: Unit, part: PartWriter) -> Generator[Rows, None, None]:
    """The unit's kept embeddings in order; its failures and counts are taken over into `part`."""
    marker = folder.read_marker(unit)
    assert marker is not None, unit.name
    part.episodes, part.failed_frames = marker.episodes, marker.failed_frames
    part.counts["kept_frames"] = marker.rows
    if folder.failures_path(unit).is_file():
        part.failures = [Failure(**json.loads(line)) for line in folder.failures_path(unit).read_text().splitlines()]
    yield from read_embedding_rows(folder.part_path(unit))


def check_decoders(run: Fingerprint, here: Mapping[str, str]) -> None:
    """Refuses a worker whose decoders of video are not those of the run.

    Args:
        run: Fingerprint of the run.
        here: Versions of this process's decoders, by name.

    Raises:
        ValueError: They differ.
    """
    if here != run.parts.get(DECODERS, {}):
        raise ValueError(
            f"this worker decodes videos with other versions than the driver of the run: got {dict(here)} in place of "
            f"{run.parts.get(DECODERS)}. Install the same versions on every worker."
        )
