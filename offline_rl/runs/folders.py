"""The output folder of a training run: settings, checkpoints and metrics.

    settings.json       what the run depends on, written first; another run's folder is refused
    checkpoints/        step-000012000.pt, the last two: agent, optimisers, random states, replay position
    metrics.jsonl       one JSON object per record, each with its step
    tensorboard/        the same for TensorBoard, and for Weights & Biases where it is installed and asked for
    wandb-run-id.txt    id of the run there, so that a resumed run continues it

A checkpoint is written to a temporary name, flushed and renamed, so that a run that is killed at any moment resumes from a whole
one; records after its step are taken back, since they will be measured again, to the same bits.
"""

import contextlib
import dataclasses
import json
import math
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from vlm_rewards.schemas.files.digests import check_digest_beside, digest_beside, digest_text
from vlm_rewards.schemas.folders import replacing, write_atomically

_KEPT_CHECKPOINTS = 2
_METRICS = "metrics.jsonl"
_WANDB = "wandb-run-id.txt"
_ARRAY = "__array__"


def describe_settings(settings: Any, *, unimportant: Collection[str], added: Collection[str] = ()) -> dict[str, Any]:
    """Returns the settings that a run's result depends on, for its fingerprint.

    Args:
        settings: A dataclass.
        unimportant: Names of fields that change no result.
        added: Names of fields that earlier runs did not have: left out at their defaults, so that such runs can be resumed.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in unimportant and not (name in added and value == defaults[name])
    }


def save_checkpoint(folder: Path, step: int, state: Mapping[str, object]) -> Path:
    """Writes a checkpoint, whole or not at all, and removes all but the last two.

    Args:
        folder: Output folder of the run.
        step: Steps done.
        state: Tensors, numbers, texts, and lists and dicts of them.
    """
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    path = checkpoints / f"step-{step:09d}.pt"
    with replacing(path) as temporary:
        with temporary.open("xb") as file:
            torch.save(dict(state), file)
        write_atomically(digest_beside(path), digest_text(temporary))
    for old in sorted(checkpoints.glob("step-*.pt"))[:-_KEPT_CHECKPOINTS]:
        old.unlink()
        digest_beside(old).unlink(missing_ok=True)
    return path


def latest_checkpoint(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Returns the step and state of the last checkpoint, or None where there is none.

    Raises:
        ValueError: The file cannot be read, as after a fault of the disk.
    """
    paths = sorted((folder / "checkpoints").glob("step-*.pt"))
    if not paths:
        return None
    remedy = "Remove it: the run resumes from the one before."
    check_digest_beside(paths[-1], remedy)
    try:
        state = torch.load(paths[-1], map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged archive makes torch raise
        raise ValueError(
            f"a checkpoint must be readable, got {paths[-1]} ({type(error).__name__}). {remedy}"
        ) from error  # whose words may advise to load the file unsafely
    return int(paths[-1].stem.removeprefix("step-")), state


class Metrics:
    """Records of a run: JSON lines and TensorBoard always, Weights & Biases where a project is given.

    A resumed run is the same run of Weights & Biases, which keeps what it has of steps that are measured again.

    Args:
        folder: Output folder of the run.
        step: Step of the checkpoint that the run resumes from, or None where it begins; records after it, or all, are taken back.
        project: Project of Weights & Biases, or None.

    Raises:
        ImportError: A project is given and wandb is not installed.
    """

    def __init__(self, folder: Path, step: int | None = None, project: str | None = None) -> None:
        self._path = folder / _METRICS
        next_step = 0 if step is None else step + 1
        kept = [record for record in read_metrics(folder) if record["step"] < next_step]
        write_atomically(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=next_step)
        self._started = time.monotonic()
        self._before = max((record["seconds"] for record in kept), default=0.0)
        self._wandb = _start_wandb(project, folder) if project else None

    @property
    def seconds(self) -> float:
        """Seconds of the run so far, those before an interruption included."""
        return self._before + time.monotonic() - self._started

    def write(self, step: int, kind: str, values: Mapping[str, object]) -> None:
        """Writes a record.

        Args:
            step: Steps done.
            kind: Kind of record, such as "losses" or "evaluation".
            values: Numbers by name; others (texts, lists, None) are kept in the JSON lines only.

        Raises:
            ValueError: A number is not finite: the run has diverged.
        """
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"{kind} must be finite numbers, got {name} {value} at step {step}; the run has diverged: lower the learning "
                    f"rate or look at the rewards"
                )
        record = {"step": step, "kind": kind, "seconds": round(self.seconds, 3), **values}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        for name, value in numbers.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{kind}/{name}": value for name, value in numbers.items()}, step=step)

    def close(self) -> None:
        """Flushes and closes everything."""
        self._file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns all records of a run, in order; a last line that was cut short is left out.

    Raises:
        ValueError: Another line is broken.
    """
    path = folder / _METRICS
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [
        _metrics_record(line, f"{path}, line {number}") for number, line in enumerate(whole.split(b"\n"), 1) if line
    ]


def _metrics_record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        shown = line[:60].decode("utf-8", "replace")
        raise ValueError(f"{where}: a line of metrics must be a JSON object, got {shown!r}. Remove the line")
    return record


def _start_wandb(project: str, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError(
            f"wandb must be installed to log to the project {project!r}; pip install wandb, or leave the project out"
        ) from error
    path = folder / _WANDB
    if not path.is_file():
        write_atomically(path, uuid.uuid4().hex + "\n")
    run_id = path.read_text(encoding="utf-8").strip()
    return wandb.init(project=project, dir=str(folder), name=folder.name, id=run_id, resume="allow")


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Context manager in which torch computes with this many threads; afterwards the process has as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def progress_bar(name: str, total: int, done: int = 0, unit: str = "step") -> tqdm:
    """Returns a progress bar on standard error: at a terminal a moving one, in a log a line every half minute."""
    pace = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm(total=total, initial=done, desc=name, unit=unit, mininterval=pace, maxinterval=pace)


def pack_arrays(value: Any) -> Any:
    """Converts arrays inside dicts and lists to tensors for a checkpoint; `unpack_arrays` is the inverse."""
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(value)}
    if isinstance(value, Mapping):
        return {key: pack_arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [pack_arrays(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def unpack_arrays(value: Any) -> Any:
    """Returns the inverse of `pack_arrays`; tuples have become lists."""
    if isinstance(value, Mapping):
        if value.keys() == {_ARRAY}:
            return value[_ARRAY].numpy()
        return {key: unpack_arrays(item) for key, item in value.items()}
    return [unpack_arrays(item) for item in value] if isinstance(value, list) else value
