"""Weighs all rows with LeRobot's RA-BC: SIDECAR NUM_ROWS CHUNK. Prints its statistics as JSON."""

import json
import sys

import lerobot_operators  # noqa: F401
import torch
from lerobot.utils.rabc import RABCWeights

sidecar, num_rows, chunk = sys.argv[1:]
weights = RABCWeights(sidecar, chunk_size=int(chunk))
_, statistics = weights.compute_batch_weights({"index": torch.arange(int(num_rows))})
print(json.dumps({name: float(value) for name, value in statistics.items()} | {"known": len(weights.progress_lookup)}))
