"""Speed of an image encoder of ViT-B/32's shape on a GPU, by precision and batch size.

    python benchmarks/gpu.py [--output FILE]

Needs a CUDA device; without one it refuses. Frames are counted through `Labeler.embed`, from uint8 pixels in main memory.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from corpora import save_vit_b32
from report_result import machine, parse_arguments, write_result

from labelers.encoders import DualEncoder

SECONDS = 5.0


def main() -> None:
    """Measures every combination and prints frames a second."""
    output = parse_arguments(__doc__).output
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks/gpu.py must run on a machine with a CUDA device, got none; run benchmarks/throughput.py"
        )
    results = {}
    with tempfile.TemporaryDirectory() as name:
        model = save_vit_b32(Path(name) / "vit-b32")
        for precision in ("float32", "bfloat16"):
            for batch_size in (64, 256, 1024):
                encoder = DualEncoder.load(str(model), precision=precision, batch_size=batch_size, device="cuda")
                pixels = np.random.default_rng(0).integers(0, 256, (batch_size, 224, 224, 3), np.uint8)
                encoder.embed_images(pixels)
                frames, started = 0, time.perf_counter()
                while time.perf_counter() - started < SECONDS:
                    encoder.embed_images(pixels)
                    frames += batch_size
                results[f"{precision}, batch {batch_size}"] = frames / (time.perf_counter() - started)
                print(
                    f"ViT-B/32's shape, {precision}, batch {batch_size}: {frames / SECONDS:,.0f} frames/s", flush=True
                )
    write_result(
        output, "gpu", {"machine": machine(), "device": torch.cuda.get_device_name(0), "frames_per_s": results}
    )


if __name__ == "__main__":
    main()
