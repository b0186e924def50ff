"""tf.train.Example messages: where the values of each feature lie, and the values themselves.

    Example { 1: Features { 1: entry { 1: key "steps/reward", 2: Feature { 1: bytes | 2: floats | 3: integers } } ... } }

Only the places of values are kept while a message is walked: numbers are read where they lie when they are needed, and each
picture when its turn comes. Repeated numbers may be packed or not; of a key that occurs twice the last counts, as in protobuf.

Source: the wire format of protobuf, and example.proto and feature.proto of TensorFlow.
"""

import dataclasses
from array import array
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

BYTES, FLOATS, INTEGERS = 1, 2, 3
"""Kinds of features, by their field numbers."""

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_HEAD_BYTES = 20  # a tag and a length
_MAX_KEY_BYTES = 2**16
_PIECE_BYTES = 2**20


class Bytes(Protocol):
    """A file or file-like object."""

    def seek(self, offset: int, /) -> int:
        """Moves to a byte offset."""

    def read(self, size: int, /) -> bytes:
        """Returns the next bytes, at most `size`."""


class BrokenMessageError(ValueError):
    """Raised for bytes that are not a tf.train.Example."""


@dataclasses.dataclass
class Feature:
    """One feature of an example: the places of its values.

    Args:
        kind: BYTES, FLOATS or INTEGERS.
        places: Offset and size in bytes by turns: of each byte string, or of each run of packed numbers.
    """

    kind: int
    places: array

    def __len__(self) -> int:
        """Returns the number of byte strings, or of runs of numbers."""
        return len(self.places) // 2

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.places[::2], self.places[1::2], strict=True))


@dataclasses.dataclass(frozen=True)
class Example:
    """A parsed example.

    Args:
        file: The file that holds it.
        features: Features of the example by key.
    """

    file: Bytes
    features: Mapping[str, Feature]

    def of_kind(self, key: str, kind: int) -> Feature:
        """Returns a feature of a kind; one without values where the key is absent.

        Raises:
            BrokenMessageError: It has values of another kind.
        """
        feature = self.features.get(key)
        if feature is None or not len(feature):
            return Feature(kind, array("q"))
        if feature.kind != kind:
            names = {BYTES: "byte strings", FLOATS: "floats", INTEGERS: "integers"}
            raise BrokenMessageError(
                f"feature {key!r} must hold {names[kind]}, got {names[feature.kind]}. Correct features.json"
            )
        return feature

    def byte_strings(self, key: str) -> list[bytes]:
        """Returns the values of a feature of byte strings; none where the key is absent.

        Raises:
            BrokenMessageError: They are numbers.
        """
        return [self.read(offset, size) for offset, size in self.of_kind(key, BYTES)]

    def numbers(self, key: str) -> np.ndarray:
        """Returns the values of a feature of numbers, [N] float32 or int64; none where the key is absent.

        Raises:
            BrokenMessageError: They are byte strings, or cut.
        """
        feature = self.features.get(key)
        if feature is None:
            return np.zeros(0, np.float32)
        if feature.kind == BYTES:
            raise BrokenMessageError(f"feature {key!r} must hold numbers, got byte strings. Correct features.json")
        runs = [self.read(offset, size) for offset, size in feature]
        data = b"".join(runs)
        if feature.kind == INTEGERS:
            return decode_varints(data)
        if len(data) % 4:
            raise BrokenMessageError(
                f"feature {key!r} must hold floats of 4 bytes each, got {len(data)} bytes. Leave the episode out"
            )
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)

    def integer_blocks(self, key: str, size: int) -> Iterator[np.ndarray]:
        """Streams the values of a feature of integers, [size] int64 at a time; what is left at the end is left out.

        Raises:
            BrokenMessageError: They are no integers, or cut.
        """
        waiting, num_waiting, cut = [np.zeros(0, np.int64)], 0, b""
        for offset, num_bytes in self.of_kind(key, INTEGERS):
            for start in range(0, num_bytes, _PIECE_BYTES):
                data = cut + self.read(offset + start, min(_PIECE_BYTES, num_bytes - start))
                whole = len(data)
                while whole and data[whole - 1] >= 0x80:
                    whole -= 1
                cut = data[whole:]
                waiting.append(decode_varints(data[:whole]))
                num_waiting += len(waiting[-1])
                if num_waiting >= size:
                    values = np.concatenate(waiting)
                    for block in range(len(values) // size):
                        yield values[block * size : (block + 1) * size]
                    waiting = [values[len(values) // size * size :]]
                    num_waiting = len(waiting[0])
        if cut:
            raise BrokenMessageError(
                f"feature {key!r} must hold whole numbers, got one that is cut. Leave the episode out"
            )

    def num_integers(self, key: str) -> int:
        """Returns the number of values of a feature of integers, counted without keeping them; 0 where the key is absent."""
        count = 0
        for offset, num_bytes in self.of_kind(key, INTEGERS):
            for start in range(0, num_bytes, _PIECE_BYTES):
                data = self.read(offset + start, min(_PIECE_BYTES, num_bytes - start))
                count += int(np.count_nonzero(np.frombuffer(data, np.uint8) < 0x80))
        return count

    def read(self, offset: int, size: int) -> bytes:
        """Returns the bytes at a place."""
        self.file.seek(offset)
        return self.file.read(size)


def parse_example(file: Bytes, start: int, num_bytes: int) -> Example:
    """Finds the values of an example.

    Args:
        file: The file that holds it.
        start: Byte offset where the message begins.
        num_bytes: Size of the message in bytes.

    Raises:
        BrokenMessageError: Raised for bytes that are not a tf.train.Example.
    """
    features: dict[str, Feature] = {}
    for field, wire, offset, size in _fields(file, start, start + num_bytes):
        if (field, wire) == (1, _DELIMITED):
            for inner, inner_wire, entry, entry_size in _fields(file, offset, offset + size):
                if (inner, inner_wire) == (1, _DELIMITED):
                    key, feature = _entry(file, entry, entry + entry_size)
                    features[key] = feature
    return Example(file, features)


def decode_varints(data: bytes) -> np.ndarray:
    """Decodes varints, [N] int64.

    Raises:
        BrokenMessageError: The last is cut, or one is longer than 10 bytes.
    """
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if len(raw) and (not len(ends) or ends[-1] != len(raw) - 1):
        raise BrokenMessageError(
            "a list of integers must hold whole numbers, got one that is cut. Leave the episode out"
        )
    if len(ends) == len(raw):
        return raw.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > 10:
        raise BrokenMessageError(f"an integer must have at most 10 bytes, got {longest}. Leave the episode out")
    values = np.zeros(len(ends), np.uint64)
    for place in range(longest):
        longer = np.flatnonzero(lengths > place)
        values[longer] |= (raw[starts[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)


def _entry(file: Bytes, start: int, stop: int) -> tuple[str, Feature]:
    """Returns an entry of the map of features."""
    key, feature = "", Feature(BYTES, array("q"))
    for field, wire, offset, size in _fields(file, start, stop):
        if (field, wire) == (1, _DELIMITED):
            if size > _MAX_KEY_BYTES:
                raise BrokenMessageError(
                    f"a key at byte {offset} must have at most {_MAX_KEY_BYTES} bytes, got {size}. Leave the episode out"
                )
            file.seek(offset)
            try:
                key = file.read(size).decode()
            except UnicodeDecodeError as error:
                raise BrokenMessageError(
                    f"a key at byte {offset} must be a text, got {error}. Leave the episode out"
                ) from error
        elif (field, wire) == (2, _DELIMITED):
            for kind, kind_wire, values, values_size in _fields(file, offset, offset + size):
                if kind in (BYTES, FLOATS, INTEGERS) and kind_wire == _DELIMITED:
                    before = feature.places if feature.kind == kind else array("q")
                    feature = Feature(kind, before + _places(file, kind, values, values + values_size))
    return key, feature


def _places(file: Bytes, kind: int, start: int, stop: int) -> array:
    """Returns the offset and size of the values of a list, by turns."""
    places = array("q")
    alone = {FLOATS: _FIXED32, INTEGERS: _VARINT}.get(kind)
    for field, wire, offset, size in _fields(file, start, stop):
        if field == 1 and wire in (_DELIMITED, alone):
            places.extend((offset, size))
    return places


def _fields(file: Bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Walks over the fields of a message: number, wire type, and offset and size of the value."""
    offset = start
    while offset < stop:
        file.seek(offset)
        head = file.read(min(_HEAD_BYTES, stop - offset))
        tag, used = _varint(head, 0, offset)
        wire = tag & 7
        size = 0
        if wire == _DELIMITED:
            size, used = _varint(head, used, offset)
            value = offset + used
        elif wire == _VARINT:
            value, (_, used) = offset + used, _varint(head, used, offset)
            size = offset + used - value
        elif wire in (_FIXED32, _FIXED64):
            value, size = offset + used, 4 if wire == _FIXED32 else 8
        else:
            raise BrokenMessageError(
                f"a field at byte {offset} must have a known wire type, got {wire}. Leave the episode out"
            )
        offset = value + size
        if offset > stop:
            raise BrokenMessageError(
                f"a field at byte {value} must have its {size} bytes, got {stop - value}. Leave the episode out"
            )
        yield tag >> 3, wire, value, size


def _varint(data: bytes, position: int, offset: int) -> tuple[int, int]:
    """Returns a varint at a position of some bytes, and the position after it."""
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise BrokenMessageError(
        f"a number after byte {offset} must end within 10 bytes, got one that does not. Leave the episode out"
    )
