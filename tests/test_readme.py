"""The README runs: its bash and python blocks, in order, in an empty folder; its make targets exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tiny_models import save_tiny_clip

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLIC_MODEL = "openai/clip-vit-base-patch32"  # cannot be downloaded in a test: a tiny model stands in its place


def blocks(*languages: str) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL) if kind in languages]


def test_blocks_run_in_order_in_an_empty_folder(tmp_path: Path) -> None:
    model = save_tiny_clip(tmp_path / "tiny-clip", image_size=32)
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    found = blocks("bash", "python")
    assert [kind for kind, _ in found] == ["bash", "python", "python", "bash", "python"]
    for kind, text in found:
        script = text.replace(PUBLIC_MODEL, str(model))
        command = ["bash", "-euo", "pipefail", "-c", script] if kind == "bash" else [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert PUBLIC_MODEL in README
    assert (work / "report" / "report.html").is_file()
    assert (work / "labels-mine" / "manifest.json").is_file()


def test_make_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"^make (\w+)", "".join(text for _, text in blocks("sh")), re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in [*targets, *re.findall(r"`make (\w+)`", README)]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_to_files_exist() -> None:
    for path in re.findall(r"`((?:labelers|pipelines|schemas|offline_rl|benchmarks)/[\w./]*)`", README):
        if not path.startswith("benchmarks/results"):
            assert (ROOT / path).exists(), path
