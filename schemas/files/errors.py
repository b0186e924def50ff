"""What an error of the operating system means for a file: the path, what is lacking, and the remedy.

An errno alone ("[Errno 28] No space left on device") says neither which file nor what to do. Everything that reads or writes
files of ours adds a note from here.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

_OPENING = "cannot use "
_KEPT = "and run the same command again: finished parts are kept"
_OTHER_PLACE = "Give a folder on another file system"

_MEANINGS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", f"Free some space {_KEPT}"),
    errno.EDQUOT: ("the disk quota of this user is used up", f"Free some space, or ask for a larger quota, {_KEPT}"),
    errno.EFBIG: (
        "the file is larger than the file system or the limit of this process allows",
        f"Raise the limit (ulimit -f), or take smaller units, {_KEPT}",
    ),
    errno.EROFS: ("the file system is read-only", "Give a folder that can be written, or mount it for writing"),
    errno.EACCES: (
        "this user lacks the permission",
        "Change the permissions of the file and its folder, or give another",
    ),
    errno.EPERM: (
        "the operating system does not permit it",
        "Change the owner or the attributes, or give another folder",
    ),
    errno.ENOENT: ("there is no such file or folder", "Check the path"),
    errno.EEXIST: ("there is a file or folder of this name already", "Remove it, or give another path"),
    errno.ENAMETOOLONG: ("the name is longer than the file system allows", "Shorten the names of files and folders"),
    errno.EILSEQ: (
        "the name has characters that the file system does not allow",
        "Rename the files, or give another folder",
    ),
    errno.EINVAL: (
        "the file system does not allow this name or operation",
        f"{_OTHER_PLACE}, or take plain letters, digits, '-' and '_' for names",
    ),
    errno.EISDIR: ("it is a folder, where a file is needed", "Remove the folder, or give another path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "Check the path"),
    errno.ENOTEMPTY: ("the folder is not empty", "Remove what is in it, or give another folder"),
    errno.ELOOP: ("it is a symbolic link, or links lead in a circle", "Remove the link, or give another path"),
    errno.EXDEV: ("source and target are on different file systems", "Give a folder that lies on one file system"),
    errno.ESTALE: ("the network file system has lost the file (stale handle)", f"Mount it again {_KEPT}"),
    errno.ENOTCONN: ("the file system is not connected any more", f"Mount it again {_KEPT}"),
    errno.EHOSTDOWN: ("the host of the network file system is down", f"Wait until it is back {_KEPT}"),
    errno.ETIMEDOUT: ("the network file system does not answer", f"Wait until it is back {_KEPT}"),
    errno.EIO: ("the disk or the network reports a fault", f"Check the disk (dmesg), or give another folder, {_KEPT}"),
    errno.EMFILE: (
        "this process has too many files open",
        f"Raise the limit (ulimit -n), or take fewer workers, {_KEPT}",
    ),
    errno.ENFILE: ("the machine has too many files open", f"End other programs, or take fewer workers, {_KEPT}"),
    errno.ENOMEM: ("there is not enough memory", f"Take fewer workers or smaller batches, {_KEPT}"),
    errno.EBUSY: ("another program is using it", f"Wait until it has ended {_KEPT}"),
    errno.ETXTBSY: ("it is a program that is running", "Give another path"),
    errno.ENOLCK: ("the file system has no locks, or no more of them", _OTHER_PLACE),
    errno.ENOSYS: ("the file system does not have this operation", _OTHER_PLACE),
    errno.ENOTSUP: ("the file system does not support this operation", _OTHER_PLACE),
}


def explain_os_error(error: BaseException, path: str | Path | None = None) -> None:
    """Adds a note to an error of the operating system: which file, what is lacking, what to do.

    Does nothing for other errors, for an OSError without a number, and where a note was added before.

    Args:
        error: Any error.
        path: The file or folder in use; by default the one that the error names.
    """
    if not isinstance(error, OSError) or not error.errno:
        return
    if any(note.startswith(_OPENING) for note in getattr(error, "__notes__", [])):
        return
    lacking, remedy = _MEANINGS.get(
        error.errno,
        (f"the operating system reports {errno.errorcode.get(error.errno, error.errno)}", f"{_OTHER_PLACE}, {_KEPT}"),
    )
    named = error.filename if path is None else path
    error.add_note(f"{_OPENING}{'a file' if named is None else named}: {lacking}. {remedy}.")


@contextlib.contextmanager
def explaining_os_errors(path: str | Path) -> Iterator[None]:
    """Context manager that explains the errors of the operating system raised inside, see `explain_os_error`."""
    try:
        yield
    except OSError as error:
        explain_os_error(error, path)
        raise
