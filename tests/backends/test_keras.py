"""The contract with Keras: reduction, weights, configuration, saving, training, compiling."""

import importlib
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, compiled, grad
from reference import DISTANCES, mean_loss, triplet_losses

import tripletloss as tl

rng = np.random.default_rng(8)
N = 10
X = rng.normal(size=(N, 3)).astype("float32")
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 7])  # the last is a singleton
LOSSES, VALID = triplet_losses(Y, X, name="euclidean")
WEIGHT = np.arange(N, dtype="float32") / 4

REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", None, "none"]


def reduced(reduction, weight):
    """What Keras would return had the batch only its valid anchors."""
    losses = LOSSES * weight
    if reduction in ("sum_over_batch_size", "mean"):
        return losses[VALID].sum() / VALID.sum()
    if reduction == "mean_with_sample_weight":
        return losses[VALID].sum() / (np.ones(N) * weight)[VALID].sum()
    return losses.sum() if reduction == "sum" else losses


@pytest.mark.parametrize("weight", [None, 0.5, WEIGHT, WEIGHT[:, None]], ids=["no weight", "()", "(n,)", "(n, 1)"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reduction(reduction, weight):
    loss = tl.TripletLoss("euclidean", reduction=reduction)
    expected = reduced(reduction, 1.0 if weight is None else np.ravel(weight) if np.ndim(weight) else weight)
    for labels in (Y, Y[:, None]):
        computed = loss(labels, X) if weight is None else loss(labels, X, sample_weight=weight)
        assert tuple(computed.shape) == np.shape(expected)
        np.testing.assert_allclose(array(computed), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reduction_of_nothing(reduction):
    for labels, x in ((Y[:0], X[:0]), (Y[:1], X[:1]), (np.arange(3), X[:3])):
        for weight in (None, np.ones(len(x), "float32"), np.ones((len(x), 1), "float32")):
            loss = array(tl.TripletLoss(reduction=reduction)(labels, x, sample_weight=weight))
            assert loss.shape == ((len(x),) if reduction in (None, "none") else ())
            np.testing.assert_array_equal(loss, 0)


def test_weights_of_zero():
    loss = tl.TripletLoss("euclidean", reduction="mean_with_sample_weight")
    assert float(loss(Y, X, sample_weight=np.zeros(N, "float32"))) == 0


@pytest.mark.parametrize("weight", [np.ones(N + 1), np.ones((N, 2)), np.ones((1, N)), np.ones((N, 1, 1))])
def test_refuses_weights_of_other_shapes(weight):
    with pytest.raises(ValueError, match=r"sample_weight"):
        tl.TripletLoss("euclidean")(Y, X, sample_weight=weight.astype("float32"))


def test_weight_reaches_the_gradient():
    loss = tl.TripletLoss("euclidean", soft_margin=True)
    whole = grad(lambda x: loss(Y, x), X)
    double = grad(lambda x: loss(Y, x, sample_weight=np.full(N, 2, "float32")), X)
    np.testing.assert_allclose(double, 2 * whole, rtol=1e-5, atol=1e-7)
    only_first = grad(lambda x: loss(Y, x, sample_weight=np.eye(N, dtype="float32")[0]), X)
    assert (np.abs(only_first).sum(axis=1) > 0).sum() == 3  # anchor, positive and negative


# Configuration.

SETTINGS = [
    {},
    {"distance": "l2", "positive_mining_strategy": "easy", "negative_mining_strategy": "hard", "margin": 0.3},
    {"distance": "snr", "soft_margin": True, "name": "pull_and_push", "reduction": "sum", "dtype": "float64"},
    {"distance": "ip", "reduction": None, "dtype": "bfloat16"},
    {"margin": np.float32(0.5)},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_configuration_survives_json(settings):
    loss = tl.TripletLoss(**settings)
    config = loss.get_config()
    loaded = tl.TripletLoss.from_config(json.loads(json.dumps(config)))
    assert loaded.get_config() == config
    assert (loaded.dtype, loaded.name, loaded.reduction) == (loss.dtype, loss.name, loss.reduction)
    loaded = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    assert type(loaded) is tl.TripletLoss
    assert loaded.get_config() == config
    for argument, value in settings.items():
        if argument != "distance":
            assert config[argument] == value
    np.testing.assert_array_equal(array(ops.cast(loss(Y, X), "float32")), array(ops.cast(loaded(Y, X), "float32")))


def test_arguments_are_attributes():
    loss = tl.TripletLoss("l2", "easy", "hard", margin=0.3, average="active", reduction="sum", name="mine")
    arguments = {key: value for key, value in loss.get_config().items() if key != "distance"}
    assert {key: getattr(loss, key) for key in arguments} == arguments
    assert isinstance(loss.distance, tl.distances.Euclidean) and loss.fn_kwargs == {}
    assert tl.MetricLoss(label_times, factor=2.0).fn_kwargs == {"factor": 2.0}


def test_names():
    assert tl.TripletLoss().name.startswith("triplet_loss")
    assert tl.TripletLoss(name="mine").name == "mine"
    assert isinstance(tl.TripletLoss(), keras.losses.Loss)
    assert isinstance(tl.TripletLoss(), tl.MetricLoss)


@keras.saving.register_keras_serializable(package="tests")
def label_times(labels, embeddings, factor=1.0):
    """The labels themselves, as far as the embeddings' dtype holds them."""
    return factor * ops.cast(labels, embeddings.dtype)


def test_metric_loss_of_any_function():
    loss = tl.MetricLoss(label_times, name="times", factor=2.0)
    labels = np.array([1, 2, 6])
    assert float(loss(labels, X[:3])) == pytest.approx(6.0)
    assert float(loss(labels, X[:3], sample_weight=np.array([1, 0, 1], "float32"))) == pytest.approx(14 / 3)
    stored = json.loads(json.dumps(keras.losses.serialize(loss)))
    loaded = keras.losses.deserialize(stored)
    assert loaded.get_config() == loss.get_config()
    assert float(loaded(labels, X[:3])) == pytest.approx(6.0)


def test_metric_loss_passes_integers_on():
    received = []

    def spy(labels, embeddings):
        received.append((keras.backend.standardize_dtype(labels.dtype), array(labels).tolist()))
        return ops.sum(embeddings, axis=1)

    tl.MetricLoss(spy)(np.array([2**24, 2**24 + 1]), X[:2])
    dtype, labels = received[0]
    assert dtype.startswith("int")
    assert labels == [2**24, 2**24 + 1]


# Widths of numbers.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype(dtype, float64):
    # The sum, because Keras's mean (divide_no_nan) narrows float64 to float32 on torch.
    loss = tl.TripletLoss("euclidean", reduction="sum", dtype=dtype)(Y, X)
    assert keras.backend.standardize_dtype(loss.dtype) == dtype
    tolerance = {"float16": 5e-3, "bfloat16": 3e-2, "float32": 1e-6, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(array(ops.cast(loss, "float64")), LOSSES.sum(), rtol=tolerance)


def test_floatx_is_the_default_dtype():
    keras.backend.set_floatx("bfloat16")
    try:
        assert tl.TripletLoss().dtype == "bfloat16"
    finally:
        keras.backend.set_floatx("float32")
    assert tl.TripletLoss().dtype == "float32"


@pytest.mark.parametrize("dtype, first", [("bfloat16", 256), ("float16", 2048), ("float32", 2**24)])
def test_labels_keep_their_digits_whatever_the_dtype(dtype, first):
    """In this dtype the first and the next number are the same, and there would be no negative."""
    x, labels = X[:4], np.array([0, 0, 1, 1])
    expected = mean_loss(labels, x, name="euclidean")
    assert expected > 0
    loss = tl.TripletLoss("euclidean", dtype=dtype)(first + labels, x)
    np.testing.assert_allclose(array(ops.cast(loss, "float32")), expected, rtol=0.05)


# Models.


def identity(loss, **settings):
    """A model whose embeddings are its inputs."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, use_bias=False)])
    model.layers[0].kernel.assign(np.eye(3))
    model.compile(optimizer=keras.optimizers.SGD(settings.pop("rate", 0.0)), loss=loss, **settings)
    return model


@pytest.mark.parametrize("labels", [Y, Y[:, None], Y.astype("int32")], ids=["(n,)", "(n, 1)", "int32"])
def test_evaluate(labels):
    model = identity(tl.TripletLoss("euclidean"))
    loss = model.evaluate(X, labels, batch_size=N, verbose=0)
    assert loss == pytest.approx(LOSSES[VALID].mean(), rel=1e-5)


def test_evaluate_with_weights():
    model = identity(tl.TripletLoss("euclidean"))
    loss = model.evaluate(X, Y, batch_size=N, sample_weight=WEIGHT, verbose=0)
    assert loss == pytest.approx((LOSSES * WEIGHT)[VALID].mean(), rel=1e-5)


def test_fit_with_a_smaller_last_batch():
    """At rate 0 the epoch's loss is the mean of the batches' losses, each weighted by its size."""
    x, y = np.tile(X, (2, 1))[:17], np.tile(Y[:9], 2)[:17]
    x = x + np.random.default_rng(9).normal(size=x.shape).astype("float32")
    model = identity(tl.TripletLoss("euclidean"))
    history = model.fit(x, y, batch_size=7, shuffle=False, verbose=0)
    batches = [(y[i : i + 7], x[i : i + 7]) for i in (0, 7, 14)]
    assert [len(b[0]) for b in batches] == [7, 7, 3]
    expected = sum(len(b[0]) * mean_loss(*b, name="euclidean") for b in batches) / 17
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64"])
def test_fit_tells_apart_labels_that_float32_does_not(dtype):
    labels = np.array([2**24, 2**24, 2**24 + 1, 2**24 + 1], dtype)
    expected = mean_loss(np.array([0, 0, 1, 1]), X[:4], name="euclidean")
    assert expected > 0
    history = identity(tl.TripletLoss("euclidean")).fit(X[:4], labels, batch_size=4, shuffle=False, verbose=0)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_learns(jit_compile):
    if jit_compile and BACKEND == "torch":
        pytest.skip("jit_compile=True is torch.compile on torch, which takes a C++ compiler at run time")
    if not jit_compile and BACKEND == "jax":
        pytest.skip("without jit JAX compiles piece by piece, at every step")
    model = identity(tl.TripletLoss("squared_euclidean", margin=0.5), rate=0.05, jit_compile=jit_compile)
    y = np.arange(16) % 2
    x = np.random.default_rng(10).normal(size=(16, 3)).astype("float32")
    x[:, 0] += y
    losses = model.fit(x, y, batch_size=8, epochs=30, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert min(losses[-5:]) < 0.7 * losses[0]


def test_fit_with_singletons_is_zero_and_changes_nothing():
    model = identity(tl.TripletLoss(), rate=1.0)
    losses = model.fit(X, np.arange(N), batch_size=N, epochs=2, verbose=0).history["loss"]
    assert losses == [0.0, 0.0]
    np.testing.assert_array_equal(array(model.layers[0].kernel), np.eye(3))


@pytest.mark.parametrize("distance", DISTANCES)
def test_compiled_equals_the_loops(distance):
    loss = tl.TripletLoss(distance)
    labels = ops.convert_to_tensor(Y.astype("int32"))
    fast = compiled(lambda x: loss(labels, x))
    assert float(fast(ops.convert_to_tensor(X))) == pytest.approx(mean_loss(Y, X, name=distance), rel=1e-4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_graph_that_knows_no_batch_size(distance):
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow traces a function without knowing the batch size")
    import tensorflow as tf

    loss = tl.TripletLoss(distance)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int64), tf.TensorSpec([None, 3], tf.float32)])
    def value_and_gradient(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x)
        return value, tape.gradient(value, x)

    for n in (N, 5, 1, 0):
        value, gradient = value_and_gradient(Y[:n, None].astype("int64"), X[:n])
        assert float(value) == pytest.approx(mean_loss(Y[:n], X[:n], name=distance), rel=1e-4, abs=1e-6)
        assert gradient.shape == (n, 3)


# Saving.

OWN_DISTANCE = '''
import keras
from keras import ops

from tripletloss.distances import Distance


@keras.saving.register_keras_serializable(package="own")
class Chebyshev(Distance):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def call(self, query, key):
        return self.factor * ops.max(ops.abs(query[:, None] - key[None]), axis=-1)

    def get_config(self):
        return {"factor": self.factor}
'''
IN_A_FRESH_PROCESS = """
import json, sys
import numpy as np
import keras
import tripletloss
sys.path.insert(0, sys.argv[1])
import own_distance

data = np.load(sys.argv[2])
results = []
for path in sys.argv[3:]:
    model = keras.models.load_model(path)
    loss = model.evaluate(data["x"], data["y"], batch_size=len(data["x"]), verbose=0)
    results.append({"type": type(model.loss).__name__, "config": model.loss.get_config(), "loss": loss})
print("RESULTS" + json.dumps(results))
"""


def test_saved_and_loaded_in_a_fresh_process(tmp_path, monkeypatch, root):
    (tmp_path / "own_distance.py").write_text(OWN_DISTANCE)
    monkeypatch.syspath_prepend(tmp_path)
    chebyshev = importlib.import_module("own_distance").Chebyshev
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    losses = [
        tl.TripletLoss("manhattan", "easy", "hard", margin=0.7, name="mine"),
        tl.TripletLoss(chebyshev(3.0), soft_margin=True, dtype="float32"),
    ]
    expected, paths = [], []
    for number, loss in enumerate(losses):
        model = identity(loss)
        expected.append(
            {
                "type": "TripletLoss",
                "config": json.loads(json.dumps(loss.get_config())),
                "loss": model.evaluate(X, Y, batch_size=N, verbose=0),
            }
        )
        paths.append(str(tmp_path / f"{number}.keras"))
        model.save(paths[-1])
        here = keras.models.load_model(paths[-1])
        assert here.loss.get_config() == loss.get_config()
    np.testing.assert_allclose(expected[0]["loss"], mean_loss(
        Y, X, name="manhattan", positive="easy", negative="hard", margin=0.7), rtol=1e-5)
    child = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path), str(tmp_path / "data.npz"), *paths],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    loaded = json.loads(child.stdout.split("RESULTS")[1])
    for result, wanted in zip(loaded, expected, strict=True):
        assert result["loss"] == pytest.approx(wanted.pop("loss"), rel=1e-6)
        result.pop("loss")
        assert result == wanted
