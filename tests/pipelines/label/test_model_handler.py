"""The labeler in somebody else's Beam pipeline."""

from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import torch
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.scoring.windows import WindowSettings
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.model_handler import LabelerHandler
from vlm_rewards.schemas.goals import Goal


def settings_of(folder: Path) -> LabelerSettings:
    goals = (Goal("a", "a red ball"), Goal("b", "a key"))
    return LabelerSettings(model=str(save_tiny_clip(folder / "clip")), goals=goals, batch_size=8)


def test_run_inference_gives_the_bits_of_the_labeler(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    rng = np.random.default_rng(0)
    frames = {index: rng.integers(0, 256, (20 + index, 30, 3), np.uint8) for index in range(11)}
    expected = Labeler.build(settings)(list(frames.values()))
    folder = tmp_path / "scores"
    folder.mkdir()
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        _ = (
            pipeline
            | beam.Create(list(frames.items()))
            | RunInference(KeyedModelHandler(LabelerHandler(settings)))
            | beam.MapTuple(lambda key, scores: (folder / str(key)).write_bytes(scores.tobytes()))
        )
    found = {int(path.name): path.read_bytes() for path in folder.iterdir()}
    assert found == {index: expected[index].tobytes() for index in frames}


def test_the_threads_of_somebody_elses_process_stay(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    frames = [np.full((20, 30, 3), value, np.uint8) for value in range(3)]
    before = torch.get_num_threads()
    try:
        scores = []
        for threads in (2, 1):
            torch.set_num_threads(threads)
            handler = LabelerHandler(settings)
            scores.append(np.stack(list(handler.run_inference(frames, handler.load_model()))))
            assert torch.get_num_threads() == threads
        assert scores[0].tobytes() == scores[1].tobytes()
    finally:
        torch.set_num_threads(before)


def test_the_size_of_a_batch_is_that_of_its_frames(tmp_path: Path) -> None:
    handler = LabelerHandler(settings_of(tmp_path))
    assert handler.get_num_bytes([np.zeros((4, 5, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)]) == 60 + 12
    assert handler.get_metrics_namespace() == "vlm_rewards"


def test_a_window_of_several_frames_is_refused(tmp_path: Path) -> None:
    settings = LabelerSettings(model=str(tmp_path), goals=(Goal("a", "a red ball"),), window=WindowSettings(frames=3))
    with pytest.raises(
        ValueError, match="a window must be of one frame for RunInference, whose elements have no order, got 3"
    ):
        LabelerHandler(settings)
