import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_hub import SmallHub, serve

from vlm_rewards.labelers.encoders.checkpoints.hub import fetch_snapshot, parse_hub_name, snapshot_in_cache_folder
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder


def use(hub: SmallHub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))


def pickled(folder: Path) -> None:
    """Turns a checkpoint into one as OpenAI's lie on the hub: pickled weights alone."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_a_name_may_have_a_revision() -> None:
    assert parse_hub_name("openai/clip-vit-base-patch32") == ("openai/clip-vit-base-patch32", None)
    assert parse_hub_name("a/b@refs/pr/1") == ("a/b", "refs/pr/1")
    for name in ("a", "a/b/c", "./a", "a/b@", "colours:rgb"):
        assert parse_hub_name(name) is None


def test_a_model_is_loaded_at_one_commit_and_can_be_named_by_it(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    (folder / "flax_model.msgpack").write_bytes(b"large")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with serve({"some/clip": folder}) as hub:
        use(hub, monkeypatch, tmp_path / "cache")
        encoder = DualEncoder.load("some/clip", batch_size=8)
        commit = hub.commit("some/clip")
        assert (encoder.name, encoder.pinned_name) == ("some/clip", f"some/clip@{commit}")
        assert not any("flax" in request for request in hub.requests)
        # The model changes on the hub: the pinned name still stands for what was loaded, and nobody asks the hub.
        (folder / "README.md").write_text("changed")
        hub.requests.clear()
        again = DualEncoder.load(f"some/clip@{commit}", batch_size=8)
        assert hub.requests == []
        assert again.pinned_name == f"some/clip@{commit}"
        assert DualEncoder.load("some/clip").pinned_name == f"some/clip@{hub.commit('some/clip')}"
    expected = DualEncoder.load(tiny_clip, batch_size=8).embed_images(pixels)
    assert np.array_equal(again.embed_images(pixels), expected)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert np.array_equal(DualEncoder.load("some/clip", batch_size=8).embed_images(pixels), expected)


def test_a_commit_of_which_the_cache_has_a_part_is_fetched(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve({"some/clip": tiny_clip}) as hub:
        use(hub, monkeypatch, tmp_path / "cache")
        huggingface_hub.hf_hub_download("some/clip", "config.json")
        name = f"some/clip@{hub.commit('some/clip')}"
        assert DualEncoder.load(name).pinned_name == name


def test_pickled_weights_on_the_hub_are_refused_with_a_remedy_that_works(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    pickled(folder)
    with serve({"openai/some-clip": folder}) as hub:
        use(hub, monkeypatch, tmp_path / "cache")
        with pytest.raises(
            ValueError,
            match=r"weights of openai/some-clip are pickled: got pytorch_model.bin, .* Save them as safetensors",
        ) as caught:
            DualEncoder.load("openai/some-clip")
        command = shlex.split(str(caught.value).splitlines()[1])
        assert command[0] == "python"
        run = [sys.executable, *command[1:]]
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    converted, original = DualEncoder.load(tmp_path / command[-1]), DualEncoder.load(tiny_clip)
    assert np.array_equal(converted.embed_images(pixels), original.embed_images(pixels))
    assert converted.describe_texts() == original.describe_texts()


def test_a_model_that_is_not_there_or_not_shown_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status, match in (
        (404, r"the hub has no model 'nobody/nothing': got status 404. Check the path or the id."),
        (401, r"does not show the model 'nobody/nothing' to this machine: got status 401. .* 'hf auth login'"),
        (403, r"does not show the model 'nobody/nothing' to this machine: got status 403"),
        (
            503,
            r"the hub does not answer, and its cache .* got 'nobody/nothing'. .* 'hf download nobody/nothing --local-dir",
        ),
    ):
        with serve({}, status) as hub:
            use(hub, monkeypatch, tmp_path)
            with pytest.raises(ValueError, match=match):
                DualEncoder.load("nobody/nothing")
    with serve({}) as hub:
        use(hub, monkeypatch, tmp_path)
        with pytest.raises(ValueError, match="has no model 'nobody/nothing' at revision 'v2': got status 404"):
            DualEncoder.load("nobody/nothing@v2")


def test_a_download_that_breaks_is_refused(tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve({"some/clip": tiny_clip}) as hub:
        use(hub, monkeypatch, tmp_path / "file")
        (tmp_path / "file").write_text("a file where the cache should be")
        with pytest.raises(
            ValueError, match="'some/clip' could not be downloaded: got .*. Check the network and the space"
        ):
            fetch_snapshot(parse_hub_name("some/clip"))


def test_without_a_network_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match="hub does not answer, .* got 'nobody/nothing'. Check the path or the id, and the network"
    ):
        DualEncoder.load("nobody/nothing")


def test_a_hub_that_does_not_answer_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    # Nothing listens on port 9. The library's own retries would wait 1 + 2 + 4 + 8 + 8 s, with two lines of log for each.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    verbosity = huggingface_hub.logging.get_verbosity()
    start = time.monotonic()
    with pytest.raises(ValueError, match="the hub does not answer, .* got 'nobody/nothing'"):
        DualEncoder.load("nobody/nothing")
    assert time.monotonic() - start < 15
    assert "Retry" not in capfd.readouterr().err
    assert huggingface_hub.logging.get_verbosity() == verbosity


def test_a_folder_of_the_hubs_cache_stands_for_its_current_snapshot(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve({"some/clip": tiny_clip}) as hub:
        use(hub, monkeypatch, tmp_path)
        digest = DualEncoder.load("some/clip").weights_digest
        snapshot = tmp_path / "models--some--clip" / "snapshots" / hub.commit("some/clip")
    root = tmp_path / "models--some--clip"
    for folder in (root, root / "snapshots"):
        assert snapshot_in_cache_folder(folder) == snapshot
        assert DualEncoder.load(folder).weights_digest == digest
    assert snapshot_in_cache_folder(snapshot) is None
    assert DualEncoder.load(snapshot).weights_digest == digest
    (root / "snapshots" / "other").mkdir()
    (root / "refs" / "main").write_text("other")
    assert snapshot_in_cache_folder(root).name == "other"
    (root / "refs" / "main").unlink()
    with pytest.raises(ValueError, match=r"does not name one snapshot: got .*, other. Give the folder of one snapshot"):
        snapshot_in_cache_folder(root)
    shutil.rmtree(root / "snapshots")
    with pytest.raises(ValueError, match="does not name one snapshot: got none."):
        snapshot_in_cache_folder(root)
