"""What a demo shows of a domain: its own choice, or its first environment."""

from types import SimpleNamespace

from dot_domain import DOT

from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.demonstration import (
    Demonstration,
    demonstration_of,
    mixed_policy,
    num_actions_of_level,
)


def test_a_domain_may_choose_or_shows_its_first_environment():
    assert demonstration_of(BABYAI).model == "reference-l"
    assert set(demonstration_of(BABYAI).envs) <= set(BABYAI.environments())
    assert demonstration_of(DOT) == Demonstration(envs=DOT.environments()[:1], model=DOT.default_model)


def test_what_is_recorded_is_mixed_of_the_policies_there_are():
    assert mixed_policy(BABYAI) == "bot:0.2,noisy-bot:0.5,random:0.3"
    assert mixed_policy(SimpleNamespace(policies=("random",))) == "random:1"


def test_levels_say_how_many_actions_they_have():
    assert num_actions_of_level(DOT, "Dot-v0") == 4
