"""In which environments a corpus was recorded, and that other people's files of the same name say nothing."""

import json

import pytest

from vlm_rewards.pipelines.record.recorded_environments import recorded_environments
from vlm_rewards.schemas.formats.folder import Folder


def test_the_settings_of_a_recording_say_it(tmp_path):
    own = {"kind": "corpus", "fingerprint": {}, "settings": {"envs": ["A-v0", "B-v0"]}}
    (tmp_path / "settings.json").write_text(json.dumps(own))
    (tmp_path / "parts").mkdir()
    assert recorded_environments(Folder.at(tmp_path)) == ("A-v0", "B-v0")
    assert recorded_environments(Folder.at(tmp_path / "parts")) == ("A-v0", "B-v0")


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"kind": "labels", "settings": {"envs": ["A-v0"]}}'])
def test_files_of_others_say_nothing(tmp_path, text):
    assert recorded_environments(Folder.at(tmp_path)) == ()
    (tmp_path / "settings.json").write_text(text)
    assert recorded_environments(Folder.at(tmp_path)) == ()
