"""`vlm-rewards pretrain` as a user meets it; that it trains is tested in tests/commands/test_command_line.py."""

import pytest

from vlm_rewards.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--domain", "mars", "--size", "s"],
            "there is no such domain: got 'mars'. Choose one of babyai, openapp, playroom",
        ),
        (["--size", "xl"], "babyai has no reference model of this size: got 'xl'. Choose one of s, m, l"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_there_is(tmp_path, capsys, words, message):
    assert main(["pretrain", *words, "--output", str(tmp_path / "model")]) == 2
    assert capsys.readouterr().err == f"vlm-rewards pretrain: error: {message}\n"
    assert not (tmp_path / "model").exists()
