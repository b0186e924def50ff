import pytest

from vlm_rewards.schemas.fingerprints import Fingerprint

PARTS = {"weights": "ab", "goals": ("find", "lift"), "temperature": 0.01}


def test_equal_parts_give_equal_digests_in_any_order_and_after_json():
    one = Fingerprint(PARTS)
    other = Fingerprint({"temperature": 0.01, "goals": ["find", "lift"], "weights": "ab"})
    assert one == other
    assert one.digest == other.digest
    assert len(one.digest) == 32
    assert int(one.digest, 16) >= 0


def test_any_part_changes_the_digest():
    digests = {Fingerprint({**PARTS, name: "x"}).digest for name in PARTS} | {Fingerprint(PARTS).digest}
    assert len(digests) == 4


def test_differing_parts_are_named_and_missing_ones_too():
    other = Fingerprint({"weights": "cd", "goals": ["find", "lift"], "threshold": 0.5})
    assert Fingerprint(PARTS).differing_parts(other) == ["temperature", "threshold", "weights"]
    assert Fingerprint(PARTS).subset(("goals",)).differing_parts(other.subset(("goals",))) == []


def test_another_fingerprint_is_refused_with_the_parts_that_differ():
    ours = Fingerprint(PARTS)
    ours.check_equal(Fingerprint(PARTS), "labels/", "delete it")
    with pytest.raises(
        ValueError, match=r"labels/ must have the same fingerprint .* got other weights .*; delete it"
    ) as caught:
        ours.check_equal(Fingerprint({**PARTS, "weights": "cd"}), "labels/", "delete it")
    assert 'weights is "ab" there and "cd" here' in str(caught.value)
    with pytest.raises(ValueError, match=r"weights is \"a{56}\.\.\. there"):
        Fingerprint({"weights": "a" * 100}).check_equal(Fingerprint({"weights": "b"}), "labels/", "delete it")


def test_the_value_that_differs_is_shown_however_deep_it_lies():
    one = {"processor": "CLIP" * 30, "size": {"height": 224}, "scale": [0.5, 0.25]}
    ours = Fingerprint({"preprocessing": one, "templates": ["a"]})
    other = {**one, "size": {"height": 256}, "scale": [0.5, 0.75]}
    theirs = Fingerprint({"preprocessing": other, "templates": ["a", "b"]})
    assert ours.describe_differences(theirs) == (
        "preprocessing.scale[1] is 0.25 there and 0.75 here; preprocessing.size.height is 224 there and 256 here; "
        'templates is ["a"] there and ["a", "b"] here'
    )
    many = Fingerprint({"thresholds": [0, 0, 0, 0, 0]}), Fingerprint({"thresholds": [1, 1, 1, 1, 1]})
    assert many[0].describe_differences(many[1], "in the worker", "in the driver") == (
        "thresholds[0] is 0 in the driver and 1 in the worker; thresholds[1] is 0 in the driver and 1 in the worker; "
        "thresholds[2] is 0 in the driver and 1 in the worker; 2 more values of thresholds"
    )


def test_long_values_are_shown_where_they_differ():
    alike = "a photo of a red ball beside a green box, seen from above, in a small room with grey walls, "
    one, other = (Fingerprint({"template": alike + end}) for end in ("by day", "by night"))
    assert one.describe_differences(other) == ('template is ...y walls, by day" there and ...y walls, by night" here')


def test_a_fingerprint_of_nothing_is_refused():
    with pytest.raises(ValueError, match="a fingerprint must have at least one part, got none"):
        Fingerprint({})
