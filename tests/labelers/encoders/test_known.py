import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import toy_encoder
from PIL import Image

from vlm_rewards.labelers.encoders import known
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder
from vlm_rewards.labelers.encoders.encoder import EncoderKind
from vlm_rewards.labelers.encoders.known import find_encoder_kind, load_encoder

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def write_corpus(path: Path) -> None:
    """One episode whose frames are red, green, blue, red."""
    rows = []
    for index, colour in enumerate(("red", "green", "blue", "red")):
        file = io.BytesIO()
        Image.new("RGB", (16, 12), COLOURS[colour]).save(file, "PNG")
        rows.append({"episode_id": "e", "frame_index": index, "observation.images.cam": {"bytes": file.getvalue()}})
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = [("episode_id", pa.string()), ("frame_index", pa.int32()), ("observation.images.cam", image)]
    path.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(schema)), path / "a.parquet")


def test_another_packages_encoder_labels_a_corpus_by_one_registered_line(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    goals = [{"id": colour, "text": f"{colour} {colour}"} for colour in COLOURS]
    (tmp_path / "goals.jsonl").write_text("".join(json.dumps(goal) + "\n" for goal in goals))
    registered = tmp_path / "site" / "toy_encoder-1.0.dist-info"
    registered.mkdir(parents=True)
    (registered / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-encoder\nVersion: 1.0\n")
    (registered / "entry_points.txt").write_text("[vlm_rewards.encoders]\ncolours = toy_encoder:COLOURS\n")
    paths = [tmp_path / "site", Path(toy_encoder.__file__).parent, os.environ.get("PYTHONPATH", "")]
    words = ["label", "--model", "colours:rgb", "--input", "corpus", "--goals", "goals.jsonl", "--output", "labels"]
    done = subprocess.run(
        [sys.executable, "-m", "vlm_rewards", *words, "--workers", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    scores = np.array(ds.dataset(tmp_path / "labels" / "parts").to_table()["scores"].to_pylist())
    assert (scores > 0.5).tolist() == [[i == j for j in range(3)] for i in (0, 1, 2, 0)]
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    assert (manifest["fingerprint"]["engine"], manifest["fingerprint"]["weights"]) == ("colours", "colours-1")


def test_the_toy_encoder_is_short_and_needs_numpy_alone() -> None:
    lines = Path(toy_encoder.__file__).read_text().splitlines()
    code = lines[lines.index("import dataclasses") :]
    assert len([line for line in code if line.strip()]) < 50
    assert [line for line in code if line.startswith(("import", "from"))] == [
        "import dataclasses",
        "import numpy as np",
        "from vlm_rewards.labelers.encoders.encoder import EncoderKind, TextReading",
    ]
    imported = "import sys, toy_encoder, vlm_rewards.labelers.labeler; print('torch' in sys.modules)"
    paths = os.pathsep.join([str(Path(toy_encoder.__file__).parent), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-c", imported], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert found.stdout == "False\n", found.stderr


def register(monkeypatch: pytest.MonkeyPatch, **kinds: object) -> None:
    monkeypatch.setattr(known, "load_extensions", lambda group: kinds if group == "vlm_rewards.encoders" else {})


def test_a_name_is_loaded_by_the_kind_that_recognizes_it(monkeypatch: pytest.MonkeyPatch, tiny_clip: Path) -> None:
    register(monkeypatch, colours=toy_encoder.COLOURS)
    options = {"precision": "float32", "batch_size": 8, "device": "cpu"}
    assert isinstance(load_encoder("colours:rgb", **options), toy_encoder.ColourEncoder)
    assert isinstance(load_encoder(str(tiny_clip), **options), DualEncoder)


def test_a_name_that_two_packages_recognize_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = EncoderKind("others", lambda name: True, toy_encoder.load)
    register(monkeypatch, colours=toy_encoder.COLOURS, others=other)
    with pytest.raises(ValueError, match="several encoders recognize the model 'colours:rgb': got colours, others."):
        find_encoder_kind("colours:rgb")


def test_what_is_no_encoder_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, strange=toy_encoder.load)
    with pytest.raises(
        ValueError, match="entry point 'strange' of vlm_rewards.encoders is no EncoderKind: got function. Fix"
    ):
        find_encoder_kind("reference-s")


def test_an_engine_is_refused_of_an_encoder_with_a_library_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, colours=toy_encoder.COLOURS)
    with pytest.raises(
        ValueError, match="colours:rgb is computed by its encoder's own library .colours.: got the engine 'op"
    ):
        load_encoder("colours:rgb", precision="float32", batch_size=8, device="cpu", engine="openvino")
