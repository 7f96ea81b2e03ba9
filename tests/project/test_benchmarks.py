"""The benchmark measures what it says, and its tables hold what the page reads."""

import csv
import importlib.util
import math
import os
import subprocess
import sys

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


def run_module(root, backend, *arguments):
    """Run a module of benchmarks on a backend; the rows of all tables it writes, by the tables' names."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=root, env=environment, check=True)
    tables = {}
    for path in arguments[-1].glob("*.csv"):
        with path.open(newline="") as file:
            tables[path.stem] = list(csv.DictReader(file))
    return tables


def test_gpu_runs_on_a_cpu(root, loss, tmp_path):
    from benchmarks import gpu

    tables = run_module(root, "torch", "benchmarks.gpu", "--tiny", "--seconds", 30, "--output", tmp_path)
    rows = tables["gpu-torch"]
    assert len(rows) == len(gpu.TINY)
    assert tuple(rows[0]) == gpu.COLUMNS
    assert all(float(row["ratio"]) > 0 for row in rows[:2])
    assert float(next(row for row in rows if row["library"] == gpu.DIFFERING)["differing_share"]) == 0
    assert {row["name"] for row in tables["machine-gpu"]} >= {"card", "keras", "torch"}


def test_ablations_run(root, loss, tmp_path):
    from benchmarks import ablations

    backend = "jax" if importlib.util.find_spec("torch") is None else "torch"  # which has nothing to compile
    tables = run_module(root, backend, "benchmarks.ablations", "--backend", backend, "--tiny", "--output", tmp_path)
    rows = tables[f"ablations-{backend}"]
    assert [row["trick"] for row in rows] == [trick.name for trick in ablations.TRICKS]
    assert tuple(rows[0]) == ablations.COLUMNS
    assert all(float(row["ratio"]) > 0 for row in rows)


def test_fit_is_timed(root, loss, tmp_path):
    rows = run_module(root, "jax", "benchmarks.training", "--fit", "--quick", "--output", tmp_path)["fit-jax"]
    assert float(rows[0]["with_loss_milliseconds"]) > 0
    assert {"backend", "jit", "batch", "without_loss_milliseconds", "difference_milliseconds"} < set(rows[0])


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
