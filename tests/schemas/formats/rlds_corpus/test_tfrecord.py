import io

import pytest
from rlds_files import framed

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.rlds_corpus import tfrecord
from vlm_rewards.schemas.formats.rlds_corpus.tfrecord import (
    BrokenFileError,
    BrokenRecordError,
    masked_crc,
    open_record,
    walk_records,
)


def read(path):
    folder = Folder(str(path.parent))
    with path.open("rb") as file:
        for record in walk_records(file):
            data, start = open_record(folder, path.name, file, record)
            data.seek(start)
            yield data.read(record.num_bytes)


def test_a_checksum_is_masked_as_tensorflow_masks_it():
    # CRC-32C of b"123456789" is 0xe3069283, by the standard; (c >> 15 | c << 17) + 0xa282ead8 by hand.
    assert masked_crc(0xE3069283) == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32
    assert framed(b"123456789")[-4:] == masked_crc(0xE3069283).to_bytes(4, "little")


@pytest.mark.parametrize("buffered", [2**25, 3])
def test_records_are_what_was_written_in_memory_or_from_the_file(tmp_path, monkeypatch, buffered):
    monkeypatch.setattr(tfrecord, "_BUFFERED_BYTES", buffered)
    monkeypatch.setattr(tfrecord, "_PIECE_BYTES", 4)
    records = [b"", b"a", b"abcdefghij" * 3]
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(framed(record) for record in records))
    assert list(read(path)) == records


def test_a_large_record_can_be_read_after_the_file_was_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "_BUFFERED_BYTES", 0)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(framed(b"first") + framed(b"second"))
    with path.open("rb") as file:
        records = list(walk_records(file))
        data, start = open_record(Folder(str(tmp_path)), "a.tfrecord", file, records[1])
    data.seek(start)
    assert data.read(6) == b"second"


def test_a_wrong_checksum_names_record_and_offset(tmp_path):
    data = bytearray(framed(b"first") + framed(b"second"))
    data[len(framed(b"first")) + 12] ^= 1
    path = tmp_path / "a.tfrecord"
    path.write_bytes(bytes(data))
    found = read(path)
    assert next(found) == b"first"
    with pytest.raises(
        BrokenRecordError, match=r"of record 1 at byte 21 is wrong: stored [0-9a-f]{8}, computed [0-9a-f]{8}"
    ):
        next(found)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (slice(0, 25), "ends within record 1 at byte 21, after 25 bytes"),
        (slice(0, 40), "ends within record 1 at byte 21, which has 6 bytes, after 40 bytes"),
    ],
)
def test_a_cut_file_says_where(cut, message):
    records = walk_records(io.BytesIO((framed(b"first") + framed(b"second"))[cut]))
    assert next(records).number == 0
    with pytest.raises(BrokenFileError, match=message):
        next(records)


def test_a_wrong_length_ends_the_walk():
    data = bytearray(framed(b"first") + framed(b"second"))
    data[21] ^= 1
    records = walk_records(io.BytesIO(bytes(data)))
    next(records)
    with pytest.raises(BrokenFileError, match="has a wrong checksum for the length of record 1 at byte 21"):
        next(records)
