"""Writes labels as additional members of tars with one sample per episode, ours or others'.

    before   ep0.json ep0.front.000000.png ...     after   ep0.vlm_goal.npy ep0.vlm_score.npy ... ep0.json ep0.front.000000.png ...

<key>.vlm_goal.npy      text, the id of the goal that the episode is judged by
<key>.vlm_score.npy     float32 [F], the score of each frame
<key>.vlm_success.npy   bool [F], whether the goal counts as achieved in each frame
<key>.vlm_reward.npy    float32 [T], of each action, by the frame after it
<key>.vlm_scores.npy    float32 [F, G], the scores of all goals, where asked for

They stand before the first member that tells the episode, with its times and owner. All other bytes of a tar are copied in order,
but for members of these names, which are replaced.
"""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vlm_rewards.schemas.formats.exports.interface import (
    ExportEpisode,
    ExportFormat,
    ExportSettings,
    LabelledCorpus,
    local_folder,
    require_all,
    require_all_scores,
    smoothed,
)
from vlm_rewards.schemas.formats.exports.publishing import Changes
from vlm_rewards.schemas.formats.member_names import unescape_name
from vlm_rewards.schemas.formats.webdataset_corpus.members import split_name, walk
from vlm_rewards.schemas.formats.webdataset_others.format import WEBDATASET
from vlm_rewards.schemas.formats.webdataset_others.reader import OtherTarsReader

MEMBERS = ("vlm_goal.npy", "vlm_score.npy", "vlm_success.npy", "vlm_reward.npy")
ALL_SCORES = "vlm_scores.npy"
_COPIED_BYTES = 1 << 20


def write_webdataset_labels(labelled: LabelledCorpus, changes: Changes, settings: ExportSettings) -> list[str]:
    """Rewrites the tars with members of labels; see the module's picture."""
    reader = labelled.corpus.reader
    patterns = reader.patterns if isinstance(reader, OtherTarsReader) else None
    if patterns is not None and patterns.cuts_episodes:
        raise ValueError(
            f"the export webdataset takes tars with one sample per episode: got one per step ({patterns.frames.text}). Export "
            "verdicts, or read the parts of the labels, which are tables"
        )
    require_all(labelled, WEBDATASET.name)
    require_all_scores(labelled, WEBDATASET.name)

    def episode_of(name: str) -> str | None:
        if patterns is None:
            return unescape_name(split_name(name)[0])
        return patterns.episode_of(name.removeprefix("./"))

    folder = local_folder(labelled.corpus)
    remaining = {(episode.file, episode.episode_id): episode for episode in labelled.episodes}
    num_replaced = 0
    for name in reader.own_files():

        def members_of(member: tarfile.TarInfo, name: str = name) -> dict[str, bytes]:
            episode_id = episode_of(member.name)
            episode = None if episode_id is None else remaining.pop((name, episode_id), None)
            return {} if episode is None else _members(labelled, episode, settings)

        num_replaced += _rewrite(folder / name, changes.file(name), members_of)
    assert not remaining, remaining
    written = [*MEMBERS, ALL_SCORES] if settings.all_scores else MEMBERS
    lines = [f"{len(labelled.episodes):,} samples have {', '.join(written)}"]
    if num_replaced:
        lines.append(f"replaced {num_replaced:,} members of such names")
    return lines


def _members(labelled: LabelledCorpus, episode: ExportEpisode, settings: ExportSettings) -> dict[str, bytes]:
    """Returns the members of an episode by suffix."""
    values = labelled.values(episode)
    arrays = [
        np.array(values.goal.id),
        smoothed(values.scores, settings.smooth),
        values.successes,
        values.rewards,
    ]
    found = {suffix: _npy(array) for suffix, array in zip(MEMBERS, arrays, strict=True)}
    if settings.all_scores:
        found[ALL_SCORES] = _npy(smoothed(values.all_scores, settings.smooth))
    return found


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
    return buffer.getvalue()


def _rewrite(source: Path, target: Path, members_of: Callable[[tarfile.TarInfo], dict[str, bytes]]) -> int:
    """Rewrites a tar with the members of `members_of` before each member. Returns the number of members left out."""
    num_replaced = 0
    with source.open("rb") as headers, source.open("rb") as data, target.open("wb") as out:
        for member in walk(headers):
            key, suffix = split_name(member.name)
            if suffix in (*MEMBERS, ALL_SCORES) and member.isreg():
                _copy(data, out, member.offset - data.tell())
                data.seek(member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
                num_replaced += 1
            new = members_of(member)
            if new:
                _copy(data, out, max(member.offset - data.tell(), 0))
                prefix = "./" if member.name.startswith("./") else ""
                for added, content in new.items():
                    _add(out, f"{prefix}{key}.{added}", content, member)
        _copy(data, out, source.stat().st_size - data.tell())
    return num_replaced


def _add(out: BinaryIO, name: str, content: bytes, like: tarfile.TarInfo) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), like.mode, like.mtime
    member.uid, member.gid, member.uname, member.gname = like.uid, like.gid, like.uname, like.gname
    out.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    out.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))


def _copy(source: BinaryIO, target: BinaryIO, num_bytes: int) -> None:
    """Copies the next bytes, a piece at a time."""
    while num_bytes:
        piece = source.read(min(num_bytes, _COPIED_BYTES))
        assert piece, f"{num_bytes} bytes are missing"  # of a tar that was whole when it was walked
        target.write(piece)
        num_bytes -= len(piece)


WEBDATASET_LABELS = ExportFormat(
    name=WEBDATASET.name,
    write=write_webdataset_labels,
    corpus_formats=(WEBDATASET.name,),
    takes=("smooth", "all_scores"),
    place="copy",
)
