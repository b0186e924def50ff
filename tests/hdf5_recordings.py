"""HDF5 files as robomimic, LIBERO and ALOHA write them, with the number of steps so far in the pixels of each frame.

The action of step t is [t, -t]. So a reader that shifts frames against actions is found out by `assert_aligned`.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.pictures import decoded_frame

SIZE = 32


def numbered_frame(number: int, camera: int = 0, size: int = SIZE) -> np.ndarray:
    """A frame [size, size, 3]: red tells the number, green the camera; the upper half is light in blue, the lower dark."""
    frame = np.zeros((size, size, 3), np.uint8)
    frame[..., 0] = 5 * number
    frame[..., 1] = 40 * camera
    frame[: size // 2, :, 2] = 200
    return frame


def numbered_frames(numbers: Sequence[int], camera: int = 0) -> np.ndarray:
    """Frames [N, size, size, 3]."""
    return np.stack([numbered_frame(number, camera) for number in numbers])


def numbered_actions(num_steps: int) -> np.ndarray:
    """[T, 2] float64."""
    return np.stack([np.arange(num_steps), -np.arange(num_steps)], axis=1).astype(np.float64)


def numbers_of(episode: Episode, camera: str) -> list[int]:
    """The numbers in the frames, as they stream; refuses frames that are upside down or whose channels are swapped."""
    numbers = []
    for frame in episode.images[camera]:
        pixels = decoded_frame(frame).astype(int)
        assert pixels[: len(pixels) // 4, :, 2].min() > 150, "upside down, or blue is not the last channel"
        assert pixels[-len(pixels) // 4 :, :, 2].max() < 50
        numbers.append(round(pixels[..., 0].mean() / 5))
    return numbers


def assert_aligned(episode: Episode, camera: str) -> None:
    """Each step that has a frame before and after it has the right ones."""
    numbers = numbers_of(episode, camera)
    steps = range(episode.num_steps)[episode.complete_steps]
    assert len(steps) == len(numbers) - 1
    assert episode.actions is not None
    for index, step in enumerate(steps):
        assert episode.actions[step].tolist() == [step, -step]
        assert (numbers[index], numbers[index + 1]) == (step, step + 1)


def write_robomimic(
    path: Path,
    lengths: Sequence[int] = (3, 2),
    *,
    next_obs: bool = True,
    cameras: Sequence[str] = ("agentview_image",),
    masks: Mapping[str, Sequence[str]] | None = None,
    first: int = 0,
) -> Path:
    """Writes demos of so many steps, in chunks that span several frames, as robomimic's scripts do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        data.attrs["total"] = sum(lengths)
        for index, length in enumerate(lengths, first):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"] = length
            demo["actions"] = numbered_actions(length)
            demo["rewards"] = np.arange(length, dtype=np.float64) / 4
            demo["dones"] = (np.arange(length) == length - 1).astype(np.int64)
            demo["states"] = np.zeros((length, 5))
            for group, shift in (("obs", 0), ("next_obs", 1)):
                if group == "next_obs" and not next_obs:
                    continue
                for number, camera in enumerate(cameras):
                    frames = numbered_frames(range(shift, length + shift), number)
                    chunks = (max(1, min(length, 2)), SIZE // 2, SIZE, 1)
                    demo.create_dataset(f"{group}/{camera}", data=frames, chunks=chunks, compression="gzip")
                demo[f"{group}/robot0_eef_pos"] = np.arange(shift, length + shift)[:, None] + np.array([0.0, 0.5, 0.25])
                demo[f"{group}/agentview_depth"] = np.zeros((length, SIZE, SIZE, 1), np.float32)
        for name, demos in (masks or {}).items():
            file[f"mask/{name}"] = np.array([demo.encode() for demo in demos])
    return path


def write_libero(path: Path, lengths: Sequence[int] = (3, 2), *, convention: str | None = "opengl") -> Path:
    """Writes demos as LIBERO's create_dataset.py does: the frame after each step, upside down by the convention "opengl"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_name"] = "Libero_Kitchen_Tabletop_Manipulation"
        data.attrs["problem_info"] = json.dumps(
            {"problem_name": "libero", "domain_name": "robosuite", "language_instruction": "open the top drawer"}
        )
        data.attrs["bddl_file_name"] = "chiliocosm/bddl_files/open_the_top_drawer.bddl"
        if convention is not None:
            data.attrs["macros_image_convention"] = convention
        data.attrs["env_args"] = json.dumps({"type": 1, "env_name": "Libero", "problem_name": "libero"})
        data.attrs["num_demos"] = len(lengths)
        for index, length in enumerate(lengths):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"] = length
            frames = numbered_frames(range(1, length + 1))
            demo["obs/agentview_rgb"] = frames[:, ::-1] if convention == "opengl" else frames
            demo["obs/joint_states"] = np.ones((length, 7))
            demo["actions"] = numbered_actions(length)
            demo["states"] = np.zeros((length, 5))
            demo["rewards"] = (np.arange(length) == length - 1).astype(np.uint8)
            demo["dones"] = (np.arange(length) == length - 1).astype(np.uint8)
    return path


def write_aloha(path: Path, length: int = 3, *, compress: bool = True, bgr: bool = False) -> Path:
    """Writes an episode as ALOHA's record_episodes.py does: JPEG padded with zeros, or pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file.attrs["compress"] = compress
        lengths = []
        for number, camera in enumerate(("cam_high", "cam_left_wrist")):
            frames = numbered_frames(range(length), number)
            if bgr:
                frames = frames[..., ::-1]
            if compress:
                pictures = [jpeg(frame) for frame in frames]
                padded = np.zeros((length, max(map(len, pictures)) + 7), np.uint8)
                for row, picture in zip(padded, pictures, strict=True):
                    row[: len(picture)] = np.frombuffer(picture, np.uint8)
                lengths.append([len(picture) for picture in pictures])
                frames = padded
            file.create_dataset(f"observations/images/{camera}", data=frames, chunks=(1, *frames.shape[1:]))
        if compress:
            file["compress_len"] = np.array(lengths, np.float32)
        file["observations/qpos"] = np.arange(length, dtype=np.float32)[:, None] + np.zeros((1, 14), np.float32)
        file["observations/qvel"] = np.zeros((length, 14), np.float32)
        file["action"] = numbered_actions(length).astype(np.float32)
    return path


def jpeg(frame: np.ndarray) -> bytes:
    """A frame as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG")
    return buffer.getvalue()
