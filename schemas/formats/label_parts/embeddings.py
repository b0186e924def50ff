"""Reads kept image embeddings back, part by part."""

from collections.abc import Iterator

import numpy as np

from vlm_rewards.schemas.files.remote_paths import Location
from vlm_rewards.schemas.formats.label_parts.writer import Rows
from vlm_rewards.schemas.formats.part_files import open_part
from vlm_rewards.schemas.labels import read_own_metadata

_BATCH_ROWS = 1024


def read_embedding_rows(path: Location) -> Iterator[Rows]:
    """Reads a part of kept embeddings in order, some rows at a time.

    Raises:
        ValueError: The part has changed since it was written, is no complete Parquet file, or does not hold embeddings.
    """
    with open_part(path, "embeddings") as file:
        read_own_metadata(file.schema_arrow, "embeddings")
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            values = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
            yield Rows(
                batch.column("episode_id").to_pylist(),
                batch.column("frame_index").to_pylist(),
                np.asarray(values, np.float32).reshape(batch.num_rows, -1),
            )
