import math

import numpy as np
import pytest

from vlm_rewards.offline_rl.evaluation.episode_records import EpisodeRecord, Evaluation, flatten_summary, interval_of


def _record(**changes):
    given = {"episode": 0, "env": "e", "level_seed": 1, "goal_id": "g", "family": "find", "num_steps": 10}
    given |= {"success": True, "mission_done": True, "vlm_success": True, "vlm_step": 4, "vlm_true": True}
    given |= {"vlm_return": 1.0, "vlm_false_frames": 0, "false_frames": 9}
    return EpisodeRecord(**{**given, **changes})


def test_wilsons_interval_by_hand():
    # p = 8/10, z = 1.96: (0.8 + 0.19207 ± 1.96 sqrt(0.016 + 0.0096036)) / 1.38415 = (0.99207 ± 0.31362) / 1.38415
    interval = interval_of([True] * 8 + [False] * 2)
    assert interval.mean == 0.8
    assert interval.low == pytest.approx(0.4902, abs=1e-4)
    assert interval.high == pytest.approx(0.9433, abs=1e-4)
    assert interval.num == 10
    none, every = interval_of([False] * 5), interval_of(np.ones(5, np.bool_))
    assert none[:2] == (0.0, 0.0)
    assert every[0] == every[2] == 1.0
    assert none.high == pytest.approx(1 - every.low)  # z^2 / (n + z^2) = 0.4345
    assert none.high == pytest.approx(0.4345, abs=1e-4)
    assert math.isnan(interval_of([]).mean)
    assert interval_of([])[1:] == (0.0, 1.0, 0)
    wide, narrow = interval_of([True, False], 0.99), interval_of([True, False], 0.5)
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        interval_of([True], 95)


def test_figures_of_records_by_hand():
    evaluation = Evaluation(
        episodes=(
            _record(),
            _record(vlm_true=False, success=False, vlm_false_frames=3, mission_done=False),
            _record(vlm_success=False, vlm_step=None, vlm_true=None, vlm_return=0.0, family="lift"),
            _record(vlm_success=False, vlm_step=None, vlm_true=None, vlm_return=0.0, success=False, false_frames=13),
        )
    )
    assert evaluation.success.mean == 0.5
    assert evaluation.vlm_success.mean == 0.5
    assert evaluation.mission_done[::3] == (0.75, 4)
    assert evaluation.vlm_return == 0.5
    assert evaluation.false_positive_share[::3] == (0.5, 2)  # of two rewarded episodes one was wrong
    assert evaluation.false_positive_rate == 3 / 40
    summary = evaluation.summary()
    assert summary["episodes"] == 4
    assert summary["families"]["lift"]["false_positive_share"] is None
    assert summary["families"]["find"]["success"]["num"] == 3
    unknown = Evaluation(episodes=(_record(success=None, mission_done=None, vlm_true=None, false_frames=0),)).summary()
    assert (unknown["success"], unknown["mission_done"], unknown["false_positive_rate"]) == (None, None, None)


def test_figures_of_a_summary_by_one_name_each():
    summary = {"episodes": 2, "success": {"mean": 0.5, "low": 0.1, "high": 0.9, "num": 2}, "false_positive_share": None}
    assert flatten_summary({**summary, "families": {"find": {"episodes": 1}}}) == {
        "episodes": 2,
        "success": 0.5,
        "success_low": 0.1,
        "success_high": 0.9,
        "false_positive_share": None,
        "find/episodes": 1,
    }
