"""A loss over its lifetime: loaded elsewhere and by later versions, shared, called in threads and for long."""

import copy
import gc
import importlib.util
import json
import resource
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from children import ROOT, run_together
from devices.load import Chebyshev
from keras import ops
from on_backend import BACKEND, array, compiled, grad
from reference import mean_loss

import tripletloss as tl

FIXTURES = ROOT / "tests" / "fixtures"
X = np.random.default_rng(8).normal(size=(12, 3)).astype("float32")  # as in fixtures/make.py
Y = np.arange(12) % 4

# Elsewhere and later.


def test_saved_here_and_loaded_in_a_fresh_process_on_another_backend(tmp_path):
    """On this one where the other is not installed."""
    other = {"tensorflow": "torch", "torch": "jax", "jax": "tensorflow"}[BACKEND]
    other = other if importlib.util.find_spec(other) else BACKEND
    losses = [tl.TripletLoss("manhattan", "easy", "hard", margin=0.7, name="mine"), tl.TripletLoss(Chebyshev(3.0), soft_margin=True)]
    expected = [mean_loss(Y, X, name="manhattan", positive="easy", negative="hard", margin=0.7), float(losses[1](Y, X))]
    paths = [tmp_path / "0.keras", tmp_path / "1.keras"]
    for loss, path in zip(losses, paths, strict=True):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, kernel_initializer="identity")])
        model.compile("sgd", loss)
        model.save(path)
        assert keras.models.load_model(path).loss.get_config() == loss.get_config()
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    command = ["-c", "from devices.load import main; main()", tmp_path / "found", tmp_path / "data.npz", *paths]
    run_together([command], 240, KERAS_BACKEND=other, JAX_PLATFORMS="cpu")
    backend, *found = json.loads((tmp_path / "found").read_text())
    assert backend == other
    for loss, value, (kind, config, loaded) in zip(losses, expected, found, strict=True):
        assert (kind, config) == ("TripletLoss", json.loads(json.dumps(loss.get_config())))
        assert loaded == pytest.approx(value, rel=1e-5)


VERSIONS = sorted(path.parent.name for path in FIXTURES.glob("*/losses.json"))


def stored(version, what):
    return json.loads((FIXTURES / version / f"{what}.json").read_text())


def test_this_version_is_stored():
    assert tl.__version__ in VERSIONS, "run `python tests/fixtures/make.py` and commit what it writes"


@pytest.mark.parametrize("version, name", [(version, name) for version in VERSIONS for name in stored(version, "losses")])
def test_what_a_version_stored_is_loaded_by_all_later_ones(version, name):
    case = stored(version, "losses")[name]
    loss, known = keras.losses.deserialize(case["stored"]), case["stored"]["config"]
    assert {key: loss.get_config()[key] for key in known} == known
    assert float(loss(Y, X)) == pytest.approx(case["loss"], rel=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_that_a_version_saved_is_loaded_by_all_later_ones(version):
    """With an L2Embedding, a TripletLoss and its TripletMetrics."""
    model = keras.models.load_model(FIXTURES / version / "model.keras")
    numbers = model.evaluate(X, Y, batch_size=len(X), verbose=0, return_dict=True)
    expected = stored(version, "model")
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)


# In many places, and for long.


def test_many_losses_share_nothing():
    losses = [tl.TripletLoss("euclidean", margin=margin) for margin in np.linspace(0.1, 5, 10)]
    assert len({loss.name for loss in losses}) == len(losses)
    for loss in losses:
        assert float(loss(Y, X)) == pytest.approx(mean_loss(Y, X, name="euclidean", margin=loss.margin), rel=1e-5)


def test_nothing_is_left_of_a_call():
    loss = tl.TripletLoss("euclidean", "all", "semi-hard", average="active")
    before, value = copy.deepcopy(vars(loss)), array(loss(Y, X))
    loss(Y[:6] * 7, 100 * X[:6])
    grad(lambda x: loss(Y[:6], x), X[:6])
    with pytest.raises(ValueError):
        loss(Y, X[:3])
    np.testing.assert_array_equal(array(loss(Y, X)), value)
    assert vars(loss).keys() == before.keys()
    assert {name: x for name, x in vars(loss).items() if name not in ("distance", "fn_kwargs")}.items() <= before.items()


@pytest.mark.jit
def test_several_threads_share_a_loss():
    loss, problems = tl.TripletLoss("euclidean", "hard", "hard"), []
    batches = [(Y[:n] * 3 % 5, shift * X[:n]) for n in (8, 12) for shift in (1, 2)]
    expected = [
        (mean_loss(labels, x, name="euclidean", negative="hard"), grad(lambda x, labels=labels: loss(labels, x), x))
        for labels, x in batches
    ]

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


STATM = Path("/proc/self/statm")


def memory():
    """Bytes of memory that this process holds."""
    gc.collect()
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells")
def test_memory_is_steady():
    """After the first steps the process grows no more, but for what the allocator moves about.

    A table of this batch has 64 KB: 300 of them left behind would be five times the limit.
    """
    rng, loss = np.random.default_rng(0), tl.TripletLoss("euclidean")
    labels = ops.convert_to_tensor(np.arange(128, dtype="int32") % 16)
    x = ops.convert_to_tensor(rng.normal(size=(128, 4)).astype("float32"))
    step = (lambda x: loss(labels, x)) if BACKEND == "torch" else compiled(lambda x: loss(labels, x))
    for _ in range(50):
        step(x)
    before = memory()
    for _ in range(300):
        step(x)
    assert memory() - before < 4e6
