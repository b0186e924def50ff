"""Access to the Hugging Face hub: the files of a model at one revision, in the hub's own cache.

    owner/name[@revision] ──► what the hub says: commit, files ──► download what a dual encoder needs ──► folder of that commit
                                └─ no answer: the commit that the cache has for that revision ──────────►

A model is loaded from the folder of a commit, so that all its files are of one revision, and that revision can be named.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from vlm_rewards.labelers.encoders.checkpoints.folders import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    missing_weights,
    weight_files,
)

_HUB_TIMEOUT_S = 5.0
_HUB_NAME = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_NEEDED = re.compile(r"[^/]+\.(json|txt|model|spm|bpe|vocab)|(model|adapter_model)(-\d+-of-\d+)?\.safetensors")


class HubName(NamedTuple):
    """A model on the hub.

    Attributes:
        hub_id: "owner/name".
        revision: Branch, tag or commit; None for the default branch.
    """

    hub_id: str
    revision: str | None


class Snapshot(NamedTuple):
    """A model of the hub at one commit, on this machine.

    Attributes:
        folder: Its files.
        commit: The commit.
    """

    folder: Path
    commit: str


def parse_hub_name(name: str) -> HubName | None:
    """Returns the hub id and revision that a name such as "owner/name" or "owner/name@revision" stands for, or None."""
    match = _HUB_NAME.fullmatch(name)
    return HubName(match["id"], match["revision"]) if match else None


def fetch_snapshot(name: HubName) -> Snapshot:
    """Downloads what a dual encoder needs of a model, or finds it in the hub's cache.

    Without a network, or where the commit is named and in the cache, only the cache is read.

    Args:
        name: The model.

    Raises:
        ValueError: The hub has no such model or does not let this machine read it, it has no safetensors weights, or the hub does
            not answer and the cache does not hold it.
    """
    cached = _cached(name)
    if cached and cached.name == name.revision and _is_whole(cached):
        return Snapshot(cached, cached.name)
    with _quiet_hub():
        info = _ask(name)
        if info is None:
            if cached is None:
                raise ValueError(
                    f"the hub does not answer, and its cache on this machine does not hold the model: got {name.hub_id!r}. Check "
                    f"the path or the id, and the network (with HF_HUB_OFFLINE=1 only the cache is read); or download the model "
                    f"elsewhere with 'hf download {name.hub_id} --local-dir FOLDER' and give the folder."
                )
            return Snapshot(cached, cached.name)
        files = [entry.rfilename for entry in info.siblings or []]
        needed = [file for file in files if _NEEDED.fullmatch(file)]
        if ADAPTER_CONFIG not in needed and not any(file.endswith(".safetensors") for file in needed):
            raise ValueError(missing_weights(name.hub_id, [file for file in files if _is_weights(file)]))
        try:
            folder = Path(huggingface_hub.snapshot_download(name.hub_id, revision=name.revision, allow_patterns=needed))
        except Exception as error:  # of the HTTP library, whichever it is, of the hub or of the disk
            raise ValueError(
                f"the model {name.hub_id!r} could not be downloaded: got {_first_line(error)}. Check the network and the space on "
                f"the disk, and run the command again: what has arrived is kept."
            ) from error
        return Snapshot(folder, folder.name)


def _ask(name: HubName) -> huggingface_hub.hf_api.ModelInfo | None:
    """Returns what the hub says of a model, or None if it does not answer.

    Raises:
        ValueError: The hub answers that it has no such model, or that this machine may not read it.
    """
    try:
        return huggingface_hub.HfApi().model_info(name.hub_id, revision=name.revision, timeout=_HUB_TIMEOUT_S)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500:
            return None
        at = f" at revision {name.revision!r}" if name.revision else ""
        if status in (401, 403):
            raise ValueError(
                f"the hub does not show the model {name.hub_id!r}{at} to this machine: got status {status}. Check the id; for a "
                f"private or gated model, accept its terms on the hub and run 'hf auth login'."
            ) from error
        raise ValueError(
            f"the hub has no model {name.hub_id!r}{at}: got status {status}. Check the path or the id."
        ) from error
    except Exception:  # no network, HF_HUB_OFFLINE, a timeout: the HTTP library's own errors, whichever it is
        return None


def _cached(name: HubName) -> Path | None:
    """Returns the folder of a model in the hub's cache, of the commit that its revision stood for at last; None without one."""
    root = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{name.hub_id.replace('/', '--')}"
    revision = name.revision or "main"
    ref = root / "refs" / revision
    folder = root / "snapshots" / (ref.read_text().strip() if ref.is_file() else revision)
    return folder if folder.is_dir() else None


def _is_whole(folder: Path) -> bool:
    """Returns whether the weights are there: other programs may have fetched a config alone."""
    files = weight_files(folder) or [folder / ADAPTER_WEIGHTS]
    return all(file.is_file() for file in files)


def _is_weights(file: str) -> bool:
    return "/" not in file and file.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".safetensors"))


def snapshot_in_cache_folder(folder: Path) -> Path | None:
    """Returns the snapshot in a folder of the hub's cache (models--owner--name, or its snapshots), or None for other folders.

    Args:
        folder: Any folder.

    Raises:
        ValueError: The cache holds several snapshots and does not say which one is current, or none.
    """
    root = folder.parent if folder.name == "snapshots" else folder
    if not (((root / "snapshots").is_dir() and (root / "refs").is_dir()) or root.name.startswith("models--")):
        return None
    snapshots = sorted(path for path in (root / "snapshots").glob("*") if path.is_dir())
    main = root / "refs" / "main"
    current = [path for path in snapshots if main.is_file() and path.name == main.read_text().strip()]
    found = current or snapshots
    if len(found) != 1:
        raise ValueError(
            f"{folder} is a folder of the hub's cache that does not name one snapshot: got {_names(snapshots)}. Give the folder of "
            f"one snapshot, {root / 'snapshots'}/COMMIT, or the hub id."
        )
    return found[0]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths) or "none"


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Holds back the hub's warnings, such as one line per retry: what fails is raised, with its remedy."""
    verbosity = huggingface_hub.logging.get_verbosity()
    huggingface_hub.logging.set_verbosity_error()
    try:
        yield
    finally:
        huggingface_hub.logging.set_verbosity(verbosity)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
