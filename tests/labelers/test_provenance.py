import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from vlm_rewards.labelers import provenance
from vlm_rewards.labelers.encoders.tokenization import TextTokenizer
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.provenance import Provenance, describe_processor
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.schemas.goals import Goal

GOALS = (Goal("red", "a red ball"), Goal("blue", "a blue key"))


@pytest.fixture(scope="module")
def labeler(tiny_clip: Path) -> Labeler:
    return Labeler.build(LabelerSettings(model=str(tiny_clip), goals=GOALS, batch_size=8))


def test_the_same_labeler_passes_at_any_temperature(labeler: Labeler) -> None:
    Provenance.of(labeler).check(Labeler(labeler.settings, labeler.encoder))
    Provenance.of(labeler).check(labeler.at_temperature(0.5))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"weights_digest": "other"},
            r'got other weights \(weights is "[0-9a-f]+" in the driver and "other" in this worker\)',
        ),
        (
            {"precision": "bfloat16"},
            r'got other precision \(precision is "float32" in the driver and "bfloat16" in this w',
        ),
        ({"attention": "eager"}, "got other attention"),
        (
            {"tokenizer": "changed"},
            r"got other text_encoding \(text_encoding.tokenizer is .* in the driver and .* in this",
        ),
        (
            {"preprocessor": "changed"},
            r"got other preprocessing \(preprocessing.resample is 3 in the driver and 2 in this",
        ),
    ],
)
def test_another_labeler_is_refused_with_what_differs(labeler: Labeler, changes: dict, match: str) -> None:
    encoder = labeler.encoder
    if "preprocessor" in changes:
        changes = {"preprocessor": dataclasses.replace(encoder.preprocessor, resample=2)}
    if "tokenizer" in changes:
        changes = {"tokenizer": _with_another_word(encoder.tokenizer)}
    settings = dataclasses.replace(labeler.settings, precision=changes.get("precision", "float32"))
    other = Labeler(settings, dataclasses.replace(encoder, **changes))
    with pytest.raises(ValueError, match=f"this worker's labeler is not that of the run: {match}"):
        Provenance.of(labeler).check(other)


def _with_another_word(tokenizer: TextTokenizer) -> TextTokenizer:
    other = copy.copy(tokenizer)
    other.tokenizer = copy.deepcopy(tokenizer.tokenizer)
    other.tokenizer.add_tokens(["zebra"])
    return other


def test_other_versions_are_refused_with_both(labeler: Labeler) -> None:
    versions = {**labeler.versions(), "torch": "2.6.0", "openvino": "1"}
    with pytest.raises(
        ValueError,
        match=rf"other versions than the driver .*: got openvino None in place of 1, torch {torch.__version__[:3]}.* in",
    ):
        Provenance(labeler.fingerprint, versions).check(labeler)


def test_the_record_names_versions_precision_device_and_processor(labeler: Labeler) -> None:
    record = Provenance.of(labeler).record()
    assert record["precision"] == "float32"
    assert record["device"] == "cpu"
    assert record["processor"] == describe_processor() != ""
    assert {"numpy", "pillow", "tokenizers", "torch", "transformers", "vlm-rewards"} <= record.keys()
    json.dumps(record)


def test_a_processor_without_a_name_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provenance, "_PROCESSOR_FILE", tmp_path / "cpuinfo")
    assert describe_processor() != ""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some Processor 3000\nprocessor\t: 1\n")
    assert describe_processor() == "Some Processor 3000"
