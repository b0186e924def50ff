import numpy as np
import pytest
import zarr

from vlm_rewards.schemas.formats.zarr_corpus import rows as rows_module
from vlm_rewards.schemas.formats.zarr_corpus.rows import ArrayRows


@pytest.fixture
def array(tmp_path):
    """Rows 0 to 9 in chunks of 4."""
    made = zarr.open_group(tmp_path / "a", mode="w", zarr_format=2).create_array(
        "x", shape=(10, 2), chunks=(4, 2), dtype="i4"
    )
    made[:] = np.arange(10)[:, None]
    return made


def values(rows, start, stop):
    return np.concatenate([part[:, 0] for part in rows.slices(start, stop)]).tolist()


def test_rows_are_those_that_were_asked_for_in_any_order(array):
    rows = ArrayRows(array)
    for start, stop in ((0, 3), (3, 5), (5, 6), (6, 10), (2, 9), (2, 9), (9, 10), (0, 10), (1, 2), (3, 4)):
        assert values(rows, start, stop) == list(range(start, stop))


def test_a_chunk_is_read_once_for_the_episodes_in_it(array, tmp_path):
    rows = ArrayRows(array)
    assert values(rows, 0, 5) == [0, 1, 2, 3, 4]
    (tmp_path / "a" / "x" / "1.0").unlink()  # rows 4 to 7: those that wait are still there
    assert values(rows, 5, 7) == [5, 6]
    assert values(rows, 7, 9) == [7, 8]
    assert values(ArrayRows(array), 5, 7) == [0, 0]


def test_rows_of_huge_chunks_do_not_wait(array, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_MAX_WAITING_BYTES", 20)
    rows = ArrayRows(array)
    assert values(rows, 0, 5) == [0, 1, 2, 3, 4]  # 3 rows of 8 bytes would wait
    (tmp_path / "a" / "x" / "1.0").unlink()
    assert values(rows, 5, 7) == [0, 0]
