import json

import numpy as np
import pytest
from labelled_corpora import relabelled

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.relabelled import relabelled_schema


def test_the_schema_says_what_a_reward_looks_at_and_holds_no_reward_of_the_environment() -> None:
    schema = relabelled_schema(CorpusFeatures(cameras=("main", "wrist"), state_size=3), Fingerprint({"a": 1}))
    own = json.loads(schema.metadata[b"vlm_rewards"])
    assert (own["kind"], own["fingerprint"]) == ("relabelled", {"a": 1})
    assert "looks at frame o_(t+1)" in own["time"]
    assert schema.names == [
        "episode_id",
        "observation.images.main",
        "observation.images.wrist",
        "observation.state",
        "action",
        "instruction",
        "goal_ids",
        "goal_texts",
        "goal_kinds",
        "rewards",
        "start",
        "stop",
        "terminated",
    ]


def test_an_episode_tells_its_sizes() -> None:
    episode = relabelled()
    assert (episode.num_frames, episode.num_steps, episode.num_goals) == (6, 5, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"images": {"main": [b""] * 6, "wrist": [b""] * 5}},
            "as many frames in every camera and at least two, got .*'wrist': 5",
        ),
        ({"images": {"main": [b""]}}, "at least two, got .*'main': 1"),
        ({"images": {}}, "got no camera"),
        ({"goal_ids": []}, "must have at least one goal, got none"),
        ({"actions": np.arange(6)}, "must have 5 actions for its 6 frames and 2 goals, got 6"),
        ({"states": np.zeros((5, 2))}, "must have 6 states for its 6 frames and 2 goals, got 5"),
        ({"stop": np.array([1])}, "must have 2 stop for its 6 frames and 2 goals, got 1"),
        ({"rewards": np.zeros((2, 6))}, r"rewards of shape \[2, 5\], .* got \[2, 6\]"),
        ({"rewards": np.full((2, 5), np.nan)}, r"must have finite rewards, got nan at index \[0, 0\]"),
        ({"goal_kinds": ["hindsight", "guess"]}, "goal_kinds among original, hindsight, negative, got 'guess'"),
        ({"stop": np.array([4, 6])}, "segments 0 <= start < stop <= 5, got start 0, stop 6"),
        ({"start": np.array([4, 0])}, "got start 4, stop 4"),
    ],
)
def test_inconsistent_episodes_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"relabelled episode 'a' .*{message}"):
        relabelled(**given)
