"""The contract with Keras: reduction, weights, configuration, copies, training, compiling."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, compiled, grad
from reference import DISTANCES, mean_loss, triplet_losses

import tripletloss as tl

N = 10
X = np.random.default_rng(8).normal(size=(N, 3)).astype("float32")
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 7])  # the last is a singleton
LOSSES, VALID = triplet_losses(Y, X, name="euclidean")
MEAN = LOSSES[VALID].mean()

# Reductions and weights.

REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", None, "none"]
WEIGHT = np.arange(N, dtype="float32") / 4
WEIGHTS = {"none": None, "()": 0.5, "(n,)": WEIGHT, "(n, 1)": WEIGHT[:, None], "zeros": 0 * WEIGHT}


def reduced(reduction, weight):
    """What Keras would return had the batch only its valid anchors."""
    losses = LOSSES * weight
    if reduction in (None, "none", "sum"):
        return losses.sum() if reduction == "sum" else losses
    counted = (np.ones(N) * weight)[VALID].sum() if reduction == "mean_with_sample_weight" else VALID.sum()
    return losses[VALID].sum() / counted if counted else 0.0


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reduction(reduction, weight):
    weight = WEIGHTS[weight]
    expected = reduced(reduction, 1.0 if weight is None else np.ravel(weight) if np.ndim(weight) else weight)
    for labels in (Y, Y[:, None]):
        computed = tl.TripletLoss("euclidean", reduction=reduction)(labels, X, sample_weight=weight)
        assert tuple(computed.shape) == np.shape(expected)
        np.testing.assert_allclose(array(computed), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reduction_of_nothing(reduction):
    for labels, x in ((Y[:0], X[:0]), (Y[:1], X[:1]), (np.arange(3), X[:3])):
        for weight in (None, np.ones((len(x), 1), "float32")):
            loss = array(tl.TripletLoss(reduction=reduction)(labels, x, sample_weight=weight))
            assert loss.shape == ((len(x),) if reduction in (None, "none") else ())
            np.testing.assert_array_equal(loss, 0)


def test_weight_reaches_the_gradient():
    loss = tl.TripletLoss("euclidean", soft_margin=True)
    whole, double, of_the_first = (
        grad(lambda x, weight=weight: loss(Y, x, sample_weight=weight), X)
        for weight in (None, np.full(N, 2, "float32"), np.eye(N, dtype="float32")[0])
    )
    np.testing.assert_allclose(double, 2 * whole, rtol=1e-5, atol=1e-7)
    assert (np.abs(of_the_first).sum(axis=1) > 0).sum() == 3  # anchor, positive and negative


# Configuration and copies.

SETTINGS = {
    "defaults": {},
    "an alias": {"distance": "l2", "positive_mining_strategy": "easy", "negative_mining_strategy": "hard", "margin": 0.3},
    "soft": {"distance": "snr", "soft_margin": True, "average": "active", "name": "mine", "reduction": "sum", "dtype": "float64"},
    "no reduction": {"distance": "ip", "reduction": None, "dtype": "bfloat16"},
    "a number of NumPy's": {"margin": np.float32(0.5)},
}


def through_json(x):
    """An object of Keras's from its stored form."""
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(x))))


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "from_config": lambda x: type(x).from_config(json.loads(json.dumps(x.get_config()))),
    "deserialize": through_json,
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)
def test_copies(again, settings):
    loss = tl.TripletLoss(**settings)
    other = again(loss)
    assert type(other) is tl.TripletLoss
    assert (other.get_config(), other.dtype, other.name) == (loss.get_config(), loss.dtype, loss.name)
    assert {name: loss.get_config()[name] for name in settings if name != "distance"}.items() <= settings.items()
    np.testing.assert_array_equal(array(ops.cast(other(Y, X), "float32")), array(ops.cast(loss(Y, X), "float32")))
    metric = again(tl.metrics.TripletMetrics(loss, prefix="a_", name="b"))
    assert (metric.prefix, metric.name, metric.loss.get_config()) == ("a_", "b", loss.get_config())


@pytest.mark.parametrize("again", ["copy", "deepcopy", "pickle"])
def test_copies_of_batches(again):
    batches = tl.samplers.PKBatches(X, Y % 3, 2, 3, seed=1)
    np.testing.assert_array_equal(COPIES[again](batches)[0][1], batches[0][1])


def test_arguments_are_attributes():
    loss = tl.TripletLoss("l2", "easy", "hard", margin=0.3, average="active", reduction="sum", name="mine")
    arguments = {key: value for key, value in loss.get_config().items() if key != "distance"}
    assert {key: getattr(loss, key) for key in arguments} == arguments
    assert isinstance(loss.distance, tl.distances.Euclidean) and loss.fn_kwargs == {}
    assert isinstance(loss, keras.losses.Loss) and isinstance(loss, tl.MetricLoss)
    assert tl.TripletLoss().name.startswith("triplet_loss")


@keras.saving.register_keras_serializable(package="tests")
def labels_from(labels, embeddings, first=0, factor=1.0):
    """How far the labels are from the first: as floats, labels of neighbouring large integers would be one."""
    return factor * ops.cast(labels - first, embeddings.dtype)


def test_metric_loss_of_any_function():
    loss = tl.MetricLoss(labels_from, name="times", first=2**24, factor=2.0)
    assert loss.fn_kwargs == {"first": 2**24, "factor": 2.0}
    labels, weight = 2**24 + np.array([1, 2, 6]), np.array([1, 0, 1], "float32")
    for same in (loss, through_json(loss)):
        assert same.get_config() == loss.get_config()
        assert float(same(labels, X[:3])) == pytest.approx(2 * 9 / 3)
        assert float(same(labels, X[:3], sample_weight=weight)) == pytest.approx(2 * 7 / 3)


# Models.


def identity(loss, rate=0.0, **settings):
    """A model whose embeddings are its inputs."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")])
    model.compile(keras.optimizers.SGD(rate), loss, **settings)
    return model


@pytest.mark.parametrize("again", ["deepcopy", "pickle", "compile_from_config"])
def test_copies_of_a_model(again):
    model = identity(tl.TripletLoss("snr", average="active", dtype="float64", reduction="sum"), run_eagerly=True)
    model.train_on_batch(X, Y)
    if again == "compile_from_config":
        other = keras.models.clone_model(model)
        other.compile_from_config(json.loads(json.dumps(model.get_compile_config())))
    else:
        other = COPIES[again](model)
    assert other.loss.get_config() == model.loss.get_config()
    np.testing.assert_allclose(other.evaluate(X, Y, verbose=0), model.evaluate(X, Y, verbose=0), rtol=1e-6)


@pytest.mark.jit
@pytest.mark.parametrize("labels", [Y, Y[:, None]], ids=["(n,)", "(n, 1)"])
def test_evaluate(labels):
    model = identity(tl.TripletLoss("euclidean"))
    assert model.evaluate(X, labels, batch_size=N, verbose=0) == pytest.approx(MEAN, rel=1e-5)
    loss = model.evaluate(X, labels, batch_size=N, sample_weight=WEIGHT, verbose=0)
    assert loss == pytest.approx((LOSSES * WEIGHT)[VALID].mean(), rel=1e-5)


def test_fit_with_a_smaller_last_batch():
    """At rate 0 the epoch's loss is the mean of the batches' losses, each weighted by its size."""
    x, y = np.concatenate([X, 2 * X, X[:3]]), np.concatenate([Y, Y % 2, [0, 0, 1]])
    history = identity(tl.TripletLoss("euclidean")).fit(x, y, batch_size=10, shuffle=False, verbose=0).history
    expected = sum(len(y[i : i + 10]) * mean_loss(y[i : i + 10], x[i : i + 10], name="euclidean") for i in (0, 10, 20)) / 23
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.jit
@pytest.mark.parametrize("jit_compile", {"tensorflow": [False, True], "jax": [True], "torch": [False]}[BACKEND])
def test_fit_learns(jit_compile):
    """Not compiled on JAX it would take long, and compiled on PyTorch it takes a C++ compiler."""
    model = identity(tl.TripletLoss("squared_euclidean", margin=0.5), rate=0.05, jit_compile=jit_compile)
    y = np.arange(16) % 2
    x = np.random.default_rng(10).normal(size=(16, 3)).astype("float32")
    x[:, 0] += y
    losses = model.fit(x, y, batch_size=8, epochs=30, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert min(losses[-5:]) < 0.7 * losses[0]


def test_fit_with_singletons_is_zero_and_changes_nothing():
    model = identity(tl.TripletLoss(), rate=1.0, run_eagerly=True)
    assert model.fit(X, np.arange(N), batch_size=N, epochs=2, verbose=0).history["loss"] == [0.0, 0.0]
    np.testing.assert_array_equal(array(model.layers[0].kernel), np.eye(3))


def test_several_outputs_each_with_its_labels_and_weight():
    """Two embeddings and, beside them, a loss that wants floats."""
    inputs = keras.Input((3,))
    layers = [keras.layers.Dense(3, use_bias=False, kernel_initializer="identity", name=name) for name in ("one", "two")]
    layers.append(keras.layers.Dense(1, kernel_initializer="zeros", name="size"))
    model = keras.Model(inputs, {layer.name: layer(inputs) for layer in layers})
    losses = {"one": tl.TripletLoss("euclidean"), "two": tl.TripletLoss("manhattan", "hard", "hard"), "size": "mse"}
    model.compile("sgd", losses, loss_weights={"one": 2.0, "two": 0.25, "size": 1.0}, run_eagerly=True)
    targets = {"one": 2**24 + Y, "two": 2**24 + Y % 2, "size": np.full((N, 1), 3.0)}
    history = model.fit(X, targets, verbose=0).history
    expected = mean_loss(Y, X, name="euclidean"), mean_loss(Y % 2, X, name="manhattan", negative="hard")
    assert min(expected) > 0
    assert (history["one_loss"][0], history["two_loss"][0]) == pytest.approx(expected, rel=1e-5)
    assert history["loss"][0] == pytest.approx(2 * expected[0] + 0.25 * expected[1] + 9, rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES if BACKEND != "torch" else [])  # which takes ten seconds for each
def test_compiled_equals_the_loops(distance):
    loss, labels = tl.TripletLoss(distance), ops.convert_to_tensor(Y.astype("int32"))
    fast = compiled(lambda x: loss(labels, x))
    assert float(fast(ops.convert_to_tensor(X))) == pytest.approx(mean_loss(Y, X, name=distance), rel=1e-4)
