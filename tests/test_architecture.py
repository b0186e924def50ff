"""The rules of the house: which way imports point, which library is used where, how large files and folders are."""

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from setuptools import find_packages

from vlm_rewards.labelers.domains.domain import DOMAINS

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schemas", "labelers", "pipelines", "offline_rl")

MAY_IMPORT = {
    "schemas": {"schemas"},
    "labelers": {"schemas", "labelers"},
    "pipelines": {"schemas", "labelers", "pipelines"},
    "offline_rl": {"schemas", "labelers", "offline_rl"},
    "vlm_rewards": {"schemas", "labelers", "pipelines", "offline_rl", "vlm_rewards"},
}
"""Rooms that a room may import from; "vlm_rewards" stands for the commands and the API."""

ONLY_IN = {
    "apache_beam": ("pipelines/",),
    "torch": ("labelers/", "pipelines/", "offline_rl/"),
    "transformers": ("labelers/",),
    "minigrid": ("labelers/domains/babyai/",),
    "panda3d": ("labelers/domains/playroom/",),
    "argparse": ("vlm_rewards/",),
    "fcntl": (
        "schemas/folders.py",
        "pipelines/engine/outputs.py",
        "offline_rl/runs/folders.py",
        "offline_rl/replay/builder.py",
    ),
}
"""Libraries that only the named folders and files may import."""

MAY_RENAME = (
    "schemas/folders.py",
    "pipelines/engine/outputs.py",
    "offline_rl/runs/folders.py",
    "offline_rl/runs/saved_agents.py",
    "offline_rl/replay/builder.py",
    "offline_rl/replay/replay.py",
    "offline_rl/online/buffer.py",
)
"""Files that may give a file its final name."""

LISTS_OF_WORLDS = ("labelers/domains/domain.py", "vlm_rewards/environments.py")
"""Files that list the domains and the environments of the package."""

MAX_LINES = 450
MAX_MODULES = 14
LONGER_FILES: dict[str, str] = {}
"""Files over MAX_LINES, each with the sentence why."""


def sources() -> dict[str, Path]:
    """All modules of the package by their paths below the root; the links in vlm_rewards/ are not followed."""
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    own = ROOT / "vlm_rewards"
    found += [
        *own.glob("*.py"),
        *(path for room in ("commands", "command_line") for path in (own / room).rglob("*.py")),
    ]
    return {path.relative_to(ROOT).as_posix(): path for path in sorted(found)}


def module_name(path: str) -> str:
    """The name under which a file is imported: "vlm_rewards.labelers.labeler" for "labelers/labeler.py"."""
    dotted = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return dotted if dotted.split(".")[0] == "vlm_rewards" else f"vlm_rewards.{dotted}"


def room_of(module: str) -> str:
    """The room of a module, by its name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "vlm_rewards"


@functools.cache
def imports_of(path: Path) -> tuple[tuple[str, int], ...]:
    """Every name that a file imports, wherever in it, with the line: "a.b" of `import a.b`, "a.b.c" of `from a.b import c`."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports name the whole module"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return tuple(found)


def imported_modules(files: Mapping[str, Path]) -> dict[str, dict[str, int]]:
    """Which modules of the package each module imports, and in which line."""
    modules = {module_name(path) for path in files}
    graph: dict[str, dict[str, int]] = {}
    for path, file in files.items():
        edges = graph.setdefault(module_name(path), {})
        for name, line in imports_of(file):
            if name.split(".")[0] != "vlm_rewards":
                continue
            target = name if name in modules else name.rpartition(".")[0]
            assert target in modules, f"{path}:{line}: imports {name}, which is no module of the package"
            edges.setdefault(target, line)
    return graph


def wrong_directions(files: Mapping[str, Path]) -> list[str]:
    """Imports that point the wrong way, and imports of the old top-level names."""
    wrong = []
    for module, edges in imported_modules(files).items():
        allowed = MAY_IMPORT[room_of(module)]
        wrong += [f"{module}:{line} imports {name}" for name, line in edges.items() if room_of(name) not in allowed]
    for path, file in files.items():
        wrong += [f"{path}:{line} imports {name}" for name, line in imports_of(file) if name.split(".")[0] in ROOMS]
    return wrong


def circles(files: Mapping[str, Path]) -> list[str]:
    """Modules that import each other, in a circle of any length; imports inside functions count too."""
    graph = {module: set(edges) - {module} for module, edges in imported_modules(files).items()}
    while True:
        leaves = {module for module, edges in graph.items() if not edges & graph.keys()}
        if not leaves:
            return sorted(graph)
        graph = {module: edges for module, edges in graph.items() if module not in leaves}


def misplaced_libraries(files: Mapping[str, Path]) -> list[str]:
    """Imports of a library outside the places that may use it."""
    return [
        f"{path}:{line} imports {name}"
        for path, file in files.items()
        for name, line in imports_of(file)
        for places in [ONLY_IN.get(name.split(".")[0])]
        if places is not None and not path.startswith(places)
    ]


def misplaced_renames(files: Mapping[str, Path]) -> list[str]:
    """Calls that rename a file outside `schemas/folders.py`, where what makes them atomic stands once."""
    calls = re.compile(r"\bos\.(replace|rename|link)\(|\bshutil\.move\(")
    return [
        f"{path}:{number}"
        for path, file in files.items()
        if path not in MAY_RENAME
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if calls.search(line)
    ]


def too_long(files: Mapping[str, Path]) -> list[str]:
    """Files over MAX_LINES without a sentence why, and sentences about files that are not."""
    lengths = {path: len(file.read_text(encoding="utf-8").splitlines()) for path, file in files.items()}
    long = {path for path, length in lengths.items() if length > MAX_LINES}
    return sorted(long ^ LONGER_FILES.keys())


def too_full(files: Mapping[str, Path]) -> list[str]:
    """Folders of more than MAX_MODULES modules, `__init__.py` apart."""
    folders: dict[str, int] = {}
    for path in files:
        folder, _, name = path.rpartition("/")
        folders[folder] = folders.get(folder, 0) + (name != "__init__.py")
    return [f"{folder}: {count}" for folder, count in folders.items() if count > MAX_MODULES]


def named_worlds(files: Mapping[str, Path]) -> list[str]:
    """Imports and texts, docstrings apart, that name a domain outside its own folder: what is to work in every world may not ask
    for its name."""
    found = []
    for path, file in files.items():
        if path in LISTS_OF_WORLDS:
            continue
        others = [name for name in DOMAINS if not path.startswith(f"labelers/domains/{name}/")]
        tree = ast.parse(file.read_text(encoding="utf-8"))
        words = [*imports_of(file), *_texts(tree)]
        found += [
            f"{path}:{line} names {name}"
            for text, line in words
            for name in others
            if name in text.lower().replace("-", "")
        ]
    return found


def _texts(tree: ast.Module) -> list[tuple[str, int]]:
    alone = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # docstrings
    return [
        (node.value, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in alone
    ]


def test_only_its_own_folder_knows_a_world_by_name() -> None:
    assert named_worlds(sources()) == []


def test_imports_point_one_way() -> None:
    assert wrong_directions(sources()) == []


def test_no_module_is_in_a_circle_of_imports() -> None:
    assert circles(sources()) == []


def test_libraries_are_used_where_they_belong() -> None:
    assert misplaced_libraries(sources()) == []


def test_files_are_renamed_in_one_place() -> None:
    assert misplaced_renames(sources()) == []


def test_files_and_folders_are_of_a_readable_size() -> None:
    assert too_long(sources()) == []
    assert too_full(sources()) == []


def test_every_folder_is_a_package_that_the_wheel_holds() -> None:
    folders = {path.rpartition("/")[0] for path in sources()}
    expected = {module_name(f"{folder}/__init__.py") for folder in folders}
    assert set(find_packages(str(ROOT), include=["vlm_rewards*"])) == expected
    for room in ROOMS:
        link = ROOT / "vlm_rewards" / room
        assert link.is_symlink()
        assert link.readlink() == Path("..") / room


def planted(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        yield path, file


@pytest.mark.parametrize(
    ("check", "files", "found"),
    [
        (
            wrong_directions,
            {"schemas/a.py": "from vlm_rewards.labelers import b\n", "labelers/b.py": ""},
            ["vlm_rewards.schemas.a:1 imports vlm_rewards.labelers.b"],
        ),
        (
            wrong_directions,
            {"pipelines/a.py": "def f():\n    import vlm_rewards.offline_rl.b\n", "offline_rl/b.py": ""},
            ["vlm_rewards.pipelines.a:2 imports vlm_rewards.offline_rl.b"],
        ),
        (wrong_directions, {"pipelines/a.py": "from schemas import b\n"}, ["pipelines/a.py:1 imports schemas.b"]),
        (
            circles,
            {
                "schemas/a.py": "from vlm_rewards.schemas.b import x\n",
                "schemas/b.py": "def f():\n    from vlm_rewards.schemas.a import y\n",
                "schemas/c.py": "",
            },
            ["vlm_rewards.schemas.a", "vlm_rewards.schemas.b"],
        ),
        (
            misplaced_libraries,
            {"offline_rl/a.py": "import apache_beam as beam\n"},
            ["offline_rl/a.py:1 imports apache_beam"],
        ),
        (misplaced_libraries, {"schemas/a.py": "from torch import nn\n"}, ["schemas/a.py:1 imports torch.nn"]),
        (misplaced_libraries, {"pipelines/a.py": "import argparse\n"}, ["pipelines/a.py:1 imports argparse"]),
        (
            misplaced_libraries,
            {"labelers/domains/kitchen/a.py": "import minigrid\n"},
            ["labelers/domains/kitchen/a.py:1 imports minigrid"],
        ),
        (
            named_worlds,
            {
                "offline_rl/a.py": '"""As in BabyAI."""\nif env.startswith("BabyAI-"):\n    pass\n',
                "labelers/domains/openapp/a.py": 'x = "openapp"\n',
                "pipelines/b.py": "from vlm_rewards.labelers.domains.openapp.apps import APPS\n",
            },
            ["offline_rl/a.py:2 names babyai", "pipelines/b.py:1 names openapp"],
        ),
        (misplaced_renames, {"offline_rl/a.py": "\nos.replace(a, b)\n"}, ["offline_rl/a.py:2"]),
        (too_long, {"schemas/a.py": "x = 1\n" * 451, "schemas/b.py": "x = 1\n" * 450}, ["schemas/a.py"]),
        (too_full, {f"schemas/{name}.py": "" for name in [*"abcdefghijklmno", "__init__"]}, ["schemas: 15"]),
    ],
)
def test_a_broken_rule_is_found(check, files, found, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "LONGER_FILES", {})
    assert check(dict(planted(tmp_path, files))) == found
