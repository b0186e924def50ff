"""Networks are chosen by what a domain states of its frames and actions, never against what was given."""

from dot_domain import DOT

from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.openapp.domain import OPENAPP
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.training.corpus_networks import domain_of_corpus, fit_networks, num_actions_of

LIFT, OPEN = "BabyAI-PickupDist-v0", "vlm-rewards/OpenApp-v0"


def _spaces(height: int, width: int, num_actions: int = 7) -> Spaces:
    return Spaces(observation="frames", observation_shape=(height, width, 3), goal_size=4, num_actions=num_actions)


def test_frames_of_tiles_get_a_layer_per_tile():
    assert fit_networks({}, _spaces(56, 56), BABYAI) == {}  # tiles of 8 pixels, the default
    assert fit_networks({"width": 32}, _spaces(224, 224), BABYAI) == {"width": 32, "tile_size": 32}


def test_other_frames_get_convolutions():
    assert fit_networks({}, _spaces(32, 32), DOT) == {"encoder": "nature"}
    assert fit_networks({}, _spaces(56, 56), None) == {"encoder": "nature"}
    assert fit_networks({}, _spaces(6, 9), None) == {"encoder": "impala"}  # too small for the other
    assert fit_networks({}, _spaces(64, 64), BABYAI) == {"encoder": "nature"}  # resized by somebody: no whole tiles


def test_actions_that_are_cells_get_one_head():
    assert fit_networks({}, _spaces(160, 96, 66), OPENAPP) == {"encoder": "nature", "action_grid": "10x6"}
    continuous = Spaces(observation="frames", observation_shape=(160, 96, 3), goal_size=4, action_size=2)
    assert fit_networks({}, continuous, OPENAPP) == {"encoder": "nature"}


def test_what_was_given_stays():
    assert fit_networks({"encoder": "tiles"}, _spaces(224, 224), BABYAI) == {"encoder": "tiles"}
    assert fit_networks({"tile_size": 16}, _spaces(160, 96, 66), OPENAPP) == {"tile_size": 16, "action_grid": "10x6"}
    given = {"encoder": "impala", "action_grid": "5x3"}
    assert fit_networks(given, _spaces(160, 96, 66), OPENAPP) == given
    embedded = Spaces(observation="embeddings", observation_shape=(9,), goal_size=4, num_actions=66)
    assert fit_networks({"width": 32}, embedded, OPENAPP) == {"width": 32}


def test_the_domain_is_that_of_the_environments_named_or_else_recorded_in():
    assert domain_of_corpus((), (LIFT, "BabyAI-GoTo-v0")) is BABYAI
    assert domain_of_corpus((OPEN,), (LIFT,)) is OPENAPP
    assert domain_of_corpus((), (LIFT, OPEN)) is None
    assert domain_of_corpus(("CartPole-v1",), (LIFT,)) is None
    assert domain_of_corpus((), ()) is None
    assert (num_actions_of(OPENAPP), num_actions_of(BABYAI), num_actions_of(None)) == (66, None, None)
