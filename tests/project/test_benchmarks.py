"""The benchmark measures what it says, and its tables hold what the page reads."""

import csv
import importlib.util
import math

import pytest


@pytest.fixture
def loss(root, monkeypatch):
    """The module `benchmarks.loss`, which is not installed."""
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    from benchmarks import loss

    return loss


def test_a_case_is_timed_and_weighed(loss, monkeypatch):
    """Our loss gets figures; a library that is not installed here becomes a row that says so."""
    monkeypatch.setattr(loss, "BUILDERS", {"tensorflow": dict.fromkeys([loss.OWN, "TensorFlow Similarity"])})
    own, peer = loss.measure("tensorflow", loss.Case(128, d=8), {})
    assert own["note"] == ""
    assert own["ratio_quarter"] <= own["ratio"] <= own["ratio_three_quarters"]
    assert own["milliseconds"] == pytest.approx(own["ratio"] * own["floor_milliseconds"], rel=0.05, abs=0.002)
    assert abs(own["peak_mb"]) < 512
    if importlib.util.find_spec("tensorflow_similarity") is None:
        assert "No module named 'tensorflow_similarity'" in peer["note"]


def test_a_ratio_is_to_the_faster_floor(loss):
    row = loss.summary({"loss": [6.0, 4.0, 2.0, 4.0, 4.0], "whole": [4.0] * 5, "blocked": [2.0] * 5}, "loss")
    assert (row["ratio"], row["milliseconds"], row["floor_milliseconds"], row["rounds"]) == (2.0, 4000.0, 2000.0, 5)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_tables_are_complete(root, loss, backend):
    """Each case of the full run is there for each contender, with a ratio and a peak or with the reason why not."""
    with open(root / f"benchmarks/results/loss-{backend}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert tuple(row) == loss.COLUMNS
        assert row["note"] or math.isfinite(float(row["ratio"]) + float(row["peak_mb"]))
    measured = {(row["library"], int(row["n"]), int(row["d"]), row["distance"], row["strategy"], int(row["members"])) for row in rows}
    for case in loss.FULL:
        for library in loss.BUILDERS[backend]:
            compared = case.distance in loss.COMPARED or "tripletloss" in library
            if compared and case.strategy not in loss.LACKING.get(library, ()):
                assert (library, *case[:4], case.members) in measured
