"""One pool over several devices or processes, for real, beside one device that holds the whole batch."""

import functools
import json
import re
import subprocess
import time

import numpy as np
import pytest
from children import ROOT, free_ports, run_together
from devices.cases import CASES, CYCLE, EMBEDDINGS, SHORT, trained
from keras import ops
from on_backend import BACKEND, array, grad, only
from reference import mean_loss

from tripletloss import distribution

pytestmark = pytest.mark.xdist_group("devices")  # the scripts run once, for one process
SECONDS = 240  # an upper bound for a slow machine, not what it takes
ON_TWO = [name for name, case in CASES.items() if len(case.sizes) == 2]
# The scripts of `devices`, and the cases that they run.
SCRIPTS = {
    "tensorflow": {"tensorflow_devices": CASES, "tensorflow_workers": SHORT},
    "jax": {"jax_devices": SHORT},
    "torch": {"torch_workers": ON_TWO},
}[BACKEND]


def commands_of(script, folder, every):
    """The arguments of each process: where the first writes its results, and how they find each other."""
    command = [ROOT / "tests" / "devices" / f"{script}.py", folder / "results"]
    if script == "tensorflow_workers":
        ports = free_ports(2)
        return [[*command, worker, *ports] for worker in range(2)]
    if script == "torch_workers":
        return [[*command, rank, 2, folder / "store"] for rank in range(2)]
    return [[*command, "every"] if every else command]


@pytest.fixture(scope="module")
def results(tmp_path_factory, pytestconfig):
    """What a script wrote. It runs once, and if it fails, all tests that need it fail at once."""

    @functools.cache
    def outcome(script):
        folder = tmp_path_factory.mktemp(script)
        try:
            run_together(commands_of(script, folder, every=not pytestconfig.option.markexpr), SECONDS, JAX_PLATFORMS="cpu")
        except AssertionError as error:
            return str(error)
        return json.loads((folder / "results").read_text())

    def results_of(script):
        found = outcome(script)
        assert isinstance(found, dict), found
        return found

    return results_of


@functools.cache
def on_one_device(name, pooled=False):
    """Loss and gradient of the whole batch."""
    _, labels, weights = CASES[name].inputs()
    loss = CASES[name].make_loss(pooled)
    return float(loss(labels, EMBEDDINGS, weights)), grad(lambda x: loss(labels, x, weights), EMBEDDINGS)


@pytest.mark.jit
@pytest.mark.parametrize("script, name", [
    pytest.param(script, name, marks=[pytest.mark.every] if script == "tensorflow_devices" and name not in SHORT else [])
    for script in SCRIPTS for name in SCRIPTS[script]
])  # fmt: skip
def test_loss_and_gradient_are_those_of_one_device(script, name, results):
    computed, (loss, gradient) = results(script)[name], on_one_device(name)
    scale = max(1.0, np.abs(gradient).max())
    of_all = f"of {len(CASES[name].sizes)} replicas, beside that of one device"
    np.testing.assert_allclose(computed["loss"], loss, rtol=1e-6, atol=1e-6, err_msg=f"loss {of_all}: {computed['loss'] / (loss or 1):.3f} times")
    np.testing.assert_allclose(computed["gradient"], gradient, rtol=0, atol=1e-6 * scale, err_msg=f"gradient {of_all}")
    if "stepped" in computed:
        np.testing.assert_allclose(computed["stepped"], EMBEDDINGS - gradient, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize("name", CASES)
def test_the_argument_changes_nothing_on_one_device(name):
    loss, gradient = on_one_device(name)
    assert (loss == 0) == (not gradient.any()) == ("no valid anchor at all" in name)  # there is something to compare
    pooled_loss, pooled_gradient = on_one_device(name, pooled=True)
    assert pooled_loss == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(pooled_gradient, gradient, rtol=1e-6, atol=1e-6)


# Keras's fit does not share a batch among processes on PyTorch.
@pytest.mark.jit
@pytest.mark.parametrize("name", {"tensorflow": ["16", "19", "16 in pieces"], "jax": ["16", "16 in pieces"], "torch": []}[BACKEND])
def test_fit(name, results):
    n = int(name[:2])
    several, one = results(next(iter(SCRIPTS)))[f"fit {name}"], trained(n, 8, pooled=False)
    for weights, expected in zip(several["weights"], one["weights"], strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-6)
    if n == 16:  # Keras weights what it reports by rows, which is only right where all replicas hold as many
        assert several["loss"] == pytest.approx(one["loss"], rel=1e-6)


@only("tensorflow", "strategies with a scope")
def test_integer_labels_are_never_taken_for_a_question_about_shapes(results):
    expected = len(CYCLE) * mean_loss(CYCLE, EMBEDDINGS, name="euclidean", negative="hard")
    assert results("tensorflow_devices")["below the scope"] == pytest.approx(expected, rel=1e-5)


@only("jax", "arrays that know on which devices they lie")
def test_embeddings_lay_on_two_devices(results):
    where = results("jax_devices")["devices"]
    assert where and set(where) == {2}


@only("torch", "a training step for each process")
def test_a_step_in_pieces(results):
    """`GradientCache` under DistributedDataParallel, which hooks into the way back."""
    name = "hard/semi-hard, mean_with_sample_weight, weighted"
    found, (loss, gradient) = results("torch_workers")[f"{name}, in pieces"], on_one_device(name)
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(found["gradient"], gradient, rtol=0, atol=1e-6)


@only("torch", "rows that this package sends by itself")
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint64", "float16", "bfloat16", "float64"])
def test_any_dtype_is_gathered(dtype, results):
    expected = {"rows": [1, 2, 3, 4, 5], "dtype": f"torch.{dtype}", "offset": 0}
    assert results("torch_workers")[f"gathered {dtype}"] == expected


def test_alone_nothing_changes():
    x, labels = ops.convert_to_tensor(EMBEDDINGS), ops.convert_to_tensor([0, 1, 2])
    assert distribution.replicas() == 1 and distribution.sum_scale() == 1 and not distribution.is_shape_probe()
    for rows in (x, labels):
        gathered, offset = distribution.gather(rows)
        assert gathered is rows and offset == 0
    np.testing.assert_array_equal(array(distribution.all_reduce_sum(x)), EMBEDDINGS)
    assert (grad(lambda x: ops.sum(x + distribution.all_reduce_sum(x)), EMBEDDINGS) == 1).all()  # no gradient through the sum
    twelve, three = (ops.convert_to_tensor(number, "float32") for number in (12, 3))
    assert float(distribution.mean_scale(twelve, three)) == 4
    assert float(distribution.mean_scale(twelve, three - 3)) == 0


def test_block_size_is_set_and_reset(block_size):
    usual = distribution.block_size()
    for numbers in (7, np.int64(9)):
        block_size(numbers)
        assert distribution.block_size() == numbers
    block_size(None)
    assert distribution.block_size() == usual >= 2**20


# A child that starts another one, tells its number, and goes on as follows.
PARENT = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); "


def runs(process):
    """Whether the process does anything still; a dead one may stay in the list until its parent takes note."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", process], capture_output=True, text=True, check=False).stdout
    return state.strip()[:1] not in ("", "Z")


@pytest.mark.parametrize("goes_on, problem", [("time.sleep(600)", "the time is up"), ("sys.exit(3)", "child 0 ended with 3")])
def test_no_process_is_left_behind(goes_on, problem):
    start = time.monotonic()
    with pytest.raises(AssertionError, match=problem) as error:
        run_together([["-c", PARENT + goes_on], ["-c", "import time; time.sleep(600)"]], 3)
    grandchild = re.search(r"--- child 0\n(\d+)", str(error.value))[1]
    while runs(grandchild) and time.monotonic() < start + 30:
        time.sleep(0.1)
    assert not runs(grandchild) and time.monotonic() < start + 30
