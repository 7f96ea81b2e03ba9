"""A loss over its lifetime: copied, stored, loaded elsewhere and by later versions, called in threads and for long."""

import copy
import importlib.util
import json
import os
import pickle
import resource
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from on_backend import BACKEND, array, compiled, grad
from reference import mean_loss

import tripletloss as tl

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
X = np.random.default_rng(8).normal(size=(12, 3)).astype("float32")  # as in fixtures/make.py
Y = np.arange(12) % 4
SETTINGS = {"distance": "snr", "margin": 0.7, "name": "mine", "average": "active", "dtype": "float64", "reduction": "sum"}


def trained(loss):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile("sgd", loss)
    model.train_on_batch(X, Y)
    return model


# Copies.


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "deepcopy", "pickle"])
def test_copies(again):
    loss = tl.TripletLoss(**SETTINGS)
    assert again(loss).get_config() == loss.get_config()
    np.testing.assert_array_equal(array(again(loss)(Y, X)), array(loss(Y, X)))
    metric = again(tl.metrics.TripletMetrics(loss, prefix="train_"))
    assert metric.loss.get_config() == loss.get_config() and metric.prefix == "train_"
    batches = tl.samplers.PKBatches(X, Y, 2, 3, seed=1)
    np.testing.assert_array_equal(again(batches)[0][1], batches[0][1])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_of_a_model(again):
    model = trained(tl.TripletLoss(**SETTINGS))
    other = again(model)
    assert other.loss.get_config() == model.loss.get_config()
    np.testing.assert_allclose(other.evaluate(X, Y, verbose=0), model.evaluate(X, Y, verbose=0), rtol=1e-6)


def test_clones_are_compiled_from_the_configuration():
    model = trained(tl.TripletLoss(**SETTINGS))
    clone = keras.models.clone_model(model)
    clone.compile_from_config(json.loads(json.dumps(model.get_compile_config())))
    assert clone.loss.get_config() == model.loss.get_config()


# Elsewhere and later.

LOAD = """
import json, sys
import keras
import numpy as np
import tripletloss

data = np.load(sys.argv[1])
model = keras.models.load_model(sys.argv[2])
print("RESULT" + json.dumps([keras.backend.backend(), model.evaluate(data["x"], data["y"], verbose=0), model.loss.get_config()]))
"""


def test_saved_here_and_loaded_on_another_backend(tmp_path, root):
    other = {"tensorflow": "jax", "jax": "torch", "torch": "tensorflow"}[BACKEND]
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    model = trained(tl.TripletLoss("manhattan", "easy", "hard", margin=0.7))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    environment = {**os.environ, "KERAS_BACKEND": other, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-c", LOAD, str(tmp_path / "data.npz"), str(tmp_path / "model.keras")]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
    backend, loss, config = json.loads(child.stdout.split("RESULT")[1])
    assert (backend, config) == (other, model.loss.get_config())
    assert loss == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-4)


VERSIONS = sorted(path.name for path in FIXTURES.iterdir() if (path / "losses.json").exists())
STORED = [(version, name) for version in VERSIONS for name in json.loads((FIXTURES / version / "losses.json").read_text())]


def test_this_version_is_stored():
    assert tl.__version__ in VERSIONS, "run `python tests/fixtures/make.py` and commit what it writes"


@pytest.mark.parametrize("version, name", STORED)
def test_what_a_version_stored_is_loaded_by_all_later_ones(version, name):
    case = json.loads((FIXTURES / version / "losses.json").read_text())[name]
    loss = keras.losses.deserialize(case["stored"])
    known = case["stored"]["config"]
    assert {key: loss.get_config()[key] for key in known} == known
    assert float(loss(Y, X)) == pytest.approx(case["loss"], rel=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_that_a_version_saved_is_loaded_by_all_later_ones(version):
    model = keras.models.load_model(FIXTURES / version / "model.keras")
    numbers = model.evaluate(X, Y, batch_size=len(X), verbose=0, return_dict=True)
    expected = json.loads((FIXTURES / version / "model.json").read_text())
    assert {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in expected.items()} == {name: numbers[name] for name in expected}


# In many places, and for long.


def test_many_losses_share_nothing():
    losses = [tl.TripletLoss("euclidean", margin=margin) for margin in np.linspace(0.1, 5, 20)]
    assert len({loss.name for loss in losses}) == len(losses)
    for loss in losses:
        assert float(loss(Y, X)) == pytest.approx(mean_loss(Y, X, name="euclidean", margin=loss.margin), rel=1e-5)


def test_nothing_is_left_of_a_call():
    loss = tl.TripletLoss("euclidean", "all", "semi-hard", average="active")
    before, value = copy.deepcopy(vars(loss)), array(loss(Y, X))
    loss(Y[:5] * 7, 100 * X[:5])
    grad(lambda x: loss(Y[:6], x), X[:6])
    with pytest.raises(ValueError):
        loss(Y, X[:3])
    np.testing.assert_array_equal(array(loss(Y, X)), value)
    assert vars(loss).keys() == before.keys()
    assert {name: value for name, value in vars(loss).items() if name not in ("distance", "fn_kwargs")}.items() <= before.items()


def test_several_threads_share_a_loss():
    rng, loss = np.random.default_rng(0), tl.TripletLoss("euclidean", "hard", "hard")
    batches = [(rng.integers(0, 3, n), rng.normal(size=(n, 3)).astype("float32")) for n in (8, 8, 12, 12)]
    expected = [(mean_loss(*batch, name="euclidean", negative="hard"), grad(lambda x, y=batch[0]: loss(y, x), batch[1])) for batch in batches]
    problems = []

    def work(number):
        for i in range(8):
            (labels, x), (value, gradient) = batches[(number + i) % 4], expected[(number + i) % 4]
            try:
                assert float(loss(labels, x)) == pytest.approx(value, rel=1e-5)
                np.testing.assert_allclose(grad(lambda x, labels=labels: loss(labels, x), x), gradient, atol=1e-6)
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_one_trace_for_all_batch_sizes():
    """A graph of TensorFlow's is traced once for batches of any size, and `fit` does not trace each size anew."""
    if BACKEND != "tensorflow":
        pytest.skip("JAX compiles each shape by its nature, and PyTorch does not trace")
    import tensorflow as tf

    traces = []

    class Counted(tl.TripletLoss):
        def call(self, y_true, y_pred):
            traces.append(tuple(y_pred.shape))
            return super().call(y_true, y_pred)

    loss = Counted("euclidean")
    step = tf.function(loss, input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 3], tf.float32)])
    for n in (12, 7, 5, 1, 0, 12):
        assert float(step(Y[:n], X[:n])) == pytest.approx(mean_loss(Y[:n], X[:n], name="euclidean"), rel=1e-5, abs=1e-6)
    assert traces == [(None, 3)]
    traces.clear()
    model = trained(loss)
    model.fit(X, Y, batch_size=5, epochs=2, verbose=0)  # batches of 5, 5 and 2
    assert len(traces) <= 3  # train_on_batch, the symbolic build, and fit


def memory():
    """The largest number of bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_memory_is_steady_over_10000_steps():
    """After the first 2000 the largest size that the process ever had grows no more, but for what the allocator moves about.

    PyTorch, which does not compile them, gets 3000, and all with EVERY_CASE=1.
    """
    loss = tl.TripletLoss("euclidean")
    labels, x = keras.ops.convert_to_tensor(Y.astype("int32")), keras.ops.convert_to_tensor(X)
    step = (lambda x: loss(labels, x)) if BACKEND == "torch" else compiled(lambda x: loss(labels, x))
    for _ in range(2000):
        step(x)
    before = memory()
    for _ in range(8000 if BACKEND != "torch" or os.environ.get("EVERY_CASE") else 1000):
        step(x)
    assert memory() - before < 16e6
