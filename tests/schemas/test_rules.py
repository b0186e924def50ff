import math

import numpy as np
import pytest

from vlm_rewards.schemas.rules import RewardRule, rule_from_json


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thresholds": ()}, "needs one threshold per goal, got none"),
        ({"thresholds": (0.5, math.nan)}, "threshold must be a finite number, got nan"),
        ({"hysteresis": -0.1}, "hysteresis must be 0 or more and finite, got -0.1"),
        ({"min_frames": 0}, "min_frames must be a whole number of at least 1, got 0"),
        ({"min_frames": 1.5}, "min_frames must be a whole number of at least 1, got 1.5"),
        ({"min_frames": math.nan}, "min_frames must be a whole number of at least 1, got nan"),
        ({"reward": "dense"}, "reward must be one of success, score, difference, discounted, got 'dense'"),
        (
            {"reward": "discounted"},
            "fire_rates must be given for the reward 'discounted', got None. Run vlm-rewards calibrate",
        ),
        ({"reward": "discounted", "fire_rates": (0.1, 0.2)}, "fire_rates must be as many as thresholds, 1, got 2"),
        ({"reward": "discounted", "fire_rates": (1.5,)}, "a fire rate must be 0 to 1, got 1.5"),
        (
            {"reward": "discounted", "fire_rates": (0.5,), "discount": -1.0},
            "discount must be 0 or more and finite, got -1.0",
        ),
        ({"discount": 1.0}, "fire_rates and discount must be left out for the reward 'success', got discount 1.0"),
    ],
)
def test_rules_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardRule(**{"thresholds": (0.5,), **settings})


def test_a_rule_survives_json() -> None:
    for thresholds in ((0.5, 0.5), (0.5, 0.7)):
        rule = RewardRule(
            thresholds=thresholds,
            hysteresis=0.1,
            min_frames=2,
            reward="discounted",
            discount=1.0,
            fire_rates=(0.0, 0.25),
        )
        assert rule_from_json(rule.to_json(), 2) == rule
    assert RewardRule(thresholds=(0.5,) * 1000).to_json()["thresholds"] == 0.5


def test_selecting_goals_keeps_their_numbers() -> None:
    rule = RewardRule(thresholds=(0.1, 0.2, 0.3), reward="discounted", discount=1.0, fire_rates=(0.4, 0.5, 0.6))
    assert rule.select([2, 0]).thresholds == (0.3, 0.1)
    assert rule.select([2, 0]).fire_rates == (0.6, 0.4)


def test_release_is_below_the_threshold_in_float32() -> None:
    rule = RewardRule(thresholds=(0.5, 0.3), hysteresis=0.25)
    assert rule.release_array == pytest.approx([0.25, 0.05])
    assert np.array_equal(RewardRule(thresholds=(0.1,)).release_array, RewardRule(thresholds=(0.1,)).threshold_array)
