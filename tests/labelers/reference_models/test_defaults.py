"""The model where none is named: a domain's own, for texts that it can read, and no other."""

import types

import pytest

from vlm_rewards.labelers.reference_models import defaults
from vlm_rewards.labelers.reference_models.defaults import default_model, unknown_words
from vlm_rewards.labelers.scoring.negatives import NegativeSettings
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.schemas.goals import Goal


def test_unknown_words_are_told_once_and_in_order() -> None:
    assert unknown_words("reference-s", ["a red ball", "A GRAY key!"]) == []
    assert unknown_words("reference-s", ["a cup in the sink", "the red cup"]) == ["cup", "sink"]


def test_the_default_knows_every_word_or_is_refused_with_the_words() -> None:
    assert default_model(["a red ball", "a blue key"]) == "reference-s"
    assert default_model(["a red ball", "a blue mug"]) == "playroom-l"
    with pytest.raises(
        ValueError,
        match=r"reference-s of the domain babyai does not know 'cup', 'sink'; .*'cup', 'sink'\. Give --model",
    ):
        default_model(["a red ball", "a cup in the sink"])


def test_a_text_that_names_nothing_of_a_domain_has_no_default_although_its_words_are_known() -> None:
    assert unknown_words("openapp-l", ["open the drawer"]) == []
    with pytest.raises(ValueError, match=r"openapp-l of the domain openapp finds nothing of its domain named"):
        default_model(["open the drawer"])
    assert default_model(["open the chess app"]) == "openapp-l"


def test_two_domains_that_could_read_the_goals_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"one": "reference-s", "two": "reference-m", "three": None}
    goal = Goal("red-ball", "a red ball")
    shared = {"banks": ("default",), "goals": lambda bank: (goal,), "kinds": lambda goal: frozenset({"red ball"})}
    found = {name: types.SimpleNamespace(name=name, default_model=model, **shared) for name, model in models.items()}
    monkeypatch.setattr(defaults, "domains", lambda: found)
    with pytest.raises(ValueError, match=r"got reference-s of the domain one and reference-m of the domain two\. Give"):
        default_model(["a red ball"])
    monkeypatch.setattr(defaults, "domains", lambda: {"three": found["three"]})
    with pytest.raises(ValueError, match=r"no default reads these goals: no domain has one\. Give --model"):
        default_model(["a red ball"])


@pytest.mark.parametrize(
    "settings",
    [
        {"goals": (Goal("a", "a cup"),)},
        {"goals": (Goal("a", "a red ball", prompts=("a cup",)),)},
        {"goals": (Goal("a", "a red ball", negatives=("a cup",)),)},
        {"goals": (Goal("a", "a red ball"),), "negatives": NegativeSettings(explicit=("a cup",))},
        {"goals": (Goal("a", "a red ball"),), "formula": "goal-baseline", "threshold": 0.5, "baseline": "a cup"},
        {"goals": (Goal("a", "a red ball"),), "templates": ("a cup and {goal}",)},
    ],
)
def test_every_text_that_the_model_would_read_counts(settings: dict) -> None:
    with pytest.raises(ValueError, match="does not know 'cup'"):
        LabelerSettings(**settings)
    assert LabelerSettings(**settings, model="reference-s").model == "reference-s"


def test_settings_hold_the_model_that_was_chosen() -> None:
    chosen = LabelerSettings(goals=(Goal("a", "a red ball"), Goal("b", "a blue key")))
    assert chosen.model == "reference-s"
    assert chosen.to_json()["model"] == "reference-s"
