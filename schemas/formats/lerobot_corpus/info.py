"""Reads meta/info.json of a LeRobot data set: version, features, cameras, and places of its files."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from vlm_rewards.schemas.episodes import IMAGE_PREFIX
from vlm_rewards.schemas.formats.folder import Folder

INFO = "meta/info.json"
INFO_OF_VERSION_1 = "meta_data/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
_CAMERA_TYPES = ("image", "video")
_CHUNKS_SIZE = 1000  # where info.json does not say


class Camera(NamedTuple):
    """A feature of pictures.

    Attributes:
        name: Name of the camera: its key without the prefix "observation.images.".
        key: Name of its feature.
        is_video: Whether its frames are in videos instead of the rows.
    """

    name: str
    key: str
    is_video: bool


@dataclasses.dataclass(frozen=True)
class Info:
    """Contents of info.json.

    Args:
        version: One of VERSIONS.
        fps: Frames per second.
        features: Dtype, shape and names by the key of a feature.
        cameras: Cameras, without depth.
        depth: Keys of the features that are depth.
        data_folder: Folder of the rows.
        video_path: Path of the videos: a pattern with fields in braces; "" if there are none.
        chunks_size: Episodes per chunk, in version 2.
        totals: Stated numbers of episodes and frames, which may be wrong.
    """

    version: str
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    cameras: tuple[Camera, ...]
    depth: tuple[str, ...]
    data_folder: str
    video_path: str
    chunks_size: int
    totals: Mapping[str, int]

    @property
    def has_files_of_several_episodes(self) -> bool:
        """Whether a file of rows or a video holds many episodes, as from version 3 on."""
        return self.version.startswith("v3")

    def width(self, key: str) -> int | None:
        """Numbers per row of a feature; 0 for one whole number, None where there is no such feature."""
        if key not in self.features:
            return None
        feature = self.features[key]
        count = math.prod(feature.get("shape") or [1])
        return 0 if count == 1 and str(feature.get("dtype", "")).startswith(("int", "uint", "bool")) else count

    def video_name(self, camera: Camera, episode_index: int, chunk: int, file: int) -> str:
        """Returns the name of the video that holds an episode.

        Args:
            camera: A camera with videos.
            episode_index: Number of the episode.
            chunk: Number of the video's chunk, in version 3.
            file: Number of the video in its chunk, in version 3.

        Raises:
            ValueError: The pattern has other fields.
        """
        if not self.has_files_of_several_episodes:
            chunk = episode_index // self.chunks_size
        fields = {"video_key": camera.key, "episode_index": episode_index, "file_index": file}
        try:
            return self.video_path.format(**fields, episode_chunk=chunk, chunk_index=chunk)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"video_path of {INFO} must be a pattern of video_key and of numbers of chunk, file or episode, got "
                f"{self.video_path!r}. Correct it"
            ) from error


def is_data_set(folder: Folder) -> bool:
    """Returns whether a folder is a LeRobot data set of any version."""
    return folder.has_file(INFO) or folder.has_file(INFO_OF_VERSION_1)


def data_sets_below(folder: Folder) -> list[str]:
    """Returns the names of the folders below one that are LeRobot data sets, as far as it tells by the names of its files."""
    return [file.name.removesuffix(f"/{INFO}") for file in folder.files if file.name.endswith(f"/{INFO}")]


def read_info(folder: Folder) -> Info:
    """Reads meta/info.json.

    Raises:
        ValueError: It is in a folder below, empty or broken, of another version or storage, or there is no camera.
    """
    if not is_data_set(folder):
        below = data_sets_below(folder)
        raise ValueError(
            f"a LeRobot data set is a folder with {INFO} in it: got {folder}, where it is in {', '.join(below[:3])}"
            f"{' and others' if len(below) > 3 else ''}. Give one of these folders"
        )
    if not folder.has_file(INFO):
        raise ValueError(
            f"LeRobot data sets of {', '.join(VERSIONS)} are read, got one of version 1 ({INFO_OF_VERSION_1}) in {folder}. "
            "Convert it with LeRobot's convert_dataset_v1_to_v2.py"
        )
    record = _read_record(folder)
    version = str(record.get("codebase_version"))
    storage = record.get("storage_format")
    if storage not in (None, "parquet"):
        raise ValueError(
            f"rows of a LeRobot data set must be stored as Parquet, got storage_format {storage!r} in {folder.path(INFO)}. "
            "Export it as Parquet with LeRobot"
        )
    if version not in VERSIONS:
        raise ValueError(
            f"LeRobot data sets of {', '.join(VERSIONS)} are read, got codebase_version {version!r} in {folder.path(INFO)}. "
            "Convert it with LeRobot's own converters"
        )
    features = record.get("features")
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise ValueError(f"{folder.path(INFO)} must have features, got {features!r}. Download it again")
    pictures = [key for key, feature in features.items() if feature.get("dtype") in _CAMERA_TYPES]
    depth = tuple(key for key in pictures if _is_depth(features[key]))
    cameras = _cameras({key: features[key] for key in pictures if key not in depth})
    if not cameras:
        found = f"depth alone ({', '.join(depth)})" if depth else ", ".join(features) or "none"
        raise ValueError(
            f"a LeRobot data set must have a camera (a feature of images or video), got {found} in {folder}. Choose another"
        )
    info = Info(
        version=version,
        fps=_number(folder, record, "fps"),
        features=features,
        cameras=cameras,
        depth=depth,
        data_folder=str(record.get("data_path") or "data/").partition("{")[0].rpartition("/")[0],
        video_path=str(record.get("video_path") or ""),
        chunks_size=int(_number(folder, record, "chunks_size")) if record.get("chunks_size") else _CHUNKS_SIZE,
        totals={
            name: record[f"total_{name}"] for name in ("episodes", "frames") if type(record.get(f"total_{name}")) is int
        },
    )
    videos = [camera for camera in cameras if camera.is_video]
    if videos and not info.video_path:
        raise ValueError(
            f"{folder.path(INFO)} must say where the videos of {videos[0].key} lie, got no video_path. Download it again"
        )
    for camera in videos[:1]:
        info.video_name(camera, 0, 0, 0)
    return info


def _read_record(folder: Folder) -> dict[str, Any]:
    text = folder.read(INFO)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = "which is empty" if not text.strip() else f"which is not ({error})"
        raise ValueError(f"{folder.path(INFO)} must be JSON, got a file {problem}. Download it again") from error
    if not isinstance(record, dict):
        raise ValueError(f"{folder.path(INFO)} must be a JSON object, got {type(record).__name__}. Download it again")
    return record


def _number(folder: Folder, record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} in {folder.path(INFO)} must be a number over 0, got {value!r}. Correct it")
    return float(value)


def _is_depth(feature: Mapping[str, Any]) -> bool:
    told = [feature, *(feature[name] for name in ("info", "video_info") if isinstance(feature.get(name), dict))]
    return any(record.get(name) is True for record in told for name in ("is_depth_map", "video.is_depth_map"))


def _cameras(features: Mapping[str, Mapping[str, Any]]) -> tuple[Camera, ...]:
    names = [key.removeprefix(IMAGE_PREFIX) or key for key in features]
    if len(set(names)) < len(names):  # "front" and "observation.images.front"
        names = list(features)
    return tuple(
        Camera(name, key, feature["dtype"] == "video")
        for name, (key, feature) in zip(names, features.items(), strict=True)
    )
