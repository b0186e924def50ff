"""Recording in a domain with several cameras and banks of goals."""

import pytest
from dot_domain import DOT, GOALS, DotDomain, DotLevel

from vlm_rewards.labelers.domains import domain as domain_module
from vlm_rewards.pipelines.record.recording import BotGaveUpError, record, record_episode
from vlm_rewards.pipelines.record.settings import RecordSettings
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import read_goals
from vlm_rewards.schemas.pictures import decode_image


@pytest.fixture(autouse=True)
def dots(monkeypatch):
    """The toy domain alone is there."""
    monkeypatch.setattr(domain_module, "_domains", lambda *_: {"dot": DOT})


def settings(**changes):
    return RecordSettings(**{"envs": ("Dot-v0",), "policy": "bot", "episodes": 12, **changes})


def test_every_camera_asked_for_is_recorded():
    assert record_episode(settings(), 0).images.keys() == {"top"}  # the domain's first
    episode = record_episode(settings(cameras=("top", "mirror")), 0)
    for top, mirror in zip(episode.images["top"], episode.images["mirror"], strict=True):
        assert (decode_image(top)[:, ::-1] == decode_image(mirror)).all()
    with pytest.raises(
        ValueError, match="cameras of dot must be some of its own, each once: got side. Choose among top, mirror"
    ):
        settings(cameras=("side",))


def test_truth_is_of_the_bank_that_was_chosen(tmp_path):
    found = {}
    for bank in ("default", "red"):
        record(output=tmp_path / bank, **vars(settings(bank=bank)))
        corpus = open_corpus(tmp_path / bank)
        episodes = [episode for unit in corpus.units() for episode in corpus.episodes(unit)]
        assert corpus.features.has_achieved_goals
        found[bank] = {goal for episode in episodes for goals in episode.achieved_goals for goal in goals}
        assert read_goals(tmp_path / bank / "goals.jsonl") == DOT.goals(bank)
    red = {goal.id for (colour, _), goal in GOALS.items() if colour == "red"}
    assert found["red"] == found["default"] & red != set()
    assert found["default"] - red
    with pytest.raises(ValueError, match="dot has no such bank of goals: got 'pink'. Choose one of default, red"):
        settings(bank="pink")


def test_a_policy_that_the_domain_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(DotDomain, "policies", ("random",))
    with pytest.raises(ValueError, match="dot cannot be recorded by this policy: got 'noisy-bot'. Choose among random"):
        settings(policy="random:1,noisy-bot:1")


def test_a_level_without_an_expert_is_a_failure_of_its_episode(monkeypatch):
    monkeypatch.setattr(DotLevel, "expert", lambda self: None)
    with pytest.raises(BotGaveUpError, match="first state of Dot-v0-seed0-000000, got the level has no expert; leave"):
        record_episode(settings(), 0)
    assert record_episode(settings(policy="random"), 0).num_steps > 0


def test_the_name_of_an_environment_may_hold_what_an_episode_id_may_not(monkeypatch):
    monkeypatch.setattr(DotDomain, "environments", lambda self: ("dots/Dot.large-v0",))
    assert record_episode(settings(envs=("dots/Dot.large-v0",)), 3).episode_id == "dots_Dot_large-v0-seed0-000003"
