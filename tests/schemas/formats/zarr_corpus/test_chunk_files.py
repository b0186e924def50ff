import numcodecs
import numpy as np
import pytest
import zarr

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.zarr_corpus.chunk_files import chunk_reader
from vlm_rewards.schemas.formats.zarr_corpus.stores import Store

ROWS = np.random.default_rng(0).integers(0, 256, (10, 5, 4, 3), dtype=np.uint8)
RANGES = ((0, 10), (0, 1), (3, 9), (4, 8), (7, 10), (9, 10), (5, 6))


def written(path, *, zarr_format=2, chunks=(4, 5, 4, 3), values=ROWS, **settings):
    """An array that zarr wrote, and its store."""
    array = zarr.open_group(path / "a.zarr", mode="w", zarr_format=zarr_format).create_array(
        "data/img", shape=values.shape, chunks=chunks, dtype=values.dtype, **settings
    )
    array[:] = values
    return Store(Folder(str(path)), "a.zarr/"), array


CODECS = {
    2: ("auto", None, numcodecs.Zstd(), numcodecs.GZip(), numcodecs.LZ4(), numcodecs.Blosc("zstd", shuffle=2)),
    3: (
        "auto",
        None,
        zarr.codecs.BloscCodec(cname="lz4"),
        zarr.codecs.GzipCodec(),
        [zarr.codecs.BloscCodec(), zarr.codecs.ZstdCodec(checksum=True)],
    ),
}


@pytest.mark.parametrize(
    ("zarr_format", "compressors"),
    [
        pytest.param(number, codec, id=f"{number}-{place}")
        for number, codecs in CODECS.items()
        for place, codec in enumerate(codecs)
    ],
)
def test_rows_are_those_that_zarr_reads(tmp_path, zarr_format, compressors):
    read = chunk_reader(*written(tmp_path, zarr_format=zarr_format, compressors=compressors))
    for start, stop in RANGES:
        np.testing.assert_array_equal(read(start, stop), ROWS[start:stop])
        assert read(start, stop).flags.writeable


@pytest.mark.parametrize("chunks", [(1, 5, 4, 3), (4, 2, 3, 3), (3, 5, 4, 1), (100, 2, 4, 3)])
def test_chunks_that_cut_frames_are_put_together(tmp_path, chunks):
    read = chunk_reader(*written(tmp_path, chunks=chunks))
    for start, stop in RANGES:
        np.testing.assert_array_equal(read(start, stop), ROWS[start:stop])


@pytest.mark.parametrize(
    ("zarr_format", "settings"),
    [
        (2, {"order": "F"}),
        (2, {"filters": [numcodecs.Delta("u1")]}),
        (2, {"values": ROWS.astype(np.float32)}),
        (3, {"shards": (8, 5, 4, 3)}),
        (3, {"filters": [zarr.codecs.TransposeCodec(order=(3, 2, 1, 0))]}),
        (3, {"compressors": zarr.codecs.Crc32cCodec()}),
    ],
)
def test_what_only_zarr_can_read_is_left_to_it(tmp_path, zarr_format, settings):
    assert chunk_reader(*written(tmp_path, zarr_format=zarr_format, **settings)) is None


def test_a_file_that_is_not_there_is_no_black_frame(tmp_path):
    store, array = written(tmp_path)
    (tmp_path / "a.zarr" / "data" / "img" / "1.0.0.0").unlink()
    read = chunk_reader(store, array)
    np.testing.assert_array_equal(read(0, 4), ROWS[:4])
    with pytest.raises(FileNotFoundError, match=r"1\.0\.0\.0"):
        read(0, 5)


def test_a_chunk_of_another_size_is_refused(tmp_path):
    store, array = written(tmp_path)
    (tmp_path / "a.zarr" / "data" / "img" / "1.0.0.0").write_bytes(numcodecs.Blosc().encode(bytes(60)))
    with pytest.raises(ValueError, match="cannot reshape array of size 60"):
        chunk_reader(store, array)(4, 6)
