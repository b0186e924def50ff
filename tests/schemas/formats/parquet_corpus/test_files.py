import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_corpora import opened, plain_episode, whole_file

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.parquet_corpus import files
from vlm_rewards.schemas.formats.parquet_corpus.files import open_file
from vlm_rewards.schemas.formats.parquet_corpus.pages import dictionary_bytes, pages
from vlm_rewards.schemas.formats.parquet_corpus.pictures import OpenFiles
from vlm_rewards.schemas.formats.parquet_corpus.writer import write_parquet
from vlm_rewards.schemas.manifests import Failure

CAMERA = "observation.images.front"


def _named(pictures, times):
    """A column's rows as a dictionary, each picture so many times."""
    indices = pa.array(np.repeat(np.arange(len(pictures)), times), pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(pictures, pa.binary()))


def _write(path, pictures, **options):
    num_rows = len(pictures)
    keys = {"episode_id": pa.array(["a"] * num_rows), "frame_index": pa.array(range(num_rows), pa.int32())}
    pq.write_table(pa.table({**keys, CAMERA: pictures}), path, store_schema=False, **options)
    return path


def _footers_numbers(path, num_bytes):
    """Makes a footer say that `num_bytes` are 1; in as many bytes, which is allowed, so that nothing else moves."""
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    number, rest = [], 2 * num_bytes
    while rest >= 128:
        number.append(rest & 127 | 128)
        rest >>= 7
    number.append(rest)
    small = [130, *[128] * (len(number) - 2), 0]
    assert bytes(number) in data[start:]
    path.write_bytes(data[:start] + data[start:].replace(bytes(number), bytes(small)))


def test_a_compressed_dictionary_before_plain_pages_is_as_large_as_its_own_header_says(tmp_path):
    big, num_big = bytes(50_000), 30_000  # once in the file, and 1.5 GB spelled out
    small = [
        index.to_bytes(4, "little") for index in range(8000)
    ]  # in pages of two rows, larger than before by compression
    column = pa.chunked_array([_named([big], num_big), _named(small, 1)])
    options = {"compression": "gzip", "write_batch_size": 2, "data_page_size": 1}
    path = _write(tmp_path / "a.parquet", column, use_dictionary=[CAMERA, "episode_id"], **options)
    chunk = pq.read_metadata(path).row_group(0).column(2)
    assert set(chunk.encodings) == {"PLAIN", "RLE", "RLE_DICTIONARY"}
    of_pages = chunk.total_compressed_size - (chunk.data_page_offset - chunk.dictionary_page_offset)
    assert chunk.total_uncompressed_size < of_pages  # the footer's sums leave nothing for the dictionary
    assert dictionary_bytes(pa.OSFile(str(path)), chunk) == 4 + len(big)  # its length, and the picture
    file = OpenFiles(Folder(str(tmp_path)), None).open(path.name)
    assert 1 <= file.batch_rows <= 2**25 // len(big)
    before = pa.total_allocated_bytes()
    batch = next(file.file.iter_batches(file.batch_rows, columns=[CAMERA], use_threads=False))
    assert batch.num_rows == file.batch_rows
    assert pa.total_allocated_bytes() - before < 2**26


@pytest.mark.parametrize("codec", ["gzip", "zstd", "snappy", "none"])
def test_the_pages_of_a_small_file_are_as_its_writer_made_them(tmp_path, codec):
    rng = np.random.default_rng(0)
    pictures = pa.array([rng.bytes(100) for _ in range(100)])
    path = _write(
        tmp_path / "a.parquet",
        pictures,
        compression=codec,
        use_dictionary=False,
        write_batch_size=10,
        data_page_size=1,
        data_page_version="2.0",
        write_page_checksum=True,
    )
    chunk = pq.read_metadata(path).row_group(0).column(2)
    found = list(pages(path.read_bytes(), chunk))
    assert [page.is_dictionary for page in found] == [False] * 10
    assert sum(page.stop for page in found) == chunk.total_compressed_size
    assert all(
        1040 <= page.num_bytes <= 1060 for page in found
    )  # 4 bytes of length before each of ten pictures, and levels


def test_a_small_file_is_read_in_one_go_by_what_its_pages_say_and_not_by_its_footer(tmp_path):
    path = _write(tmp_path / "a.parquet", pa.array([bytes(2_000_000)] * 3), compression="gzip", use_dictionary=False)
    metadata = pq.read_metadata(path)
    group = metadata.row_group(0)
    _footers_numbers(path, group.total_byte_size)
    _footers_numbers(path, group.column(2).total_uncompressed_size)
    metadata = pq.read_metadata(path)
    assert (metadata.row_group(0).total_byte_size, metadata.row_group(0).column(2).total_uncompressed_size) == (1, 1)
    assert path.stat().st_size < 20_000
    sizes = open_file(Folder(str(tmp_path)), path.name).sizes
    assert 6_000_000 < sizes.of_chunk(0, 2) < 6_000_100
    assert not sizes.is_small
    plain = _write(tmp_path / "b.parquet", pa.array([b"a picture"] * 3))
    assert open_file(Folder(str(tmp_path)), plain.name).sizes.is_small


@pytest.mark.parametrize("limit", [2_000_000, 7_000_000])
def test_a_page_that_is_too_large_to_be_decompressed_is_refused(tmp_path, monkeypatch, limit):
    path = _write(tmp_path / "a.parquet", pa.array([bytes(2_000_000)] * 3), compression="gzip", use_dictionary=False)
    monkeypatch.setattr(files, "MAX_PAGE_BYTES", limit)
    (item,) = opened(path).episodes(whole_file(path))
    if limit > 6_000_100:
        assert item.num_frames == 3
        return
    assert isinstance(item, Failure)
    assert (item.scope, item.reason) == ("shard", "unknown layout")
    assert "a page must have at most 2,000,000 bytes when it is decompressed, got 6,000,0" in item.detail
    assert "in column 'observation.images.front'. Write the file anew with smaller pages" in item.detail


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x00",  # ends at once
        b"\x15\x04\x15\x08",  # is cut off
        b"\x15\x04\x15\x08\x15" + b"\xff" * 100,  # a number without an end
        b"\x15\x04\x15\x07\x15\x02\x00",  # a negative size
        b"\x15\x04\x15\x08\x15\x08\x19\x00\x00",  # a list, of which there is none
    ],
)
def test_bytes_that_are_no_header_of_a_page_are_refused(tmp_path, header):
    path = _write(tmp_path / "a.parquet", pa.array([b"a picture"] * 3), compression="gzip")
    chunk = pq.read_metadata(path).row_group(0).column(2)
    start = chunk.dictionary_page_offset
    with pytest.raises(
        pa.ArrowInvalid, match="a page must begin with its header: got other bytes. Copy the file again"
    ):
        list(pages(path.read_bytes()[:start] + header, chunk) if header else pages(b"\x15" * (start + 1), chunk))


def test_a_file_whose_headers_are_broken_is_no_small_one(tmp_path):
    path = tmp_path / "a.parquet"
    episode = plain_episode()
    write_parquet(path, CorpusFeatures.of(episode), [episode])
    data = bytearray(path.read_bytes())
    data[pq.read_metadata(path).row_group(0).column(0).dictionary_page_offset] = 0
    path.write_bytes(data)
    assert not open_file(Folder(str(tmp_path)), path.name).sizes.is_small
    assert OpenFiles(Folder(str(tmp_path)), ()).open(path.name).batch_rows == 1
    (failure,) = opened(path).episodes(whole_file(path))
    assert failure.reason == "unreadable shard"
