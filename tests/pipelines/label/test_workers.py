"""Workers that are not like the driver: each checks what it built before its first frame, and the unit fails by name."""

import dataclasses
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.encoders.devices import resolve_precision
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.outputs import PartWriter
from vlm_rewards.pipelines.label import shared_labelers
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.planning import LabelPlan, plan_label
from vlm_rewards.pipelines.label.settings import LabelRun
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("red", "a red ball"), Goal("blue", "a blue ball"))
OWN_VERSIONS = '''
import fcntl, os
from importlib.metadata import version
from pathlib import Path
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder
from vlm_rewards.labelers.encoders.encoder import EncoderKind


class Drifting:
    """A CLIP whose third process, counted from the driver on, has another torch."""

    def __init__(self, encoder, process):
        self._encoder, self._process = encoder, process

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def versions(self):
        return {**self._encoder.versions(), **({"torch": "1.0"} if self._process > 1 else {})}


def load(name, **options):
    folder = Path(name.removeprefix("drifting:"))
    with (folder.parent / "processes").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = file.read().split()
        if str(os.getpid()) not in known:
            file.write(f"{os.getpid()}\\n")
            known.append(str(os.getpid()))
    encoder = DualEncoder.load(folder, **options)
    object.__setattr__(encoder, "name", name)
    object.__setattr__(encoder, "pinned_name", name)
    return Drifting(encoder, known.index(str(os.getpid())))


KIND = EncoderKind("drifting", lambda name: name.startswith("drifting:"), load)
'''


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_tiny_clip(tmp_path / "clip")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index in range(8):
        episode = plain_episode(index)
        write_episodes(folder / f"{index}.parquet", CorpusFeatures.of(episode), [episode], "parquet")
    return folder


def plan(corpus: Path, model: object, **changes: object) -> LabelPlan:
    settings = LabelerSettings(model=str(model), goals=GOALS, batch_size=8, **changes)
    return plan_label(corpus, settings, corpus.parent / "labels", LabelRun())


def do_unit_elsewhere(planned: LabelPlan, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Does the first unit as a process that has loaded nothing yet; returns its marker."""
    monkeypatch.setattr(shared_labelers, "_labelers", {})
    (planned.output.path / "parts").mkdir(parents=True, exist_ok=True)
    for name in ("markers", "progress"):
        (planned.output.path / name).mkdir(exist_ok=True)
    with planned.output.writing(planned.units[0]) as part:
        planned.work(planned.units[0], part)
    return planned.output.marker_path(planned.units[0])


def test_a_marker_says_what_made_its_part(corpus: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = json.loads(do_unit_elsewhere(plan(corpus, clip), monkeypatch).read_text())
    assert marker["made_by"]["torch"] == torch.__version__
    assert marker["made_by"]["precision"] == "float32"
    assert marker["made_by"]["vlm-rewards"] == version("vlm-rewards")
    assert marker["made_by"]["processor"]


def test_other_weights_at_the_same_path_fail_the_unit(
    corpus: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(corpus, clip)
    shutil.rmtree(clip)
    save_tiny_clip(clip, seed=1)
    with pytest.raises(
        ValueError, match=r"this worker's labeler is not that of the run: got other weights \(weights is"
    ):
        do_unit_elsewhere(planned, monkeypatch)
    assert not planned.output.is_done(planned.units[0])


def test_precision_is_settled_by_the_driver(corpus: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    planned = plan(corpus, clip, precision="auto")
    assert planned.work.labeler.precision == "float32"
    assert planned.output.settings["labeler"]["precision"] == "float32"
    # The worker's processor computes in bfloat16: "auto" would mean that there.
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert resolve_precision("auto", "cpu") == "bfloat16"
    marker = json.loads(do_unit_elsewhere(planned, monkeypatch).read_text())
    assert marker["made_by"]["precision"] == "float32"


def test_a_worker_without_bfloat16_fails_the_unit(corpus: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    planned = plan(corpus, clip, precision="auto")
    assert planned.work.labeler.precision == "bfloat16"
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="bfloat16 must be computed by the device, got cpu without it"):
        do_unit_elsewhere(planned, monkeypatch)


def test_a_run_over_two_workers_that_differ_fails_by_name(
    corpus: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    registered = site / "drifting-1.0.dist-info"
    registered.mkdir(parents=True)
    (registered / "METADATA").write_text("Metadata-Version: 2.1\nName: drifting\nVersion: 1.0\n")
    (registered / "entry_points.txt").write_text("[vlm_rewards.encoders]\ndrifting = drifting_encoder:KIND\n")
    (site / "drifting_encoder.py").write_text(OWN_VERSIONS)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    settings = LabelerSettings(model=f"drifting:{clip}", goals=GOALS, batch_size=8)
    with pytest.raises(
        RuntimeError, match=r"other versions than the driver of the run: got torch 1.0 in place of .*\nin unit '\d"
    ):
        label(
            corpus,
            settings,
            output=tmp_path / "labels",
            workers=2,
            beam_options=("--direct_running_mode=multi_processing",),
        )
    assert len((tmp_path / "processes").read_text().split()) == 3
    markers = [json.loads(path.read_text()) for path in (tmp_path / "labels" / "markers").glob("*.json")]
    assert all(marker["made_by"]["torch"] == torch.__version__ for marker in markers)
    assert not (tmp_path / "labels" / "manifest.json").exists()


def test_the_marker_of_a_part_that_nothing_computed_says_nothing(tmp_path: Path) -> None:
    assert PartWriter(tmp_path / "a", tmp_path / "b").made_by == {}


@pytest.mark.parametrize("part", ["precision", "preprocessing", "weights"])
def test_kept_embeddings_of_another_making_are_refused(
    part: str, corpus: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LabelerSettings(model=str(clip), goals=GOALS, batch_size=8)
    label(corpus, settings, output=tmp_path / "first", embeddings=tmp_path / "embeddings", workers=1)
    monkeypatch.setattr(shared_labelers, "_labelers", {})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    if part == "precision":
        settings = dataclasses.replace(settings, precision="bfloat16")
    elif part == "weights":
        shutil.rmtree(clip)
        save_tiny_clip(clip, seed=1)
    else:
        path = clip / "processor_config.json"
        path.write_text(path.read_text().replace('"resample": 3', '"resample": 2'))
    for source in (corpus, None):
        with pytest.raises(
            ValueError,
            match=rf"output folder .*embeddings must have the same fingerprint .* got other {part} \({part}[ .]",
        ):
            label(source, settings, output=tmp_path / "second", embeddings=tmp_path / "embeddings")
    assert not (tmp_path / "second").exists()
