"""Devices that embed for many threads: each as many batches as it takes, full ones where frames wait, errors where they belong."""

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label import lanes
from vlm_rewards.pipelines.label.lanes import Lanes, lanes_of
from vlm_rewards.schemas.goals import Goal

SETTINGS = LabelerSettings(model="none", goals=(Goal("red", "a red ball"), Goal("blue", "a blue ball")), batch_size=8)


@dataclasses.dataclass
class Counting:
    """An encoder that adds 1 and notes its batches; the number 13 is an error."""

    device: str = "cpu"
    seconds: float = 0.02
    now: int = 0
    most: int = 0
    batches: list[list[int]] = dataclasses.field(default_factory=list)
    lock: Any = dataclasses.field(default_factory=threading.Lock)
    gate: threading.Event | None = None

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.batches.append(pixels.tolist())
        time.sleep(self.seconds)
        if self.gate is not None:
            assert self.gate.wait(20)
        with self.lock:
            self.now -= 1
        if 13 in pixels:
            raise ValueError("13 is no picture")
        return pixels + 1


def embed_all(shared: Lanes, requests: Sequence[Sequence[int]]) -> list[list[int] | str]:
    """Embeds requests, each in a thread of its own."""
    results: list[list[int] | str] = [[] for _ in requests]

    def run(index: int) -> None:
        try:
            results[index] = shared.embed(np.array(requests[index])).tolist()
        except ValueError as error:
            results[index] = str(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_every_device_has_its_batches_and_not_more_than_it_takes() -> None:
    devices = [Counting(), Counting()]
    shared = Lanes(cast(Any, devices), 2, batch_size=1)
    assert embed_all(shared, [[number] for number in range(50, 74)]) == [[number + 1] for number in range(50, 74)]
    assert [device.most for device in devices] == [2, 2]
    assert sum(len(device.batches) for device in devices) == 24


def held_back(requests: Sequence[Sequence[int]], batch_size: int) -> tuple[list[list[int] | str], list[list[int]]]:
    """Embeds requests, of which all but the first wait until it is done; their results and the encoder's batches."""
    gate = threading.Event()
    device = Counting(seconds=0.0, gate=gate)
    shared = Lanes(cast(Any, [device]), 1, batch_size=batch_size)

    def open_when_all_wait() -> None:
        while len(shared._waiting) < len(requests) - 1:
            time.sleep(0.001)
        gate.set()

    opener = threading.Thread(target=open_when_all_wait)
    opener.start()
    results = embed_all(shared, requests)
    opener.join()
    return results, device.batches


def test_frames_that_wait_share_a_batch() -> None:
    results, batches = held_back([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], batch_size=4)
    assert results == [[2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert sorted(number for batch in batches for number in batch) == list(range(1, 11))
    assert [len(batch) for batch in batches] == [2, 4, 4]


def test_an_error_belongs_to_its_own_frames() -> None:
    results, batches = held_back([[1], [13], [2], [3]], batch_size=3)
    assert results == [[2], "13 is no picture", [3], [4]]
    assert [13] in batches


def test_all_gpus_of_a_kind_have_a_copy_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    kinds = ["H100", "T4", "H100"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(kinds))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: kinds[number])
    monkeypatch.setattr(lanes, "_new_stream", lambda device: None)
    loaded: list[str] = []

    def load(settings: LabelerSettings) -> Any:
        loaded.append(settings.device)
        return Counting(settings.device)

    monkeypatch.setattr(lanes, "load_encoder", load)
    found = lanes_of(cast(Any, Counting("cuda")), dataclasses.replace(SETTINGS, device="cuda"), cores=16)
    assert loaded == ["cuda:2"]
    assert [lane.encoder.device for lane in found._free] == ["cuda:2", "cuda"] * 3
    on_one = lanes_of(cast(Any, Counting("cuda:1")), dataclasses.replace(SETTINGS, device="cuda:1"), cores=16)
    assert (len(on_one._free), loaded) == (3, ["cuda:2"])
    assert len(lanes_of(cast(Any, Counting()), SETTINGS, cores=16)._free) == 16
