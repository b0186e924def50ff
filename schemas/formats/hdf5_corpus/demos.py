"""robomimic's layout (MimicGen, RoboCasa, LIBERO): demos in the group `data`, lists of their names in `mask`.

    robomimic   obs[i] is seen before action i, next_obs[i] after it       obs_0 ... obs_{T-1}, next_obs_{T-1}: T+1 frames
                next_obs left out                                          T frames, the last one is missing
    LIBERO      obs[i] is seen after action i                              T frames, the first one is missing

LIBERO is told by the attributes of `data`. Its `macros_image_convention` says whether its pictures are upside down.
"""

import json
import re
from typing import TYPE_CHECKING

from vlm_rewards.schemas.formats.hdf5_corpus.files import (
    UnreadableFileError,
    dataset_at,
    datasets,
    group_at,
    read_all,
    summary_of,
    text_of,
)
from vlm_rewards.schemas.formats.hdf5_corpus.frames import Looks, Piece, SliceFrames, why_not_pictures
from vlm_rewards.schemas.formats.hdf5_corpus.recording import Layout, Recording, Told
from vlm_rewards.schemas.formats.interface import InvalidEpisodeError

if TYPE_CHECKING:
    import h5py

_CONVENTIONS = {"opengl": True, "opencv": False}
"""Whether the first row of pixels is the lowest, by robosuite's macro IMAGE_CONVENTION."""
_RENDER = "Render its pictures with robomimic's dataset_states_to_obs.py --camera_names ..."


def _is_libero(data: "h5py.Group") -> bool:
    return "macros_image_convention" in data.attrs or "bddl_file_name" in data.attrs


def _holds_demos(file: "h5py.File") -> bool:
    data = group_at(file, "data")
    return data is not None and (
        any(name.startswith("demo") for name in data) or "env_args" in data.attrs or _is_libero(data)
    )


def demo_keys(file: "h5py.File", told: Told) -> list[str]:
    """Returns the names of the demos, in the order of their numbers.

    Raises:
        UnreadableFileError: There are none, or the filter is not in the file.
    """
    data = group_at(file, "data")
    assert data is not None
    keys = sorted((name for name in data if group_at(data, name) is not None), key=_by_number)
    if not keys:
        raise UnreadableFileError("an HDF5 corpus must hold demos: got none in its group 'data'. Leave the file out")
    if told.filter is None:
        return keys
    named = dataset_at(file, f"mask/{told.filter}")
    if named is None:
        mask = group_at(file, "mask")
        found = ", ".join(mask or ()) or "none"
        raise UnreadableFileError(
            f"the option filter must be a list in 'mask': got {told.filter!r}, and the lists are {found}. Choose one of them"
        )
    chosen = {text_of(name) for name in read_all(named)}
    missing = sorted(str(name) for name in chosen - set(keys))
    if missing:
        raise UnreadableFileError(
            f"'mask/{told.filter}' must name demos of the file: got {missing[0]!r}, which is not there. Correct the list"
        )
    return [key for key in keys if key in chosen]


def demo_recording(file: "h5py.File", key: str, told: Told) -> Recording:
    """Finds the parts of a demo.

    Raises:
        ValueError: It has no pictures, its parts are of different lengths, or it is not known whether they are upside down.
    """
    data = group_at(file, "data")
    assert data is not None
    demo = group_at(data, key)
    assert demo is not None
    libero = _is_libero(data)
    observed = group_at(demo, "obs")
    if observed is None:
        raise InvalidEpisodeError(
            "no pictures", f"a demo must have pictures in 'obs': got {summary_of(demo)}. {_RENDER}"
        )
    following = None if libero else group_at(demo, "next_obs")
    found = dict(datasets(observed))
    reasons = {name: why_not_pictures(dataset) for name, dataset in found.items()}
    cameras = [name for name, reason in reasons.items() if not reason]
    if not cameras:
        close = [f"{name} {reason}" for name, reason in reasons.items() if reason not in ("", "-")]
        if close:
            detail = f"pictures must be [T, H, W, 3] uint8: got {'; '.join(close)} in 'obs'. Convert them"
        else:
            detail = f"a demo must have pictures in 'obs': got {summary_of(observed)}. {_RENDER}"
        raise InvalidEpisodeError("no pictures", detail)
    for name in told.states:
        if name not in found or name in cameras:
            others = ", ".join(name for name in found if name not in cameras) or "none"
            raise ValueError(
                f"the option states must name observations: got {name!r}, and they are {others}. Correct it"
            )
    looks = Looks(upside_down=_is_upside_down(data, told, libero=libero), bgr=told.bgr)
    return Recording(
        cameras={name: SliceFrames(_pieces(found[name], following, name), looks) for name in cameras},
        states=[_pieces(found[name], following, name) for name in told.states],
        actions=dataset_at(demo, "actions"),
        rewards=dataset_at(demo, "rewards"),
        dones=dataset_at(demo, "dones"),
        instruction=_instruction(data, demo),
        lacks_first_frame=libero,
        notes=_notes(looks, libero=libero),
    )


def _notes(looks: Looks, *, libero: bool) -> tuple[str, ...]:
    notes = []
    if libero:
        notes.append("LIBERO: each frame is the one after its action, and the frame before the first action is missing")
    if looks.upside_down:
        notes.append("pictures are stored upside down and are turned")
    return tuple(notes)


def _pieces(dataset: "h5py.Dataset", following: "h5py.Group | None", name: str) -> list[Piece]:
    pieces = [Piece(dataset, 0, len(dataset))]
    last = None if following is None else dataset_at(following, name)
    if last is not None:
        if last.shape != dataset.shape:
            raise InvalidEpisodeError(
                "invalid episode",
                f"'next_obs' must be as long as 'obs': got {list(last.shape)} and {list(dataset.shape)} for {name!r}. "
                "Leave the demo out",
            )
        pieces.append(Piece(last, len(last) - 1, len(last)))
    return pieces


def _is_upside_down(data: "h5py.Group", told: Told, *, libero: bool) -> bool:
    if told.upside_down is not None:
        return told.upside_down
    if not libero:
        return False  # robomimic turns them when it renders
    convention = text_of(data.attrs.get("macros_image_convention"))
    if convention not in _CONVENTIONS:
        raise UnreadableFileError(
            f"the attribute macros_image_convention must be {' or '.join(_CONVENTIONS)}: got {convention!r}. Say whether "
            "pictures are upside down: --corpus-option upside-down=yes, or no"
        )
    return _CONVENTIONS[convention]


def _instruction(data: "h5py.Group", demo: "h5py.Group") -> str | None:
    """Returns the instruction of LIBERO's problem, or of the demo in RoboCasa."""
    for attributes, name, entry in (
        (demo.attrs, "ep_meta", "lang"),
        (data.attrs, "problem_info", "language_instruction"),
    ):
        text = text_of(attributes.get(name))
        if text is None:
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            detail = f"the attribute {name} must be JSON: got {text[:60]!r} ({error}). Correct it"
            raise InvalidEpisodeError("invalid episode", detail) from error
        language = record.get(entry) if isinstance(record, dict) else None
        if isinstance(language, list):  # some files of LIBERO have the text's words in a list
            language = " ".join(map(str, language))
        if isinstance(language, str) and language.strip():
            return language.strip().strip('"')
    return None


def _by_number(name: str) -> tuple[str, int, str]:
    match = re.fullmatch(r"(.*?)(\d+)", name)
    return (match[1], int(match[2]), name) if match else (name, -1, name)


DEMOS = Layout("robomimic or LIBERO", "data/demo_0/obs", _holds_demos, demo_keys, demo_recording)
