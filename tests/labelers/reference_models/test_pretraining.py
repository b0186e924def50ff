"""A very short real training."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.reference_models.pretraining import _Helpers, pretrain, pretraining_of, recipe_of
from vlm_rewards.labelers.reference_models.recipe import PretrainSettings

pytest.importorskip("minigrid")

TINY = PretrainSettings(
    size="tiny",
    width=64,
    layers=2,
    heads=4,
    text_width=32,
    text_layers=1,
    text_heads=2,
    embedding=32,
    steps=60,
    batch_size=64,
    num_resized=32,
    num_evaluated=64,
    learning_rate=3e-3,
    warmup_steps=10,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1: got 0"),
        ({"heads": 2}, "heads must be at least 4: got 2"),
        ({"width": 62}, "width must be a multiple of heads: got 62"),
        ({"text_width": 33}, "text_width must be a multiple of text_heads: got 33"),
        ({"steps": 0}, "steps must be at least 1: got 0"),
        ({"full_share": 1.5}, "full_share must be between 0 and 1: got 1.5"),
        ({"stored": "int8"}, "stored must be float32 or float16: got int8"),
        (
            {"resized_share": -0.1},
            "resized_share must be between 0 and 1: got -0.1. Change the settings of size 'tiny'",
        ),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 60}, "width must be 16 or more per head for 7x7 patches: got 60"),
        ({"patches_kept": 12}, "patches_kept must be between 16 and 49: got 12"),
        ({"patches_kept": 50}, "patches_kept must be between 16 and 49: got 50"),
    ],
)
def test_settings_that_do_not_fit_the_frames_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        pretrain(BABYAI, dataclasses.replace(TINY, **change), tmp_path)


def test_models_that_a_domain_does_not_have_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="babyai has no reference model of this size: got 'xl'. Choose one of s, m, l"):
        recipe_of(BABYAI, "xl")
    monkeypatch.setattr(type(BABYAI), "pretraining", lambda self: None)
    with pytest.raises(ValueError, match="the domain babyai trains no reference models. Choose another domain"):
        pretraining_of(BABYAI)


def test_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="precision must be one of auto, .*, got 'float16'"):
        pretrain(BABYAI, TINY, tmp_path, precision="float16")


def test_an_output_that_is_not_an_empty_folder_is_refused_before_training(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    steps: list[object] = []
    for name, found in (("model", "one that holds files"), ("model/config.json", "a file")):
        with pytest.raises(ValueError, match=f"the output folder must be empty, got {found}, .*; give another folder"):
            pretrain(BABYAI, TINY, tmp_path / name, progress=steps.append)
    assert not steps


def test_every_shipped_recipe_is_named_after_its_size():
    assert all(settings.size == name for name, settings in pretraining_of(BABYAI).sizes.items())


def test_a_short_run_lowers_the_loss_and_writes_a_model_that_loads(tmp_path):
    reports: list[dict[str, float]] = []
    card = pretrain(BABYAI, TINY, tmp_path, precision="float32", progress=reports.append)
    assert [report["step"] for report in reports] == [50, 60]
    assert reports[-1]["loss"] < 0.8 * reports[0]["loss"]
    assert card == json.loads((tmp_path / "card.json").read_text())
    assert card["steps"] == 60
    assert card["figures"]["drawn scenes"].keys() == {"find", "lift", "place"}
    assert "# reference-tiny" in (tmp_path / "README.md").read_text()

    model, processor = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    inputs = processor(
        images=torch.zeros(56, 56, 3, dtype=torch.uint8).numpy(),
        text=["the agent carries a red ball", "a red ball is next to a blue box"],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        assert model(**inputs).logits_per_image.isfinite().all()


def test_the_same_seed_gives_the_same_weights(tmp_path):
    settings = dataclasses.replace(TINY, steps=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("one", "again"):
            pretrain(BABYAI, settings, tmp_path / name, seed=1, precision="float32")
    finally:
        torch.set_num_threads(threads)
    one, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again"))
    assert one == again


def test_weights_stored_in_half_the_bytes_are_those_that_are_measured(tmp_path):
    settings = dataclasses.replace(TINY, steps=2, stored="float16")
    pretrain(BABYAI, settings, tmp_path / "half", precision="float32")
    pretrain(BABYAI, dataclasses.replace(settings, stored="float32"), tmp_path / "whole", precision="float32")
    half, whole = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole"))
    assert 0.5 < half / whole < 0.55
    assert all(weight.dtype == torch.float16 for weight in load_file(tmp_path / "half" / "model.safetensors").values())


def test_helpers_ask_the_same_of_all_patches_as_of_selected_ones():
    torch.manual_seed(0)
    helpers = _Helpers(8, 3, 2)
    states, marks = torch.randn(4, 5, 8), torch.rand(4, 5, 2) < 0.5
    for classes in (torch.randint(-1, 3, (4, 5)), torch.full((4, 5), -1)):
        loss = helpers.selected(states, classes, marks)
        torch.testing.assert_close(helpers.weighted(states, classes, marks), loss)
    assert _Helpers(8, 0, 0)(states, classes, marks[..., :0]) == 0


def test_a_missing_device_is_refused(tmp_path):
    with pytest.raises(ValueError, match="device must be cpu, cuda or cuda:N, got 'tpu'"):
        pretrain(BABYAI, TINY, tmp_path, device="tpu")


def test_a_time_limit_ends_the_run_early(tmp_path):
    card = pretrain(BABYAI, dataclasses.replace(TINY, steps=10_000), tmp_path, precision="float32", max_minutes=1e-3)
    assert 1 <= card["steps"] < 100
