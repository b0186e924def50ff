import io

import numpy as np
import pytest
from rlds_files import Example, serialized

from vlm_rewards.schemas.formats.rlds_corpus.examples import BrokenMessageError, decode_varints, parse_example


def parsed(data):
    return parse_example(io.BytesIO(b"before" + data + b"after"), 6, len(data))


def test_values_are_those_that_protobuf_wrote():
    integers = [0, 1, 127, 128, 255, 300, 2**31, 2**62, -1, -(2**63), 2**63 - 1]
    floats = [0.0, -1.5, 3.25, float("inf")]
    example = parsed(serialized({"a/b": [b"", b"\xff\xd8x" * 70], "ints": integers, "é": np.array(floats, np.float32)}))
    assert set(example.features) == {"a/b", "ints", "é"}
    assert example.byte_strings("a/b") == [b"", b"\xff\xd8x" * 70]
    assert example.numbers("ints").tolist() == integers
    assert example.numbers("é").tolist() == floats
    assert example.numbers("é").dtype == np.float32
    assert example.byte_strings("none") == []
    assert example.numbers("none").tolist() == []


def test_any_example_is_read_as_protobuf_reads_it():
    rng = np.random.default_rng(0)
    for _ in range(200):
        kinds = [
            lambda: [rng.bytes(int(rng.integers(300))) for _ in range(int(rng.integers(5)))] or [b"x"],
            lambda: rng.standard_normal(int(rng.integers(1, 60))).astype(np.float32),
            lambda: rng.integers(-(2**63), 2**63 - 1, int(rng.integers(1, 60))) >> int(rng.integers(63)),
        ]
        data = serialized({f"key/{i}": kinds[int(rng.integers(3))]() for i in range(int(rng.integers(6)))})
        reference = Example.FromString(data)
        example = parsed(data)
        assert set(example.features) == set(reference.features.feature)
        for key, feature in reference.features.feature.items():
            kind = feature.WhichOneof("kind")
            found = example.byte_strings(key) if kind == "bytes_list" else example.numbers(key).tolist()
            assert found == list(getattr(feature, kind).value)


def test_numbers_that_are_not_packed_are_read():
    # Feature { float_list { 1.0 2.0 } } and Feature { int64_list { 3 300 } }, each value with a tag of its own.
    floats = b"\x12\x0a" + b"\x0d\x00\x00\x80\x3f" + b"\x0d\x00\x00\x00\x40"
    integers = b"\x1a\x05" + b"\x08\x03" + b"\x08\xac\x02"
    entries = [b"\x0a\x01" + name + b"\x12" + bytes([len(f)]) + f for name, f in ((b"f", floats), (b"i", integers))]
    inner = b"".join(b"\x0a" + bytes([len(entry)]) + entry for entry in entries)
    data = b"\x0a" + bytes([len(inner)]) + inner
    assert list(Example.FromString(data).features.feature["i"].int64_list.value) == [3, 300]
    example = parsed(data)
    assert example.numbers("f").tolist() == [1.0, 2.0]
    assert example.numbers("i").tolist() == [3, 300]
    assert [block.tolist() for block in example.integer_blocks("i", 1)] == [[3], [300]]


def test_of_a_key_that_occurs_twice_the_last_counts():
    data = serialized({"a": [b"x"]}) + serialized({"a": [1, 2], "b": [3]})
    reference = Example.FromString(data)
    assert list(reference.features.feature["a"].int64_list.value) == [1, 2]
    assert parsed(data).numbers("a").tolist() == [1, 2]


def test_fields_that_nobody_knows_are_skipped():
    # Fields 15 of the wire types 0, 1, 2 and 5 before the features.
    unknown = b"\x78\x96\x01" + b"\x79" + b"\0" * 8 + b"\x7a\x02hi" + b"\x7d" + b"\0" * 4
    assert parsed(unknown + serialized({"a": [7]})).numbers("a").tolist() == [7]


def test_integers_stream_in_blocks(monkeypatch):
    monkeypatch.setattr("vlm_rewards.schemas.formats.rlds_corpus.examples._PIECE_BYTES", 7)  # cuts within numbers
    values = np.arange(0, 3000, 7)
    example = parsed(serialized({"a": values}))
    assert example.num_integers("a") == len(values)
    blocks = list(example.integer_blocks("a", 40))
    assert np.array_equal(np.concatenate(blocks), values[: len(values) // 40 * 40])
    assert {len(block) for block in blocks} == {40}
    assert list(example.integer_blocks("none", 4)) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0a\x05ab", "a field at byte 8 must have its 5 bytes, got 2. Leave the episode out"),
        (b"\x0b", "a field at byte 6 must have a known wire type, got 3. Leave the episode out"),
        (b"\xff" * 12, "a number after byte 6 must end within 10 bytes, got one that does not. Leave the episode out"),
        (
            b"\x0a\x05\x0a\x03\x0a\x01\xff",
            "a key at byte 12 must be a text, got .*invalid start byte. Leave the episode out",
        ),
    ],
)
def test_bytes_that_are_no_example_are_refused(data, message):
    with pytest.raises(BrokenMessageError, match=message):
        parsed(data)


def test_a_key_of_megabytes_is_refused():
    with pytest.raises(BrokenMessageError, match="must have at most 65536 bytes, got 70000"):
        parsed(serialized({"k" * 70000: [1]}))


def test_values_of_another_kind_are_refused():
    example = parsed(serialized({"text": [b"x"], "ints": [1], "floats": [0.5]}))
    with pytest.raises(BrokenMessageError, match="feature 'text' must hold numbers, got byte strings"):
        example.numbers("text")
    with pytest.raises(BrokenMessageError, match="feature 'ints' must hold byte strings, got integers"):
        example.byte_strings("ints")
    with pytest.raises(BrokenMessageError, match="feature 'floats' must hold integers, got floats"):
        example.num_integers("floats")


def test_floats_that_are_cut_are_refused():
    data = serialized({"a": np.array([1.0], np.float32)})
    cut = data.replace(b"\x12\x06\x0a\x04", b"\x12\x05\x0a\x03", 1)[:-1]
    cut = bytes([data[0], data[1] - 1, data[2], data[3] - 1]) + cut[4:]
    cut = cut[:8] + bytes([cut[8] - 1]) + cut[9:]  # the length of the feature
    with pytest.raises(BrokenMessageError, match="feature 'a' must hold floats of 4 bytes each, got 3 bytes"):
        parsed(cut).numbers("a")


def test_varints():
    assert decode_varints(b"").tolist() == []
    assert decode_varints(b"\x01\x00\x7f").tolist() == [1, 0, 127]
    assert decode_varints(b"\x80\x01\x05").tolist() == [128, 5]
    assert decode_varints(b"\xff" * 9 + b"\x01").tolist() == [-1]
    with pytest.raises(
        BrokenMessageError, match="a list of integers must hold whole numbers, got one that is cut. Leave"
    ):
        decode_varints(b"\x01\x80")
    with pytest.raises(BrokenMessageError, match="at most 10 bytes, got 11"):
        decode_varints(b"\x80" * 10 + b"\x01")


def test_a_list_that_ends_within_a_number_is_refused():
    data = bytearray(serialized({"a": [1, 300]}))
    data[-1] |= 0x80
    with pytest.raises(
        BrokenMessageError, match="feature 'a' must hold whole numbers, got one that is cut. Leave the episode"
    ):
        list(parsed(bytes(data)).integer_blocks("a", 2))
