"""Domains: worlds with ground truth for every frame. Recording, training and evaluation use worlds only through this interface.

    Domain ── make(env) ──► Level ── reset(seed), step(action) ──► Look: frames by camera, state
      │                       ├── goals(), ask(goal)    which goals this episode can be asked for
      │                       ├── facts(look)           which goals hold in a frame
      │                       └── expert()              a demonstrator, which may give up
      ├── goals(bank), kinds(goal)    language goals, and what `--hold-out` may name
      ├── seeds                       which levels are recorded, fine-tuned in, evaluated on
      └── pretraining()               how its reference models are trained

A domain is one folder below `labelers.domains` and one line in `DOMAINS`, or a package of its own that names an object in the
entry point group `vlm_rewards.domains`. `tests/labelers/domains/test_conformance.py` states what a domain must do.

Shape letters: H, W height and width of a frame in pixels.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from vlm_rewards.schemas.extensions import load_extensions
from vlm_rewards.schemas.goals import Goal

if TYPE_CHECKING:
    from vlm_rewards.labelers.domains.pretraining import Pretraining

DOMAINS = {
    "babyai": "vlm_rewards.labelers.domains.babyai.domain:BABYAI",
    "openapp": "vlm_rewards.labelers.domains.openapp.domain:OPENAPP",
    "playroom": "vlm_rewards.labelers.domains.playroom.domain:PLAYROOM",
}
"""The domains that ship with the package, by name: `module:object`, imported when it is used. The first is the default."""

EXTENSION_GROUP = "vlm_rewards.domains"
"""Entry point group in which other packages name their domains."""

FrameSize = tuple[int, int]
"""(H, W) of a frame in pixels."""


class Look(NamedTuple):
    """Frames and state at one time.

    Attributes:
        frames: [H, W, 3] uint8 RGB by camera; read-only, since levels may share them.
        state: Whatever the level needs to say which goals hold.
    """

    frames: Mapping[str, np.ndarray]
    state: Any


class ExpertGaveUpError(RuntimeError):
    """Raised by an expert that knows no next action."""


class Expert(Protocol):
    """A demonstrator of one episode of a level."""

    def act(self, taken: int | None) -> int:
        """Returns the next action towards the goal of the episode.

        Args:
            taken: The action that was really taken since the last call, which may be another than was advised; None at the start.

        Raises:
            ExpertGaveUpError: It knows no next action.
        """


class Level(Protocol):
    """An environment of a domain. Frames, goals and facts are a function of the seed and the actions alone.

    Attributes:
        num_actions: Number of discrete actions, from 0.
        mission: Instruction of the episode, in words, since the last `reset` or `ask`.
    """

    @property
    def num_actions(self) -> int: ...

    @property
    def mission(self) -> str: ...

    def reset(self, seed: int) -> Look:
        """Begins the episode of a seed, with a mission of the level's own choice."""

    def goals(self) -> tuple[str, ...]:
        """Returns the ids of the goals that this episode can be asked for, first that of the mission, if the domain has it."""

    def ask(self, goal_id: str) -> None:
        """Asks this episode for another of `goals()`, before its first step.

        Raises:
            ValueError: The episode cannot be asked for that goal.
        """

    def step(self, action: int) -> tuple[Look, float, bool, bool]:
        """Acts. A step is possible after the mission is done as well, and shows what the action does.

        Returns:
            What is seen then, the reward (above 0 where the mission is done), termination and truncation.
        """

    def facts(self, look: Look) -> frozenset[str]:
        """Returns the ids of the domain's goals, of every bank, that hold in a look and can be seen in its frames."""

    def expert(self) -> Expert | None:
        """Returns a demonstrator of this episode, from its start; None where the level has none."""

    def close(self) -> None:
        """Frees what the level holds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedRanges:
    """Seeds by use. No two uses share a level.

    Args:
        models: Levels on which reference models are trained, chosen and measured.
        recorded: Levels of recorded corpora.
        live: Levels in which agents are fine-tuned.
        held_out: Levels on which agents are evaluated.

    Raises:
        ValueError: A range is empty or has another step than 1, two share a seed, or a seed is not from 0 to 2**32 - 1.
    """

    models: range = range(2_000_000)
    recorded: range = range(2_000_000, 2**31)
    live: range = range(2**31, 3 * 2**30)
    held_out: range = range(3 * 2**30, 2**32)

    def __post_init__(self) -> None:
        ranges = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, seeds in ranges.items():
            if not (len(seeds) and seeds.step == 1 and seeds.start >= 0 and seeds.stop <= 2**32):
                raise ValueError(
                    f"the seeds {name!r} must be a range within 0 to 2**32 with step 1 and at least one seed: got {seeds}. "
                    f"Choose another range"
                )
        ordered = sorted(ranges.items(), key=lambda item: item[1].start)
        for (one, before), (other, after) in itertools.pairwise(ordered):
            if before.stop > after.start:
                raise ValueError(f"two uses share seeds: got {one} {before} and {other} {after}. Make them disjoint")

    def draw(self, use: str, key: str) -> int:
        """Returns the seed of one use that belongs to a key: a pure function, by SHA-256.

        Args:
            use: The name of a range, such as "live".
            key: Any text.
        """
        seeds: range = getattr(self, use)
        digest = hashlib.sha256(key.encode()).digest()
        return seeds[int.from_bytes(digest[:8], "big") % len(seeds)]


@runtime_checkable
class Domain(Protocol):
    """A world. Its objects can be pickled.

    Attributes:
        name: Key in the list of domains.
        cameras: Names of its cameras; the first is the default.
        frame_sizes: Sizes in which frames can be drawn; the first is the default.
        seeds: Seeds by use.
        banks: Names of its lists of goals; the first is the default.
        policies: Policies that can be recorded, of "bot" (the levels' expert), "noisy-bot" and "random".
        default_model: Shipped reference model that reads its frames, or the absolute path of another; None if there is none.
    """

    @property
    def name(self) -> str: ...

    @property
    def cameras(self) -> tuple[str, ...]: ...

    @property
    def frame_sizes(self) -> tuple[FrameSize, ...]: ...

    @property
    def seeds(self) -> SeedRanges: ...

    @property
    def banks(self) -> tuple[str, ...]: ...

    @property
    def policies(self) -> tuple[str, ...]: ...

    @property
    def default_model(self) -> str | None: ...

    def goals(self, bank: str) -> tuple[Goal, ...]:
        """Returns the goals of a bank; there may be thousands."""

    def environments(self) -> tuple[str, ...]:
        """Returns the exact names of its environments, with nothing imported for it; the first is the one named in hints."""

    def make(self, env: str, *, frame_size: FrameSize, cameras: Sequence[str]) -> Level:
        """Makes a level.

        Args:
            env: One of `environments()`.
            frame_size: One of `frame_sizes`.
            cameras: Some of `cameras`; others are not drawn.

        Raises:
            ImportError: What the domain needs is not installed.
        """

    def pretraining(self) -> "Pretraining | None":
        """Returns how its reference models are trained; None if it has none. What that needs is imported here, and not before."""

    def kinds(self, goal: Goal) -> frozenset[str]:
        """Returns what `--hold-out` may name this goal by beside its id, such as the object that it is about."""


def domains() -> dict[str, Domain]:
    """Returns all domains by name: those of `DOMAINS`, then those of other packages.

    Raises:
        ValueError: What is named is no domain, has another name than it is listed by, or shares a name with another.
    """
    return dict(_domains(tuple(DOMAINS.items()), tuple(sys.path)))


@functools.lru_cache(maxsize=1)
def _domains(listed: tuple[tuple[str, str], ...], path: tuple[str, ...]) -> dict[str, Domain]:
    """Returns the domains listed, and those installed on a path for imports: to look through it takes some 20 ms."""
    found: dict[str, Domain] = {}
    shipped = [(name, _imported(where)) for name, where in listed]
    for name, domain in [*shipped, *load_extensions(EXTENSION_GROUP).items()]:
        if not isinstance(domain, Domain):
            raise ValueError(
                f"the domain {name!r} lacks attributes of vlm_rewards.labelers.domains.domain.Domain: got {domain!r}. Add them"
            )
        if domain.name != name:
            raise ValueError(
                f"a domain must be listed by its own name: got {domain.name!r} listed as {name!r}. Rename one"
            )
        if name in found:
            raise ValueError(f"two domains have the name {name!r}. Uninstall one of the packages, or rename its domain")
        found[name] = domain
    return found


def domain_named(name: str) -> Domain:
    """Returns a domain by its name.

    Raises:
        ValueError: There is no such domain.
    """
    known = domains()
    if name not in known:
        raise ValueError(f"there is no such domain: got {name!r}. Choose one of {', '.join(known)}")
    return known[name]


def find_domain(env: str) -> Domain | None:
    """Returns the domain that has an environment of exactly this name; None where no domain has.

    Raises:
        ValueError: Two domains have it.
    """
    owners = [domain for domain in domains().values() if env in domain.environments()]
    if len(owners) > 1:
        names = ", ".join(domain.name for domain in owners)
        raise ValueError(f"the environment {env!r} is of several domains: got {names}. Uninstall one of their packages")
    return owners[0] if owners else None


def domain_of_environment(env: str) -> Domain:
    """Returns the domain that has an environment of exactly this name.

    Raises:
        ValueError: No domain has, or two have it.
    """
    domain = find_domain(env)
    if domain is None:
        counts = ", ".join(f"{len(domain.environments())} of {domain.name}" for domain in domains().values())
        raise ValueError(f"no domain has this environment: got {env!r} ({counts}). {suggest_environment(env)}")
    return domain


def domain_of_environments(envs: Iterable[str]) -> Domain:
    """Returns the one domain of some environments.

    Raises:
        ValueError: There is none, one is of no domain, or they are of several domains.
    """
    found = {env: domain_of_environment(env) for env in envs}
    names = sorted({domain.name for domain in found.values()})
    if not names:
        raise ValueError(f"no environment is named. {suggest_environment('')}")
    if len(names) > 1:
        raise ValueError(f"environments must be of one domain: got {', '.join(names)}. Use one command per domain")
    return next(iter(found.values()))


def suggest_environment(env: str, others: Iterable[str] = ()) -> str:
    """Returns a sentence that names environments for one that does not exist.

    Args:
        env: The name that was given.
        others: More names that exist.
    """
    named = {domain.name: domain.environments() for domain in domains().values()}
    known = dict.fromkeys([*itertools.chain(*named.values()), *others])
    close = difflib.get_close_matches(env, list(known), n=3, cutoff=0.4)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Name one such as {' or '.join(envs[0] for envs in named.values())}"


def parse_frame_size(text: str) -> FrameSize:
    """Reads "56" as (56, 56), and "160x96" as a height of 160 and a width of 96.

    Raises:
        ValueError: It is neither.
    """
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(
            f"a frame size must be pixels such as 56, or HEIGHTxWIDTH: got {text!r}. Write, for example, 160x96"
        )
    return int(sides[0]), int(sides[-1])


def check_frame_size(domain: Domain, frame_size: FrameSize) -> None:
    """Refuses a frame size in which a domain draws no frames.

    Raises:
        ValueError: It is not one of the domain's.
    """
    if frame_size not in domain.frame_sizes:
        sizes = ", ".join(f"{height}x{width}" for height, width in domain.frame_sizes)
        raise ValueError(
            f"{domain.name} draws no frames of this size: got {frame_size[0]}x{frame_size[1]}. Choose one of {sizes}"
        )


def check_cameras(domain: Domain, cameras: Sequence[str]) -> None:
    """Refuses cameras that a domain does not have.

    Raises:
        ValueError: There is none, one is unknown, or one is named twice.
    """
    if not cameras or len(set(cameras)) < len(cameras) or not set(cameras) <= set(domain.cameras):
        given = ", ".join(cameras) or "none"
        raise ValueError(
            f"cameras of {domain.name} must be some of its own, each once: got {given}. Choose among {', '.join(domain.cameras)}"
        )


def _imported(path: str) -> object:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
