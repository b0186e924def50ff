import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from vlm_rewards.labelers.encoders.checkpoints.folders import (
    check_files_are_whole,
    check_model_folder,
    pointer_kind,
    read_config,
    safetensors_keys,
)
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0123456789abcdef" * 4 + "\nsize 605157884\n"
XET = "# xet version 0\nfilesize = 605157884\nhash = '0123'\n"


@pytest.fixture
def folder(tiny_clip: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_clip, tmp_path / "model")


def change_json(path: Path, **changes: object) -> None:
    record = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**record, **changes}))


def test_a_whole_model_is_left_alone(folder: Path) -> None:
    (folder / "flax_model.msgpack").write_bytes(b"another framework's weights")
    torch.save({}, folder / "pytorch_model.bin")
    save_file({"visual.proj": torch.zeros(2)}, folder / "open_clip_model.safetensors")
    check_model_folder(folder)


@pytest.mark.parametrize(("text", "kind"), [(LFS, "Git LFS"), (XET, "Xet")])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_in_place_of_a_file_is_refused(folder: Path, name: str, text: str, kind: str) -> None:
    (folder / name).write_text(text)
    assert pointer_kind(folder / name) == kind
    with pytest.raises(
        ValueError,
        match=rf"{name} in .*model is a {kind} pointer, not the file itself: got .* bytes of text. Run 'git lfs",
    ):
        DualEncoder.load(folder)


def test_a_small_file_is_no_pointer(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    assert pointer_kind(tmp_path / "merges.txt") is None


def test_a_link_that_leads_nowhere_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0123")
    with pytest.raises(
        ValueError, match=r"model.safetensors in .* is a link to a file .*: got ../../blobs/0123. Download"
    ):
        check_files_are_whole(folder)


@pytest.mark.parametrize(
    ("name", "auto_map", "module"),
    [
        ("config.json", {"AutoModel": "modeling_x.XModel"}, "modeling_x.XModel"),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "tokenization_x.XTokenizer"]}, None),
        ("preprocessor_config.json", {"AutoImageProcessor": "processing_x.X"}, "processing_x.X"),
        ("processor_config.json", {"AutoProcessor": "owner/other--processing_x.X"}, "owner/other--processing_x.X"),
    ],
)
def test_code_in_a_checkpoint_is_refused(folder: Path, name: str, auto_map: object, module: str | None) -> None:
    change_json(folder / name, auto_map=auto_map)
    with pytest.raises(
        ValueError,
        match=rf"asks for code of its own: got {module!r} in auto_map of {name}. vlm-rewards never runs code",
    ):
        DualEncoder.load(folder)


def test_quantized_weights_are_refused(folder: Path) -> None:
    change_json(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(
        ValueError, match="weights in .* are quantized: got 'bitsandbytes' in config.json. Use the original"
    ):
        DualEncoder.load(folder)


def test_checkpoints_of_other_libraries_are_recognized(folder: Path) -> None:
    change_json(folder / "config.json", model_type="clip")
    (folder / "open_clip_config.json").write_text("{}")  # many models on the hub are there in both formats
    check_model_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(
        ValueError, match=r"is a checkpoint of open_clip, which vlm-rewards does not load. Use the same model"
    ):
        DualEncoder.load(folder)
    (folder / "open_clip_config.json").unlink()
    (folder / "config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 512}}))
    with pytest.raises(ValueError, match="is a checkpoint of open_clip"):
        DualEncoder.load(folder)
    timm = {"architecture": "vit_base_patch16_224", "num_features": 768, "pretrained_cfg": {}}
    (folder / "config.json").write_text(json.dumps(timm))
    with pytest.raises(
        ValueError, match=r"is a checkpoint of timm \(an image tower alone, which reads no goals\), which"
    ):
        DualEncoder.load(folder)


def test_incomplete_folders_are_refused(tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold config.json, got .* without it"):
        DualEncoder.load(tmp_path)
    shutil.copy(tiny_clip / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"has no weights in safetensors format .* model.safetensors: got none."):
        DualEncoder.load(tmp_path)
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"under the name model.safetensors: got tf_model.h5. Load the model where"):
        DualEncoder.load(tmp_path)
    shutil.copy(tiny_clip / "model.safetensors", tmp_path)
    with pytest.raises(
        ValueError,
        match=r"must have an image processor that can be loaded, got none from .*; save the model, its tokenizer",
    ):
        DualEncoder.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"config.json is not (JSON|a JSON object): got .* Download or save the model again"
    ):
        read_config(tmp_path / "config.json")


def test_a_missing_shard_of_the_weights_is_named(folder: Path) -> None:
    CLIPModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    check_model_folder(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002.safetensors is missing in .*model, although model.saf"):
        DualEncoder.load(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match=r"got model-00001-of-00002.safetensors. Load the model where"):
        DualEncoder.load(folder)


def test_pickled_weights_are_refused_with_a_remedy_that_works(folder: Path, tiny_clip: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ValueError,
        match=r"weights of .*model are pickled: got pytorch_model.bin, which can hold code, and no model.safe",
    ) as caught:
        DualEncoder.load(folder)
    command = shlex.split(str(caught.value).splitlines()[1])
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=folder.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    converted, original = DualEncoder.load(folder.parent / command[-1]), DualEncoder.load(tiny_clip)
    assert converted.weights_digest == original.weights_digest
    assert np.array_equal(converted.embed_images(pixels), original.embed_images(pixels))


def test_an_adapter_beside_a_whole_model_is_refused(folder: Path) -> None:
    match = r"holds a whole model and an adapter beside it, .*: got {}. Move the adapter to a folder of its own"
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "my_lora.pt"):
        (folder / name).write_text("{}")
        with pytest.raises(ValueError, match=match.format(name)):
            DualEncoder.load(folder)
        (folder / name).unlink()
    save_file({"visual_projection.lora_A": torch.zeros(2, 32)}, folder / "extra.safetensors")
    with pytest.raises(ValueError, match=match.format("extra.safetensors with 'visual_projection.lora_A'")):
        DualEncoder.load(folder)


@pytest.mark.parametrize("key", ["visual_projection.lora_A", "visual_projection.base_layer.weight"])
def test_an_adapter_inside_the_weights_is_refused(folder: Path, key: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, key: torch.zeros(2, 32)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError,
        match=rf"the weights in .* hold an adapter that is not merged: got '{key}' in model.safetensors. Merge",
    ):
        DualEncoder.load(folder)


def test_names_are_read_from_a_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"b": torch.zeros(3), "a": torch.zeros(2)}, path, metadata={"format": "pt"})
    assert sorted(safetensors_keys(path)) == ["a", "b"]
    path.write_bytes(path.read_bytes()[:20])
    assert list(safetensors_keys(path)) == []
    path.write_bytes(b"\xff" * 16)
    assert list(safetensors_keys(path)) == []
    path.write_bytes(b"")
    assert list(safetensors_keys(path)) == []
