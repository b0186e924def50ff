"""Inputs for readers: what a fuzzer changes, what may come out of a reader, and what may not.

    bytes ──► a file of a whole, small corpus is replaced by them ──► open, plan, read all episodes, decode all frames
          ──► a goals, marks, calibration, settings or marker file ──► read
          ──► a picture ──► decode

A target is deterministic: the same bytes end the same way. What may come out: the data, a Failure, or a ValueError or OSError of
which the text or a note names the file. Anything else is a fault: another exception, one that names no file, more memory or
processor time than the limits, frames that are no [H, W, 3] uint8, an episode whose parts disagree on the number of frames, or
the end of the process. The first byte of an input for a corpus chooses the file that it replaces.
"""

import contextlib
import gzip
import io
import json
import resource
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from labelled_corpora import episode as labelled_episode
from labelled_corpora import holds, write_corpus, write_labels
from PIL import Image
from planted_episodes import planted_episode
from planted_formats import (
    Write,
    lerobot,
    minari,
    others_tars,
    ours,
    replay_buffers,
    write_aloha,
    write_libero,
    write_pictures,
    write_rlds,
    write_robomimic,
    write_videos,
)
from relabelled_folders import one_camera, write_embeddings, write_relabelled

from vlm_rewards.schemas.calibrations import Calibration, read_calibration
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.folders import read_manifest, read_settings
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, open_corpus
from vlm_rewards.schemas.formats.label_parts.embeddings import read_embedding_rows
from vlm_rewards.schemas.formats.label_parts.reader import open_labels, read_labels
from vlm_rewards.schemas.formats.marks import read_marks
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.goals import read_goals
from vlm_rewards.schemas.pictures import decode_image, decoded_frame, scaled_picture

MEMORY_BYTES = 3 << 30
"""Data that an input may make the process hold, beyond what it holds before."""
PROCESSOR_S = 20
"""Processor time per input."""


class FaultError(Exception):
    """An outcome that no input may have."""


class Target(NamedTuple):
    """A kind of input.

    Attributes:
        seeds: Whole inputs to begin with.
        check: Reads one input; raises FaultError, or whatever else may not come out.
    """

    seeds: tuple[bytes, ...]
    check: Callable[[bytes], None]


CORPORA: Mapping[str, Write] = {
    "parquet": ours("parquet"),
    "webdataset": ours("webdataset"),
    "robomimic": write_robomimic,
    "libero": write_libero,
    "aloha": write_aloha,
    "minari-hdf5": minari("hdf5"),
    "minari-arrow": minari("arrow"),
    "minari-parquet": minari("parquet"),
    "zarr-v2": replay_buffers(2, pack=False),
    "zarr-v3": replay_buffers(3, pack=False),
    "zarr-zip": replay_buffers(2, pack=True),
    "rlds": write_rlds,
    "tars-per-episode": others_tars(per_step=False),
    "tars-per-step": others_tars(per_step=True),
    "videos": write_videos,
    "pictures": write_pictures,
    "lerobot-pictures": lerobot("image"),
    "lerobot-videos": lerobot("video"),
}
GOALS = (
    b'{"id": "red", "text": "a red ball"}\n{"id": "blue", "text": "a blue ball", "negatives": ["a box"]}\n',
    b'[{"id": "red", "text": "a red ball", "prompts": ["a photo of a red ball"]}]',
    b"id,text\nred,a red ball\nblue,a blue ball\n",
)
GOAL_NAMES = ("goals.jsonl", "goals.json", "goals.csv")
FILES = (*GOAL_NAMES, "marks", "calibration")
"""Targets whose inputs are whole files."""
MARKS = b"episode_id,frame_index,goal,achieved\na,0,red,1\na,1,red,0\n"
CALIBRATION = Calibration(
    goals=("ball", "box"),
    labeler={"weights": "sha256:1", "precision": "float32", "formula": "softmax", "templates": ["{goal}"]},
    thresholds=(0.25, 0.5),
    temperature=0.02,
    fire_rates=(0.0, 0.125),
    objective={"objective": "f1", "min_examples": 10},
    data={"truth": "marks", "frames": 7, "episodes": 2},
    temperature_search={"outcome": "kept"},
    quality={},
    details=({"id": "ball"}, {"id": "box"}),
)


@contextlib.contextmanager
def limits(processor_s: float = PROCESSOR_S) -> Iterator[None]:
    """Context manager that bounds memory and processor time; the ends of both are exceptions."""

    def late(*_: object) -> None:
        raise FaultError(f"took more than {processor_s} s of processor time")

    held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    handler = signal.signal(signal.SIGPROF, late)
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_PROF, processor_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, before)
        signal.signal(signal.SIGPROF, handler)


@contextlib.contextmanager
def naming(*names: str) -> Iterator[None]:
    """Context manager that lets errors pass which say one of `names`."""
    try:
        yield
    except (RecursionError, MemoryError, FaultError):
        raise
    except (ValueError, OSError) as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", [])])
        if isinstance(error, OSError) and error.filename is not None:
            text += str(error.filename)
        if not any(name in text for name in names):
            raise FaultError(f"an error must name the file: got {type(error).__name__}: {text}") from error


def read_whole(folder: Path) -> None:
    """Opens a corpus and reads everything in it."""
    with naming(folder.name, *(path.name for path in folder.rglob("*") if path.is_file())):
        corpus = open_corpus(folder)
        _ = corpus.passed_over, corpus.notes
        for unit in corpus.units():
            corpus.episode_ids(unit)
            for item in corpus.episodes(unit):
                if isinstance(item, Episode):
                    _read_frames(item)


def _read_frames(episode: Episode) -> None:
    for camera, frames in episode.images.items():
        count = 0
        try:
            for frame in frames:
                count += 1
                try:
                    pixels = decoded_frame(frame)
                except ValueError:
                    continue  # a Failure of the frame, which names its episode
                if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                    raise FaultError(f"a frame must be uint8 [H, W, 3]: got {pixels.dtype} {pixels.shape}")
        except BrokenEpisodeError:
            continue
        if count != len(frames):
            raise FaultError(f"camera {camera} of {episode.episode_id!r} says {len(frames)} frames: got {count}")


def corpus_target(folder: Path, write: Write) -> Target:
    """A corpus of four short episodes of which one file is changed.

    Args:
        folder: An empty folder, named so that no other text of a message is its name.
        write: Writer of the corpus.
    """
    write(folder, [planted_episode(number, 2) for number in range(4)])
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    paths = list(whole)[:256]

    def check(data: bytes) -> None:
        path = paths[(data[0] if data else 0) % len(paths)]
        path.write_bytes(data[1:])
        try:
            read_whole(folder)
        finally:
            path.write_bytes(whole[path])

    return Target(tuple(bytes([number]) + whole[path] for number, path in enumerate(paths)), check)


def picture_target() -> Target:
    """Pictures of every kind, by the two ways in which frames are decoded."""

    def check(data: bytes) -> None:
        for decode in (decode_image, lambda picture: scaled_picture(picture, 0, 4000)):
            try:
                found = decode(data)
            except ValueError:
                continue
            if isinstance(found, bytes):
                continue
            if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
                raise FaultError(f"a picture must be uint8 [H, W, 3]: got {found.dtype} {found.shape}")

    return Target(tuple(_pictures()), check)


def _pictures() -> Iterator[bytes]:
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 255, (9, 12, 3), np.uint8))
    deep = Image.fromarray(random.integers(0, 4000, (9, 12), np.uint16))
    transparent = Image.fromarray(random.integers(0, 255, (9, 12, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for picture, kind, given in (
        (colour, "PNG", {}),
        (deep, "PNG", {}),
        (transparent, "PNG", {}),
        (colour.convert("P"), "PNG", {}),
        (colour.convert("1"), "PNG", {}),
        (colour, "JPEG", {}),
        (colour, "JPEG", {"exif": exif}),
        (colour, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour.convert("L"), "JPEG", {}),
        (colour, "WEBP", {}),
        (colour, "WEBP", {"lossless": True}),
        (colour, "WEBP", {"save_all": True, "append_images": [colour.rotate(90)]}),
        (colour, "BMP", {}),
        (colour.convert("P"), "BMP", {}),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **given)
        yield file.getvalue()


def file_target(path: Path, seed: bytes, read: Callable[[Path], object]) -> Target:
    """A single file.

    Args:
        path: Where it is written.
        seed: A whole one.
        read: Reads it.
    """

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with naming(path.name):
            read(path)

    return Target((seed,), check)


def output_target(folder: Path, read: Callable[[Path], object]) -> Target:
    """A finished output of ours of which one file is changed."""
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    paths = list(whole)

    def check(data: bytes) -> None:
        path = paths[(data[0] if data else 0) % len(paths)]
        path.write_bytes(data[1:])
        try:
            with naming(folder.name), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(folder)
        finally:
            path.write_bytes(whole[path])

    return Target(tuple(bytes([number]) + whole[path] for number, path in enumerate(paths)), check)


def _read_labels(folder: Path) -> None:
    read_settings(folder)
    read_manifest(folder, "labels")
    labels = open_labels(folder)
    _ = labels.metadata, labels.digest
    for part in (folder / "parts").iterdir():
        list(read_labels(part))


def _read_embeddings(folder: Path) -> None:
    read_manifest(folder, "embeddings")
    for part in (folder / "parts").iterdir():
        list(read_embedding_rows(part))


def make_target(name: str, folder: Path) -> Target:
    """Makes one target of TARGETS in an empty folder."""
    folder = folder / f"fuzzed-{name}"
    if name in CORPORA:
        folder.mkdir()
        return corpus_target(folder, CORPORA[name])
    if name == "picture":
        return picture_target()
    folder.mkdir()
    if name in GOAL_NAMES:
        return file_target(folder / name, GOALS[GOAL_NAMES.index(name)], read_goals)
    if name == "marks":
        return file_target(folder / "marks.csv", MARKS, lambda path: read_marks(path, ["red", "blue"]))
    if name == "calibration":
        return file_target(folder / "calibration.json", json.dumps(CALIBRATION.to_json()).encode(), read_calibration)
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    if name == "labels":
        corpus = write_corpus(folder / "corpus", [[labelled_episode("a", 4), labelled_episode("b", 6)]])
        truth = [("a", holds(*["X." * 2] * 4)), ("b", holds(*[".X." * 2] * 4))]
        return output_target(write_labels(folder / "fuzzed-out", corpus, [truth]), _read_labels)
    if name == "embeddings":
        return output_target(write_embeddings(folder / "fuzzed-out", [[("a", vectors)]]), _read_embeddings)
    container = name.removeprefix("relabelled-")
    out = write_relabelled(folder / "fuzzed-out", [[one_camera("a")]], container)
    return output_target(out, lambda path: list(read_relabelled(path)))


TARGETS = (
    *CORPORA,
    "picture",
    *GOAL_NAMES,
    "marks",
    "calibration",
    "labels",
    "embeddings",
    "relabelled-parquet",
    "relabelled-webdataset",
)
"""All kinds of input."""


def read_findings(folder: Path) -> list[bytes]:
    """Reads the inputs that were kept of a target, which are compressed."""
    return [gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("*.gz"))]


def deep_json(target: Target, is_file: bool) -> list[bytes]:
    """JSON texts that are nested too deeply, have a number of too many digits, or are of another kind, in place of others.

    Args:
        target: The target.
        is_file: Whether an input is a whole file, without a first byte that chooses it.
    """
    found = []
    for seed in target.seeds:
        lead, body = (b"", seed) if is_file else (seed[:1], seed[1:])
        if body[:1] in (b"{", b"["):
            found += [lead + text for text in (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000, b"null", b"{}")]
    return found[:20]


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Changes an input as a disk, a copy that broke off, or an editor would; for runs without a fuzzer."""
    found = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        place = int(random.integers(1, len(found))) if len(found) > 1 else 0
        kind = int(random.integers(6))
        if kind == 0 and found:
            found[place % len(found)] ^= 1 << int(random.integers(8))
        elif kind == 1:
            found[place : place + 4] = random.bytes(4)
        elif kind == 2:
            del found[place:]
        elif kind == 3:
            found[place : place + 8] = random.choice([0, 1, 2**31, 2**63], 1).astype(np.uint64).tobytes()
        elif kind == 4:
            found[place:place] = found[place : place + int(random.integers(1, 64))]
        else:
            del found[place : place + int(random.integers(1, 64))]
    return bytes(found)
