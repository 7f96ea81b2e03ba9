"""Numbers of every width: labels to their last bit on every way into the loss, losses and training in half precision, masks."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array
from reference import mean_loss
from sklearn.datasets import load_digits

import tripletloss as tl

X = np.random.default_rng(5).normal(size=(4, 3)).astype("float32")
CLASSES = np.array([0, 0, 1, 1])
EXPECTED = mean_loss(CLASSES, X, name="euclidean")


def identity_layer():
    return keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")


@functools.cache
def embedder(policy="float32"):
    """A model whose embeddings are its inputs, and stay so; made once for each policy, since each one is traced."""
    model = keras.Sequential([keras.Input((3,), dtype="float32"), identity_layer()])
    model.compile(keras.optimizers.SGD(0.0), tl.TripletLoss("euclidean"), run_eagerly=policy != "float32")
    return model


# Labels.


def as_numpy(labels):
    return X, labels


def as_batches(labels):
    return (tl.samplers.PKBatches(X, labels, 2, 2, seed=0),)


def as_dataset(labels):
    if BACKEND == "torch":
        import torch

        return (torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(labels)), batch_size=4),)
    tf = pytest.importorskip("tensorflow", reason="tf.data")
    return (tf.data.Dataset.from_tensor_slices((X, labels)).batch(4),)


def by_fit(*data):
    return embedder().fit(*data, verbose=0).history["loss"][0]


def by_evaluate(*data):
    return embedder().evaluate(*data, verbose=0)


def by_train_on_batch(*data):
    return embedder().train_on_batch(*data)


KINDS = (as_numpy, as_batches, as_dataset)
WAYS = [(route, kind) for route in (by_fit, by_evaluate) for kind in KINDS] + [(by_train_on_batch, as_numpy)]
# Two labels that are one in bfloat16, in float16, in float32; and at the ends of 32 bits.
NEIGHBOURS = [(2**8, 2**8 + 1), (2**11, 2**11 + 1), (2**24, 2**24 + 1), (2**31 - 2, 2**31 - 1), (-(2**31), 1 - 2**31)]
WIDE = [("uint32", 2**24, 2**24 + 1)]
if BACKEND != "jax":  # which has 32 bits, unless told to use 64
    WIDE += [("int64", 2**63 - 1, 2**63 - 2), ("int64", -(2**63), 0), ("int64", 2**32, 0)]


@pytest.mark.jit
@pytest.mark.parametrize("route, kind", WAYS)
def test_labels_keep_their_last_bit(route, kind):
    """As floats the two would be one class, without a negative."""
    assert EXPECTED > 0
    others = WIDE if route is by_train_on_batch else []  # each dtype is traced anew
    for dtype, first, second in [*(("int32", *pair) for pair in NEIGHBOURS), *others]:
        loss = route(*kind(np.array([first, first, second, second], dtype)))
        assert loss == pytest.approx(EXPECTED, rel=1e-5), (first, dtype)


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_float16", "mixed_bfloat16"], indirect=True)
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32"])
def test_labels_keep_their_last_bit_under_any_policy(policy, dtype):
    loss = embedder(policy).fit(X, (2**24 + CLASSES).astype(dtype), verbose=0).history["loss"][0]
    assert loss == pytest.approx(EXPECTED, rel=0.05)


# Losses.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_computes_in_its_dtype(dtype, float64):
    """Its labels stay integers: in none of these types are they two classes, but for the last."""
    # The sum, because Keras's mean (divide_no_nan) narrows float64 to float32 on torch.
    loss = tl.TripletLoss("euclidean", reduction="sum", dtype=dtype)(2**24 + CLASSES, X)
    assert keras.backend.standardize_dtype(loss.dtype) == dtype
    tolerance = {"float16": 5e-3, "bfloat16": 3e-2, "float32": 1e-6, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(array(ops.cast(loss, "float64")), 4 * EXPECTED, rtol=tolerance)


def test_floatx_is_the_default_dtype():
    keras.backend.set_floatx("bfloat16")
    try:
        assert tl.TripletLoss().dtype == "bfloat16"
    finally:
        keras.backend.set_floatx("float32")
    assert tl.TripletLoss().dtype == "float32"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_loss_of_half_rows_is_that_of_the_same_rows_in_single(dtype):
    rows = ops.cast(ops.convert_to_tensor(X), dtype)
    expected = mean_loss(CLASSES, array(ops.cast(rows, "float32")), name="euclidean")
    assert float(tl.TripletLoss("euclidean")(CLASSES, rows)) == pytest.approx(expected, rel=1e-5)


@functools.cache
def trained(policy):
    """Losses of each epoch, and recall@1 among digits that the network has not seen."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        network = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu"), tl.layers.L2Embedding(8)])
        network.compile(keras.optimizers.Adam(0.01), tl.TripletLoss(margin=0.5), jit_compile=BACKEND == "jax")
        losses = network.fit(tl.samplers.PKBatches(x[:1000], y[:1000], 10, 8, seed=0), epochs=5, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    unseen = array(ops.cast(network(x[1000:]), "float32"))
    return losses, tl.metrics.retrieval_metrics(unseen, y[1000:])["recall_at_1"]


SLOWLY = [pytest.mark.every] if BACKEND == "tensorflow" else []  # two trainings compiled by XLA take half a minute there


@pytest.mark.jit
@pytest.mark.parametrize("policy", [pytest.param("mixed_float16", marks=SLOWLY), pytest.param("mixed_bfloat16", marks=pytest.mark.every)])
@pytest.mark.xdist_group("precision")  # where the cache is
def test_half_precision_learns_as_single_does(policy):
    (losses, half), (in_single, single) = trained(policy), trained("float32")
    assert np.isfinite(losses).all()
    assert losses[-1] == pytest.approx(in_single[-1], abs=0.05) and in_single[-1] < 0.8 * in_single[0]
    assert half == pytest.approx(single, abs=0.03) and single > 0.9


# Masks. (That one is refused: test_misuse.py.)


def test_a_mask_that_was_ended_is_none():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, 1 * identity_layer()(keras.layers.Masking(-1.0)(inputs)))
    model.compile("sgd", tl.TripletLoss("euclidean"), run_eagerly=True)
    assert model.evaluate(X, CLASSES, verbose=0) == pytest.approx(EXPECTED, rel=1e-5)


def test_padded_sequences_that_were_pooled_have_no_mask():
    words = keras.layers.Embedding(5, 3, mask_zero=True)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), words, keras.layers.GlobalAveragePooling1D()])
    model.compile("sgd", tl.TripletLoss("euclidean"), run_eagerly=True)
    words = np.array([[1, 0], [2, 1], [3, 0], [4, 2]])
    expected = mean_loss(CLASSES, model.predict(words, verbose=0), name="euclidean")
    assert model.evaluate(words, CLASSES, verbose=0) == pytest.approx(expected, rel=1e-4)
