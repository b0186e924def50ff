"""Every reader on whole inputs, on changed ones, and on all that the fuzzer found; see `fuzz_targets` and benchmarks/fuzz.py."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import FILES, TARGETS, FaultError, deep_json, limits, make_target, mutated, naming, read_findings

FINDINGS = Path(__file__).with_name("findings")
NUM_CHANGED = 8
NUM_WHOLE = 6


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_gives_anything_but_data_or_an_error_that_names_its_file(name: str, tmp_path: Path) -> None:
    target = make_target(name, tmp_path)
    random = np.random.default_rng(0)
    chosen = [target.seeds[int(random.integers(len(target.seeds)))] for _ in range(NUM_CHANGED)]
    inputs = [*target.seeds[:NUM_WHOLE], *(mutated(data, random) for data in chosen)]
    inputs += deep_json(target, is_file=name in FILES)
    inputs += read_findings(FINDINGS / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in inputs:
            with limits():
                target.check(data)


def test_findings_are_of_known_kinds_of_input() -> None:
    assert {path.name for path in FINDINGS.iterdir()} <= set(TARGETS)


def test_limits_and_names_are_demanded() -> None:
    with pytest.raises(FaultError, match="an error must name the file: got ValueError: no"), naming("a.csv"):
        raise ValueError("no")
    with naming("a.csv"):
        raise ValueError("a.csv is broken")
    with pytest.raises(MemoryError), limits():
        bytearray(8 << 30)
    with pytest.raises(FaultError, match="took more than 0.05 s of processor time"), limits(processor_s=0.05):
        while True:
            pass
