"""Groups of frames: all of them, in order, bounded, and none of an episode's end that broke off."""

from collections.abc import Iterator, Sequence

import numpy as np

from vlm_rewards.pipelines.label.reading import Ended, Group, frame_groups
from vlm_rewards.schemas.episodes import Episode, Frame
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError
from vlm_rewards.schemas.manifests import Failure


def episode(episode_id: str, frames: Sequence[Frame]) -> Episode:
    return Episode(episode_id=episode_id, images={"front": frames}, actions=np.zeros(len(frames) - 1, np.int64))


def pictures(count: int, num_bytes: int = 10) -> list[Frame]:
    return [bytes([index % 256]) * num_bytes for index in range(count)]


def test_every_frame_is_in_one_group_at_its_place() -> None:
    for count in (2, 63, 64, 65, 128, 200):
        frames = pictures(count)
        *groups, end = frame_groups([episode("a", frames)], "front")
        assert end == Ended("a", None)
        found: list[Frame] = []
        for group in groups:
            assert isinstance(group, Group)
            assert (group.episode_id, group.start) == ("a", len(found))
            assert 0 < len(group.frames) <= 64
            found += group.frames
        assert found == frames
        assert len(groups) == -(-count // 64)


def test_a_group_holds_about_a_megabyte_at_most() -> None:
    groups = list(frame_groups([episode("a", pictures(5, 600_000))], "front"))
    assert [(group.start, len(group.frames)) for group in groups if isinstance(group, Group)] == [
        (0, 2),
        (2, 2),
        (4, 1),
    ]
    arrays: list[Frame] = [np.full((600, 1000, 3), index, np.uint8) for index in range(3)]  # 1.8 MB each
    groups = list(frame_groups([episode("a", arrays)], "front"))
    assert [len(group.frames) for group in groups if isinstance(group, Group)] == [1, 1, 1]


def test_an_episode_that_breaks_off_ends_with_its_reason_and_the_next_one_is_read() -> None:
    failure = Failure(scope="episode", shard="s", episode_id="a", reason="invalid episode", detail="cut short")

    class Broken(Sequence[Frame]):
        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: object) -> Frame:  # type: ignore[override]
            raise NotImplementedError

        def __iter__(self) -> Iterator[Frame]:
            yield from pictures(70)
            raise BrokenEpisodeError(failure)

    shard = Failure(scope="shard", shard="t", reason="unreadable", detail="d")
    found = list(frame_groups([episode("a", Broken()), shard, episode("b", pictures(2))], "front"))
    assert [type(item).__name__ for item in found] == ["Group", "Ended", "Failure", "Group", "Ended"]
    assert isinstance(found[0], Group)
    assert len(found[0].frames) == 64  # the six after it are of no use, as those before are not
    assert found[1] == Ended("a", failure)
    assert found[2] == shard
    assert found[4] == Ended("b", None)
