"""One contender of `bench.py` in a process of its own: what a user could run to label frames, and the encoder's limit.

python benchmarks/bench_contenders.py NAME SPEC.json

The last line it prints is `BENCH {"frames": ..., "ready": ..., "ready_cpu": ..., "done": ...}`: when its first frames reached the
model (seconds since 1970, and processor seconds of the process so far), and when the last ones were written. Each imports what it
needs, and nothing else.
"""

import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Spec = dict[str, Any]
BATCH = 32


class Clock:
    """Marks when the first frames reach the model, and says when the time for this contender is over.

    The mark is a file, since Beam pickles what it runs, and copies of this object with it.

    Args:
        seconds: Time from the first frames on.
        path: File of the mark; it must not exist.
    """

    def __init__(self, seconds: float, path: Path) -> None:
        self._seconds = seconds
        self._path = path

    def mark(self) -> None:
        """Notes the first frames; later calls do nothing."""
        if not self._path.exists():
            own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
            used = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
            self._path.write_text(json.dumps({"ready": time.time(), "ready_cpu": used}))

    def marks(self) -> dict[str, float]:
        """When the first frames reached the model, and the processor seconds until then; empty before."""
        found: dict[str, float] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return found

    def is_over(self) -> bool:
        """Whether the contender has had its time, counted from its first frames."""
        return time.time() - self.marks().get("ready", time.time()) > self._seconds


def limit(spec: Spec, clock: Clock, engine: str, precision: str) -> int:
    """The encoder alone, on pixels of its own size that are in memory, called from as many threads as `label` has."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from vlm_rewards.labelers.encoders.encoder import DEFAULT_BATCH_SIZE
    from vlm_rewards.labelers.encoders.known import load_encoder

    encoder = load_encoder(
        spec["model"],
        precision=precision,
        batch_size=DEFAULT_BATCH_SIZE,
        device="cpu",
        engine=engine,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (DEFAULT_BATCH_SIZE, *encoder.image_size, 3), np.uint8)
    encoder.embed_images(pixels)  # what is made at the first call counts as start
    threads = len(os.sched_getaffinity(0))
    share = -(-spec["frames"] // threads)

    def embed(_thread: int) -> int:
        frames = 0
        while frames < share and not clock.is_over():
            encoder.embed_images(pixels)
            frames += len(pixels)
        return frames

    clock.mark()
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(embed, range(threads)))


def label(spec: Spec, clock: Clock, *options: str) -> int:
    """The command, from shards to parts."""
    from vlm_rewards.cli import main
    from vlm_rewards.pipelines.label.lanes import Lanes

    embed = Lanes.embed

    def first_frames(self: Lanes, pixels: Any) -> Any:
        clock.mark()
        return embed(self, pixels)

    Lanes.embed = first_frames  # type: ignore[method-assign]
    output = Path(spec["work"]) / f"labels-{time.time_ns()}"
    words = ["label", "--input", spec["corpus"], "--goals", spec["goals"], "--model", spec["model"]]
    status = main([*words, "--threshold", "0.5", "--output", str(output), *options])
    assert status == 0, status
    return int(json.loads((output / "manifest.json").read_text())["rows"])


def pictures(spec: Spec) -> Iterator[Any]:
    """The corpus's frames in order, as a user reads them: pictures of Parquet by Pillow, videos by PyAV."""
    import io

    from PIL import Image

    if spec["is_video"]:
        import av

        for path in sorted(Path(spec["corpus"]).glob("*.mp4")):
            with av.open(str(path)) as container:
                for frame in container.decode(video=0):
                    yield frame.to_image()
        return
    import pyarrow.parquet as pq

    for path in sorted(Path(spec["corpus"]).glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=4, columns=["observation.images.view"]):
            for image in batch.column(0).to_pylist():
                yield Image.open(io.BytesIO(image["bytes"])).convert("RGB")


def loop(spec: Spec, clock: Clock, precision: str) -> int:
    """A DataLoader whose workers decode and preprocess, the model, a softmax over all goals, and a Parquet file at the end."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoModel, AutoProcessor

    processor = AutoProcessor.from_pretrained(spec["model_folder"])

    class Frames(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[torch.Tensor]:
            info = torch.utils.data.get_worker_info()
            first, step = (0, 1) if info is None else (info.id, info.num_workers)
            for picture in itertools.islice(pictures(spec), first, None, step):
                yield processor(images=picture, return_tensors="pt")["pixel_values"][0]

    model = AutoModel.from_pretrained(spec["model_folder"]).eval()
    texts = embed_texts(model, processor, goal_texts(spec))
    if precision == "bfloat16":
        model = model.to(torch.bfloat16)
    loader = torch.utils.data.DataLoader(Frames(), batch_size=BATCH, num_workers=len(os.sched_getaffinity(0)))
    scores = []
    with torch.inference_mode():
        for batch in loader:
            clock.mark()
            vectors = model.get_image_features(batch.to(model.dtype)).pooler_output.float()
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
            scores.append((model.logit_scale.float().exp() * vectors @ texts.T).softmax(-1))
            if clock.is_over():
                break
    rows = torch.cat(scores)
    table = pa.table({"scores": pa.FixedSizeListArray.from_arrays(pa.array(rows.flatten().numpy()), rows.shape[1])})
    pq.write_table(table, Path(spec["work"]) / f"loop-{time.time_ns()}.parquet")
    return len(rows)


def pipeline(spec: Spec, clock: Clock) -> int:
    """transformers' pipeline, which embeds the texts of all goals again for every picture."""
    import torch
    import transformers

    torch.set_grad_enabled(False)
    classify = transformers.pipeline("zero-shot-image-classification", model=spec["model_folder"], dtype="auto")
    texts, frames = goal_texts(spec), 0
    for picture in pictures(spec):
        clock.mark()
        classify(picture, candidate_labels=texts, hypothesis_template="{}")
        frames += 1
        if clock.is_over():
            break
    return frames


def run_inference(spec: Spec, clock: Clock) -> int:
    """Beam's RunInference with its own handler of PyTorch; it gives vectors, and no scores."""
    import apache_beam as beam
    import torch
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.ml.inference.pytorch_inference import PytorchModelHandlerTensor
    from transformers import AutoModel, AutoProcessor

    processor = AutoProcessor.from_pretrained(spec["model_folder"])
    state = Path(spec["work"]) / "state.pt"
    torch.save(
        {f"clip.{name}": value for name, value in AutoModel.from_pretrained(spec["model_folder"]).state_dict().items()},
        state,
    )
    handler = PytorchModelHandlerTensor(
        state_dict_path=str(state),
        model_class=ImageTower,
        model_params={"folder": spec["model_folder"]},
        min_batch_size=BATCH,
        max_batch_size=BATCH,
    )
    counted = Path(spec["work"]) / "counted"
    counted.write_text("")

    def count(results: Iterable[Any]) -> None:
        with counted.open("a") as file:
            file.write("x" * sum(1 for _ in results))

    def prepare(number: int) -> Iterator[torch.Tensor]:
        for picture in itertools.islice(pictures(spec), number, None, SLICES):
            if not clock.is_over():
                clock.mark()
                yield processor(images=picture, return_tensors="pt")["pixel_values"][0]

    options = beam.options.pipeline_options.PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])
    with beam.Pipeline(options=options) as graph:
        _ = (
            graph
            | beam.Create(range(SLICES))
            | beam.FlatMap(prepare)
            | RunInference(handler)
            | beam.Map(lambda result: count([result]))
        )
    return counted.stat().st_size


SLICES = 4


def ImageTower(folder: str) -> Any:  # noqa: N802 - the handler wants a class, or what is called like one
    """The model as a module from pixels to vectors."""
    import torch
    from transformers import AutoModel

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = AutoModel.from_pretrained(folder)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.clip.get_image_features(pixels).pooler_output

    return Tower()


def goal_texts(spec: Spec) -> list[str]:
    """Texts of the goals."""
    return [json.loads(line)["text"] for line in Path(spec["goals"]).read_text().splitlines()]


def embed_texts(model: Any, processor: Any, texts: list[str]) -> Any:
    """`[G, D]` float32 vectors of unit length of the texts."""
    import torch

    vectors = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            tokens = processor(text=texts[start : start + BATCH], return_tensors="pt", padding=True, truncation=True)
            vectors.append(model.get_text_features(**tokens).pooler_output)
    return torch.nn.functional.normalize(torch.cat(vectors).float(), dim=-1)


LOWER = ("--precision", "bfloat16")
CONTENDERS: dict[str, Callable[[Spec, Clock], int]] = {
    "limit torch float32": lambda spec, clock: limit(spec, clock, "torch", "float32"),
    "limit openvino float32": lambda spec, clock: limit(spec, clock, "openvino", "float32"),
    "limit openvino bfloat16": lambda spec, clock: limit(spec, clock, "openvino", "bfloat16"),
    "label": label,
    "label openvino": lambda spec, clock: label(spec, clock, "--engine", "openvino"),
    "label bfloat16": lambda spec, clock: label(spec, clock, *LOWER),
    "label openvino bfloat16": lambda spec, clock: label(spec, clock, *LOWER, "--engine", "openvino"),
    "label auto bfloat16": lambda spec, clock: label(spec, clock, *LOWER, "--engine", "auto"),
    "DataLoader float32": lambda spec, clock: loop(spec, clock, "float32"),
    "DataLoader bfloat16": lambda spec, clock: loop(spec, clock, "bfloat16"),
    "transformers pipeline": pipeline,
    "Beam RunInference": run_inference,
}
"""By name, what is measured."""


def main() -> None:
    """Runs one contender."""
    spec = json.loads(Path(sys.argv[2]).read_text())
    clock = Clock(spec["seconds"], Path(spec["work"]) / f"clock-{time.time_ns()}.json")
    frames = CONTENDERS[sys.argv[1]](spec, clock)
    found = {"frames": frames, **clock.marks(), "done": time.time()}
    print("BENCH " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
