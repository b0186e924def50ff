"""Reading speed of each corpus format, frames as pixels, against the format's own reader; one table in one run.

python benchmarks/reading.py [--frames N] [--repeats N] [--only NAME] [--judges FOLDER] [--output FOLDER]

Every reader runs in a process of its own, which times itself after its imports, and decodes every frame to [H, W, 3]. Compared is
frames per second of processor time, all threads together, which other programs on the machine disturb least; frames per second
on the clock stand beside it. Both readers run by turns, and the best run of each counts. Readers with environments of their own
are those of `make judges`; one that is not installed is said to be absent. A format is one line of CASES. Results of formats that
are not measured this time are kept.
"""

import argparse
import functools
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import corpora  # noqa: F401 (lays tests/ on the path)
import h5py
import numpy as np
import zarr
from hdf5_recordings import jpeg
from lerobot_datasets import DataSet
from PIL import Image
from report_result import RESULTS, machine, write_result
from rlds_files import episode_features, group, image, serialized, tensor, text, write_data_set
from small_videos import write_video

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.pictures import encode_png

ROOT = Path(__file__).resolve().parent.parent
EPISODE_FRAMES = 250
JUDGED_FRAMES = 1000
"""Frames that a slow reader is timed for at most."""

TIMED = """
import json, resource, sys, time
folder, limit = sys.argv[1], int(sys.argv[2])
{imports}
usage, started, count = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), 0
for frame in {frames}:
    assert frame.ndim == 3
    count += 1
    if count == limit:
        break
seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime - usage.ru_utime - usage.ru_stime
print(json.dumps({{"frames": count, "seconds": seconds, "cpu_seconds": cpu}}))
"""

OURS = TIMED.format(
    imports="""
import h5py, zarr  # before the clock starts, as for the other readers; formats load them when they are opened
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.pictures import decoded_frame
def read():
    corpus = open_corpus(folder)
    for unit in corpus.units():
        for episode in corpus.episodes(unit, cameras=corpus.features.cameras[:1], fields=()):
            yield from map(decoded_frame, episode.images[corpus.features.cameras[0]])
""",
    frames="read()",
)
LEROBOT = TIMED.format(
    imports=f"""
sys.path.insert(0, {str(ROOT / "tests/judges/scripts")!r})
from lerobot_operators import LeRobotDataset
data = LeRobotDataset("local/set", root=folder, video_backend="pyav")
""",
    frames='(data[i]["observation.images.front"] for i in range(len(data)))',
)
DATASETS = TIMED.format(
    imports="""
import datasets, numpy, tempfile
cache = tempfile.mkdtemp()
data = datasets.load_dataset("parquet", data_files=f"{folder}/*.parquet", split="train", cache_dir=cache)
""",
    frames='(numpy.asarray(row["observation.images.front"]) for row in data)',
)
WEBDATASET = TIMED.format(
    imports="""
import glob, webdataset
data = webdataset.WebDataset(sorted(glob.glob(f"{folder}/*.tar")), shardshuffle=False).decode("rgb8")
""",
    frames='(value for sample in data for name, value in sample.items() if name.endswith(".png"))',
)
TFDS = TIMED.format(
    imports="""
import tensorflow_datasets
data = tensorflow_datasets.builder_from_directory(f"{folder}/toy/1.0.0").as_dataset(split="train")
""",
    frames='(step["observation"]["image"].numpy() for episode in data for step in episode["steps"])',
)
PYAV = TIMED.format(
    imports="""
import av, glob
def read():
    for name in sorted(glob.glob(f"{folder}/*.mp4")):
        with av.open(name) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
""",
    frames="read()",
)
PILLOW = TIMED.format(
    imports="""
import glob, numpy
from PIL import Image
""",
    frames='(numpy.array(Image.open(name)) for name in sorted(glob.glob(f"{folder}/*/*.png")))',
)

DEMOS = TIMED.format(
    imports="""
import h5py
file = h5py.File(f"{folder}/demos.hdf5")
def read():  # as robomimic's SequenceDataset does, item by item
    for demo in file["data"].values():
        for index in range(demo.attrs["num_samples"]):
            yield demo["obs/front_image"][index]
""",
    frames="read()",
)
ALOHA = TIMED.format(
    imports="""
import glob, h5py, io, numpy
from PIL import Image
def read():  # as ACT's loader does, step by step
    for path in sorted(glob.glob(f"{folder}/*.hdf5")):
        with h5py.File(path) as file:
            rows = file["observations/images/front"]
            for index in range(len(rows)):
                yield numpy.asarray(Image.open(io.BytesIO(rows[index].tobytes())))
""",
    frames="read()",
)
MINARI = TIMED.format(
    imports="""
from minari.dataset.minari_storage import MinariStorage
storage = MinariStorage.read(f"{folder}/data")
""",
    frames='(frame for e in storage.get_episodes(range(storage.total_episodes)) for frame in e["observations"]["front"])',
)
ZARR = TIMED.format(
    imports="""
import zarr
root = zarr.open_group(f"{folder}/buffer.zarr", mode="r")
ends = root["meta/episode_ends"][:].tolist()
""",
    frames='(frame for start, end in zip([0, *ends], ends) for frame in root["data/front"][start:end])',
)


class Case(NamedTuple):
    """A format that is measured.

    Attributes:
        name: Its name in the table.
        write: Writes a corpus of some frames into a folder that is there.
        judge: Program of the format's own reader, made from TIMED.
        environment: Environment of `make judges` that runs it; "" for that of this project.
        limit: Frames that the judge reads at most; 0 for all.
        asked: Least ratio of the two readers' speeds that is asked for.
    """

    name: str
    write: Callable[[Path, int], object]
    judge: str
    environment: str = ""
    limit: int = 0
    asked: float = 1.0


def camera_frame(number: int, height: int = 480, width: int = 640) -> np.ndarray:
    """A frame of a moving camera over a textured floor."""
    texture = _texture(height + 256, width + 256)
    top, left = int(128 + 100 * np.sin(number / 40)), int(128 + 100 * np.cos(number / 57))
    return np.ascontiguousarray(texture[top : top + height, left : left + width])


@functools.cache
def _texture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    fine, coarse = (
        rng.integers(0, top, (height // step + 1, width // step + 1, 3)) for step, top in ((8, 24), (64, 232))
    )
    sharp, smooth = (part.repeat(step, 0).repeat(step, 1) for part, step in ((fine, 8), (coarse, 64)))
    return (sharp[:height, :width] + smooth[:height, :width]).astype(np.uint8)


def write_lerobot(folder: Path, num_frames: int, *, version: str, kind: str, codec: str = "libx264") -> None:
    """Writes a LeRobot data set of episodes of EPISODE_FRAMES: videos of 640x480, pictures of 128x128."""
    count = -(-num_frames // EPISODE_FRAMES)
    options = {"libx264": {"preset": "veryfast", "g": "2"}, "libsvtav1": {"preset": "12", "g": "2", "crf": "30"}}
    DataSet(
        version=version,
        lengths=[EPISODE_FRAMES] * count,
        tasks=["drive"] * count,
        cameras={"observation.images.front": kind},
        codec=(codec, options[codec]),
        frame=camera_frame if kind == "video" else functools.partial(camera_frame, height=128, width=128),
    ).write(folder)


def write_rlds(folder: Path, num_frames: int) -> None:
    """Writes an RLDS data set as Open X-Embodiment has them: JPEG pictures, actions, states, flags and an instruction."""
    steps = {
        "observation": group({"image": image(128, 128, 3, encoding="jpeg"), "state": tensor("float32", 7)}),
        "action": tensor("float32", 7),
        "reward": tensor("float32"),
        "is_last": tensor("bool"),
        "language_instruction": text(),
    }
    count = EPISODE_FRAMES
    records = (
        serialized(
            {
                "steps/observation/image": [_jpeg(camera_frame(start + t, 128, 128)) for t in range(count)],
                "steps/observation/state": np.zeros((count, 7), np.float32),
                "steps/action": np.zeros((count, 7), np.float32),
                "steps/reward": np.zeros(count, np.float32),
                "steps/is_last": np.arange(count) == count - 1,
                "steps/language_instruction": ["drive"] * count,
            }
        )
        for start in range(0, num_frames, count)
    )
    write_data_set(folder / "toy" / "1.0.0", episode_features(steps), {"train": [list(records)]})


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def write_mp4(folder: Path, num_frames: int) -> None:
    """Writes a folder of H.264 videos of 640x480, an episode each."""
    for start in range(0, num_frames, EPISODE_FRAMES):
        frames = [camera_frame(start + t) for t in range(EPISODE_FRAMES)]
        write_video(folder / f"{start:06d}.mp4", frames, ("libx264", {"preset": "veryfast", "g": "250"}))


def write_pngs(folder: Path, num_frames: int) -> None:
    """Writes folders of PNG pictures of 128x128."""
    for number in range(num_frames):
        path = folder / f"{number // EPISODE_FRAMES:06d}" / f"{number:06d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(camera_frame(number, 128, 128)))


def write_own(folder: Path, num_frames: int, *, format_name: str, ending: str) -> None:
    """Writes a corpus in a format of ours, pictures of 128x128."""
    features = CorpusFeatures(cameras=("front",), action_size=None, has_rewards=False, has_instruction=False)
    episodes = (
        Episode(
            episode_id=f"e{start:06d}",
            images={"front": [encode_png(camera_frame(start + t, 128, 128)) for t in range(EPISODE_FRAMES)]},
        )
        for start in range(0, num_frames, EPISODE_FRAMES)
    )
    write_episodes(folder / f"all.{ending}", features, episodes, format_name)


def pictures(start: int) -> np.ndarray:
    """Frames of one episode, [EPISODE_FRAMES, 128, 128, 3]."""
    return np.stack([camera_frame(start + t, 128, 128) for t in range(EPISODE_FRAMES)])


def write_demos(folder: Path, num_frames: int) -> None:
    """Writes demos as robomimic's dataset_states_to_obs.py does with --compress, without next_obs."""
    with h5py.File(folder / "demos.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = "{}"
        for index, start in enumerate(range(0, num_frames, EPISODE_FRAMES)):
            demo = file.create_group(f"data/demo_{index}")
            demo.attrs["num_samples"] = EPISODE_FRAMES
            demo.create_dataset("obs/front_image", data=pictures(start), compression="gzip")
            demo["actions"] = np.zeros((EPISODE_FRAMES, 7))


def write_aloha(folder: Path, num_frames: int) -> None:
    """Writes an episode per file, JPEG padded with zeros."""
    for index, start in enumerate(range(0, num_frames, EPISODE_FRAMES)):
        encoded = [jpeg(frame) for frame in pictures(start)]
        rows = np.zeros((len(encoded), max(map(len, encoded))), np.uint8)
        for row, data in zip(rows, encoded, strict=True):
            row[: len(data)] = np.frombuffer(data, np.uint8)
        with h5py.File(folder / f"episode_{index:04d}.hdf5", "w") as file:
            file.create_dataset("observations/images/front", data=rows, chunks=(1, rows.shape[1]))
            file["action"] = np.zeros((EPISODE_FRAMES, 14))


def write_minari(folder: Path, num_frames: int, *, data_format: str) -> None:
    """Writes a data set by Minari itself, pictures as JPEG."""
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    (folder / "data").mkdir()
    space = spaces.Dict({"front": spaces.Box(0, 255, (128, 128, 3), np.uint8)})
    storage = MinariStorage.new(folder / "data", space, spaces.Discrete(3), data_format=data_format)
    num_steps = EPISODE_FRAMES - 1
    storage.update_episodes(
        EpisodeBuffer(
            id=index,
            observations={"front": pictures(start)},
            actions=np.zeros(num_steps, np.int64),
            rewards=[0.0] * num_steps,
            terminations=[False] * num_steps,
            truncations=[False] * num_steps,
            infos={},
        )
        for index, start in enumerate(range(0, num_frames, EPISODE_FRAMES))
    )


def write_buffer(folder: Path, num_frames: int) -> None:
    """Writes a replay buffer as diffusion policy does: chunks of some frames, compressed."""
    root = zarr.open_group(folder / "buffer.zarr", mode="w", zarr_format=2)
    shape = (num_frames, 128, 128, 3)
    front = root.create_array("data/front", shape=shape, chunks=(32, *shape[1:]), dtype=np.uint8)
    starts = range(0, num_frames, EPISODE_FRAMES)
    for start in starts:
        front[start : start + EPISODE_FRAMES] = pictures(start)
    ends = root.create_array("meta/episode_ends", shape=(len(starts),), dtype=np.int64)
    ends[:] = np.array(starts) + EPISODE_FRAMES


V21 = functools.partial(write_lerobot, version="v2.1", kind="video")
V30 = functools.partial(write_lerobot, version="v3.0", kind="video", codec="libsvtav1")
V30_PICTURES = functools.partial(write_lerobot, version="v3.0", kind="image")
PARQUET = functools.partial(write_own, format_name="parquet", ending="parquet")
TARS = functools.partial(write_own, format_name="webdataset", ending="tar")
CASES = (
    Case("LeRobot 2.1, H.264", V21, LEROBOT, "lerobot-0.3.3", JUDGED_FRAMES, 5.0),
    Case("LeRobot 3.0, AV1", V30, LEROBOT, "lerobot-0.4.4", JUDGED_FRAMES, 5.0),
    Case("LeRobot 3.0, pictures", V30_PICTURES, LEROBOT, "lerobot-0.4.4", JUDGED_FRAMES),
    Case("Parquet", PARQUET, DATASETS),
    Case("WebDataset", TARS, WEBDATASET),
    Case("RLDS, JPEG", write_rlds, TFDS, "tfds-4.9.10", asked=2.0),
    Case("videos, H.264", write_mp4, PYAV, limit=JUDGED_FRAMES),
    Case("pictures, PNG", write_pngs, PILLOW),
    Case("robomimic, gzip", write_demos, DEMOS, limit=JUDGED_FRAMES, asked=2.0),
    Case("ALOHA, JPEG", write_aloha, ALOHA),
    Case("Minari, HDF5", functools.partial(write_minari, data_format="hdf5"), MINARI),
    Case("Minari, Arrow", functools.partial(write_minari, data_format="arrow"), MINARI),
    Case("Minari, Parquet", functools.partial(write_minari, data_format="parquet"), MINARI),
    Case("zarr", write_buffer, ZARR),
)


def run_reader(python: str, program: str, folder: Path, limit: int) -> dict[str, float]:
    """Runs a reader in a process of its own; frames, and frames per second of the processor and on the clock.

    Raises:
        RuntimeError: It fails.
    """
    ended = subprocess.run(
        [python, "-c", program, str(folder), str(limit)], capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise RuntimeError(f"a reader must end with status 0, got {ended.returncode}: {ended.stderr[-2000:]}")
    found = json.loads(ended.stdout.splitlines()[-1])
    return {
        "frames": found["frames"],
        "frames_per_cpu_s": found["frames"] / found["cpu_seconds"],
        "frames_per_s": found["frames"] / found["seconds"],
    }


def measure(case: Case, num_frames: int, repeats: int, judges: Path) -> dict[str, Any]:
    """Writes a case's corpus, and reads it with both readers by turns."""
    python = judges / case.environment / "bin" / "python" if case.environment else Path(sys.executable)
    own, judged = [], []
    with tempfile.TemporaryDirectory() as name:
        case.write(Path(name), num_frames)
        for _ in range(repeats):
            own.append(run_reader(sys.executable, OURS, Path(name), 0))
            if own[-1]["frames"] != num_frames:
                raise RuntimeError(f"{case.name} must give {num_frames} frames, got {own[-1]['frames']}")
            if python.is_file():
                judged.append(run_reader(str(python), case.judge, Path(name), case.limit))
    best, best_judged = (max(runs, key=lambda run: run["frames_per_cpu_s"], default=None) for runs in (own, judged))
    assert best is not None
    ratio = None if best_judged is None else best["frames_per_cpu_s"] / best_judged["frames_per_cpu_s"]
    return {"ours": best, "judge": best_judged, "environment": case.environment, "ratio": ratio, "asked": case.asked}


def main() -> None:
    """Measures all cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000, help=f"frames per format, a multiple of {EPISODE_FRAMES}")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each reader")
    parser.add_argument("--only", action="append", help="case to measure; repeat for several (default: all)")
    parser.add_argument(
        "--judges", type=Path, default=ROOT / ".judges", help="folder of the environments of make judges"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON")
    options = parser.parse_args()
    before = options.output / "reading.json"
    results = json.loads(before.read_text())["formats"] if options.only and before.is_file() else {}
    print(
        f"{'format':24}{'ratio':>7}{'asked':>7}{'frames/s of CPU':>17}{'its own reader':>16}   on the clock: ours, its own"
    )
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        found = results[case.name] = measure(case, options.frames, options.repeats, options.judges)
        own, judged = found["ours"], found["judge"]
        shown = f"{case.name:24}{'':7}{case.asked:7.0f}{own['frames_per_cpu_s']:17,.0f}"
        shown += f"   absent: make judges makes {case.environment}"
        if judged is not None:
            shown = f"{case.name:24}{found['ratio']:7.2f}{case.asked:7.0f}{own['frames_per_cpu_s']:17,.0f}"
            shown += f"{judged['frames_per_cpu_s']:16,.0f}   {own['frames_per_s']:,.0f}, {judged['frames_per_s']:,.0f}"
        print(shown, flush=True)
        result = {"machine": machine(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "repeats": options.repeats}
        write_result(options.output, "reading", {**result, "formats": results})


if __name__ == "__main__":
    main()
