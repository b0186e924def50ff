"""Locks for file systems without flock: a file made exclusively, which names the process that holds it.

    lock_file(path) ──► made with O_EXCL? ── yes ──► held until the block ends, then removed
                              └─ no ──► its process has ended? ── yes ──► removed, once more
                                                └─ no, or not known ──► refused, or waited for

Lustre without `-o flock`, some network and FUSE mounts and mounted buckets have no flock. Whether a process has ended can be
told on its own machine only: elsewhere the refusal names the process and the file.
"""

import contextlib
import json
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_POLL_S = 0.2


@contextlib.contextmanager
def lock_file(path: Path, *, wait: bool) -> Iterator[None]:
    """Context manager that holds a lock by a file that only one process can make.

    Args:
        path: The file.
        wait: Whether to wait for another holder rather than to refuse.

    Raises:
        ValueError: Another process holds the lock.
    """
    own = {**this_process(), "token": uuid.uuid4().hex}
    while not _made(path, own):
        holder = _read_holder(path)
        if holder is not None and is_running(holder) is False:
            _remove_stale(path, holder)
        elif wait:
            time.sleep(_POLL_S)
        else:
            who = "a run" if holder is None else f"process {holder.get('pid')} on {holder.get('host')}"
            raise busy_error(path.parent, who, f"remove {path} if that run has ended")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def busy_error(folder: Path, who: str, remedy: str = "give another folder") -> ValueError:
    """The refusal of a folder that another run is writing to."""
    return ValueError(
        f"an output folder must be written by one run at a time, got {folder} while {who} writes to it. Wait for that run, or "
        f"{remedy}"
    )


def _made(path: Path, own: Mapping[str, object]) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:  # x: O_EXCL, which follows no link either
            json.dump(own, file)
    except FileExistsError:
        return False
    return True


def this_process() -> dict[str, object]:
    """Returns what tells this process from all others: machine, number and start; see `is_running`."""
    return {**_machine(), "pid": os.getpid(), "started": _start_of(os.getpid())}


def _machine() -> dict[str, object]:
    def read(path: str) -> str:
        return Path(path).read_text(encoding="utf-8").strip() if Path(path).is_file() else ""

    namespace = Path("/proc/self/ns/pid")  # process numbers of two containers are not of one count
    return {
        "host": socket.gethostname(),
        "boot": read("/proc/sys/kernel/random/boot_id"),
        "processes": str(namespace.readlink()) if namespace.is_symlink() else "",
    }


def _start_of(pid: int) -> str | None:
    """When a process began, in ticks since boot; None where no one says. Process numbers are used again, this is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _read_holder(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # gone, or just being written
        return None
    return holder if isinstance(holder, dict) else None


def is_running(holder: Mapping[str, Any]) -> bool | None:
    """Returns whether a process still runs; None where that cannot be told, as of one on another machine.

    Args:
        holder: Record of the process, as of `this_process`.
    """
    here = _machine()
    if holder.get("host") != here["host"]:
        return None
    if holder.get("boot") != here["boot"]:
        return False
    pid = holder.get("pid")
    if holder.get("processes") != here["processes"] or not isinstance(pid, int):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user, so it is there
        return True
    return _start_of(pid) == holder.get("started")


def holder_runs(path: Path) -> bool | None:
    """Returns whether the process that a lock file names still runs, see `is_running`."""
    holder = _read_holder(path)
    return None if holder is None else is_running(holder)


def _remove_stale(path: Path, holder: Mapping[str, Any]) -> None:
    aside = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:  # another run was faster
        return
    if _read_holder(aside) == holder:
        warnings.warn(
            f"the lock {path} was left by process {holder.get('pid')}, which has ended: it is removed", stacklevel=6
        )
        aside.unlink()
    elif path.exists():
        aside.unlink()
    else:  # since it was read, another run has made its own: it is put back
        aside.rename(path)
