"""Language goals, and the files that list them: goals.jsonl, a JSON array, or CSV."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vlm_rewards.schemas.files.remote_paths import Location, RemotePath, location_of
from vlm_rewards.schemas.files.tables import read_text, table_rows
from vlm_rewards.schemas.folders import write_atomically
from vlm_rewards.schemas.options import brief_repr

GOAL_KINDS = ("original", "hindsight", "negative")
"""Why an episode is trained on under a goal: it was asked for, it was achieved, or it was not."""

DEFAULT_SHARES = (0.2, 0.5, 0.3)
"""Shares of these kinds among the goals of a relabelled episode, and in a batch."""

_SEVERAL = ("instructions", "negatives", "prompts", "images")
"""Fields that hold several texts."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclasses.dataclass(frozen=True)
class GoalImage:
    """A picture that shows a goal achieved.

    Args:
        path: Path of the file.
        sha256: SHA-256 of the file's contents in hexadecimal, so that a labeler made from it notices changes.
    """

    path: str
    sha256: str

    def read(self) -> bytes:
        """Returns the file's contents.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not the file that the goal was read with.
        """
        data = _read_image(Path(self.path))
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"a goal's picture must be the one it was read with, sha256 {self.sha256[:12]}..., got {found[:12]}... in "
                f"{self.path}; restore it, or label again with the new one"
            )
        return data


def _read_image(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"a goal's picture must exist, got {path}; fix the path in the goals file")
    return path.read_bytes()


@dataclasses.dataclass(frozen=True)
class Goal:
    """One language goal.

    Args:
        id: Key in labels and ground truth: letters, digits, "-" and "_".
        text: Text for the text encoder, inserted into the prompt templates. A description of the state in which
            the goal is achieved works better than an instruction (Baumli et al. 2023, figure 5).
        family: The kind of goal, for figures and balancing, such as "find".
        group: Goals of one group hold in the same states ("a red ball is next to a key" and the reverse), so they are
            never each other's negatives.
        instructions: Wordings by which an episode's instruction asks for this goal; hindsight relabelling finds an
            episode's original goal by them, or by `text`.
        negatives: Texts that describe states in which the goal is not achieved, such as "the agent carries nothing". They
            stand beside the goal in its softmax, whatever other negatives are chosen, and give its probability an
            absolute meaning: where no goal of a family holds, one of these does.
        prompts: Texts for the text encoder instead of the text in the run's templates; several are averaged.
        baseline: The baseline text of the goal-baseline formula, instead of the run's.
        images: Pictures in which the goal is achieved, in place of words: the model compares frames with them, averaged over
            several, and the text is only what people and agents call the goal.
        attributes: Properties of the goal by name, such as {"colour": "red", "object": "ball"}: reports tell by them whether
            a false positive showed another colour or another object.

    Raises:
        ValueError: The id is not a key, the text or family is empty, or a field is not of its kind.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.Goal("find-red-ball", "the agent faces a red ball", family="find")
        Goal(id='find-red-ball', text='the agent faces a red ball', family='find')
    """

    id: str
    text: str
    family: str = "goal"
    group: str | None = None
    instructions: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    baseline: str | None = None
    images: tuple[GoalImage, ...] = ()
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise ValueError(f"a goal's id must be letters, digits, '-' and '_', got {self.id!r}; rename it")
        for name in ("text", "family"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"{name} of goal {self.id!r} must be a text that is not empty, got {value!r}; write one"
                )
        for name in ("instructions", "negatives", "prompts"):
            texts = getattr(self, name)
            if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text.strip() for text in texts):
                raise ValueError(
                    f"{name} of goal {self.id!r} must be a list of texts that are not empty, got {texts!r}; leave it out if there "
                    f"are none"
                )
            object.__setattr__(self, name, tuple(texts))
        if self.baseline is not None and not (isinstance(self.baseline, str) and self.baseline.strip()):
            raise ValueError(
                f"baseline of goal {self.id!r} must be a text that is not empty, got {self.baseline!r}; leave it out"
            )
        if self.images and self.prompts:
            raise ValueError(
                f"goal {self.id!r} must have either images or prompts, got {len(self.images)} and {len(self.prompts)}; remove one"
            )
        object.__setattr__(self, "images", tuple(self.images))
        entries = self.attributes.items() if isinstance(self.attributes, Mapping) else [(self.attributes, None)]
        if not all(isinstance(entry, str) for pair in entries for entry in pair):
            raise ValueError(
                f"attributes of goal {self.id!r} must be texts by name, got {self.attributes!r}; leave them out if there are none"
            )
        object.__setattr__(self, "attributes", dict(self.attributes))
        if self.text in self.negatives:
            raise ValueError(f"negatives of goal {self.id!r} must not hold its own text, got {self.text!r}; remove it")

    __repr__ = brief_repr

    def to_json(self) -> dict[str, object]:
        """Returns the goal as one JSON object, without the fields that are at their default."""
        record: dict[str, object] = {"id": self.id, "text": self.text, "family": self.family}
        if self.group is not None:
            record["group"] = self.group
        for name in ("instructions", "negatives", "prompts"):
            if getattr(self, name):
                record[name] = list(getattr(self, name))
        if self.baseline is not None:
            record["baseline"] = self.baseline
        if self.images:
            record["images"] = [dataclasses.asdict(image) for image in self.images]
        if self.attributes:
            record["attributes"] = dict(self.attributes)
        return record


def normalize_instruction(text: str) -> str:
    """Returns a text in lower case, with single spaces and without a final full stop: instructions are compared so."""
    return " ".join(text.lower().split()).rstrip(".")


def as_goals(goals: Iterable[Goal | str]) -> tuple[Goal, ...]:
    """Makes goals of texts: the id of "a red ball" is "a-red-ball"; goals stay as they are.

    Raises:
        ValueError: A text has no letter or digit, or two goals have the same id or text.
    """
    return check_goals(goal if isinstance(goal, Goal) else Goal(_id_of(goal), goal) for goal in goals)


def _id_of(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def check_goals(goals: Iterable[Goal]) -> tuple[Goal, ...]:
    """Returns the goals as a tuple, after checking that there is at least one and that no id or text occurs twice.

    Raises:
        ValueError: No goal, or a duplicate id or text.
    """
    checked = tuple(goals)
    if not checked:
        raise ValueError("a list of goals must hold at least one goal, got none; add goals to it")
    for name in ("id", "text"):
        seen: dict[str, Goal] = {}
        for goal in checked:
            value = getattr(goal, name)
            if value in seen:
                raise ValueError(
                    f"every goal must have a {name} of its own, got {value!r} for goals {seen[value].id!r} and {goal.id!r}; "
                    f"remove or rename one"
                )
            seen[value] = goal
    return checked


def goals_to_json(goals: Sequence[Goal]) -> list[dict[str, object]]:
    """Returns the goals as JSON objects, in order."""
    return [goal.to_json() for goal in goals]


def goals_from_json(records: Iterable[dict]) -> tuple[Goal, ...]:
    """Reads goals from JSON objects; the inverse of `goals_to_json`.

    Raises:
        ValueError: A record is no object, lacks an id or text, has an unknown field, or occurs twice.
    """
    return check_goals(_goal_from_json(record) for record in records)


def _goal_from_json(record: object, folder: Location | None = None) -> Goal:
    if not isinstance(record, dict):
        raise ValueError(f'a goal must be a JSON object such as {{"id": ..., "text": ...}}, got {record!r}; fix it')
    missing = {"id", "text"} - record.keys()
    if missing:
        raise ValueError(f"a goal must have the fields id and text, got {record!r}; add {', '.join(sorted(missing))}")
    known = {field.name for field in dataclasses.fields(Goal)}
    unknown = record.keys() - known
    if unknown:
        raise ValueError(
            f"a goal's fields must be among {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}; remove them"
        )
    images = record.get("images", [])
    if not isinstance(images, list) or not all(map(_is_image, images)):
        raise ValueError(
            f"images of goal {record['id']!r} must be a list of paths, got {images!r}; leave it out if there are none"
        )
    return Goal(**{**record, "images": tuple(_goal_image(image, folder or Path()) for image in images)})


def _is_image(record: object) -> bool:
    if isinstance(record, dict):
        return record.keys() == {"path", "sha256"} and all(isinstance(value, str) for value in record.values())
    return isinstance(record, str)


def _goal_image(image: str | dict, folder: Location) -> GoalImage:
    if isinstance(image, dict):
        return GoalImage(**image)
    if isinstance(folder, RemotePath):
        raise ValueError(
            f"pictures of goals must be files of this machine: got {folder / image}. Copy the goals file and its pictures to a "
            "local folder"
        )
    path = (folder / image).absolute()
    return GoalImage(str(path), hashlib.sha256(_read_image(path)).hexdigest())


def read_goals(path: str | Location) -> tuple[Goal, ...]:
    """Reads a goals file: JSON with one object per line (goals.jsonl) or an array of them, or CSV from a spreadsheet.

    An object has id, text and, optionally, the other fields of `Goal`; a table has them as columns, with "|" between several
    texts of one cell and columns such as attributes.colour. Paths of images are relative to the file's folder.

    Raises:
        FileNotFoundError: There is no such file, or a picture that it names does not exist.
        ValueError: The file is a folder or not UTF-8, a line is no goal, or two goals share an id or a text; the message or the
            note names the file and, where it is one line's, the line.

    Example:
        >>> import vlm_rewards as vr
        >>> goals = vr.read_goals("corpus/goals.jsonl")
        >>> len(goals), goals[0].id
        (342, 'find-red-key')
    """
    path = location_of(path)
    if not (path.is_file() or path.is_dir()):
        raise FileNotFoundError(
            f"a goals file must exist, got {path}; write one goal a line, such as " + '{"id": ..., "text": ...}'
        )
    goals = []
    for place, record in _goal_records(path, read_text(path, "a goals file")):
        try:
            goals.append(_goal_from_json(record, path.parent))
        except (ValueError, FileNotFoundError) as error:
            error.add_note(f"in {place} of the goals file {path}")
            raise
    try:
        return check_goals(goals)
    except ValueError as error:
        error.add_note(f"in the goals file {path}")
        raise


def _goal_records(path: Location, text: str) -> Iterator[tuple[str, object]]:
    """Yields the goals of a file as they stand there, each with its place: "line 3", or "goal 3" of an array."""
    if text.lstrip()[:1] == "[":
        try:
            records = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: an array of goals must be JSON, got {error}. Correct it") from error
        yield from ((f"goal {number}", record) for number, record in enumerate(records, 1))
    elif Path(path.name).suffix.lower() in (".csv", ".tsv") or _has_columns(text):
        yield from _table_records(path, text)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(
                        f"{path}, line {number}: a line must be a JSON object, got {line[:80]!r} ({error}). Correct it"
                    ) from error


def _has_columns(text: str) -> bool:
    """Returns whether the first line names the columns of a table of goals."""
    words = {word.strip(' "\r') for word in re.split("[,;\t]", text.lstrip().partition("\n")[0])}
    return {"id", "text"} <= words or re.match(r"\s*sep=", text) is not None


def _table_records(path: Location, text: str) -> Iterator[tuple[str, object]]:
    rows = table_rows(text, str(path))
    _, columns = next(rows, (1, []))
    known = [field.name for field in dataclasses.fields(Goal) if field.name != "attributes"]
    unknown = [name for name in columns if name and name not in known and not re.match(r"attributes\.\S", name)]
    if unknown or not {"id", "text"} <= set(columns) or len(set(columns)) < len(columns):
        raise ValueError(
            f"{path}: a table of goals must have the columns id and text, and may have {', '.join(known[2:])} and attributes.NAME, "
            f"each once, got {', '.join(columns) or 'none'}. Correct its first line"
        )
    for line, values in rows:
        if any(values[len(columns) :]):
            raise ValueError(
                f"{path}, line {line}: a line must have as many values as there are columns, {len(columns)}, got {len(values)}. "
                "Put texts that hold the separator into quotes"
            )
        record: dict[str, object] = {}
        attributes: dict[str, str] = {}
        for name, value in zip(columns, values, strict=False):
            if name.startswith("attributes.") and value:
                attributes[name.removeprefix("attributes.")] = value
            elif name in _SEVERAL and value:
                record[name] = [part.strip() for part in value.split("|")]
            elif value or name in ("id", "text"):
                record[name] = value
        yield f"line {line}", {**record, "attributes": attributes}


def goals_to_lines(goals: Sequence[Goal]) -> str:
    """Returns the text of goals.jsonl, one goal per line; `read_goals` reads it."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in goals_to_json(check_goals(goals)))


def write_goals(goals: Sequence[Goal], path: str | Location) -> None:
    """Writes goals.jsonl, one goal per line."""
    write_atomically(location_of(path), goals_to_lines(goals))


def select_goals(goals: Sequence[Goal], ids: Sequence[str]) -> tuple[Goal, ...]:
    """Returns the goals with these ids, in the order of the ids.

    Raises:
        ValueError: An id is not among the goals.
    """
    by_id = {goal.id: goal for goal in goals}
    unknown = [goal_id for goal_id in ids if goal_id not in by_id]
    if unknown:
        known = ", ".join(list(by_id)[:5])
        raise ValueError(
            f"a goal must be one of the {len(by_id)} known goals ({known}, ...), got {unknown[0]!r}; check its id"
        )
    return tuple(by_id[goal_id] for goal_id in ids)


def read_goal_shares(text: str) -> tuple[float, float, float]:
    """Reads shares of the kinds of goals from a word.

    Args:
        text: Three numbers with colons between them, such as "0.2:0.5:0.3".

    Raises:
        ValueError: It is something else.
    """
    try:
        original, hindsight, negative = (float(share) for share in text.split(":"))
    except ValueError as error:
        raise ValueError(f"expected three shares: got {text!r}. Write them such as 0.2:0.5:0.3") from error
    return original, hindsight, negative
