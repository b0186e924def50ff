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


def test_a_fingerprint_of_nothing_is_refused():
    with pytest.raises(ValueError, match="a fingerprint must have at least one part, got none"):
        Fingerprint({})
