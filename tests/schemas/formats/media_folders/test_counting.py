import pytest

from vlm_rewards.schemas.formats.media_folders.counting import find_gap


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ([0, 1, 2, 4], (2, 5)),
        ([10, 15, 25, 30, 35, 45], (1, 8)),  # by fives: 20 and 40 are missing
        ([0, 1, 2], None),
        ([], None),
        ([3], None),
        ([3, 9], None),  # too few to tell
        ([0, 1, 3], None),  # ones or twos
        ([100, 133, 166, 201, 233], None),  # times
    ],
)
def test_a_gap_is_found_where_numbers_count_evenly(numbers, found):
    assert find_gap(numbers) == found
