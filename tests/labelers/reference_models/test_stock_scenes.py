"""Batches from a stock of frames."""

import numpy as np
import torch
from PIL import Image

from vlm_rewards.labelers.reference_models.architecture import normalise, resize_frames
from vlm_rewards.labelers.reference_models.stock_scenes import PatchLabels, StockScenes, cut_patches, load_patches

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


def test_patches_are_cut_as_a_patch_convolution_reads_them():
    frames = torch.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    patches = cut_patches(frames, 2)
    assert patches.shape == (2, 4, 12)
    assert patches[0, 1, :4].tolist() == [frames[0, y, x, 0].item() for y, x in ((0, 2), (0, 3), (1, 2), (1, 3))]
    assert patches[1, 2, 8:].tolist() == [frames[1, y, x, 2].item() for y, x in ((2, 0), (2, 1), (3, 0), (3, 1))]


def test_patches_are_of_prepared_frames():
    frames = FRAMES[:5]
    patches = load_patches(frames, lambda part: 255 - part, 2, "cpu")
    assert torch.equal(patches, cut_patches(255 - torch.from_numpy(frames), 2))


def test_frames_are_stretched_as_the_image_processor_does():
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 12, 3), dtype=np.uint8)
    stretched = resize_frames(torch.from_numpy(frames), 10).numpy()
    for frame, found in zip(frames, stretched, strict=True):
        expected = np.asarray(Image.fromarray(frame).resize((10, 10), Image.Resampling.BICUBIC))
        assert np.abs(expected.astype(int) - found).max() <= 1
    same = torch.from_numpy(frames[:, :12])
    assert resize_frames(same, 12) is same


def scenes_of(labels=None):
    frames = torch.from_numpy(FRAMES)
    true = np.array([[0, 3], [1, -1], [2, -1], [0, 1], [3, -1], [2, 3]], dtype=np.int16)
    chosen = np.array([3, 0, 1, 2])
    return StockScenes(cut_patches(frames, 1), true, 4, 32, lambda rng, true: chosen, labels), frames, true


def test_a_batch_is_a_function_of_the_generator_and_its_truth_is_that_of_its_frames():
    scenes, frames, true = scenes_of()
    batch = scenes.draw(np.random.default_rng(5), 16)
    again = scenes.draw(np.random.default_rng(5), 16)
    assert all((getattr(batch, name) == getattr(again, name)).all() for name in batch._fields)
    drawn = np.random.default_rng(5).integers(6, size=32)
    expected = [[state in true[frame] for state in (3, 0, 1, 2)] for frame in drawn]
    assert batch.truth.tolist() == expected
    assert torch.equal(batch.places, torch.arange(16).expand(32, -1))
    assert torch.equal(batch.patches, normalise(cut_patches(frames, 1))[drawn])
    assert (batch.classes == -1).all()
    assert batch.marks.shape == (32, 16, 0)


def test_patches_that_show_something_are_kept_first():
    classes = torch.full((6, 16), -1, dtype=torch.int8)
    classes[:, 3], classes[:, 9] = 1, 2
    marks = torch.zeros(6, 16, 1, dtype=torch.bool)
    marks[:, 9] = True
    scenes, _, _ = scenes_of(PatchLabels(classes, marks))
    batch = scenes.draw(np.random.default_rng(0), 5)
    assert ((batch.places == 3).sum(dim=1) == 1).all()
    assert ((batch.places == 9) == (batch.classes == 2)).all()
    assert ((batch.places == 9) == batch.marks[..., 0]).all()
    assert len({tuple(row) for row in batch.places.tolist()}) > 1
