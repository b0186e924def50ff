import pytest
import torch

from vlm_rewards.labelers.encoders.devices import check_device, resolve_precision


def test_devices() -> None:
    check_device("cpu")
    for device in ("gpu", "cuda:x", "CPU"):
        with pytest.raises(ValueError, match=f"device must be cpu, cuda or cuda:N, got '{device}'"):
            check_device(device)
    with pytest.raises(ValueError, match="must be one that this machine has, got 'cuda:99'"):
        check_device("cuda:99")


def test_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, got 'half'"):
        resolve_precision("half", "cpu")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert resolve_precision("auto", "cpu") == resolve_precision("float32", "cpu") == "float32"
    with pytest.raises(ValueError, match="bfloat16 must be computed by the device, got cpu without it"):
        resolve_precision("bfloat16", "cpu")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert resolve_precision("auto", "cpu") == resolve_precision("bfloat16", "cpu") == "bfloat16"
