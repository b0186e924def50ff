"""Labels every frame of a corpus for all goals at once.

    plan: units, without the finished ─► each unit: encode (see pipelines/label/encoding.py) ─► score ─► write part ─► manifest
                                                    └─ or read its kept embeddings ─┘

One unit is one input shard, or a range of a large one. With kept embeddings the same rows are scored without reading a
frame, and the labels have the same bytes. Embeddings are kept as the encoder gives them: windows of several frames are taken
when they are scored, within an episode, and a frame that failed is in none.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import pyarrow as pa

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache
from vlm_rewards.labelers.provenance import Provenance
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.driver import RunSummary, run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.label.encoding import SharedLabeler, encode_unit, one_run, shared_labeler
from vlm_rewards.pipelines.label.reading import Ended, Group, choose_camera, frame_groups, read_ahead
from vlm_rewards.pipelines.label.settings import LabelKeywords, LabelRun
from vlm_rewards.schemas.files.remote_paths import location_of
from vlm_rewards.schemas.files.unit_files import read_all_markers
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import read_manifest, read_settings, write_atomically
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus
from vlm_rewards.schemas.formats.label_parts.embeddings import read_embedding_rows
from vlm_rewards.schemas.formats.label_parts.reader import READ_WITH
from vlm_rewards.schemas.formats.label_parts.writer import (
    RowGroupWriter,
    Rows,
    drop_episodes,
    key_columns,
    score_columns,
    vector_column,
)
from vlm_rewards.schemas.formats.passed_over import passed_over_record, without_outputs
from vlm_rewards.schemas.formats.truth import tells_of
from vlm_rewards.schemas.formats.units import units_to_compare
from vlm_rewards.schemas.goals import goals_to_lines
from vlm_rewards.schemas.labels import LabelMetadata, embedding_schema, label_schema
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.options import build_settings, shows_settings

GOALS = "goals.jsonl"
"""The goals in the folder of the labels, to be edited and labelled with again."""
_DECODERS = "decoders"
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
    """

    labeler: LabelerSettings
    provenance: Provenance
    metadata: LabelMetadata
    camera: str
    corpus: Corpus | None
    embeddings: OutputFolder | None = None

    def is_kept(self, unit: Unit) -> bool:
        """Whether the unit is labelled from its kept embeddings."""
        return self.embeddings is not None and (self.corpus is None or self.embeddings.is_done(unit))

    def __call__(self, unit: Unit, part: PartWriter) -> None:
        """Writes the unit's labels and, if asked for, its embeddings."""
        shared = shared_labeler(self.labeler)
        self.provenance.check(shared.labeler)
        if self.corpus is not None and not self.is_kept(unit):
            _check_decoders(self.metadata.fingerprint, self.corpus.decoders(self.camera))
        part.made_by = self.provenance.record()
        broken: set[str] = set()
        if self.embeddings is None:
            self._label(shared, self._encode(shared, unit, part, broken), part)
        elif self.is_kept(unit):
            self._label(shared, read_embeddings(self.embeddings, unit, part), part)
        else:
            with self.embeddings.writing(unit) as kept:
                kept.made_by = part.made_by
                rows = self._encode(shared, unit, kept, broken)
                kept_schema = embedding_schema(shared.labeler.dim, self.embeddings.fingerprint)
                row_bytes = 4 * shared.labeler.dim + 16
                with contextlib.closing(RowGroupWriter(kept.path, kept_schema, row_bytes)) as writer:
                    self._label(shared, _keep(rows, writer, kept), part)
                _drop(kept, broken, kept_schema, row_bytes)
            part.episodes = kept.episodes
            part.failures, part.failed_frames = kept.failures, kept.failed_frames
            part.seconds.update(kept.seconds)
            part.counts.update({name: kept.counts[name] for name in ("encoded_frames", "cached_frames")})
        _drop(part, broken, label_schema(self.metadata), self._row_bytes)

    @property
    def _row_bytes(self) -> int:
        return 4 * len(self.metadata.goals) + 16

    def frames(self, unit: Unit) -> Iterator[Group | Ended | Failure]:
        """Reads the unit's frames; of the episodes nothing else."""
        assert self.corpus is not None
        return frame_groups(self.corpus.episodes(unit, cameras=[self.camera], fields=()), self.camera)

    def _encode(self, shared: SharedLabeler, unit: Unit, part: PartWriter, broken: set[str]) -> Iterator[Rows]:
        with contextlib.closing(read_ahead(lambda: self.frames(unit), part)) as groups:
            yield from encode_unit(shared, groups, part, broken)
        for failure in part.failures:
            if failure.scope == "shard" and unit.num_frames is not None:
                part.failed_frames = max(part.failed_frames, unit.num_frames - part.rows)

    def _label(self, shared: SharedLabeler, rows: Iterable[Rows], part: PartWriter) -> None:
        scorer = shared.labeler.episodes()
        with contextlib.closing(RowGroupWriter(part.path, label_schema(self.metadata), self._row_bytes)) as writer:
            for group in rows:
                with part.timing("score"):
                    scores = scorer.push(group.episode_ids, group.embeddings)
                    scorer.end_all_but(group.episode_ids[-1])  # an episode's frames follow one another
                with part.timing("write"):
                    writer.write(key_columns(group) + score_columns(scores, self.metadata))
                part.advance(len(group.episode_ids))


def _drop(part: PartWriter, broken: set[str], schema: pa.Schema, row_bytes: int) -> None:
    """Takes back what was written of episodes that broke off, and what was said of their frames: they failed as a whole."""
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


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LabelSummary(RunSummary):
    """Summary of a run of `label`.

    Args:
        has_ground_truth: Whether the corpus says of one of the goals in which frames it holds; False where no corpus was read.
    """

    has_ground_truth: bool


@shows_settings(LabelRun)
def label(
    corpus: str | Path | None, labeler: LabelerSettings, *, output: str | Path, **settings: Unpack[LabelKeywords]
) -> LabelSummary:
    """Labels every frame of a corpus; run again after an interruption, it does what is missing.

    Args:
        corpus: Corpus to label, a folder or one shard, or a URL; None to label from kept embeddings alone.
        labeler: Encoder, goals, prompts, formula, windows and reward rule.
        output: Folder for the labels, or a URL of an object store, such as "s3://bucket/labels".
        settings: Fields of `LabelRun`.

    Returns:
        What was done, with the manifest of the labels.

    Raises:
        ValueError: The corpus, the camera, the output folder or the embeddings do not fit; see the message.

    Example:
        >>> import vlm_rewards as vr
        >>> labeler = vr.load_labeler("reference-s", vr.read_goals("corpus/goals.jsonl"))
        >>> vr.label("corpus/", labeler.settings, output="labels-2/")
        LabelSummary(labels: ... rows of 12 episodes in 1 units, 0 of them done before, 0 failures)
    """
    (run,) = build_settings(settings, LabelRun)
    with one_run():
        return _label(corpus, labeler, output, run)


def _label(corpus: str | Path | None, labeler: LabelerSettings, output: str | Path, run: LabelRun) -> LabelSummary:
    plan = plan_label(corpus, labeler, output, run)
    kept = [plan.work.embeddings] if plan.work.embeddings is not None and corpus is not None else []
    if plan.work.corpus is not None and any(plan.output.to_do(plan.units)):
        check_episode_ids(plan.work.corpus, plan.units)
    summary = run_units(
        plan.units,
        plan.work,
        plan.output,
        also_filled=kept,
        beam_options=run.beam_options,
        workers=run.workers,
        max_failure_share=run.max_failure_share,
        title="label",
        counted_name="frames",
        total=plan.num_frames,
        manifest_extra={"passed_over": dict(plan.passed_over), "notes": list(plan.notes)},
    )
    goals_path = plan.output.path / GOALS
    if not goals_path.is_file():  # an edited one stays
        write_atomically(goals_path, goals_to_lines(labeler.goals))
    ids = [goal.id for goal in labeler.goals]
    has_truth = plan.work.corpus is not None and tells_of(plan.work.corpus.features, ids)
    return LabelSummary(**vars(summary), has_ground_truth=has_truth)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """Plan of a labelling run.

    Args:
        units: Units of the run.
        work: Work on one unit.
        output: Output folder of the labels.
        passed_over: By reason, names of what lies below the corpus's folder and is not read.
        notes: Sentences that people should know about the corpus.
    """

    units: tuple[Unit, ...]
    work: LabelUnit
    output: OutputFolder
    passed_over: Mapping[str, list[str]]
    notes: tuple[str, ...]

    @property
    def num_frames(self) -> int | None:
        """Frames in all units, if the plan knows."""
        frames = [unit.num_frames for unit in self.units]
        return None if None in frames else sum(count for count in frames if count is not None)


def plan_label(corpus: str | Path | None, labeler: LabelerSettings, output: str | Path, run: LabelRun) -> LabelPlan:
    """Plans a labelling run and loads the labeler once, so that bad settings fail here; see `label` for arguments.

    Raises:
        ValueError: The corpus, the camera or the embeddings do not fit, or labels of that reward cannot be sparse.
    """
    camera, sparse, embeddings = run.camera, run.sparse, run.embeddings
    max_unit_bytes, corpus_options = run.max_unit_bytes, run.read_options
    if corpus is None and embeddings is None:
        raise ValueError("a corpus or kept embeddings must be given, got neither; give --input or --embeddings")
    if sparse and labeler.reward in ("score", "difference"):
        raise ValueError(
            f"labels must be dense for the reward {labeler.reward!r}, which needs every score, got sparse ones; leave out --sparse"
        )
    opened = None
    if corpus is None:
        assert embeddings is not None
        kept_at = location_of(embeddings)
        made_of = read_manifest(kept_at, "embeddings")["fingerprint"]
        camera, decoders = made_of["camera"], made_of.get(_DECODERS, {})
        settings = read_settings(kept_at, READ_WITH)["settings"]
        max_unit_bytes, corpus_options = settings["max_unit_bytes"], settings.get("corpus_options") or {}
        units = [marker.unit for marker in read_all_markers(kept_at)]
    else:
        opened = open_corpus(corpus, corpus_options)
        units = opened.units(max_unit_bytes)
        camera = choose_camera(opened, camera)
        decoders = opened.decoders(camera)
    built = shared_labeler(labeler).labeler
    labeler = built.settings
    read_as: dict[str, object] = {"corpus_options": dict(corpus_options)} if corpus_options else {}
    seen_as = {"camera": camera, **read_as, **({_DECODERS: decoders} if decoders else {})}
    label_fingerprint = Fingerprint({**built.fingerprint.parts, "sparse": sparse, **seen_as})
    kept = None
    if embeddings is not None:
        kept = OutputFolder(
            embeddings,
            kind="embeddings",
            fingerprint=Fingerprint({**built.embedding_fingerprint.parts, **seen_as}),
            settings={"model": labeler.model, "camera": camera, "max_unit_bytes": max_unit_bytes, **read_as},
            extension="parquet",
        )
    metadata = LabelMetadata(
        goals=built.goals,
        rule=built.rule,
        formula=labeler.formula,
        fingerprint=label_fingerprint,
        sparse=sparse,
    )
    folder = OutputFolder(
        output,
        kind="labels",
        fingerprint=label_fingerprint,
        settings={
            "model": labeler.model,
            "camera": camera,
            "num_goals": len(built.goals),
            "labeler": labeler.to_json(),
            "max_unit_bytes": max_unit_bytes,
            **read_as,
        },
        extension="parquet",
    )
    for claimed in [folder] if kept is None else [folder, kept]:
        claimed.check_ours()
    work = LabelUnit(
        labeler=labeler,
        provenance=Provenance.of(built),
        metadata=metadata,
        camera=str(camera),
        corpus=opened,
        embeddings=kept,
    )
    outputs = [claimed.path for claimed in (folder, kept) if claimed is not None]
    passed_over = () if opened is None else without_outputs(opened.passed_over, opened.folder, outputs)
    return LabelPlan(
        units=tuple(units),
        work=work,
        output=folder,
        passed_over=passed_over_record(passed_over),
        notes=() if opened is None else opened.notes,
    )


def _check_decoders(run: Fingerprint, here: Mapping[str, str]) -> None:
    """Refuses a worker whose decoders of video are not those of the run."""
    if here != run.parts.get(_DECODERS, {}):
        raise ValueError(
            f"this worker decodes videos with other versions than the driver of the run: got {dict(here)} in place of "
            f"{run.parts.get(_DECODERS)}. Install the same versions on every worker."
        )


def check_episode_ids(corpus: Corpus, units: Sequence[Unit]) -> None:
    """Refuses a corpus where two units hold an episode of the same id; labels are keyed by it.

    Raises:
        ValueError: An id occurs in two units.
    """
    unit_of: dict[str, Unit] = {}
    for unit in units_to_compare(units):
        for episode_id in corpus.episode_ids(unit):
            other = unit_of.setdefault(episode_id, unit)
            if other.name == unit.name:
                continue
            apart = set(other.files) & set(unit.files)
            parts = "Sort the shard by episode where they are parts of one, or rename one of the two"
            remedy = parts if apart else "Remove or rename one of the two"
            raise ValueError(
                f"an episode's id must occur once in a corpus, got {episode_id!r} in {other.name} and in {unit.name} "
                f"({corpus.place(unit)}). {remedy}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimate of a run, from its plan and a short measurement.

    Args:
        units: Units to do.
        done_units: Units that are done.
        frames: Frames to do; None where the plan does not know.
        num_bytes: Bytes to read.
        frames_per_s: Frames a second and worker, measured.
        seconds: Estimated time; None where the number of frames is unknown.
    """

    units: int
    done_units: int
    frames: int | None
    num_bytes: int
    frames_per_s: float
    seconds: float | None


def estimate(plan: LabelPlan, workers: int, budget_s: float = 3.0) -> Estimate:
    """Measures labelling on the first frames of the first unit for a few seconds; writes nothing.

    Args:
        plan: The run.
        workers: Workers that will share the units.
        budget_s: Seconds to measure for.
    """
    units = list(plan.output.to_do(plan.units))
    total = None if any(unit.num_frames is None for unit in units) else sum(unit.num_frames or 0 for unit in units)
    rate = _measure(plan.work, units[0], budget_s) if units else 0.0
    seconds = 0.0 if not units else None if total is None or rate == 0 else total / rate / min(workers, len(units))
    return Estimate(
        units=len(units),
        done_units=len(plan.units) - len(units),
        frames=total,
        num_bytes=sum(unit.num_bytes for unit in units),
        frames_per_s=rate,
        seconds=seconds,
    )


def _measure(work: LabelUnit, unit: Unit, budget_s: float) -> float:
    labeler = shared_labeler(work.labeler).labeler
    fresh = SharedLabeler(labeler, EmbeddingCache(labeler.dim))
    scratch = PartWriter(Path("unused"), Path("unused"))
    if work.is_kept(unit):
        assert work.embeddings is not None
        groups = read_embeddings(work.embeddings, unit, scratch)
    else:
        groups = encode_unit(fresh, work.frames(unit), scratch, set())
    frames = 0
    scorer = labeler.episodes()
    started = time.perf_counter()
    with contextlib.closing(groups):
        for rows in groups:
            scorer.push(rows.episode_ids, rows.embeddings)
            frames += len(rows.episode_ids)
            if time.perf_counter() - started > budget_s:
                break
    return frames / (time.perf_counter() - started)
