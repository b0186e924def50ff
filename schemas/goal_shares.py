"""Shares of original, hindsight and negative goals: what relabelling gives an episode, and what a batch is drawn from."""

GOAL_KINDS = ("original", "hindsight", "negative")
DEFAULT_SHARES = (0.2, 0.5, 0.3)


def read_goal_shares(text: str) -> tuple[float, float, float]:
    """Reads shares from a word.

    Args:
        text: Three numbers with colons between them, such as "0.2:0.5:0.3".

    Raises:
        ValueError: It is something else.
    """
    try:
        original, hindsight, negative = (float(share) for share in text.split(":"))
    except ValueError as error:
        raise ValueError(f"expected three shares: got {text!r}. Write them such as 0.2:0.5:0.3") from error
    return original, hindsight, negative
