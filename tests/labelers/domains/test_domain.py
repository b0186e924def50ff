import ast
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_rewards.labelers.domains import domain as domain_module
from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.domain import (
    DOMAINS,
    Domain,
    SeedRanges,
    check_frame_size,
    domain_named,
    domain_of_environment,
    domain_of_environments,
    domains,
    find_domain,
    parse_frame_size,
    suggest_environment,
)

GO_TO = "BabyAI-GoToLocal-v0"
OTHER = dataclasses.replace(BABYAI, name="other")


class Nothing:
    """No domain."""


NOTHING = Nothing()


@pytest.fixture
def listed(monkeypatch):
    """Lists an object of this module as a domain."""

    imported = domain_module._imported

    def add(name, object_name):
        monkeypatch.setattr(
            domain_module, "_imported", lambda path: objects[path] if path in objects else imported(path)
        )
        monkeypatch.setitem(DOMAINS, name, object_name)

    objects = {"OTHER": OTHER, "NOTHING": NOTHING}
    return add


def test_babyai_is_the_default_domain_and_is_found_by_exact_names():
    assert next(iter(DOMAINS)) == "babyai"
    assert domain_named("babyai") is domains()["babyai"] is BABYAI
    assert isinstance(BABYAI, Domain)
    assert find_domain(GO_TO) is domain_of_environment(GO_TO) is BABYAI
    for name in ("BabyAI-", "BabyAI-GoToLocal", GO_TO.lower(), "minigrid:" + GO_TO, "CartPole-v1", ""):
        assert find_domain(name) is None


def test_what_does_not_exist_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="there is no such domain: got 'mars'. Choose one of babyai"):
        domain_named("mars")
    with pytest.raises(
        ValueError,
        match=r"no domain has this environment: got 'CartPole-v1' \(96 of babyai, 2 of openapp, 6 of playroom\). Name one",
    ):
        domain_of_environment("CartPole-v1")
    with pytest.raises(ValueError, match="no environment is named. Name one such as BabyAI-GoToLocal-v0"):
        domain_of_environments(())
    assert suggest_environment("BabyAI-GoToLocl-v0").startswith(f"Did you mean {GO_TO} or ")
    assert suggest_environment("CartPol-v1", ["CartPole-v1"]) == "Did you mean CartPole-v1?"
    once = suggest_environment("BabyAI-GoToLocl-v0", [GO_TO])
    assert once.count(f" {GO_TO} ") == 1


def test_a_listed_object_must_be_a_domain_of_its_own_name_and_environments(listed):
    listed("other", "OTHER")
    assert list(domains()) == ["babyai", "openapp", "playroom", "other"]
    with pytest.raises(
        ValueError, match=f"the environment '{GO_TO}' is of several domains: got babyai, other. Uninstall"
    ):
        find_domain(GO_TO)
    listed("another", "OTHER")
    with pytest.raises(ValueError, match="must be listed by its own name: got 'other' listed as 'another'. Rename one"):
        domains()
    listed("another", "NOTHING")
    with pytest.raises(
        ValueError, match="the domain 'another' lacks attributes of .*Domain: got .*Nothing.*. Add them"
    ):
        domains()


def test_environments_of_several_domains_are_refused(listed, monkeypatch):
    monkeypatch.setattr(type(BABYAI), "environments", lambda self: (f"{self.name}-room",))
    listed("other", "OTHER")
    assert domain_of_environments(["other-room"]) is OTHER
    with pytest.raises(
        ValueError, match="environments must be of one domain: got babyai, other. Use one command per domain"
    ):
        domain_of_environments(["other-room", "babyai-room"])


def _install(folder, name, of):
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vlm_rewards.domains]\n{name} = {of}\n")


def test_another_package_adds_its_domain_by_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "far_away.py").write_text(
        "import dataclasses\nfrom vlm_rewards.labelers.domains.babyai.domain import BABYAI\n"
        "FAR = dataclasses.replace(BABYAI, name='far')\n"
    )
    _install(tmp_path, "far", "far_away:FAR")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(domains()) == ["babyai", "openapp", "playroom", "far"]
    assert domain_named("far").name == "far"
    (tmp_path / "more").mkdir()
    _install(tmp_path / "more", "babyai", "vlm_rewards.labelers.domains.babyai.domain:BABYAI")
    monkeypatch.syspath_prepend(tmp_path / "more")
    with pytest.raises(
        ValueError, match="two domains have the name 'babyai'. Uninstall one of the packages, or rename"
    ):
        domains()


def test_to_look_a_domain_up_imports_neither_torch_nor_a_simulator():
    code = (
        "import sys; from vlm_rewards.labelers.domains.domain import domain_of_environment as of; of('BabyAI-GoToLocal-v0');"
        "print([name for name in ('torch', 'gymnasium', 'minigrid', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def code_lines(path: Path) -> list[str]:
    """The lines of a file without its docstrings, whose examples name a domain that their readers can run."""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            start, stop = node.body[0].lineno - 1, node.body[0].end_lineno
            lines[start:stop] = [""] * (stop - start)
    return lines


@pytest.mark.parametrize(
    ("domain", "listed_in"),
    [
        ("babyai", ['labelers/domains/domain.py: "babyai": "vlm_rewards.labelers.domains.babyai.domain:BABYAI",']),
        (
            "openapp",
            [
                'labelers/domains/domain.py: "openapp": "vlm_rewards.labelers.domains.openapp.domain:OPENAPP",',
                *(
                    f'vlm_rewards/environments.py: "vlm-rewards/{name}-v0": '
                    '"vlm_rewards.labelers.domains.openapp.environment:OpenAppEnvironment",'
                    for name in ("OpenApp", "OpenAppHard")
                ),
            ],
        ),
        (
            "playroom",
            [
                'labelers/domains/domain.py: "playroom": "vlm_rewards.labelers.domains.playroom.domain:PLAYROOM",',
                *(
                    f'vlm_rewards/environments.py: "vlm-rewards/Playroom-{name}-v0": '
                    '"vlm_rewards.labelers.domains.playroom.environment:PlayroomEnvironment",'
                    for name in ("Find", "Lift", "Place", "FindNear", "LiftNear", "PlaceNear")
                ),
            ],
        ),
    ],
)
def test_a_domain_is_named_in_its_own_folder_and_in_lists_alone(domain, listed_in):
    root = Path(__file__).parents[3]
    rooms = ("schemas", "labelers", "pipelines", "offline_rl", "vlm_rewards/commands")
    files = [path for room in rooms for path in sorted((root / room).rglob("*.py"))] + [
        *(root / "vlm_rewards").glob("*.py")
    ]
    named = {
        f"{path.relative_to(root)}: {line.strip()}"
        for path in files
        if not path.is_relative_to(root / "labelers/domains" / domain)
        for line in code_lines(path)
        if domain in line.lower()
    }
    assert {line for line in named if not line.startswith("vlm_rewards/commands/demo.py: ")} == set(listed_in)


def test_seeds_of_two_uses_are_disjoint():
    seeds = SeedRanges()
    assert [len(getattr(seeds, use)) for use in ("models", "recorded", "live", "held_out")] == [
        2_000_000,
        2**31 - 2_000_000,
        2**30,
        2**30,
    ]
    assert pickle.loads(pickle.dumps(seeds)) == seeds


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"live": range(5, 2**31 + 5)},
            r"two uses share seeds: got models range\(0, 2000000\) and live range\(5, .*disjoint",
        ),
        ({"models": range(0)}, r"the seeds 'models' must be a range within 0 to 2\*\*32 .*: got range\(0, 0\). Choose"),
        ({"models": range(-1, 5)}, r"'models' must be .*: got range\(-1, 5\)"),
        ({"models": range(0, 10, 2)}, r"'models' must be .* step 1 .*: got range\(0, 10, 2\)"),
        ({"held_out": range(3 * 2**30, 2**32 + 1)}, "'held_out' must be a range within 0 to"),
    ],
)
def test_seeds_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SeedRanges(**changes)


def test_a_drawn_seed_is_of_its_range_and_depends_on_the_key_alone():
    seeds = SeedRanges(models=range(5, 6))
    assert seeds.draw("models", "a") == 5
    # SHA-256 of "0/0" begins with these 8 bytes; the range has 2**30 seeds from 2**31 on.
    assert seeds.draw("live", "0/0") == 2**31 + int.from_bytes(bytes.fromhex(SHA_OF_0_0), "big") % 2**30
    drawn = [seeds.draw("live", str(key)) for key in range(200)]
    assert drawn == [SeedRanges().draw("live", str(key)) for key in range(200)]
    assert len(set(drawn)) == 200
    assert all(seed in seeds.live for seed in drawn)


SHA_OF_0_0 = "5513e3eabba6d754"


def test_frame_sizes_are_read_and_checked():
    assert parse_frame_size("56") == (56, 56)
    assert parse_frame_size("160x96") == (160, 96)
    for text in ("", "0", "56x", "5.6", "1x2x3", "-56"):
        with pytest.raises(ValueError, match="a frame size must be pixels such as 56, or HEIGHTxWIDTH: got .*160x96"):
            parse_frame_size(text)
    check_frame_size(BABYAI, (224, 224))
    with pytest.raises(
        ValueError, match="babyai draws no frames of this size: got 56x224. Choose one of 56x56, 28x28, "
    ):
        check_frame_size(BABYAI, (56, 224))
