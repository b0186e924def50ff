"""Shares of goals as words."""

import pytest

from vlm_rewards.schemas.goal_shares import read_goal_shares


def test_shares_are_three_numbers() -> None:
    assert read_goal_shares("0.25:1:0") == (0.25, 1.0, 0.0)


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "a:b:c"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"expected three shares: got '{text}'. Write them such as 0.2:0.5:0.3"):
        read_goal_shares(text)
