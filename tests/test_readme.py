"""The README is short, and names what there is. Its blocks and links are tested with those of the other pages, in test_docs."""

import re
import shlex

from doc_pages import ROOT, blocks

from vlm_rewards.command_line.parser import parse

README = ROOT / "README.md"


def test_it_is_read_in_minutes() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130


def test_its_two_commands_are_make_targets() -> None:
    shown, _ = [block.text for block in blocks(README) if block.language == "sh"]
    targets = re.findall(r"^make (\w+)", shown, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_its_commands_for_own_recordings_can_be_typed() -> None:
    """They name a model of the hub and a data set that is not here, so that they are parsed and not run."""
    _, shown = [block.text for block in blocks(README) if block.language == "sh"]
    for line in shown.splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "vlm-rewards"
        assert parse(words).command == words[0]


def test_the_plan_of_the_house_is_the_tree() -> None:
    [plan] = [block.text for block in blocks(README) if block.language == "text"]
    named = re.findall(r"^(\w+)/", plan, re.MULTILINE)
    assert all((ROOT / name).is_dir() for name in named)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(named)


def test_every_page_of_the_documentation_is_in_reach() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README.read_text(encoding="utf-8")))
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    listed = {
        f"{name}.md" for block in re.findall(r"```\{toctree\}(.*?)```", index, re.DOTALL) for name in block.split()
    }
    assert pages <= listed
    assert pages - linked == {"changelog.md"}
