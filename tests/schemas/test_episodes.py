import json

import datasets
import numpy as np
import pyarrow as pa
import pytest

from vlm_rewards.schemas.episodes import (
    IMAGE_TYPE,
    METADATA_KEY,
    TIME_CONVENTION,
    CorpusFeatures,
    Episode,
    corpus_schema,
    image_column,
)


def _episode(**changes):
    """Three frames, two steps."""
    fields = {
        "episode_id": "a",
        "images": {"front": [b"0", b"1", b"2"]},
        "actions": np.array([3, 1]),
        "rewards": np.array([0, 1], np.float32),
        "terminations": np.array([False, True]),
        "truncations": np.array([False, False]),
    }
    return Episode(**{**fields, **changes})


def test_an_episode_counts_its_frames_and_steps():
    with_final = _episode()
    assert (with_final.num_frames, with_final.num_steps, with_final.has_final_frame) == (3, 2, True)
    three = {"rewards": np.zeros(3), "terminations": None, "truncations": None}
    without_final = _episode(actions=np.zeros(3), **three)
    assert (without_final.num_frames, without_final.num_steps, without_final.has_final_frame) == (3, 3, False)
    no_actions = _episode(actions=None)
    assert (no_actions.num_frames, no_actions.num_steps, no_actions.has_final_frame) == (3, 2, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_id": ""}, "an episode_id must be a text that is not empty .* got ''. Rename it"),
        ({"episode_id": "a\0b"}, r"holds no control characters: got 'a\\x00b'. Rename it"),
        ({"episode_id": "a\nb"}, r"got 'a\\nb'"),
        ({"episode_id": "a\x85"}, r"got 'a\\x85'"),
        ({"episode_id": "\ud800"}, r"got '\\ud800'"),
        ({"episode_id": None}, "an episode_id must be a text .* got None"),
        ({"images": {}}, "'a' must have as many frames in every camera and at least one, got no camera"),
        ({"images": {"front": []}}, "at least one, got {'front': 0}"),
        ({"images": {"front": [b""] * 3, "wrist": [b""] * 2}}, "got {'front': 3, 'wrist': 2}"),
        ({"actions": np.zeros(1)}, r"must have T actions and T\+1 \(or T\) frames, got 1 actions and 3 frames"),
        ({"actions": np.zeros(4)}, "got 4 actions and 3 frames"),
        ({"rewards": np.zeros(3)}, "must have 2 rewards for its 3 frames, got 3"),
        ({"terminations": np.zeros(3, bool)}, "must have 2 terminations for its 3 frames, got 3"),
        ({"truncations": np.zeros(1, bool)}, "must have 2 truncations for its 3 frames, got 1"),
        ({"successes": np.zeros(1, bool)}, "must have 2 successes for its 3 frames, got 1"),
        ({"states": np.zeros((2, 4))}, "must have 3 states for its 3 frames, got 2"),
        ({"achieved_goals": [[], []]}, "must have 3 achieved_goals for its 3 frames, got 2"),
        ({"actions": np.array([[0, 1], [0, np.nan]])}, r"must have finite actions, got nan at index \[1, 1\]"),
        ({"rewards": np.array([np.inf, 0])}, r"must have finite rewards, got inf at index \[0\]"),
        ({"states": np.array([[0], [0], [-np.inf]])}, r"must have finite states, got -inf at index \[2, 0\]"),
    ],
)
def test_an_episode_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        _episode(**changes)


def test_what_an_episode_holds():
    assert CorpusFeatures.of(_episode()) == CorpusFeatures(cameras=("front",), has_instruction=False)
    robot = Episode(
        episode_id="r",
        images={"wrist": [b"0"], "front": [b"0"]},
        actions=np.zeros((1, 7), np.float32),
        states=np.zeros((1, 4), np.float32),
        instruction="fold",
        achieved_goals=[["folded"]],
    )
    assert CorpusFeatures.of(robot) == CorpusFeatures(
        cameras=("front", "wrist"), action_size=7, state_size=4, has_rewards=False, has_achieved_goals=True
    )
    assert CorpusFeatures.of(_episode(actions=None)).action_size is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": ()}, "cameras must be at least one name, each once, got"),
        ({"cameras": ("front", "front")}, "cameras must be at least one name, each once, got"),
        ({"cameras": ("top", "")}, "a camera's name must be a text that is not empty .* got ''"),
        ({"cameras": ("top\tleft",)}, r"a camera's name must .* no control characters: got 'top\\tleft'. Rename it"),
        ({"cameras": (1,)}, "a camera's name must be a text .* got 1"),
        ({"action_size": -1}, r"action_size must be None, 0 \(discrete\) or a width, got -1"),
        ({"state_size": 0}, "state_size must be None or a width of at least 1, got 0"),
    ],
)
def test_features_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        CorpusFeatures(**{"cameras": ("front",), **changes})


def test_only_episodes_that_hold_what_the_corpus_holds_belong_to_it():
    features = CorpusFeatures(cameras=("front",), has_instruction=True)
    features.check(_episode())  # it may have an instruction, it need not
    features.check(_episode(instruction="go"))
    CorpusFeatures(cameras=("wrist", "front")).check(_episode(images={"front": [b""] * 3, "wrist": [b""] * 3}))
    for changes, name in (
        ({"images": {"wrist": [b""] * 3}}, "cameras"),
        ({"actions": np.zeros((2, 2))}, "action_size"),
        ({"states": np.zeros((3, 2))}, "state_size"),
        ({"rewards": None}, "has_rewards"),
        ({"terminations": None}, "terminations"),
        ({"achieved_goals": [[], [], []]}, "has_achieved_goals"),
    ):
        with pytest.raises(ValueError, match=f"episode 'a' must hold what its corpus holds, got other {name}: .*"):
            features.check(_episode(**changes))
    with pytest.raises(ValueError, match="got other has_instruction"):
        CorpusFeatures(cameras=("front",), has_instruction=False).check(_episode(instruction="go"))


def test_the_schema_of_a_corpus():
    features = CorpusFeatures(cameras=("front",), action_size=7, state_size=4, has_achieved_goals=True)
    schema = corpus_schema(features)
    assert schema.names == [
        "episode_id",
        "frame_index",
        "observation.images.front",
        "observation.state",
        "action",
        "reward",
        "terminated",
        "truncated",
        "instruction",
        "achieved_goals",
    ]
    assert schema.field(image_column("front")).type == IMAGE_TYPE
    assert schema.field("action").type == pa.list_(pa.float32())
    assert schema.field("frame_index").type == pa.int32()
    own = json.loads(schema.metadata[METADATA_KEY])
    assert (own["kind"], own["time"]) == ("corpus", TIME_CONVENTION)
    assert CorpusFeatures(**own["features"]) == features
    # `datasets` must understand every column of the schema, and see the pictures as pictures.
    understood = datasets.Features.from_arrow_schema(schema)
    assert list(understood) == schema.names
    assert understood["observation.images.front"] == datasets.Image()
    assert understood["action"] == datasets.List(datasets.Value("float32"))
    assert understood["achieved_goals"] == datasets.List(datasets.Value("string"))


def test_what_a_corpus_does_not_hold_has_no_column():
    bare = CorpusFeatures(cameras=("a", "b"), action_size=None, has_rewards=False, has_instruction=False)
    assert corpus_schema(bare).names == [
        "episode_id",
        "frame_index",
        "observation.images.a",
        "observation.images.b",
    ]
    assert corpus_schema(CorpusFeatures(cameras=("a",))).field("action").type == pa.int64()
