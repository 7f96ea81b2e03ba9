"""Batches without a valid triplet: the loss is 0, and its gradient exists and is 0, so that a training step goes on."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, compiled, grad, raw_grad
from reference import AVERAGES, STRATEGIES

import tripletloss as tl

X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
LABELS = {
    "all labels distinct": np.arange(6),
    "one class": np.zeros(6, "int64"),
    "one row": np.array([3]),
    "no rows": np.zeros(0, "int64"),
}
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)
WAYS = {"small": None, "several blocks": 12, "a row at a time": 1}  # numbers in a block


@pytest.fixture(params=WAYS)
def way(request, block_size):
    """One table of masks, and blocks."""
    block_size(WAYS[request.param])
    return request.param


def check(loss, labels, x, weights=None):
    """Value and gradient are 0; `grad` fails where there is none."""
    value = array(loss(labels, x, weights))
    assert value.shape == ((len(x),) if loss.reduction in (None, "none") else ())
    np.testing.assert_array_equal(value, 0)

    def total(x):
        return ops.sum(loss(labels, x, weights))

    gradient = array(compiled(lambda x: raw_grad(total, x))(x)) if BACKEND == "jax" else grad(total, x)
    assert gradient.shape == x.shape
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("positive, negative", STRATEGIES)
@pytest.mark.parametrize("batch", LABELS)
def test_value_and_gradient(batch, positive, negative, way):
    labels = LABELS[batch]
    for average in AVERAGES:
        for soft in (False, True):
            check(tl.TripletLoss("euclidean", positive, negative, soft, average=average), labels, X[: len(labels)])


@pytest.mark.parametrize("positive, negative", STRATEGIES)
@pytest.mark.parametrize("batch", LABELS)
def test_every_reduction_and_average(batch, positive, negative):
    labels = LABELS[batch]
    for average in AVERAGES if BACKEND != "jax" else AVERAGES[:1]:
        for reduction in REDUCTIONS:
            for weights in (None, np.ones(len(labels), "float32")):
                check(tl.TripletLoss("cosine", positive, negative, average=average, reduction=reduction), labels, X[: len(labels)], weights)


@pytest.mark.parametrize("distance", ["squared_euclidean", "manhattan", "inner_product", "snr"])
@pytest.mark.parametrize("positive, negative", [("hard", "semi-hard"), ("all", "semi-hard"), ("all", "all")])
def test_every_distance(distance, positive, negative, way):
    for labels in LABELS.values():
        check(tl.TripletLoss(distance, positive, negative), labels, X[: len(labels)])


class Chebyshev(tl.distances.Distance):
    """A custom distance, with `call` alone."""

    def call(self, query, key):
        return ops.max(ops.abs(query[:, None] - key[None]), axis=-1)


@pytest.mark.parametrize("positive, negative", [("hard", "semi-hard"), ("all", "semi-hard"), ("all", "all")])
def test_a_custom_distance(positive, negative, way):
    for labels in LABELS.values():
        check(tl.TripletLoss(Chebyshev(), positive, negative), labels, X[: len(labels)])


@pytest.mark.parametrize("positive, negative", STRATEGIES)
@pytest.mark.parametrize("key_labels", [np.zeros(4, "int64"), np.full(4, 9), np.zeros(0, "int64")], ids=["positives alone", "negatives alone", "no keys"])
def test_other_keys(key_labels, positive, negative, way):
    """Queries of one class against keys of one class: 0 for each, and gradients of 0 by both."""
    n, m = len(X), len(key_labels)
    settings = {"positive_mining_strategy": positive, "negative_mining_strategy": negative, "distance": "euclidean"}
    loss = functools.partial(tl.triplet_loss, np.zeros(n, "int64"), **settings)
    x = np.concatenate([X, 2 * X[:m] + 1])

    def total(x):
        return ops.sum(loss(x[:n], key_labels, x[n:]))

    np.testing.assert_array_equal(array(loss(X, key_labels, x[n:])), np.zeros(n))
    gradient = array(compiled(lambda x: raw_grad(total, x))(x)) if BACKEND == "jax" else grad(total, x)
    np.testing.assert_array_equal(gradient, np.zeros_like(x))


@pytest.mark.parametrize("positive, negative", [("hard", "semi-hard"), ("hard", "all"), ("all", "semi-hard"), ("all", "all")])
def test_fit_step_by_step(positive, negative, way):
    """Without a graph, in which a missing gradient is an error; on JAX as it is compiled."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    eagerly = {} if BACKEND == "jax" else {"run_eagerly": True}
    model.compile(keras.optimizers.SGD(1.0), tl.TripletLoss("euclidean", positive, negative), **eagerly)
    before = model.get_weights()
    for labels in (np.arange(6), np.zeros(6, "int64")):
        assert model.fit(X, labels, batch_size=5, verbose=0).history["loss"] == [0.0]  # the last batch has one row
    for weights, same in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, same)
