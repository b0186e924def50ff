"""Frames that are known, on their way or new."""

import numpy as np

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache, FrameLookup, frame_digest


def test_the_cache_forgets_the_frame_unused_longest() -> None:
    cache = EmbeddingCache(2, max_bytes=2 * (4 * 2 + 200))  # room for two
    for name in (b"a", b"b"):
        cache.put(name, np.full(2, name[0], np.float32))
    assert cache.get(b"a") is not None  # used, so "b" goes first
    cache.put(b"c", np.zeros(2, np.float32))
    assert [cache.get(name) is None for name in (b"a", b"b", b"c")] == [False, True, False]
    assert len(cache) == 2
    cache.clear()
    assert cache.get(b"a") is None


def test_frames_are_told_apart_by_all_their_bytes() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    other = pixels.copy()
    other[1, 2, 2] = 1
    assert frame_digest(pixels) != frame_digest(pixels.reshape(3, 2, 3))
    assert frame_digest(pixels) == frame_digest(np.asfortranarray(pixels))
    assert frame_digest(pixels) != frame_digest(other)


def test_a_frame_is_new_once_and_then_on_its_way_or_cached() -> None:
    cache = EmbeddingCache(2)
    lookup = FrameLookup(cache)
    slot, is_new = lookup.find(b"a")
    assert is_new
    assert lookup.find(b"a") == (slot, False)  # on its way: one slot for both
    lookup.fill([slot], np.array([[1, 2]], np.float32))
    found, is_new = lookup.find(b"a")
    assert not is_new
    assert found.embedding is not None
    assert found.embedding.tolist() == [1, 2]
    assert FrameLookup(cache).find(b"a")[1] is False  # the cache is shared
    assert FrameLookup(None).find(b"a")[1] is True


def test_what_is_forgotten_is_new_again_unless_the_cache_has_it() -> None:
    lookup = FrameLookup(None)
    first, _ = lookup.find(b"a")
    lookup.find(b"b")
    lookup.forget_all_but([first])
    assert lookup.find(b"a") == (first, False)
    assert lookup.find(b"b")[1] is True
