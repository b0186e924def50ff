"""Every refusal of readers, checkpoints and outputs ends with one remedy, and it belongs to the cause."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PLACES = (
    "schemas",
    "labelers/encoders/checkpoints",
    "pipelines/engine/outputs.py",
    "pipelines/label/planning.py",
    "pipelines/label/units.py",
)

VERBS = re.compile(
    "(add|allow|calibrate|change|check|choose|convert|copy|correct|download|embed|encode|export|fill|fix|free|give|install"
    "|label|leave|load|mark|move|name|number|pack|put|quote|read|record|relabel|remove"
    "|rename|restore|run|save|say|scale|sort|split|store|take"
    "|turn|uninstall|merge|unpack|use|wait|when|with|write)",
    re.IGNORECASE,
)
"""What a remedy begins with."""

WITHOUT_REMEDY = (
    r"the first (being|unreadable)|which is not \(\{why\}\)|in \{folder\} \(\{failure\}\)",  # wrap a refusal, which has one
    r"a tar file must hold a readable episode",
    r"^must (have|be) ",  # `_refuse` of an episode adds it
    r"features must say what the corpus holds, got .* \(\{error\}\)$",  # added below it
    r"^a (corpus must hold its files|shard must be whole), got \{told\}$",  # `_pointer` adds it
    r": \{error\}$|^nothing of it is read: |^\{error\}; it promises",  # wrap one, too
    r"puts tokens before every text$|newer than the installed peft|in one of them alone",  # filled into one, see `apply_adapter`
    r"^dtype \{dtype\} is not|are not the \{list\(shape\)\}|^it has no group 'data'",  # likewise
    r"; (0|1) (switches|is) ",  # say what the value would be
    r"(\{remedy\}|\{_REMEDY\}|\{advice\}|\{_RENDER\}|\{_other_container\(folder\)\})",  # given by the caller
    r"\{self\._elsewhere\(\)\}|\{_remedy\(indices\)\}",  # given by these
)
"""Messages whose remedy stands elsewhere."""

CAUSES = (
    # what is wrong ──► what helps ── what does not
    (r"must be whole[,:]|must be a whole HDF5", r"(copy|download) it again", r"sort|rename|convert"),
    (r"must decode in full", r"take it from a copy|leave it out", r"sort|rename"),
    (r"side by side in its tar", r"tar --sort=name", r"copy|rename|remove"),
    (r"side by side, got|in the order of frame_index", r"sort the rows by episode_id and frame_index", r"copy|rename"),
    (r"must occur once", r"rename|remove", r"copy|record"),
    (r"must be UTF-8", r"save (it|the file) as UTF-8", r"copy|sort"),
    (r"every frame must have the bytes of a picture", r"embed the pictures", r"sort|copy"),
)


INNER = {
    "ArrowInvalid": "a Parquet file must be whole, got one that ...",
    "AssertionError": "a fault of ours",
    "BrokenFileError": "a TFRecord file must be whole, got one that ...",
    "BrokenRecordError": "... Copy the file again",
    "BrokenTarError": "a tar must be whole, got one that ...",
    "IndexError": "a page must begin with its header: got other bytes",
    "ReadError": "a tar must be whole, got one that ...",
}
"""Errors whose text is filled into a message that has the remedy, by their name."""


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module that say what was got, or are raised or told otherwise, with what is filled in as {...}."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    told = {id(part) for node in ast.walk(tree) for part in _told(node)}
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        text = _text(node)
        if text is None or "\n" in text:  # docstrings have lines
            continue
        if re.search(r"[,:] got ", text) or (id(node) in told and len(re.sub(r"\{[^{}]*\}", "", text).split()) > 3):
            yield node.lineno, text  # type: ignore[attr-defined]


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore[attr-defined]
            for part in node.values
        )
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _told(node: ast.AST) -> list[ast.expr]:
    """Returns what a statement or a call says to people, where that is a text as it stands."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return node.exc.args[-1:] if _name(node.exc)[0].isupper() and _name(node.exc) not in INNER else []
    if isinstance(node, ast.Call) and _name(node).endswith("Error") and _name(node) not in INNER:
        return node.args[-1:]  # before it stands a category
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("detail", "problem"):
        return [node.value]
    return [node.value] if isinstance(node, ast.keyword) and node.arg == "detail" else []


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def remedies(text: str) -> list[str]:
    """The clauses of a message that say what to do."""
    clauses = re.split(r"(?:[;:] |[.)] )(?=[A-Za-z])", re.sub(r"\{[^{}]*\}", "{}", text))
    return [clause for clause in clauses[1:] if VERBS.fullmatch(clause.split()[0].strip(","))]


def faults(path: Path) -> list[str]:
    """What is wrong with the remedies of a module's messages."""
    found = []
    for line, text in messages(path):
        where = f"{path.name}:{line}: {text}"
        said = remedies(text)
        is_exempt = any(re.search(pattern, text) for pattern in WITHOUT_REMEDY)
        if len(said) != 1 and not (is_exempt and not said):
            found.append(f"{len(said)} remedies in {where}")
        if re.search(r"record (it|the episode) again|re-record|\bmend\b", text, re.IGNORECASE):
            found.append(f"a remedy that throws data away, or says nothing: {where}")
        for cause, helps, does_not in CAUSES:
            if re.search(cause, text) and said:
                if not re.search(helps, said[-1], re.IGNORECASE):
                    found.append(f"the remedy must be {helps!r} in {where}")
                if re.search(does_not, said[-1], re.IGNORECASE):
                    found.append(f"the remedy belongs to another cause in {where}")
    return found


def modules() -> list[str]:
    """The modules that refuse what people give."""
    paths = [
        path for place in PLACES for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    ]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


@pytest.mark.parametrize("module", modules())
def test_every_message_ends_with_one_remedy_of_its_cause(module: str) -> None:
    assert faults(ROOT / module) == []


def test_messages_are_found() -> None:
    assert sum(1 for module in modules() for _ in messages(ROOT / module)) > 200


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a file must be whole, got {x}", "0 remedies"),
        ("a file must be whole, got {x}. Copy it again from its source; remove it", "2 remedies"),
        ("a file must be whole, got {x}. Sort it", "the remedy must be '(copy"),
        ("a picture must decode in full, got {x}. Take it from a copy and sort it", "belongs to another cause"),
        ("a file must be good, got {x}. Record it again", "throws data away"),
        ("there is no video {x} in it", "0 remedies"),
        ("it ends within record {x}: {y}, after 5 bytes", "0 remedies"),
    ],
)
def test_a_wrong_remedy_is_found(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "a.py").write_text(f'x = 1\nraise ValueError(f"{text}")\n')
    assert any(fault in found for found in faults(tmp_path / "a.py")), faults(tmp_path / "a.py")
    (tmp_path / "a.py").write_text(f'detail = f"{text}"\nFailure(reason="broken file", detail=detail)\n')
    assert any(fault in found for found in faults(tmp_path / "a.py")), faults(tmp_path / "a.py")


def test_the_category_of_a_failure_and_texts_that_are_filled_in_need_no_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        'raise InvalidEpisodeError("rows that are not in order", f"{x} is not. Sort the rows")\n'
        'raise BrokenTarError(f"breaks at byte {x} of it")\n'
    )
    assert faults(tmp_path / "a.py") == []
