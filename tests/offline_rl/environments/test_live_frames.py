import dataclasses

import live_environments  # noqa: F401  registers Shapes-v0
import numpy as np
import pytest

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.domains.babyai.levels import BabyAILevel
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments, spaces_of
from vlm_rewards.offline_rl.environments.live_frames import fit_frame_size, fit_to_corpus
from vlm_rewards.offline_rl.interfaces import Spaces

GO_TO = "BabyAI-GoToLocal-v0"
BANK = tuple(goal_bank())


def test_frames_are_of_the_size_that_the_agent_sees():
    settings = EnvironmentSettings(envs=(GO_TO,), num_envs=1)
    large = Spaces(observation="frames", observation_shape=(224, 224, 3), goal_size=24, num_actions=7)
    fitted = fit_frame_size(settings, large)
    assert fitted.frame_size == (224, 224)
    assert spaces_of(make_environments(fitted, BANK), 24) == large
    odd = Spaces(observation="frames", observation_shape=(64, 64, 3), goal_size=24, num_actions=7)
    unseen = Spaces(observation="embeddings", observation_shape=(14,), goal_size=24, num_actions=7)
    assert fit_frame_size(settings, odd) == fit_frame_size(settings, unseen) == settings


SEEN = Spaces(observation="frames", observation_shape=(224, 224, 3), goal_size=24, num_actions=7)
EMBEDDED = dataclasses.replace(SEEN, observation="embeddings", observation_shape=(14,))
KNOWN = {"frame_shape": (224, 224, 3), "camera": "egocentric", "labels": "egocentric"}


def test_environments_show_what_the_corpus_showed_to_an_agent_of_embeddings_too():
    settings = EnvironmentSettings(envs=(GO_TO,), num_envs=1)
    for spaces, held in ((SEEN, None), (EMBEDDED, (224, 224, 3))):
        fitted = fit_to_corpus(settings, spaces, **KNOWN)
        assert (fitted.frame_size, fitted.camera, fitted.frame_shape) == ((224, 224), "egocentric", held)
    envs = make_environments(fitted, BANK)
    observations, infos = envs.reset()
    level = BabyAILevel(GO_TO, 32)  # 7 tiles of 32 pixels, as the recorder renders with --frame-size 224
    np.testing.assert_array_equal(observations[0], level.reset(int(infos["level_seed"][0])).frames["egocentric"])
    unrecorded = fit_to_corpus(settings, SEEN, frame_shape=None, camera=None, labels="egocentric")
    assert unrecorded.frame_size == (224, 224)  # an agent of frames tells by itself


def test_frames_of_another_shape_than_those_behind_the_embeddings_are_refused():
    settings = EnvironmentSettings(envs=(GO_TO,), num_envs=1)
    odd = fit_to_corpus(settings, EMBEDDED, **{**KNOWN, "frame_shape": (64, 64, 3)})
    with pytest.raises(
        ValueError, match=r"BabyAI-GoToLocal-v0 must have the shape of the corpus's, \[64, 64, 3\], got \[56, 56, 3\]"
    ):
        make_environments(odd, BANK)
    rendered = EnvironmentSettings(envs=("Shapes-v0",), num_envs=1, frames="render", camera="top")
    given = {"camera": "top", "labels": "top"}
    with pytest.raises(ValueError, match=r"corpus's, \[8, 8, 3\], got \[6, 6, 3\]; choose others with --frames"):
        make_environments(fit_to_corpus(rendered, EMBEDDED, frame_shape=(8, 8, 3), **given), BANK)
    make_environments(fit_to_corpus(rendered, EMBEDDED, frame_shape=(6, 6, 3), **given), BANK).close()
    with pytest.raises(ValueError, match="must be of a known shape, got none: .*; train it again in another folder"):
        fit_to_corpus(settings, EMBEDDED, **{**KNOWN, "frame_shape": None})


def test_the_camera_shown_is_the_labels_unless_it_is_said():
    shapes = EnvironmentSettings(envs=("Shapes-v0",), num_envs=1)
    known = {"frame_shape": (8, 8, 3), "labels": "wrist"}
    assert fit_to_corpus(shapes, SEEN, camera="wrist", **known).camera == "wrist"
    other = dataclasses.replace(shapes, camera="top")
    assert fit_to_corpus(other, SEEN, camera=None, **known).camera == "top"  # which check_labeler then refuses
    with pytest.raises(
        ValueError, match="must show the camera that the agent was trained on, 'wrist', got 'top'; train"
    ):
        fit_to_corpus(other, SEEN, camera="wrist", **known)
    babyai = EnvironmentSettings(envs=("Shapes-v0", GO_TO), num_envs=2)
    assert fit_to_corpus(babyai, SEEN, camera=None, **known).camera == "egocentric"  # whatever was labelled


def test_an_agent_that_takes_states_has_no_live_environment():
    with pytest.raises(
        ValueError,
        match="must take no state, got one of 4 numbers: states are for offline training alone; train an agent with --no-states",
    ):
        fit_to_corpus(EnvironmentSettings(envs=(GO_TO,)), dataclasses.replace(SEEN, state_size=4), **KNOWN)
