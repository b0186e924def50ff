"""Reads relabelled trajectories back, an episode at a time, with nothing but numpy, pyarrow and tarfile.

    relabelled/manifest.json   parts/<unit>.parquet or .tar ──► RelabelledEpisode, RelabelledEpisode, ...

What the files hold is drawn in `schemas.formats.relabelled_parts.writer`.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlm_rewards.schemas.episodes import IMAGE_PREFIX, image_column
from vlm_rewards.schemas.files.digests import check_part
from vlm_rewards.schemas.files.remote_paths import Location, local_copy, location_of
from vlm_rewards.schemas.folders import open_finished
from vlm_rewards.schemas.formats.member_names import unescape_name
from vlm_rewards.schemas.formats.part_files import open_part
from vlm_rewards.schemas.labels import read_own_metadata
from vlm_rewards.schemas.relabelled import RelabelledEpisode


def read_relabelled(path: str | Location, *, camera: str | None = None) -> Iterator[RelabelledEpisode]:
    """Reads relabelled trajectories, an episode at a time, with nothing but pyarrow and tarfile.

    Args:
        path: A folder that `vlm-rewards hindsight` has finished, or one part of it, .parquet or .tar.
        camera: Leave out the pictures of all other cameras; in Parquet they are not even read.

    Yields:
        The episodes in the order of the parts' names and of each part.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The folder is unfinished or has no parts, a file has changed since it was written, is of another kind or cut
            short, an episode is not consistent or lacks the camera; the note names the file.

    Example:
        >>> import vlm_rewards as vr
        >>> for episode in vr.read_relabelled("relabelled/"):
        ...     assert episode.rewards.shape == (episode.num_goals, episode.num_steps)
        >>> episode
        RelabelledEpisode(...: ... frames, ... steps, goals: ...)
    """
    for part in _parts(location_of(path)):
        try:
            yield from _read_parquet(part, camera) if part.name.endswith(".parquet") else _read_tar(part, camera)
        except (tarfile.TarError, EOFError, KeyError) as error:
            raise ValueError(
                f"a part of relabelled trajectories must be a complete tar file, got {part} ({error}). Remove it and run "
                f"vlm-rewards hindsight again"
            ) from error
        except (ValueError, RecursionError) as error:
            error.add_note(f"in the relabelled trajectories {part}")
            raise


def _parts(path: Location) -> list[Location]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"relabelled trajectories must be a folder or a part of it, got {path}, which does not exist; check the path"
        )
    return list(open_finished(path, "relabelled").parts)


def _read_parquet(part: Location, camera: str | None) -> Iterator[RelabelledEpisode]:
    with open_part(part, "relabelled trajectories") as file:
        read_own_metadata(file.schema_arrow, "relabelled")
        names = file.schema_arrow.names
        cameras = _wanted([name.removeprefix(IMAGE_PREFIX) for name in names if name.startswith(IMAGE_PREFIX)], camera)
        wanted = [name for name in names if not name.startswith(IMAGE_PREFIX)] + [
            image_column(name) for name in cameras
        ]
        for batch in file.iter_batches(batch_size=1, columns=wanted):
            row = batch.to_pylist()[0]
            action = row.get("action")
            state = row.get("observation.state")
            yield RelabelledEpisode(
                episode_id=row["episode_id"],
                images={name: [image["bytes"] for image in row[image_column(name)]] for name in cameras},
                actions=None if action is None else _actions(np.array(action)),
                states=None if state is None else np.array(state, dtype=np.float32),
                instruction=row.get("instruction"),
                goal_ids=row["goal_ids"],
                goal_texts=row["goal_texts"],
                goal_kinds=row["goal_kinds"],
                rewards=np.array(row["rewards"], dtype=np.float32),
                start=np.array(row["start"], dtype=np.int32),
                stop=np.array(row["stop"], dtype=np.int32),
                terminated=np.array(row["terminated"], dtype=np.bool_),
            )


def _wanted(cameras: list[str], camera: str | None) -> list[str]:
    if camera is None:
        return cameras
    if camera not in cameras:
        raise ValueError(f"the camera must be one of those recorded ({', '.join(cameras)}), got {camera!r}; choose one")
    return [camera]


def _actions(actions: np.ndarray) -> np.ndarray:
    return actions.astype(np.int64 if actions.ndim == 1 else np.float32)


def _read_tar(part: Location, camera: str | None) -> Iterator[RelabelledEpisode]:
    with local_copy(part) as copy:
        check_part(part, copy)
        yield from _tar_episodes(copy, camera)


def _tar_episodes(part: Path, camera: str | None) -> Iterator[RelabelledEpisode]:
    key = ""
    members: dict[str, bytes] = {}
    with tarfile.open(part, mode="r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # or it keeps a record of every frame ever read
            file = tar.extractfile(member) if member.isreg() else None
            if file is None:
                raise tarfile.ReadError(f"{member.name!r} is no plain file")
            member_key, _, suffix = member.name.partition(".")
            if members and member_key != key:
                yield _from_members(key, members, camera)
                members = {}
            key = member_key
            members[suffix] = file.read()
            if len(members[suffix]) != member.size:
                raise tarfile.ReadError(f"it ends within {member.name!r}")
        end = tar.offset
    with part.open("rb") as file:  # tarfile takes a broken header for the end
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"it breaks at byte {end}")
    if members:
        yield _from_members(key, members, camera)


def _from_members(key: str, members: dict[str, bytes], camera: str | None) -> RelabelledEpisode:
    record = json.loads(members["json"])
    if record.get("kind") != "relabelled":
        raise ValueError(
            f"a sample of relabelled trajectories must say so in its JSON, got {record.get('kind')!r} in {key!r}; give a "
            "folder that vlm-rewards hindsight wrote"
        )
    wanted = _wanted(record["cameras"], camera)
    images: dict[str, dict[int, bytes]] = {name: {} for name in record["cameras"]}
    arrays = {}
    for suffix, data in members.items():
        name, _, rest = suffix.partition(".")
        if rest == "npy":
            arrays[name] = np.load(io.BytesIO(data), allow_pickle=False)
        elif unescape_name(name) in images:
            images[unescape_name(name)][int(rest.partition(".")[0])] = data
    return RelabelledEpisode(
        episode_id=unescape_name(key),
        images={name: [images[name][i] for i in range(record["num_frames"])] for name in wanted},
        actions=arrays.get("action"),
        states=arrays.get("state"),
        instruction=record["instruction"],
        goal_ids=record["goal_ids"],
        goal_texts=record["goal_texts"],
        goal_kinds=record["goal_kinds"],
        **{name: arrays[name] for name in ("rewards", "start", "stop", "terminated")},
    )
