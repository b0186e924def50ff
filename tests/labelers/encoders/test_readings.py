import numpy as np
import pytest

from vlm_rewards.labelers.encoders.encoder import TextReading
from vlm_rewards.labelers.encoders.readings import (
    check_prompts_differ,
    check_readings,
    check_texts_differ,
    check_vectors_differ,
)

RED, BLUE = TextReading((1, 5, 9), num_words=1), TextReading((1, 6, 9), num_words=1)


def test_texts_that_the_model_would_not_read_as_they_stand_are_refused() -> None:
    check_readings(["red", "blue"], [RED, BLUE])
    with pytest.raises(ValueError, match="at most 2 tokens for this model, got 3 tokens in 'red'; shorten the goal"):
        check_readings(["red"], [RED._replace(num_dropped=1)])
    with pytest.raises(ValueError, match="has no word for the model's tokenizer: got '!'. Reword it."):
        check_readings(["red", "!"], [RED, TextReading((1, 9), num_words=0)])
    with pytest.raises(
        ValueError, match="tokenizer does not know 'cup', 'sink': got 'a cup in the sink', which it reads without"
    ):
        check_readings(["a cup in the sink"], [TextReading((1, 0, 0), unknown=("cup", "sink"), num_words=0)])


def test_prompts_that_are_one_text_are_refused() -> None:
    check_prompts_differ("goal 'a'", ["red", "blue"], [RED, BLUE])
    with pytest.raises(
        ValueError, match="two prompts of goal 'a' are one text for the model: got 'red' and 'RED '. Remove one"
    ):
        check_prompts_differ("goal 'a'", ["red", "blue", "RED "], [RED, BLUE, RED])


def test_candidates_that_are_one_text_are_refused() -> None:
    check_texts_differ(["a", "b", "c"], [[RED], [BLUE], [RED, BLUE]])
    with pytest.raises(
        ValueError,
        match="are one text for the model, whose tokenizer .*: got a and c, and 1 more. Remove or reword one",
    ):
        check_texts_differ(["a", "b", "c", "d"], [[RED], [BLUE], [RED], [BLUE]])
    with pytest.raises(
        ValueError, match="got a and b. Remove or"
    ):  # the mean of prompts does not depend on their order
        check_texts_differ(["a", "b"], [[RED, BLUE], [BLUE, RED]])


def test_candidates_with_one_vector_are_refused() -> None:
    vectors = np.eye(4, dtype=np.float32)
    check_vectors_differ(list("abcd"), vectors)
    vectors[2] = vectors[0] + np.array([0, -1e-8, 0, 1e-8])
    with pytest.raises(
        ValueError, match="have one vector, although their texts or pictures differ: got a and c. Remove or"
    ):
        check_vectors_differ(list("abcd"), vectors)
