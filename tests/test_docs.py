"""The documentation: every block runs, every link leads somewhere, and the site builds without a warning."""

import fcntl
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pytest
import yaml
from doc_pages import DOCS, PAGES, PUBLIC_MODEL, ROOT, RUN, SHOWN, blocks, links, page_before, run_blocks
from tiny_models import save_tiny_clip
from warm_process import WarmProcess, warm_process

RUNNING = [page for page in PAGES if any(block.language in RUN for block in blocks(page))]


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all test processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "pages"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def process() -> Iterator[WarmProcess]:
    with warm_process(ROOT) as process:
        yield process


def _finished(page: Path, shared: Path, process: WarmProcess) -> Path:
    """The folder in which the page's blocks have run: once for all test processes, from the page that it continues from."""
    folder = shared / page.stem
    before = page_before(page)
    start = None if before is None else _finished(before, shared, process)
    with (shared / f"{page.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir() if start is None else shutil.copytree(start, unfinished)
            run_blocks(page, unfinished, _model(shared), process)
            unfinished.rename(folder)
    return folder


def _model(shared: Path) -> Path:
    with (shared / "model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "tiny-clip"
        return folder if folder.exists() else save_tiny_clip(folder, image_size=32)


@pytest.mark.parametrize("page", RUNNING, ids=_name)
def test_blocks_run_in_order(page: Path, shared: Path, process: WarmProcess) -> None:
    assert _finished(page, shared, process).is_dir()


def test_the_public_model_is_in_an_example() -> None:
    assert f"MODEL={PUBLIC_MODEL} " in (DOCS / "labelling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_is_run_or_marked_as_only_shown(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= {*RUN, *SHOWN}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_drawn_pictures_fit_a_page(page: Path) -> None:
    for block in blocks(page):
        assert block.language != "text" or max(map(len, block.text.splitlines())) <= 96, block.text


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files(page: Path) -> None:
    for target in links(page):
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") and parts.path:
            assert (page.parent / parts.path).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_named_files_and_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(
        r"`((?:labelers|pipelines|schemas|offline_rl|benchmarks|tests|docs|examples)/[\w./-]+)`", text
    ):
        assert (ROOT / name).exists(), name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--builder",
        "html",
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        DOCS,
        folder,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in DOCS.glob("*.md")}
    tags = r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"(?:https?:)?//"
    styles = r"url\([\"']?(?:https?:)?//|@import"
    loaded = re.compile(f"{tags}|{styles}")
    for page in [*pages, *site.rglob("*.css")]:
        assert not loaded.search(page.read_text(encoding="utf-8")), page


def test_the_command_reference_holds_every_option(site: Path) -> None:
    from vlm_rewards.cli import build_parser

    page = (site / "commands.html").read_text(encoding="utf-8")
    commands = build_parser()._subparsers._group_actions[0].choices
    assert len(commands) >= 11
    for name, parser in commands.items():
        for action in parser._actions:
            for option in action.option_strings:
                if option not in ("-h", "--help"):
                    assert f'id="cmdoption-vlm-rewards-{name}-{option.lstrip("-")}"' in page, (name, option)


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_text_of_the_parser_is_shown_as_it_stands() -> None:
    assert _reference().escape("a {goal} in 1/(episodes)^X of [F, G], `x` * <b>") == (
        r"a \{goal\} in 1/(episodes)^X of \[F, G\], \`x\` \* \<b\>"
    )


def test_every_extra_is_in_the_table() -> None:
    table = (DOCS / "first-run.md").read_text(encoding="utf-8").split("| extra | adds |")[1].split("\n\n")[0]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(extras)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert citation["version"] == version
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == [{"name": "vlm-rewards developers"}]
    [paper] = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2312.09187"


def test_a_docstring_becomes_fields() -> None:
    text = inspect.cleandoc(
        """Adds two numbers.

            1   2   3

        Args:
            left: The first, > 0.
            right: The second,
                and no other.

        Returns:
            Their sum,
            exact.

        Raises:
            ValueError: One is negative.

        Source: arithmetic.
        """
    )
    assert list(_reference().docstring_lines(text)) == [
        *("Adds two numbers.", "", "    1   2   3", ""),
        *("", r":param left: The first, \> 0.", ":param right: The second,", "    and no other."),
        *("", ":returns: Their sum, exact."),
        *("", ":raises ValueError: One is negative."),
        *("", "Source: arithmetic."),
    ]


def test_pages_without_their_marker_are_refused() -> None:
    complete = _reference().complete
    assert complete("concepts", "text") == "text"
    with pytest.raises(ValueError, match="needs the marker <!-- commands --> once, got 0"):
        complete("commands", "text")
    with pytest.raises(ValueError, match="every public name once, got a difference in Corpus, Episode, Goal"):
        complete("api", "text")
    with pytest.raises(TypeError, match="must be a class or a function, got dict"):
        list(_reference()._object_lines("NAME", {}))
