"""Small RLDS data sets as TensorFlow Datasets lays them out, written with protobuf and google-crc32c."""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FEATURES = "tensorflow_datasets.core.features"
Values = Sequence[Any] | np.ndarray


def _example_class() -> Any:
    """tf.train.Example, as example.proto and feature.proto of TensorFlow declare it."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    repeated, single = kind.LABEL_REPEATED, kind.LABEL_OPTIONAL

    def message(name: str, *fields: tuple[str, int, int, int, str]) -> Any:
        made = file.message_type.add(name=name)
        for field, number, label, type_, type_name in fields:
            made.field.add(name=field, number=number, label=label, type=type_, type_name=type_name or None)
        return made

    message("BytesList", ("value", 1, repeated, kind.TYPE_BYTES, ""))
    for name, type_ in (("FloatList", kind.TYPE_FLOAT), ("Int64List", kind.TYPE_INT64)):
        message(name, ("value", 1, repeated, type_, "")).field[0].options.packed = True
    feature = message(
        "Feature",
        ("bytes_list", 1, single, kind.TYPE_MESSAGE, ".tf.BytesList"),
        ("float_list", 2, single, kind.TYPE_MESSAGE, ".tf.FloatList"),
        ("int64_list", 3, single, kind.TYPE_MESSAGE, ".tf.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", 1, repeated, kind.TYPE_MESSAGE, ".tf.Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=single, type=kind.TYPE_STRING)
    entry.field.add(name="value", number=2, label=single, type=kind.TYPE_MESSAGE, type_name=".tf.Feature")
    message("Example", ("features", 1, single, kind.TYPE_MESSAGE, ".tf.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf.Example"))


Example = _example_class()


def serialized(features: Mapping[str, Values]) -> bytes:
    """A serialized tf.train.Example; byte strings, floats and integers are told by the values."""
    example = Example()
    for key, values in features.items():
        feature = example.features.feature[key]
        array = np.asarray(values)
        if array.dtype.kind == "f":
            feature.float_list.value.extend(array.ravel().tolist())
        elif array.dtype.kind in "iub":
            feature.int64_list.value.extend(array.ravel().astype(np.int64).tolist())
        else:
            feature.bytes_list.value.extend(v.encode() if isinstance(v, str) else bytes(v) for v in values)
    return example.SerializeToString()


def checksum(data: bytes) -> bytes:
    """The masked CRC-32C of some bytes, as TFRecord files hold it."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(data: bytes) -> bytes:
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + checksum(length) + data + checksum(data)


def tensor(dtype: str, *shape: int, encoding: str = "none") -> dict[str, Any]:
    """A Tensor in features.json; a size of -1 varies."""
    sizes = {"dimensions": [str(size) for size in shape]} if shape else {}
    content = {"shape": sizes, "dtype": dtype, "encoding": encoding}
    return {"pythonClassName": f"{_FEATURES}.tensor_feature.Tensor", "tensor": content}


def image(*shape: int, dtype: str = "uint8", encoding: str = "png") -> dict[str, Any]:
    """An Image in features.json."""
    sizes = {"dimensions": [str(size) for size in shape]}
    content = {"shape": sizes, "dtype": dtype, "encodingFormat": encoding}
    return {"pythonClassName": f"{_FEATURES}.image_feature.Image", "image": content}


def text() -> dict[str, Any]:
    """A Text in features.json."""
    return {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}}


def group(features: Mapping[str, Any]) -> dict[str, Any]:
    """A FeaturesDict in features.json."""
    return {"pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict", "featuresDict": {"features": dict(features)}}


def sequence(feature: Mapping[str, Any]) -> dict[str, Any]:
    """A Dataset in features.json."""
    return {
        "pythonClassName": f"{_FEATURES}.dataset_feature.Dataset",
        "sequence": {"feature": dict(feature), "length": "-1"},
    }


def episode_features(steps: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The features.json of episodes."""
    return group({"steps": sequence(group(steps)), "episode_metadata": group(metadata or {})})


def write_shard(path: Path, records: Sequence[bytes]) -> Path:
    """Writes a TFRecord file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(framed(record) for record in records))
    return path


def write_data_set(
    folder: Path,
    features: Mapping[str, Any],
    shards: Mapping[str, Sequence[Sequence[bytes]]],
    name: str = "toy",
    promised: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Writes a version of a data set: by split, the records of each shard."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.json").write_text(json.dumps(features))
    splits = []
    for split, files in shards.items():
        for number, records in enumerate(files):
            write_shard(folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(files):05d}", records)
        lengths = [len(records) for records in files] if promised is None else promised[split]
        num_bytes = sum(len(record) for records in files for record in records)
        counts = {"shardLengths": [str(length) for length in lengths], "numBytes": str(num_bytes)}
        splits.append({"name": split, "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", **counts})
    info = {"name": name, "version": folder.name, "fileFormat": "tfrecord", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def zipped(array: np.ndarray) -> bytes:
    """A tensor of the encoding zlib."""
    return zlib.compress(array.tobytes())
