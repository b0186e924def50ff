"""Peak memory of reading one large file of each format, and a video of an hour, each in a process of its own.

python benchmarks/large_files.py [--gigabytes N] [--only NAME] [--output FOLDER]

Frames are 480x640, as pixels or as JPEG; an episode is a file, or half of one. "gigabytes" is the size of the file on
disk. Resident memory counts pages of mapped files, too. Results of formats that are not measured this time are kept.
"""

import argparse
import io
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import corpora  # noqa: F401 (lays tests/ on the path)
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from lerobot_datasets import DataSet
from PIL import Image
from report_result import RESULTS, machine, write_result
from rlds_files import episode_features, group, image, serialized, tensor, write_data_set
from small_videos import write_video

from vlm_rewards.schemas.episodes import IMAGE_TYPE, CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes

LIMIT_MIB = 1024
HEIGHT, WIDTH = 480, 640
FRAME_BYTES = HEIGHT * WIDTH * 3
BLOCK = 32
GROUP_FRAMES = 256
"""Rows in a row group of pixels."""

READ = """
import json, pathlib, re, sys, time
from vlm_rewards.schemas.formats.corpus import open_corpus
started, count = time.perf_counter(), 0
for episode in open_corpus(sys.argv[1]):
    for frame in next(iter(episode.images.values())):
        count += 1
peak = int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"frames": count, "seconds": time.perf_counter() - started, "peak_mib": peak}))
"""


def blocks(num_frames: int) -> Iterator[np.ndarray]:
    """Frames of noise, [BLOCK, H, W, 3] at a time; the same each time."""
    noise = np.random.default_rng(0).integers(0, 256, (BLOCK, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for _ in range(num_frames // BLOCK):
        yield noise


def num_pixel_frames(num_bytes: int) -> int:
    """Number of frames of pixels that have this size together, a multiple of two blocks."""
    return num_bytes // FRAME_BYTES // (2 * BLOCK) * 2 * BLOCK


def jpegs() -> list[bytes]:
    """Distinct pictures of noise."""
    pictures = []
    for frame in next(blocks(BLOCK)):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="JPEG", quality=95)
        pictures.append(buffer.getvalue())
    return pictures


def as_many(num_bytes: int) -> list[bytes]:
    """Pictures of that size together; the same few again and again, which takes no memory, and no dictionary must fold."""
    few = jpegs()
    count = num_bytes // (sum(map(len, few)) // len(few))
    return list(itertools.islice(itertools.cycle(few), count // (2 * BLOCK) * 2 * BLOCK))


def write_robomimic(folder: Path, num_bytes: int) -> int:
    """Writes two demos, in chunks of 4 frames."""
    half = num_pixel_frames(num_bytes) // 2
    with h5py.File(folder / "demos.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = "{}"
        for index in range(2):
            write_pixels(file, f"data/demo_{index}/obs/front", half, chunk=4)
            file[f"data/demo_{index}/actions"] = np.zeros((half, 7))
    return 2 * half


def write_aloha(folder: Path, num_bytes: int) -> int:
    """Writes an episode as ACT's simulation records it."""
    count = num_pixel_frames(num_bytes)
    with h5py.File(folder / "episode_0.hdf5", "w") as file:
        write_pixels(file, "observations/images/front", count, chunk=1)
        file["action"] = np.zeros((count, 14))
    return count


def write_minari_hdf5(folder: Path, num_bytes: int) -> int:
    """Writes two episodes of pixels."""
    half = num_pixel_frames(num_bytes) // 2
    write_metadata(folder)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for index in range(2):
            write_pixels(file, f"episode_{index}/observations/front", half, chunk=1)
            file[f"episode_{index}/actions"] = np.zeros(half - 1, np.int64)
    return 2 * half


def write_pixels(file: h5py.File, path: str, num_frames: int, chunk: int) -> None:
    """Writes a data set of frames."""
    frames = file.create_dataset(path, (num_frames, HEIGHT, WIDTH, 3), np.uint8, chunks=(chunk, HEIGHT, WIDTH, 3))
    for start, block in zip(range(0, num_frames, BLOCK), blocks(num_frames), strict=True):
        frames[start : start + BLOCK] = block


def write_buffer(folder: Path, num_bytes: int) -> int:
    """Writes a replay buffer of two episodes, in chunks of 16 frames."""
    root = zarr.open_group(folder / "buffer.zarr", mode="w", zarr_format=2)
    num_frames = num_pixel_frames(num_bytes)
    shape = (num_frames, HEIGHT, WIDTH, 3)
    frames = root.create_array("data/front", shape=shape, chunks=(16, *shape[1:]), dtype=np.uint8, compressors=None)
    for start, block in zip(range(0, num_frames, BLOCK), blocks(num_frames), strict=True):
        frames[start : start + BLOCK] = block
    ends = root.create_array("meta/episode_ends", shape=(2,), dtype=np.int64)
    ends[:] = (num_frames // 2 + 5, num_frames)
    return num_frames


def write_metadata(folder: Path) -> None:
    """Writes metadata of a data set of Minari."""
    space = {"type": "Box", "dtype": "uint8", "shape": [HEIGHT, WIDTH, 3], "low": 0, "high": 255}
    (folder / "data").mkdir()
    (folder / "data" / "metadata.json").write_text(
        json.dumps({"observation_space": json.dumps({"type": "Dict", "subspaces": {"front": space}})})
    )


def minari_table(frames: pa.Array) -> pa.Table:
    """Rows of an episode as Minari lays them out, with these pictures."""
    steps = {"actions": np.zeros(len(frames), np.int64), "rewards": np.zeros(len(frames))}
    steps |= {name: np.zeros(len(frames), np.bool_) for name in ("terminations", "truncations")}
    return pa.table({"observations": pa.StructArray.from_arrays([frames], names=["front"]), **steps})


def pixel_table(num_frames: int) -> pa.Table:
    """Rows of pixels."""
    flat = np.concatenate([block.reshape(-1) for block in blocks(num_frames)])
    return minari_table(pa.FixedSizeListArray.from_arrays(pa.array(flat), FRAME_BYTES))


def write_minari_arrow(folder: Path, num_bytes: int) -> int:
    """Writes an episode of pixels, all rows in one batch."""
    write_metadata(folder)
    (folder / "data" / "0").mkdir()
    table = pixel_table(num_pixel_frames(num_bytes))
    with pa.ipc.new_file(str(folder / "data" / "0" / "part-0.arrow"), table.schema) as writer:
        writer.write_table(table)
    return table.num_rows


def write_minari_parquet(folder: Path, num_bytes: int) -> int:
    """Writes an episode of JPEG, all rows in one row group, as Minari does."""
    write_metadata(folder)
    (folder / "data" / "0").mkdir()
    table = minari_table(pa.array(as_many(num_bytes), pa.large_binary()))
    pq.write_table(table, folder / "data" / "0" / "part-0.parquet", row_group_size=table.num_rows, use_dictionary=False)
    return table.num_rows


def write_minari_pixels(folder: Path, num_bytes: int) -> int:
    """Writes an episode of pixels, in row groups: to write one takes ten times its size in memory."""
    write_metadata(folder)
    (folder / "data" / "0").mkdir()
    count = max(1, num_pixel_frames(num_bytes) // GROUP_FRAMES)
    table = pixel_table(GROUP_FRAMES)
    with pq.ParquetWriter(folder / "data" / "0" / "part-0.parquet", table.schema) as writer:
        for _ in range(count):
            writer.write_table(table, row_group_size=GROUP_FRAMES)
    return count * GROUP_FRAMES


def write_own(folder: Path, num_bytes: int, format_name: str, ending: str) -> int:
    """Writes two episodes in a format of ours."""
    pictures = as_many(num_bytes)
    half = len(pictures) // 2
    features = CorpusFeatures(cameras=("front",), action_size=None, has_rewards=False, has_instruction=False)
    episodes = [Episode(episode_id=f"e{index}", images={"front": pictures[:half]}) for index in range(2)]
    write_episodes(folder / f"all.{ending}", features, episodes, format_name)
    return 2 * half


def picture_column(pictures: list[bytes]) -> pa.ChunkedArray:
    """Pictures as `datasets` has them."""
    chunks = [pictures[start : start + BLOCK] for start in range(0, len(pictures), BLOCK)]
    return pa.chunked_array([pa.array([{"bytes": data, "path": None} for data in part], IMAGE_TYPE) for part in chunks])


def write_one_group(folder: Path, num_bytes: int) -> int:
    """Writes Parquet of others: one row group."""
    pictures = as_many(num_bytes)
    rows = {"episode_id": ["e"] * len(pictures), "frame_index": pa.array(range(len(pictures)), pa.int32())}
    table = pa.table({**rows, "observation.images.front": picture_column(pictures)})
    pq.write_table(table, folder / "all.parquet", row_group_size=len(pictures), use_dictionary=False)
    return len(pictures)


def write_steps(folder: Path, num_bytes: int) -> int:
    """Writes a tar of one sample per step."""
    pictures = as_many(num_bytes)
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for number, data in enumerate(pictures):
            member = tarfile.TarInfo(f"ep0_{number:06d}.front.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return len(pictures)


def write_rlds(folder: Path, num_bytes: int) -> int:
    """Writes a shard of episodes of 64 frames, as Open X-Embodiment has them."""
    few = jpegs() * 2
    steps = {"observation": group({"image": image(HEIGHT, WIDTH, 3, encoding="jpeg")}), "action": tensor("float32", 7)}
    record = serialized({"steps/observation/image": few, "steps/action": np.zeros((len(few), 7), np.float32)})
    count = num_bytes // len(record)
    write_data_set(folder / "toy" / "1.0.0", episode_features(steps), {"train": [[record] * count]})
    return count * len(few)


def write_lerobot_pictures(folder: Path, num_bytes: int) -> int:
    """Writes a LeRobot data set of two episodes in one data file, of one row group as its converter has it."""
    pictures = as_many(num_bytes)
    half = len(pictures) // 2
    key = "observation.images.front"
    DataSet(lengths=[half, half], tasks=["drive"] * 2, cameras={key: "image"}, recorder=False).write(folder)
    (path,) = (folder / "data").glob("*/*.parquet")
    table = pq.read_table(path)
    table = table.set_column(table.schema.get_field_index(key), key, picture_column(pictures))
    pq.write_table(table, path, row_group_size=len(pictures), use_dictionary=False)
    return len(pictures)


def write_lerobot_video(folder: Path, num_bytes: int) -> int:
    """Writes a LeRobot data set of two episodes in one video."""
    frames = next(blocks(BLOCK))
    few = write_video(folder / "few.mp4", frames, ("libx264", {"preset": "ultrafast", "bf": "0", "crf": "18"}))
    times = num_bytes // few.stat().st_size // 2 * 2
    half = times // 2 * BLOCK
    DataSet(lengths=[half, half], tasks=["drive"] * 2).write(folder)
    (path,) = (folder / "videos").glob("*/*/*.mp4")
    repeat_video(few, path, times)
    few.unlink()
    return 2 * half


def write_hour(folder: Path, num_bytes: int) -> int:
    """Writes a video of an hour, whatever its size: 10 frames a second of a moving texture."""
    texture = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    moves = [texture[t : t + HEIGHT, 2 * t : 2 * t + WIDTH] for t in range(100)]
    with tempfile.TemporaryDirectory() as name:
        few = write_video(Path(name) / "few.mp4", moves, ("libx264", {"preset": "veryfast", "bf": "0"}))
        repeat_video(few, folder / "hour.mp4", 3600 * 10 // len(moves))
    return 3600 * 10


def repeat_video(source: Path, target: Path, times: int) -> None:
    """Copies a video's packets several times, one pass after another."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = read.streams.video[0]
        packets = [
            (packet.pts, packet.dts, packet.is_keyframe, bytes(packet)) for packet in read.demux(stream) if packet.size
        ]
        assert stream.average_rate is not None
        assert stream.time_base is not None
        length = round(len(packets) / stream.average_rate / stream.time_base)
        copy = written.add_stream_from_template(stream)
        for number in range(times):
            for pts, dts, is_keyframe, data in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts = pts + number * length, dts + number * length
                packet.time_base, packet.is_keyframe, packet.stream = stream.time_base, is_keyframe, copy
                written.mux(packet)


CASES: dict[str, Callable[[Path, int], int]] = {
    "robomimic": write_robomimic,
    "ALOHA": write_aloha,
    "zarr": write_buffer,
    "Minari, HDF5": write_minari_hdf5,
    "Minari, Arrow": write_minari_arrow,
    "Minari, Parquet": write_minari_parquet,
    "Minari, Parquet of pixels": write_minari_pixels,
    "Parquet": lambda folder, num_bytes: write_own(folder, num_bytes, "parquet", "parquet"),
    "Parquet, one row group": write_one_group,
    "WebDataset": lambda folder, num_bytes: write_own(folder, num_bytes, "webdataset", "tar"),
    "WebDataset, a sample per step": write_steps,
    "RLDS": write_rlds,
    "LeRobot 3.0, pictures": write_lerobot_pictures,
    "LeRobot 3.0, H.264": write_lerobot_video,
    "video of an hour": write_hour,
}
"""What writes each file of some bytes into a folder, and returns its number of frames."""


def main() -> None:
    """Writes and reads a file per case, and prints the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of each file")
    parser.add_argument("--only", action="append", choices=CASES, help="case to measure; repeat for several")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON")
    options = parser.parse_args()
    before = options.output / "large_files.json"
    results = json.loads(before.read_text())["formats"] if options.only and before.is_file() else {}
    for name, write in CASES.items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            num_frames = write(Path(folder), int(options.gigabytes * 1e9))
            num_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            ended = subprocess.run([sys.executable, "-c", READ, folder], capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"{name} must be read, got {ended.stderr[-2000:]}")
        found = {**json.loads(ended.stdout), "gigabytes": num_bytes / 1e9}
        if found["frames"] != num_frames:
            raise RuntimeError(f"{name} must give {num_frames} frames, got {found['frames']}")
        results[name] = found
        print(
            f"{name}, {num_bytes / 1e9:.2f} GB, {num_frames:,} frames: {found['peak_mib']:,.0f} MiB (limit {LIMIT_MIB:,}), "
            f"{num_frames / found['seconds']:,.0f} frames/s",
            flush=True,
        )
        write_result(options.output, "large_files", {"machine": machine(), "formats": results, "limit_mib": LIMIT_MIB})


if __name__ == "__main__":
    main()
