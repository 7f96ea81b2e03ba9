"""Values against the loops, gradients against central differences of the loops, and the edges of both."""

import numpy as np
import pytest
from keras import ops
from on_backend import array, grad, tensor
from reference import (
    DISTANCES,
    NEGATIVES,
    POSITIVES,
    central_differences,
    loss_of_triplet,
    mean_loss,
    paired,
    triplet_losses,
)

import tripletloss as tl

rng = np.random.default_rng(5)
N, M = 9, 7
X, Y = rng.normal(size=(N, 3)), rng.integers(0, 3, N)
KEY_X, KEY_Y = rng.normal(size=(M, 3)), rng.integers(0, 4, M)
Y[1] = 7  # a singleton class


def strategies(positive, negative):
    return {"positive_mining_strategy": positive, "negative_mining_strategy": negative}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize("positive", POSITIVES)
@pytest.mark.parametrize("distance", DISTANCES)
def test_equals_the_loops(distance, positive, negative, soft):
    x = X.astype("float32")
    expected, valid = triplet_losses(Y, x, name=distance, positive=positive, negative=negative, soft_margin=soft)
    assert not valid.all()
    settings = {"distance": distance, "soft_margin": soft, **strategies(positive, negative)}
    computed = tl.triplet_loss(Y, x, **settings)
    assert tuple(computed.shape) == (N,)
    np.testing.assert_allclose(array(computed), expected, rtol=1e-4, atol=1e-5)
    mean = tl.TripletLoss(**settings)(Y, x)
    np.testing.assert_allclose(array(mean), expected[valid].mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("margin", [0, 0.25, 3])
def test_margin(margin):
    x = X.astype("float32")
    expected, valid = triplet_losses(Y, x, name="euclidean", margin=margin)
    computed = tl.triplet_loss(Y, x, distance="euclidean", margin=margin)
    np.testing.assert_allclose(array(computed), expected, atol=1e-5)
    mean = tl.TripletLoss("euclidean", margin=margin)(Y, x)
    np.testing.assert_allclose(array(mean), expected[valid].mean(), atol=1e-5)


@pytest.mark.parametrize("remove_diagonal", [None, False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_other_keys(distance, remove_diagonal):
    x, key_x = X.astype("float32"), KEY_X.astype("float32")
    expected, _ = triplet_losses(Y, x, KEY_Y, key_x, name=distance, remove_diagonal=remove_diagonal)
    computed = tl.triplet_loss(Y, x, KEY_Y, key_x, distance=distance, remove_diagonal=remove_diagonal)
    np.testing.assert_allclose(array(computed), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_explicit_triplets(distance, soft):
    anchor, positive, negative = np.random.default_rng(6).normal(size=(3, 6, 4)).astype("float32")
    d_positive, d_negative = paired(distance, anchor, positive), paired(distance, anchor, negative)
    expected = [loss_of_triplet(p, n, soft) for p, n in zip(d_positive, d_negative, strict=True)]
    computed = tl.triplet_margin_loss(anchor, positive, negative, distance, soft_margin=soft)
    np.testing.assert_allclose(array(computed), expected, rtol=1e-4, atol=1e-5)
    d_negative = np.minimum(d_negative, paired(distance, positive, negative))
    expected = [loss_of_triplet(p, n, soft) for p, n in zip(d_positive, d_negative, strict=True)]
    computed = tl.triplet_margin_loss(anchor, positive, negative, distance, soft_margin=soft, swap=True)
    np.testing.assert_allclose(array(computed), expected, rtol=1e-4, atol=1e-5)


# Gradients, in 64 bits.


@pytest.mark.parametrize("positive, negative, soft", [("hard", "semi-hard", False), ("easy", "hard", True)])
@pytest.mark.parametrize("distance", DISTANCES)
def test_gradient(distance, positive, negative, soft, float64):
    def by_loops(x):
        return mean_loss(Y, x, name=distance, positive=positive, negative=negative, soft_margin=soft)

    loss = tl.TripletLoss(distance, positive, negative, soft_margin=soft, dtype="float64")
    gradient = grad(lambda x: loss(Y, x), X)
    assert gradient.dtype == "float64"
    np.testing.assert_allclose(gradient, central_differences(by_loops, X), rtol=1e-6, atol=1e-8)
    assert gradient.any()


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradient_reaches_the_keys(distance, float64):
    def by_loops(key_x):
        return triplet_losses(Y, X, KEY_Y, key_x, name=distance, soft_margin=True)[0].sum()

    def fn(key_x):
        return ops.sum(tl.triplet_loss(Y, ops.convert_to_tensor(X), KEY_Y, key_x, distance=distance, soft_margin=True))

    gradient = grad(fn, KEY_X)
    np.testing.assert_allclose(gradient, central_differences(by_loops, KEY_X), rtol=1e-6, atol=1e-8)
    assert gradient.any()


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradient_of_explicit_triplets_with_swap(distance, float64):
    anchor, positive, negative = np.random.default_rng(7).normal(size=(3, 5, 4))

    def by_loops(x):
        near = np.minimum(paired(distance, anchor, negative), paired(distance, x, negative))
        return sum(loss_of_triplet(p, n, True) for p, n in zip(paired(distance, anchor, x), near, strict=True))

    def fn(x):
        others = ops.convert_to_tensor(anchor), ops.convert_to_tensor(negative)
        return ops.sum(tl.triplet_margin_loss(others[0], x, others[1], distance, soft_margin=True, swap=True))

    np.testing.assert_allclose(grad(fn, positive), central_differences(by_loops, positive), rtol=1e-6, atol=1e-8)


# Edges.


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]])
@pytest.mark.parametrize("distance", DISTANCES)
def test_no_valid_anchor_is_zero_with_zero_gradient(distance, labels):
    x, labels, loss = X[:4].astype("float32"), np.array(labels), tl.TripletLoss(distance)
    assert float(loss(labels, x)) == 0
    np.testing.assert_array_equal(grad(lambda x: loss(labels, x), x), 0)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("distance", DISTANCES)
def test_few_rows(distance, n):
    x, labels = X[:n].astype("float32"), Y[:n]
    losses = tl.triplet_loss(labels, x, distance=distance)
    np.testing.assert_array_equal(array(losses), np.zeros(n))
    loss = tl.TripletLoss(distance)
    assert array(loss(labels, x)).shape == ()
    assert float(loss(labels, x)) == 0
    np.testing.assert_array_equal(grad(lambda x: loss(labels, x), x), np.zeros((n, 3)))


def test_no_keys():
    losses = tl.triplet_loss(Y, X.astype("float32"), KEY_Y[:0], KEY_X[:0].astype("float32"))
    np.testing.assert_array_equal(array(losses), np.zeros(N))


@pytest.mark.parametrize("soft, expected", [(False, 1.0), (True, np.log(2))])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("distance", DISTANCES)
def test_collapsed_batch(distance, value, soft, expected):
    """All points the same: the margin (or log 2), and a gradient that is finite: 0 but for the inner product."""
    x, y = np.full((6, 3), value, "float32"), np.array([0, 0, 0, 1, 1, 1])
    loss = tl.TripletLoss(distance, soft_margin=soft)
    assert float(loss(y, x)) == pytest.approx(expected, abs=1e-5)
    gradient = grad(lambda x: loss(y, x), x)
    assert np.isfinite(gradient).all()
    if distance != "inner_product":
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("spread", [1e-3, 1e-20])
@pytest.mark.parametrize("distance", DISTANCES)
def test_nearly_collapsed_batch_has_a_finite_gradient(distance, spread):
    x = (1 + spread * X).astype("float32")
    loss = tl.TripletLoss(distance)
    assert np.isfinite(float(loss(Y, x)))
    assert np.isfinite(grad(lambda x: loss(Y, x), x)).all()


def test_soft_margin_does_not_overflow():
    y = np.array([0, 0, 1, 1])
    loss = tl.TripletLoss("euclidean", "hard", "hard", soft_margin=True)
    apart = np.array([[0], [0], [1000], [1000]], "float32")
    crossed = np.array([[0], [1000], [0], [1000]], "float32")
    assert float(loss(y, apart)) == pytest.approx(0, abs=1e-6)
    assert float(loss(y, crossed)) == pytest.approx(1000)
    for x in (apart, crossed):
        assert np.isfinite(grad(lambda x: loss(y, x), x)).all()


def test_rows_of_zeros_and_constant_rows():
    x = np.array([[0, 0, 0], [1, 2, 3], [0, 0, 0], [3, 1, 2], [1, 1, 1]], "float32")
    y = np.array([0, 0, 1, 1, 0])
    for distance in DISTANCES:
        expected, _ = triplet_losses(y, x, name=distance, negative="hard")
        settings = {"distance": distance, "negative_mining_strategy": "hard"}
        np.testing.assert_allclose(array(tl.triplet_loss(y, x, **settings)), expected, atol=1e-4)
        loss = tl.TripletLoss(**settings)
        assert np.isfinite(grad(lambda x, loss=loss: loss(y, x), x)).all()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_non_finite_row_is_nan_and_harms_no_other(distance, bad, soft):
    x, y = X.astype("float32"), np.arange(N) % 2
    x[4, 1] = bad
    losses = array(tl.triplet_loss(y, x, distance=distance, soft_margin=soft))
    good = np.arange(N) != 4
    expected, _ = triplet_losses(y[good], x[good], name=distance, soft_margin=soft)
    assert np.isnan(losses[4])
    np.testing.assert_allclose(losses[good], expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(float(tl.TripletLoss(distance, soft_margin=soft)(y, x)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("where", ["the only positive", "the only negative"])
def test_nan_where_there_is_no_choice_but_a_non_finite_row(where, distance, bad):
    x = X[:4].astype("float32")
    x[1] = bad
    y = np.array([0, 0, 1, 2]) if where == "the only positive" else np.array([0, 1, 0, 0])
    losses = array(tl.triplet_loss(y, x, distance=distance))
    assert np.isnan(losses[0])


def test_a_non_finite_singleton_harms_no_other():
    x, y = X.astype("float32"), np.arange(N) % 2
    x[4], y[4] = np.nan, 5
    losses = array(tl.triplet_loss(y, x, distance="euclidean"))
    good = np.arange(N) != 4
    np.testing.assert_allclose(losses[good], triplet_losses(y[good], x[good], name="euclidean")[0], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_widths_of_embeddings(distance, dtype, float64):
    x = tensor(X, dtype)
    exact = array(ops.cast(x, "float64"))
    expected, valid = triplet_losses(Y, exact, name=distance)
    computed = tl.triplet_loss(Y, x, distance=distance)
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(array(computed), expected, rtol=tolerance, atol=tolerance)
    mean = tl.TripletLoss(distance)(Y, x)
    np.testing.assert_allclose(array(mean), expected[valid].mean(), rtol=1e-4)
    gradient = grad(lambda x: tl.TripletLoss(distance)(Y, x), x)
    assert np.isfinite(gradient).all()


def test_gradient_descent_ends_at_zero():
    x = X.astype("float32")
    loss = tl.TripletLoss("squared_euclidean", "hard", "hard", margin=0.5)
    for _ in range(60):
        x = x - np.float32(0.3) * grad(lambda x: loss(Y, x), x)
    assert float(loss(Y, x)) < 0.02
