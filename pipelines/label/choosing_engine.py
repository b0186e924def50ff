"""Settles which engine computes the model of a run, once, in the process that plans it.

engine "auto" ──┬─ an output of the run is there ──► its engine
                └─ else ──► frames planned, rates measured ──► the fastest that pays back its start
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vlm_rewards.labelers.encoders.encoder import DEFAULT_ENGINE, Encoder
from vlm_rewards.labelers.encoders.engines.choice import candidates_of, choose_engine, measured_rate
from vlm_rewards.labelers.encoders.known import find_encoder_kind
from vlm_rewards.labelers.labeler import load_encoder
from vlm_rewards.labelers.settings import AUTO_ENGINE, LabelerSettings
from vlm_rewards.pipelines.engine.settings import available_cores
from vlm_rewards.schemas.files.remote_paths import location_of
from vlm_rewards.schemas.folders import SETTINGS, read_settings
from vlm_rewards.schemas.manifests import Unit

_MEASURED_BATCH = 16
"""Frames of a pass of torch that is measured on a CPU: its speed hardly depends on their number."""


class Settled(NamedTuple):
    """Settings whose engine is settled.

    Attributes:
        settings: The settings.
        encoder: Their encoder, where it was loaded to be measured.
        notes: Sentences that say which engine it is and why; empty where the settings named it.
    """

    settings: LabelerSettings
    encoder: Encoder | None
    notes: tuple[str, ...]


def settle_engine(
    settings: LabelerSettings, folders: Sequence[str | Path], units: Sequence[Unit], workers: int | None
) -> Settled:
    """Settles the engine of a run whose settings leave it open.

    Args:
        settings: Settings of the labeler.
        folders: Outputs of the run; the first that an earlier run has written names the engine.
        units: Units of the run.
        workers: Workers of the run; None for one per core.
    """
    if settings.engine != AUTO_ENGINE:
        return Settled(settings, None, ())
    for folder in folders:
        if (location_of(folder) / SETTINGS).is_file():
            engine = _engine_of(read_settings(location_of(folder))["fingerprint"])
            return Settled(
                dataclasses.replace(settings, engine=engine), None, (f"engine: {engine}, as {folder} was begun with",)
            )
    candidates = candidates_of(settings.device) if find_encoder_kind(settings.model).load_on is not None else []
    counts = [unit.num_frames for unit in units]
    num_frames = None if None in counts else sum(count for count in counts if count is not None)
    at_once = 1 if settings.device != "cpu" else workers or available_cores()

    def load(engine: str) -> Encoder:
        is_measured_alone = engine == DEFAULT_ENGINE and settings.device == "cpu"
        rows = min(settings.batch_size, _MEASURED_BATCH) if is_measured_alone else settings.batch_size
        return load_encoder(dataclasses.replace(settings, engine=engine, batch_size=rows))

    choice = choose_engine(num_frames, at_once, candidates, load, measured_rate)
    return Settled(dataclasses.replace(settings, engine=choice.engine), choice.encoder, (choice.words,))


def _engine_of(fingerprint: Mapping[str, object]) -> str:
    part = fingerprint.get("engine")
    return str(part["name"]) if isinstance(part, Mapping) else DEFAULT_ENGINE
