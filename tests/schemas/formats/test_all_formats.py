"""What every corpus format promises, on episodes whose frames and numbers tell their place in time.

A format is added by one line of CASES: a name, what writes the episodes of `planted_episodes` into an empty folder (the
format's own library, or a faithful writer of the tests), and what differs from a format that keeps everything:

    holds          the fields that come back; a format without rewards, say, leaves them out
    lacks          "last" or "first" where each episode comes back without that frame
    cameras        cameras as they are called in the corpus, in the order of CAMERAS
    ids            ids of the four episodes as the format makes them; None where it keeps any id
    exact          False where pictures or video lose something
    one_file       True where all episodes lie in one file that cannot be read in part: cut short, it is refused as a whole
    file_per_frame True where each frame is a file: cut short, it is passed through, and fails alone where it is decoded

Episodes may be written in any order of storage, but are read in the order that `write` gets them.
"""

import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from planted_episodes import CAMERAS, LENGTHS, SIZE, paint, planted_episodes, times_in
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

from vlm_rewards.pipelines.inspect.inspection import inspect_corpus
from vlm_rewards.schemas.episodes import Episode, Frames, UnreadFrames
from vlm_rewards.schemas.files.stores import store_at
from vlm_rewards.schemas.formats.corpus import (
    FORMATS,
    BrokenEpisodeError,
    Corpus,
    open_corpus,
)
from vlm_rewards.schemas.formats.instruction_goals import goals_of_corpus
from vlm_rewards.schemas.formats.interface import FIELDS
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.pictures import decoded_frame

ALL = "actions rewards states instruction achieved_goals"


class Case(NamedTuple):
    """A format, how it is written, and what it keeps; see the module's docstring."""

    name: str
    write: Write
    holds: str = ALL
    lacks: str | None = None
    cameras: tuple[str, ...] = CAMERAS
    ids: tuple[str, ...] | None = None
    exact: bool = True
    one_file: bool = False
    file_per_frame: bool = False


_NO_STATES = "actions rewards instruction"
_NO_TRUTH = "actions rewards states instruction"
_OF_HDF5 = ("demos-0/demo_0", "demos-0/demo_1", "demos-2/demo_0", "demos-2/demo_1")
_OF_LIBERO = ("task-0_demo/demo_0", "task-1_demo/demo_0", "task-2_demo/demo_0", "task-3_demo/demo_0")
_OF_ALOHA = ("episode_0", "episode_1", "episode_2", "episode_3")
_OF_ZARR = ("buffer-0/episode_0", "buffer-0/episode_1", "buffer-2/episode_0", "buffer-2/episode_1")
_OF_MINARI = ("episode_0", "episode_1", "episode_2", "episode_3")
_OF_RLDS = ("train-00000-00000", "train-00000-00001", "train-00001-00000", "train-00001-00001")
_OF_OTHERS = ("episode-0000", "episode-0001", "episode-0002", "episode-0003")
_OF_LEROBOT = ("episode_000000", "episode_000001", "episode_000002", "episode_000003")

CASES = [
    Case("parquet", ours("parquet")),
    Case("webdataset", ours("webdataset")),
    Case("hdf5, robomimic", write_robomimic, "actions rewards", None, ("front_image", "wrist_image"), _OF_HDF5),
    Case("hdf5, LIBERO", write_libero, _NO_STATES, "first", ("front_rgb", "wrist_rgb"), _OF_LIBERO),
    Case("hdf5, ALOHA", write_aloha, "actions", "last", ids=_OF_ALOHA),
    Case("minari, hdf5", minari("hdf5"), _NO_STATES, ids=_OF_MINARI, one_file=True),
    Case("minari, arrow", minari("arrow"), _NO_STATES, ids=_OF_MINARI),
    Case("minari, parquet", minari("parquet"), _NO_STATES, ids=_OF_MINARI),
    Case("zarr, v2 folders", replay_buffers(2, pack=False), "actions", "last", ids=_OF_ZARR),
    Case("zarr, v3 folders", replay_buffers(3, pack=False), "actions", "last", ids=_OF_ZARR),
    Case("zarr, v2 zip files", replay_buffers(2, pack=True), "actions", "last", ids=_OF_ZARR),
    Case("rlds", write_rlds, _NO_TRUTH, "last", ids=_OF_RLDS),
    Case("webdataset, of others, per episode", others_tars(per_step=False), _NO_TRUTH, "last", ids=_OF_OTHERS),
    Case("webdataset, of others, per step", others_tars(per_step=True), _NO_TRUTH, "last", ids=_OF_OTHERS),
    Case("videos", write_videos, "instruction", None, ("video",), _OF_OTHERS, exact=False),
    Case("pictures", write_pictures, "instruction", None, ("image",), _OF_OTHERS, file_per_frame=True),
    Case("lerobot, pictures", lerobot("image"), _NO_TRUTH, "last", ids=_OF_LEROBOT),
    Case("lerobot, video", lerobot("video"), _NO_TRUTH, "last", ids=_OF_LEROBOT, exact=False),
]


@pytest.fixture(scope="module", params=CASES, ids=[case.name for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four planted episodes, written once; not to be changed."""
    folder = tmp_path_factory.mktemp(case.name)
    case.write(folder, planted_episodes())
    return folder


def _read(corpus: Corpus, units: Sequence[Unit] | None = None) -> list[Episode]:
    items = [item for unit in (corpus.units() if units is None else units) for item in corpus.episodes(unit)]
    assert not [str(item) for item in items if isinstance(item, Failure)]
    return [item for item in items if isinstance(item, Episode)]


def _ids(case: Case) -> list[str]:
    return list(case.ids or (episode.episode_id for episode in planted_episodes()))


def _assert_times(case: Case, number: int, frames: Frames, camera: int) -> None:
    """The frames of an episode are all that the format keeps of it, in order."""
    num_frames = planted_episodes()[number].num_frames
    start, stop = (1 if case.lacks == "first" else 0), num_frames - (case.lacks == "last")
    assert times_in(frames, number, camera) == list(range(start, stop))
    assert len(frames) == stop - start


def test_every_step_lies_between_its_frames(case: Case, folder: Path) -> None:
    corpus = open_corpus(folder)
    fields = case.holds.split()
    assert set(fields) <= FIELDS
    numbers = iter(range(4))
    for item in (item for unit in corpus.units() for item in corpus.episodes(unit)):
        number = next(numbers)
        written = planted_episodes()[number]
        assert isinstance(item, Episode), item
        assert set(item.images) == set(case.cameras)
        for place, camera in enumerate(case.cameras):
            _assert_times(case, number, item.images[camera], place)
        assert item.lacks_first_frame == (case.lacks == "first")
        assert item.has_final_frame == (case.lacks != "last")
        kept = np.arange(written.num_frames)[1 if case.lacks == "first" else 0 :][: item.num_frames]
        if "actions" in fields:
            assert item.actions is not None
            assert item.actions.tolist() == [[t, number] for t in range(written.num_steps)]  # a_t is taken in o_t
            before, after = kept[:-1], kept[1:]
            assert item.actions[item.complete_steps, 0].tolist() == before.tolist()
        if "actions" in fields and "rewards" in fields:
            assert item.rewards is not None
            assert item.rewards[item.complete_steps].tolist() == after.tolist()  # r_t looks at o_(t+1)
        if "states" in fields:
            assert item.states is not None
            assert item.states.tolist() == [[t] for t in kept]
        if "instruction" in fields:
            assert item.instruction == written.instruction
        if "achieved_goals" in fields:
            assert written.achieved_goals is not None
            assert item.achieved_goals is not None
            assert [list(goals) for goals in item.achieved_goals] == [written.achieved_goals[t] for t in kept]
    assert next(numbers, None) is None


def test_pixels_come_back_as_they_were(case: Case, folder: Path) -> None:
    offset = 1 if case.lacks == "first" else 0
    for number, episode in enumerate(open_corpus(folder)):
        assert isinstance(episode, Episode)
        for place, camera in enumerate(case.cameras):
            for index, frame in enumerate(episode.images[camera]):
                pixels, painted = decoded_frame(frame), paint(1000 * number + index + offset + 500 * place)
                assert pixels.shape == painted.shape
                assert (
                    np.array_equal(pixels, painted) if case.exact else np.abs(pixels - painted.astype(int)).mean() < 16
                )


def test_features_say_what_the_episodes_hold(case: Case, folder: Path) -> None:
    features = open_corpus(folder).features
    fields = set(case.holds.split())
    assert set(features.cameras) == set(case.cameras)
    assert features.action_size == (2 if "actions" in fields else None)
    assert features.state_size == (1 if "states" in fields else None)
    assert features.has_rewards == ("rewards" in fields)
    assert features.has_instruction == ("instruction" in fields)
    assert features.has_achieved_goals == ("achieved_goals" in fields)
    for episode in open_corpus(folder):
        assert isinstance(episode, Episode)
        features.check(episode)


def test_a_corpus_in_an_object_store_is_read_like_one_on_a_disk(case: Case, folder: Path, bucket: str) -> None:
    files, inner = store_at(bucket)
    files.put(str(folder), inner, recursive=True)
    local, remote = open_corpus(folder), pickle.loads(pickle.dumps(open_corpus(bucket)))
    assert remote.features == local.features
    units = remote.units(10_000)
    assert [unit.name for unit in units] == [unit.name for unit in local.units(10_000)]
    left = [entry.name for entry in local.passed_over if entry.reason != "is empty"]  # a store has no empty folders
    assert [entry.name for entry in remote.passed_over] == left
    for found, expected in zip(_read(remote, units), _read(local), strict=True):
        assert found.episode_id == expected.episode_id
        for camera in case.cameras:
            for frame, other in zip(found.images[camera], expected.images[camera], strict=True):
                assert np.array_equal(decoded_frame(frame), decoded_frame(other))


def test_ids_are_listed_as_they_are_read(case: Case, folder: Path) -> None:
    corpus = open_corpus(folder)
    for max_bytes in (1, 2**28):
        units = corpus.units(max_bytes)
        assert [episode_id for unit in units for episode_id in corpus.episode_ids(unit)] == _ids(case)
        assert [episode.episode_id for episode in _read(corpus, units)] == _ids(case)


@pytest.mark.parametrize("max_bytes", [1, 10_000, 2**28])
def test_units_of_any_size_and_in_any_order_give_the_same_episodes(case: Case, folder: Path, max_bytes: int) -> None:
    corpus = open_corpus(folder)
    units = corpus.units(max_bytes)
    assert len({unit.name for unit in units}) == len(units)
    found: list[str] = []
    for unit in reversed(units):
        ids = []
        for episode in corpus.episodes(unit):
            assert isinstance(episode, Episode), episode
            number = _ids(case).index(episode.episode_id)
            for place, camera in enumerate(case.cameras):
                _assert_times(case, number, episode.images[camera], place)
            ids.append(episode.episode_id)
        assert unit.num_episodes in (None, len(ids))
        found = [*ids, *found]
    assert found == _ids(case)


def test_cameras_side_by_side_twice_and_in_part(case: Case, folder: Path) -> None:
    """Writers read all cameras of a step together, a report a few frames; what is left unread hinders no one."""
    corpus = open_corpus(folder)
    for unit in corpus.units():
        for episode in corpus.episodes(unit):
            assert isinstance(episode, Episode)
            number = _ids(case).index(episode.episode_id)
            for _ in range(2):
                steps = list(zip(*(episode.images[camera] for camera in case.cameras), strict=True))
                for place, frames in enumerate(zip(*steps, strict=True)):
                    _assert_times(case, number, list(frames), place)
            first = next(iter(episode.images[case.cameras[-1]]))
            assert times_in([first], number, len(case.cameras) - 1) == [1 if case.lacks == "first" else 0]


def _is_unread(episode: Episode, field: str) -> bool:
    names = ("successes", "succeeded") if field == "success" else (field,)
    return all(getattr(episode, name) is None for name in names)


def test_what_is_not_wanted_is_not_read(case: Case, folder: Path) -> None:
    corpus = open_corpus(folder)
    (unit, *_) = corpus.units()
    for camera in case.cameras:
        for episode in corpus.episodes(unit, cameras=[camera], frames=False, fields=()):
            assert isinstance(episode, Episode)
            assert list(episode.images) == [camera]
            frames = episode.images[camera]
            with pytest.raises(AssertionError, match="these frames were not asked for"):
                list(frames)
            assert isinstance(getattr(frames, "_frames", frames), UnreadFrames)
            assert all(_is_unread(episode, field) for field in FIELDS)
    for field in case.holds.split():
        for episode in corpus.episodes(unit, frames=False, fields=(field,)):
            assert isinstance(episode, Episode)
            assert getattr(episode, field) is not None
            others = FIELDS - {field} - ({"actions"} if field == "rewards" else set())
            assert all(_is_unread(episode, other) for other in others)
    missing = list(corpus.episodes(unit, cameras=["no such camera"], fields=()))
    assert missing
    assert all(isinstance(item, Failure) and item.reason == "missing camera" for item in missing)


def test_a_worker_gets_a_copy_and_a_moved_corpus_has_the_same_units(case: Case, folder: Path, tmp_path: Path) -> None:
    corpus = open_corpus(folder)
    units = corpus.units(1)
    copy: Corpus = pickle.loads(pickle.dumps(corpus))
    unit: Unit = Unit.from_json(pickle.loads(pickle.dumps(units[-1].to_json())))
    assert unit == units[-1]
    assert [episode.episode_id for episode in _read(copy, [unit])] == corpus.episode_ids(unit)
    shutil.copytree(folder, tmp_path / "moved")
    moved = open_corpus(tmp_path / "moved")
    assert moved.units(1) == units  # names and contents: an interrupted run is resumed
    assert all(unit.content for unit in units)


def test_a_file_cut_short_fails_and_the_others_are_read(case: Case, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "cut")
    name = open_corpus(folder).units(1)[-1].files[-1]
    path = tmp_path / "cut" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if case.one_file:
        with pytest.raises(ValueError, match=path.name):
            open_corpus(tmp_path / "cut")
        return
    corpus = open_corpus(tmp_path / "cut")
    if case.file_per_frame:
        *_, last = (item for unit in corpus.units(1) for item in corpus.episodes(unit))
        assert isinstance(last, Episode)
        *_, frame = last.images[case.cameras[0]]
        with pytest.raises(ValueError, match="must decode in full"):
            decoded_frame(frame)
        return
    read: list[str] = []
    failures: list[Failure] = []
    for item in (item for unit in corpus.units(1) for item in corpus.episodes(unit)):
        if isinstance(item, Failure):
            failures.append(item)
            continue
        number = _ids(case).index(item.episode_id)
        try:
            for place, camera in enumerate(case.cameras):
                _assert_times(case, number, item.images[camera], place)
        except BrokenEpisodeError as error:
            failures.append(error.failure)
            continue
        read.append(item.episode_id)
    assert read == _ids(case)[: len(read)]
    assert 1 <= len(read) < 4
    assert failures
    assert all(path.name in str(failure) for failure in failures)


def test_any_id_is_kept(case: Case, tmp_path: Path) -> None:
    if case.ids is not None:
        pytest.skip(f"{case.name} makes its own ids")
    ids = ("2024.01.02_run1", "kitchen/run 2", "..", "Küche%2F")
    case.write(tmp_path, planted_episodes(ids=ids))
    assert [episode.episode_id for episode in _read(open_corpus(tmp_path))] == list(ids)


def test_every_format_has_a_case() -> None:
    assert {known.name for known in FORMATS} == {case.name.split(",")[0] for case in CASES}


def test_instructions_are_goals_and_none_is_lost(case: Case, folder: Path) -> None:
    corpus = open_corpus(folder)
    if "instruction" not in case.holds.split():
        with pytest.raises(ValueError, match="has an instruction to make a goal of: got 4 without one"):
            goals_of_corpus(corpus)
        return
    found = goals_of_corpus(corpus)
    assert [(goal.id, goal.text) for goal in found.goals] == [
        (f"put-cup-{number}-in-the-sink", f"put cup {number} in the sink") for number in range(4)
    ]
    assert (found.num_episodes, found.num_without, found.num_changing, found.failures) == (4, 0, 0, {})


def test_inspect_tells_what_is_there(case: Case, folder: Path) -> None:
    report = inspect_corpus(folder, frames=True)
    lengths = [length + 1 - (case.lacks is not None) for length in LENGTHS]
    assert (report.failures, report.later_failures, report.repeated_ids) == ([], [], [])
    assert report.tally.lengths == dict.fromkeys(lengths, 1)
    assert {name: counts.sizes for name, counts in report.cameras.items()} == {
        camera: {(SIZE, SIZE): sum(lengths)} for camera in case.cameras
    }
    fields = case.holds.split()
    assert report.tally.missing_frames == {(case.lacks or "none") if "actions" in fields else "no actions": 4}
    assert len(report.tally.instructions) == 4 * ("instruction" in fields)
    assert report.tally.num_with_truth == 4 * ("achieved_goals" in fields)
    assert (report.tally.reward_range is not None) == ("rewards" in fields)
