"""WebDataset as a corpus format: tars that we wrote, and those of others."""

import json
from collections.abc import Mapping

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import CorpusFormat, CorpusReader
from vlm_rewards.schemas.formats.webdataset_corpus.members import BrokenTarError, split_name, walk
from vlm_rewards.schemas.formats.webdataset_corpus.reader import MAX_JSON_BYTES, open_webdataset, tar_files
from vlm_rewards.schemas.formats.webdataset_corpus.writer import write_webdataset
from vlm_rewards.schemas.formats.webdataset_others.patterns import OPTIONS, Patterns, choose_patterns
from vlm_rewards.schemas.formats.webdataset_others.reader import open_others

_LOOKED_AT = 500
"""Members of the first tar that tell what it is, or all of its first sample where that has more."""


def _open(folder: Folder, options: Mapping[str, str]) -> CorpusReader:
    patterns = _patterns_of_others(folder, options)
    return open_webdataset(folder, options) if patterns is None else open_others(folder, patterns)


def _patterns_of_others(folder: Folder, options: Mapping[str, str]) -> Patterns | None:
    """Returns the patterns of tars of others; None for ours, and where no tar can be read."""
    for file in tar_files(folder):
        names: list[str] = []
        first_json = b""
        with folder.open(file.name) as opened, folder.open(file.name) as read:
            try:
                for member in walk(opened):
                    name = member.name.removeprefix("./")
                    if len(names) >= _LOOKED_AT and split_name(name)[0] != split_name(names[0])[0]:
                        break
                    names.append(name)
                    if not first_json and member.name.endswith(".json") and member.size <= MAX_JSON_BYTES:
                        read.seek(member.offset_data)
                        first_json = read.read(member.size)
            except BrokenTarError:
                pass  # the read of the tar says so, as a Failure
        if names:
            if not options and _is_ours(first_json):
                return None
            return choose_patterns(names, first_json, options, folder.path(file.name))
    return None


def _is_ours(first_json: bytes) -> bool:
    """Returns whether a sample's JSON says what ours do, or is broken: then our reader says what is wrong."""
    if not first_json:
        return False
    try:
        record = json.loads(first_json)
    except (ValueError, RecursionError):
        return True
    return not isinstance(record, dict) or "num_frames" in record or "cameras" in record


WEBDATASET = CorpusFormat(
    name="webdataset",
    recognizes=lambda folder: bool(tar_files(folder)),
    open=_open,
    write=write_webdataset,
    extension="tar",
    options=OPTIONS,
)
