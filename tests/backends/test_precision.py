"""Numbers of every width: training in half precision, labels to their last bit on every way into the loss, several outputs."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array
from reference import mean_loss
from sklearn.datasets import load_digits

import tripletloss as tl

POLICIES = ["float32", "bfloat16", "mixed_float16", "mixed_bfloat16"]
X = np.random.default_rng(5).normal(size=(4, 3)).astype("float32")
CLASSES = np.array([0, 0, 1, 1])
EXPECTED = mean_loss(CLASSES, X, name="euclidean")


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def embedder(outputs=1):
    """A model whose embeddings are its inputs."""
    inputs = keras.Input((3,), dtype="float32")
    layers = [keras.layers.Dense(3, use_bias=False, kernel_initializer="identity", name=f"embedding_{i}") for i in range(outputs)]
    return keras.Model(inputs, {layer.name: layer(inputs) for layer in layers} if outputs > 1 else layers[0](inputs))


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


def by_fit(model, *data):
    return model.fit(*data, verbose=0).history["loss"][0]


def by_evaluate(model, *data):
    return model.evaluate(*data, verbose=0)


def by_train_on_batch(model, *data):
    return model.train_on_batch(*data)


WAYS = [(route, kind) for route in (by_fit, by_evaluate) for kind in (as_numpy, as_batches, as_dataset)] + [(by_train_on_batch, as_numpy)]


@pytest.mark.parametrize("first", [2**8, 2**11, 2**24, 2**31 - 2, -(2**31)])  # where bfloat16, float16, float32 and int32 end
@pytest.mark.parametrize("route, kind", WAYS)
def test_labels_keep_their_last_bit(route, kind, first):
    """As floats the first and the next would be one class, without a negative."""
    model = embedder()
    model.compile("sgd", tl.TripletLoss("euclidean"))
    assert EXPECTED > 0
    assert route(model, *kind((first + CLASSES).astype("int32"))) == pytest.approx(EXPECTED, rel=1e-5)


@pytest.mark.parametrize("policy", POLICIES, indirect=True)
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32"])
def test_labels_keep_their_last_bit_under_any_policy(policy, dtype):
    model = embedder()
    model.compile("sgd", tl.TripletLoss("euclidean"))
    loss = by_fit(model, X, (2**24 + CLASSES).astype(dtype))
    assert loss == pytest.approx(EXPECTED, rel=1e-5 if policy == "float32" else 0.05)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has 32 bits, unless told to use 64")
@pytest.mark.parametrize("labels", [[2**63 - 1, 2**63 - 2], [-(2**63), 0], [2**32, 0]])
def test_labels_to_the_ends_of_64_bits(labels):
    model = embedder()
    model.compile("sgd", tl.TripletLoss("euclidean"))
    assert by_fit(model, X, np.repeat(np.array(labels, "int64"), 2)) == pytest.approx(EXPECTED, rel=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="elsewhere there are 64 bits")
def test_batches_refuse_labels_that_jax_would_cut():
    """Compiled, `fit` hands the loss what is left of them; the loss could not tell."""
    with pytest.raises(ValueError, match=r"y of dtype int64 do not fit .* np\.unique"):
        tl.samplers.PKBatches(X, np.array([0, 0, 2**32, 2**32]), 2, 2)


# Several outputs.


def test_several_outputs_each_with_its_labels_and_weight():
    model, other = embedder(outputs=2), np.array([2**24, 2**24 + 1, 2**24, 2**24 + 1])
    model.compile(
        "sgd",
        {"embedding_0": tl.TripletLoss("euclidean"), "embedding_1": tl.TripletLoss("manhattan", "hard", "hard")},
        loss_weights={"embedding_0": 1.0, "embedding_1": 0.25},
    )
    second = mean_loss(other, X, name="manhattan", negative="hard")
    assert second > 0
    history = model.fit(X, {"embedding_0": CLASSES, "embedding_1": other}, batch_size=4, verbose=0).history
    assert history["loss"][0] == pytest.approx(EXPECTED + 0.25 * second, rel=1e-5)
    assert history["embedding_0_loss"][0] == pytest.approx(EXPECTED, rel=1e-5)
    assert history["embedding_1_loss"][0] == pytest.approx(second, rel=1e-5)


def test_beside_a_loss_that_wants_floats():
    inputs = keras.Input((3,))
    embedding = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity", name="embedding")(inputs)
    model = keras.Model(inputs, {"embedding": embedding, "size": keras.layers.Dense(1, kernel_initializer="zeros", name="size")(inputs)})
    model.compile("sgd", loss={"embedding": tl.TripletLoss("euclidean"), "size": "mse"}, loss_weights={"embedding": 2.0, "size": 1.0})
    loss = model.train_on_batch(X, {"embedding": 2**24 + CLASSES, "size": np.full((4, 1), 3.0)})
    assert float(np.ravel(loss)[0]) == pytest.approx(2 * EXPECTED + 9, rel=1e-5)


# Half precision.


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
        losses = network.fit(tl.samplers.PKBatches(x[:1000], y[:1000], 10, 8, seed=0), epochs=8, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    return losses, tl.metrics.retrieval_metrics(network.predict(x[1000:], verbose=0).astype("float32"), y[1000:])["recall_at_1"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.xdist_group("precision")  # where the cache is
def test_half_precision_learns_as_single_does(policy):
    (losses, half), (in_single, single) = trained(policy), trained("float32")
    assert np.isfinite(losses).all()
    assert losses[-1] == pytest.approx(in_single[-1], abs=0.05) and in_single[-1] < 0.8 * in_single[0]
    assert half == pytest.approx(single, abs=0.03) and single > 0.9


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_loss_of_half_rows_is_that_of_the_same_rows_in_single(dtype):
    rows = ops.cast(ops.convert_to_tensor(X), dtype)
    wide = array(ops.cast(rows, "float32"))
    assert float(tl.TripletLoss("euclidean")(CLASSES, rows)) == pytest.approx(mean_loss(CLASSES, wide, name="euclidean"), rel=1e-5)
    narrow = tl.TripletLoss("euclidean", dtype=dtype)(CLASSES, wide)
    assert keras.backend.standardize_dtype(narrow.dtype) == dtype


# Masks.


def masked_model(after=lambda x: x):
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")(keras.layers.Masking(-1.0)(inputs))
    model = keras.Model(inputs, after(outputs))
    model.compile("sgd", tl.TripletLoss("euclidean"))
    return model


def test_a_mask_is_refused():
    """Keras would only take weight from the hidden rows, and they would go on as positives and negatives of others."""
    with pytest.raises(ValueError, match=r"y_pred must have no Keras mask; received one of shape \((4|None),\)"):
        masked_model().fit(X, CLASSES, batch_size=4, verbose=0)


def test_a_mask_that_was_ended_is_none():
    assert by_fit(masked_model(lambda x: 1 * x), X, CLASSES) == pytest.approx(EXPECTED, rel=1e-5)


def test_padded_sequences_that_were_pooled_have_no_mask():
    inputs = keras.Input((2,), dtype="int32")
    words = keras.layers.Embedding(5, 3, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(words))
    model.compile("sgd", tl.TripletLoss("euclidean"))
    words = np.array([[1, 0], [2, 1], [3, 0], [4, 2]])
    embeddings = model.predict(words, verbose=0)
    assert by_fit(model, words, CLASSES) == pytest.approx(mean_loss(CLASSES, embeddings, name="euclidean"), rel=1e-4)
