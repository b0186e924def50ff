"""Plans a run of `label`: its units, labeler and folders, what is left to do and how long that takes. Nothing is written."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache
from vlm_rewards.labelers.provenance import Provenance
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.label.choosing_engine import settle_engine
from vlm_rewards.pipelines.label.encoding import encode_unit
from vlm_rewards.pipelines.label.reading import choose_camera
from vlm_rewards.pipelines.label.settings import LabelRun
from vlm_rewards.pipelines.label.shared_labelers import SharedLabeler, shared_labeler
from vlm_rewards.pipelines.label.units import DECODERS, LabelUnit, read_embeddings
from vlm_rewards.schemas.files.remote_paths import location_of
from vlm_rewards.schemas.files.unit_files import read_all_markers
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import read_manifest, read_settings
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus
from vlm_rewards.schemas.formats.label_parts.reader import READ_WITH
from vlm_rewards.schemas.formats.passed_over import passed_over_record, without_outputs
from vlm_rewards.schemas.formats.units import units_to_compare
from vlm_rewards.schemas.labels import LabelMetadata
from vlm_rewards.schemas.manifests import Unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """Plan of a labelling run.

    Args:
        units: Units of the run.
        work: Work on one unit.
        output: Output folder of the labels.
        passed_over: By reason, names of what lies below the corpus's folder and is not read.
        notes: Sentences that people should know about the corpus and the run.
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


def plan_label(
    corpus: str | Path | None,
    labeler: LabelerSettings,
    output: str | Path,
    run: LabelRun,
    when_loaded: Callable[[], object] | None = None,
) -> LabelPlan:
    """Plans a labelling run and loads the labeler once, so that bad settings fail here; see `label` for arguments.

    Args:
        corpus: Corpus to label.
        labeler: Settings of the labeler.
        output: Folder for the labels.
        run: Settings of the run.
        when_loaded: See `shared_labeler`.

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
        camera, decoders = made_of["camera"], made_of.get(DECODERS, {})
        settings = read_settings(kept_at, READ_WITH)["settings"]
        max_unit_bytes, corpus_options = settings["max_unit_bytes"], settings.get("corpus_options") or {}
        units = [marker.unit for marker in read_all_markers(kept_at)]
    else:
        opened = open_corpus(corpus, corpus_options)
        units = opened.units(max_unit_bytes)
        camera = choose_camera(opened, camera)
        decoders = opened.decoders(camera)
    settled = settle_engine(labeler, [output] if embeddings is None else [embeddings, output], units, run.workers)
    built = shared_labeler(settled.settings, settled.encoder, when_loaded).labeler
    labeler = built.settings
    read_as: dict[str, object] = {"corpus_options": dict(corpus_options)} if corpus_options else {}
    seen_as = {"camera": camera, **read_as, **({DECODERS: decoders} if decoders else {})}
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
        decoders=run.decoders,
    )
    outputs = [claimed.path for claimed in (folder, kept) if claimed is not None]
    passed_over = () if opened is None else without_outputs(opened.passed_over, opened.folder, outputs)
    return LabelPlan(
        units=tuple(units),
        work=work,
        output=folder,
        passed_over=passed_over_record(passed_over),
        notes=(*(() if opened is None else opened.notes), *settled.notes),
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
