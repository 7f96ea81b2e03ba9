"""The benchmark measures what it says, and its tables hold what the page reads."""

import csv
import importlib.util
import math

import pytest
from checkout import run_python

pytestmark = pytest.mark.xdist_group("benchmarks")  # what is measured once is so by one process


@pytest.fixture
def loss(root, monkeypatch):
    """The module `benchmarks.loss`, which is not installed."""
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    from benchmarks import loss

    return loss


@pytest.mark.every
def test_a_case_is_timed_and_weighed(loss, monkeypatch):
    """Our loss gets figures; a library that is not installed here becomes a row that says so."""
    monkeypatch.setattr(loss, "BUILDERS", {"tensorflow": dict.fromkeys(["tripletloss", "TensorFlow Similarity"])})
    own, peer = loss.measure("tensorflow", loss.Case(64, d=8), {})
    assert own["note"] == ""
    assert own["ratio_quarter"] <= own["ratio"] <= own["ratio_three_quarters"]
    assert own["milliseconds"] == pytest.approx(own["ratio"] * own["floor_milliseconds"], rel=0.05, abs=0.002)
    assert abs(own["peak_mb"]) < 512
    assert own["eager_milliseconds"] > 0
    assert own["first_step_s"] > own["milliseconds"] / 1e3
    if importlib.util.find_spec("tensorflow_similarity") is None:
        assert "No module named 'tensorflow_similarity'" in peer["note"]


def test_a_ratio_is_to_the_faster_floor(loss):
    row = loss.summary({"loss": [6.0, 4.0, 2.0, 4.0, 4.0], "whole": [4.0] * 5, "blocked": [2.0] * 5}, "loss")
    assert (row["ratio"], row["milliseconds"], row["floor_milliseconds"], row["rounds"]) == (2.0, 4000.0, 2000.0, 5)


# The programs, one after the other in one process: most of their time is that of an import.
PROGRAMS = """
import runpy, sys
for arguments in {programs!r}:
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def tables(root, tmp_path_factory):
    """The rows of all tables that the programs write in their smallest form, by the tables' names without the backend."""
    has_torch = importlib.util.find_spec("torch") is not None
    backend = "torch" if has_torch else "jax"  # the former has nothing to compile
    there = tmp_path_factory.mktemp("tables")
    programs = [
        ["benchmarks.ablations", "--backend", backend, "--tiny", "--output", str(there)],
        ["benchmarks.training", "--tiny", "--output", str(there)],
        ["benchmarks.batches", "--tiny", "--output", str(there)],
        *([["benchmarks.gpu", "--tiny", "--output", str(there)]] if has_torch else []),
    ]
    run_python(["-c", PROGRAMS.format(programs=programs)], root, KERAS_BACKEND=backend)
    found = {}
    for path in there.glob("*.csv"):
        with path.open(newline="") as file:
            found[path.stem.removesuffix(f"-{backend}")] = list(csv.DictReader(file))
    return found


@pytest.mark.every
def test_gpu_runs_on_a_cpu(loss, tables):
    pytest.importorskip("torch", reason="PyTorch is what it is run on, and is not installed; JAX would compile each case")
    from benchmarks import gpu

    rows = tables["gpu"]
    assert len(rows) == len(gpu.TINY)
    assert tuple(rows[0]) == gpu.COLUMNS
    assert all(float(row["ratio"]) > 0 for row in rows[:2])
    assert float(next(row for row in rows if row["library"] == gpu.DIFFERING)["differing_share"]) == 0
    assert {row["name"] for row in tables["machine-gpu"]} >= {"card", "keras", "torch"}


@pytest.mark.every
def test_batches_are_measured_each_in_a_process(loss, tables):
    from benchmarks import batches

    rows = tables["batches"]
    assert [(row["network"], int(row["batch"]), int(row["piece"]), int(row["remembered"])) for row in rows] == batches.TINY
    assert all(float(row["peak_mb"]) > 10 and float(row["milliseconds"]) > 0 and row["note"] == "" for row in rows)


@pytest.mark.every
def test_a_batch_that_fails_is_a_row(loss):
    from benchmarks import batches

    assert "micro_batch_size must be" in batches.in_process(batches.TINY[0]._replace(piece=-1), 60)["note"]


@pytest.mark.every
def test_ablations_run(loss, tables):
    from benchmarks import ablations

    rows = tables["ablations"]
    assert [row["trick"] for row in rows] == [trick.name for trick in ablations.TRICKS]
    assert tuple(rows[0]) == ablations.COLUMNS
    assert all(float(row["ratio"]) > 0 for row in rows)


@pytest.mark.every
def test_fit_is_timed(tables):
    (row,) = tables["fit"]
    assert float(row["with_loss_milliseconds"]) > 0
    assert {"backend", "jit", "batch", "without_loss_milliseconds", "difference_milliseconds"} < set(row)


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
        for library in loss.libraries_of(backend, case):
            assert (library, *case[:4], case.members) in measured
