import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel

from vlm_rewards.labelers.encoders.checkpoints.adapters import read_adapter
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder

TEXTS = ["a red ball", "the agent carries a blue box"]


@pytest.fixture(scope="module")
def trained(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CLIPModel]:
    """A LoRA of the tiny CLIP in its own folder, and the model with it in place."""
    folder = tmp_path_factory.mktemp("adapted") / "adapter"
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    torch.manual_seed(0)
    model = get_peft_model(CLIPModel.from_pretrained(tiny_clip), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)  # a new LoRA changes nothing
    model.save_pretrained(folder)
    return folder, model.eval()


@pytest.fixture
def adapter(trained: tuple[Path, CLIPModel], tmp_path: Path) -> Path:
    return shutil.copytree(trained[0], tmp_path / "adapter")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_adapter_is_merged_into_its_model(trained: tuple[Path, CLIPModel], tiny_clip: Path) -> None:
    folder, model = trained
    encoder, base = DualEncoder.load(folder, precision="float32"), DualEncoder.load(tiny_clip, precision="float32")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    tokens = AutoTokenizer.from_pretrained(tiny_clip)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        images = model.get_image_features(pixel_values=encoder.preprocessor.normalize(pixels)).pooler_output
        texts = model.get_text_features(**tokens).pooler_output
    for got, expected, before in (
        (encoder.embed_images(pixels), images, base.embed_images(pixels)),
        (encoder.embed_texts(TEXTS), texts, base.embed_texts(TEXTS)),
    ):
        np.testing.assert_allclose(got, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)
        assert np.abs(got - before).max() > 0.01
    assert encoder.name == encoder.pinned_name == str(folder)


def test_the_digest_tells_adapters_and_their_models_apart(adapter: Path, tiny_clip: Path) -> None:
    digests = [DualEncoder.load(tiny_clip).weights_digest, DualEncoder.load(adapter).weights_digest]
    assert DualEncoder.load(adapter).weights_digest == digests[1]
    change_config(adapter, lora_alpha=16)  # twice the strength, the same weights
    digests.append(DualEncoder.load(adapter).weights_digest)
    weights = load_file(adapter / "adapter_model.safetensors")
    first = min(weights)
    save_file({**weights, first: weights[first] + 1}, adapter / "adapter_model.safetensors")
    digests.append(DualEncoder.load(adapter).weights_digest)
    assert len(set(digests)) == 4


def test_the_tokenizer_of_the_adapter_goes_before_that_of_its_model(adapter: Path, tiny_clip: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_clip)
    tokenizer.save_pretrained(adapter)
    assert DualEncoder.load(adapter).describe_texts() == DualEncoder.load(tiny_clip).describe_texts()
    tokenizer.add_tokens(["cupboard"])
    tokenizer.save_pretrained(adapter)
    with pytest.raises(
        ValueError, match=r"in .*adapter has tokens beyond the 34 of the model: got 1, such as 'cupboard'"
    ):
        DualEncoder.load(adapter)


def test_a_model_beside_its_adapter_is_found(adapter: Path, tiny_clip: Path) -> None:
    shutil.copytree(tiny_clip, adapter.parent / "base")
    change_config(adapter, base_model_name_or_path="../base")
    assert read_adapter(adapter).base == str(adapter / "../base")
    assert DualEncoder.load(adapter).dim == 24
    change_config(adapter, base_model_name_or_path="owner/name", revision="v2")
    assert read_adapter(adapter).base == "owner/name@v2"


def test_an_adapter_without_the_package_peft_is_refused(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        ValueError,
        match=r"adapter is an adapter of .*, which needs the package peft: got none. Install it with 'pip install vlm",
    ):
        DualEncoder.load(adapter)


def test_adapters_that_do_not_fit_their_model_are_refused(adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    match = r"the adapter .*adapter does not fit into the model .*: got {}. Check base_model_name_or_path"
    for changed, reason in (
        (
            {**weights, "base_model.model.extra.lora_A.weight": torch.zeros(2)},
            "1 weights are .*extra.*",
        ),
        (
            {name: tensor for name, tensor in weights.items() if name != min(weights)},
            "1 weights are .*q_proj.lora_A.*",
        ),
        ({**weights, min(weights): torch.zeros(4, 7)}, "Error.* in loading state_dict for .*"),
    ):
        save_file(changed, adapter / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=match.format(reason)):
            DualEncoder.load(adapter)
    change_config(adapter, from_the_future={"strength": 2}, off_in_the_future=False)
    with pytest.raises(ValueError, match=match.format("the setting from_the_future, newer than the installed peft")):
        DualEncoder.load(adapter)
    change_config(adapter, from_the_future=None)
    change_config(adapter, target_modules=["no_such_layer"])
    with pytest.raises(ValueError, match=match.format(".*no_such_layer.*")):
        DualEncoder.load(adapter)
    change_config(adapter, peft_type="PROMPT_TUNING", num_virtual_tokens=2, task_type="FEATURE_EXTRACTION")
    with pytest.raises(ValueError, match=match.format(".*")):
        DualEncoder.load(adapter)


def test_incomplete_adapters_are_refused(adapter: Path) -> None:
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(weights[:100])
    with pytest.raises(
        ValueError, match=r"adapter_model.safetensors in .* cannot be read: got .*. Download or save the"
    ):
        DualEncoder.load(adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(
        ValueError, match=r"has no weights in safetensors format: got adapter_model.bin in place of adapter_m"
    ):
        DualEncoder.load(adapter)
    (adapter / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="adapter_model.safetensors in .* is a Git LFS pointer"):
        DualEncoder.load(adapter)


def test_the_model_of_an_adapter_must_be_named_and_found(adapter: Path) -> None:
    change_config(adapter, base_model_name_or_path=str(adapter.parent / "missing"))
    with pytest.raises(ValueError, match="must be a folder or a Hugging Face hub id") as caught:
        DualEncoder.load(adapter)
    assert caught.value.__notes__ == [f"while loading the model that the adapter {adapter} is of"]
    change_config(adapter, base_model_name_or_path=None)
    with pytest.raises(
        ValueError, match="does not say which model it adapts: got None for base_model_name_or_path in ada"
    ):
        DualEncoder.load(adapter)
