"""Mistakes on the way from a model to its loss: refused in `fit` too, eager or compiled, with the message that the call gives."""

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND
from reference import DISTANCES, mean_loss

import tripletloss as tl

X = np.random.default_rng(5).normal(size=(6, 3)).astype("float32")
Y = np.array([0, 0, 1, 1, 2, 2])
# How Keras runs a step: as it is written, traced, or compiled too.
MODES = {"eager": {"run_eagerly": True}, "traced": {"jit_compile": False}, "compiled": {"jit_compile": True}}
if BACKEND == "torch":
    del MODES["compiled"]  # takes a C++ compiler


def network(*layers, mode="eager", loss=None, units=3):
    layers = layers or (keras.layers.Dense(units, use_bias=False, kernel_initializer="identity"),)
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", loss or tl.TripletLoss("euclidean"), **MODES[mode])
    return model


# What a user does, the layers behind the input, x, y, and what the message must hold.
IN_FIT = {
    "one-hot labels": ([], X, np.eye(3, dtype="int32")[Y], ["y_true", "(n,) or (n, 1)", "3) and dtype int32", "argmax"]),
    "one-hot labels, as many as rows": ([], X, np.eye(6, dtype="int64"), ["y_true", "6) and dtype int", "argmax"]),
    "float labels": ([], X, Y.astype("float32"), ["y_true", "integers", "dtype float32"]),
    "labels and embeddings swapped": ([], np.repeat(Y[:, None], 3, axis=1), X, ["y_true", "dtype float32", "Labels come first"]),
    "no labels": ([], X, None, ["y_true", "integers", "None"]),
    "a map for each row": ([keras.layers.Reshape((3, 1))], X, Y, ["y_pred", "(n, d)", "3, 1)"]),
    "one number for each row": ([keras.layers.Lambda(lambda x: x[:, 0], output_shape=())], X, Y, ["y_pred", "(n, d)"]),
    "classes for embeddings": ([keras.layers.Lambda(lambda x: ops.cast(x, "int32"), output_shape=(3,))], X, Y, ["y_pred", "floats", "int32"]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", IN_FIT)
def test_fit_refuses(case, mode):
    layers, x, y, words = IN_FIT[case]
    with pytest.raises(ValueError) as caught:
        network(*layers, mode=mode).fit(x, y, batch_size=6, verbose=0)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"the message lacks {missing}: {caught.value}"


@pytest.mark.parametrize("mode", MODES)
def test_labels_that_do_not_go_with_the_rows(mode):
    """Keras itself counts the rows of x and y; a loss that is called by hand does."""
    with pytest.raises(ValueError):
        network(mode=mode).fit(X, Y[:4], verbose=0)
    with pytest.raises(ValueError, match=r"y_true and y_pred must have the same length n; received shapes \(4,\) and \(6, 3\)"):
        tl.TripletLoss()(Y[:4], X)


def test_no_wrong_number_where_a_graph_does_not_know_the_shapes():
    """Columns of labels that only show at run time: one for each row is right, more are an error, in whatever words."""
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow traces a function without knowing the shapes")
    import tensorflow as tf

    signature = [tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None, 3], tf.float32)]
    step = tf.function(tl.TripletLoss("euclidean"), input_signature=signature)
    assert float(step(Y[:, None], X)) == pytest.approx(mean_loss(Y, X, name="euclidean"), rel=1e-5)
    for labels in (np.eye(6, dtype="int64"), np.eye(6, 3, dtype="int64"), Y[:4, None]):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            step(labels, X)
    with pytest.raises(ValueError, match=r"y_pred must be floats of shape \(n, d\); received shape \(None, None\)"):
        tf.function(tl.TripletLoss("euclidean"), input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None])])(Y, X)


# Things that are no dense numbers.

WORDS = list("aabbcc")


@pytest.mark.parametrize(
    "labels, embeddings, words",
    [
        (WORDS, X, ["y_true", "integers"]),
        (np.array(WORDS), X, ["y_true", "integers"]),
        (np.array(WORDS, dtype=object), X, ["y_true", "integers", "(6,)"]),
        (None, X, ["y_true", "integers", "None"]),
        (Y, None, ["y_pred", "floats", "None"]),
        (Y, [[1.0], [1.0, 2.0], [1.0], [1.0], [1.0], [1.0]], ["y_pred", "floats"]),
        (Y, {"embedding": X}, ["y_pred", "floats", "embedding"]),
        (Y, [X, X], ["y_pred", "(2, 6, 3)"]),
        (Y, X[:, :0], ["y_pred", "(6, 0)"]),
        (Y, X > 0, ["y_pred", "floats", "bool"]),
        (Y, X.astype("complex64"), ["y_pred", "floats", "complex64"]),
        (X, Y, ["y_true", "float32", "Labels come first"]),
    ],
)
def test_the_loss_refuses(labels, embeddings, words):
    with pytest.raises(ValueError) as caught:
        tl.TripletLoss("euclidean")(labels, embeddings)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"the message lacks {missing}: {caught.value}"


def sparse(x):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.sparse.from_dense(x)
    if BACKEND == "jax":
        from jax.experimental import sparse

        return sparse.BCOO.fromdense(x)
    import torch

    return torch.tensor(x).to_sparse()


def ragged(rows):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.ragged.constant(rows)
    import torch

    return torch.nested.nested_tensor([torch.tensor(row) for row in rows])


@pytest.mark.parametrize("loss", [tl.TripletLoss("euclidean"), tl.triplet_loss, tl.mine_triplets])
def test_sparse_and_ragged_are_refused(loss):
    """Filled up with zeros they would give numbers that look right."""
    rows = [[1.0], [1.0, 2.0], [3.0], [4.0], [0.0], [1.0]]
    cases = [(Y, sparse(X)), (sparse(Y), X)]
    if BACKEND != "jax":  # which has no ragged arrays
        cases.append((Y, ragged(rows)))
    for labels, embeddings in cases:
        with pytest.raises(ValueError, match=r"must be .*, dense; received a sparse or ragged \w+"):
            loss(labels, embeddings)


def test_uint64_is_refused_where_the_backend_does_not_have_it():
    if BACKEND == "torch":
        with pytest.raises(ValueError, match=r"y_true must be integers .* received shape .* dtype uint64, which is no tensor of this backend"):
            tl.TripletLoss()(Y.astype("uint64"), X)
        return
    assert float(tl.TripletLoss("euclidean")(Y.astype("uint64"), X)) == pytest.approx(mean_loss(Y, X, name="euclidean"), rel=1e-5)


# What looks like a mistake, and is none.


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_model_whose_output_is_not_normalised(distance):
    """Every distance takes rows as they are; cosine normalises them by itself, where a peer gave the margin and no gradient."""
    scaled = (X * np.array([[1e-3], [1], [10], [100], [5], [0.1]])).astype("float32")
    loss = network(loss=tl.TripletLoss(distance)).evaluate(scaled, Y, batch_size=6, verbose=0)
    assert loss == pytest.approx(mean_loss(Y, scaled, name=distance), rel=1e-4)
    if distance == "cosine":
        assert loss == pytest.approx(mean_loss(Y, X, name="cosine"), rel=1e-4)


@pytest.mark.parametrize("margin", [0.0, 1e-30, 1e-6, 1e6, 1e30])
def test_extreme_margins(margin):
    loss = float(tl.TripletLoss("euclidean", margin=margin)(Y, X))
    assert loss == pytest.approx(mean_loss(Y, X, name="euclidean", margin=margin), rel=1e-5)


def test_an_infinite_margin_is_refused():
    with pytest.raises(ValueError, match="margin"):
        tl.TripletLoss(margin=float("inf"))


def test_the_nearest_name_is_suggested():
    for argument, given, meant in (
        ("distance", "euclidian", "euclidean"),
        ("positive_mining_strategy", "hardest", "hard"),
        ("negative_mining_strategy", "semihard", "semi-hard"),
        ("average", "triplet", "triplets"),
    ):
        with pytest.raises(ValueError, match=f"{argument}.*{given}.*Did you mean '{meant}'"):
            tl.TripletLoss(**{argument: given})
