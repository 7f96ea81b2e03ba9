"""`triplet_margin_loss` of explicit triplets, margins, widths of numbers, and a descent; mined losses are in `test_strategies.py`."""

import numpy as np
import pytest
from keras import ops
from on_backend import array, grad, tensor, values_and_grad
from reference import DISTANCES, central_differences, loss_of_triplet, mean_loss, paired, triplet_losses

import tripletloss as tl

N = 12
X, Y = np.random.default_rng(5).normal(size=(N, 3)), np.arange(N) % 3
Y[1] = 7  # a singleton class
each_distance = pytest.mark.parametrize("distance", DISTANCES)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@each_distance
def test_explicit_triplets(distance, soft, swap, float64):
    """Values, and the gradient by anchor, positive and negative. With `swap` the negative is compared with the nearer of both."""
    n = 6
    rows = np.random.default_rng(6).normal(size=(3 * n, 3))

    def by_loops(rows):
        anchor, positive, negative = np.reshape(rows, (3, n, 3))
        near = paired(distance, anchor, negative)
        near = np.minimum(near, paired(distance, positive, negative)) if swap else near
        return np.array([loss_of_triplet(p, n, soft) for p, n in zip(paired(distance, anchor, positive), near, strict=True)])

    def losses(rows):
        return tl.triplet_margin_loss(rows[:n], rows[n : 2 * n], rows[2 * n :], distance, soft_margin=soft, swap=swap)

    values, gradient = values_and_grad(losses, rows)
    np.testing.assert_allclose(values, by_loops(rows), rtol=1e-9)
    np.testing.assert_allclose(gradient, central_differences(lambda x: by_loops(x).sum(), rows), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("average, negative, keys", [
    ("anchors", "semi-hard", False), ("triplets", "semi-hard", True), ("active", "semi-hard", False), ("active", "all", True),
])  # fmt: skip
def test_losses_and_which_queries_are_valid(negative, average, keys, way):
    """Row 1 is a singleton class; among the keys, whose classes are 0 and 1, rows of class 2 have no positive."""
    arguments = (Y, X, Y[:5] % 2, X[:5]) if keys else (Y, X)
    losses, valid = triplet_losses(*arguments, average=average, negative=negative)
    ours = {"average": average, "negative_mining_strategy": negative}
    found = [array(each) for each in tl.losses.triplet_loss_and_valid(*arguments, **ours)]
    np.testing.assert_allclose(found[0], losses, rtol=1e-5, atol=1e-6)
    assert found[1].tolist() == valid.tolist() and 0 < valid.sum() < N
    np.testing.assert_array_equal(array(tl.triplet_loss(*arguments, **ours)), found[0])
    if not keys:
        as_a_loss = tl.MetricLoss(tl.losses.triplet_loss_and_valid, **ours)
        assert float(as_a_loss(Y, X)) == pytest.approx(losses.sum() / valid.sum(), rel=1e-5)


def test_a_query_is_valid_that_costs_nothing():
    """Two classes far apart; and of several levels, one is enough."""
    x = np.array([[0.0], [1.0], [9.0], [10.0], [50.0]])
    losses, valid = (array(each) for each in tl.losses.triplet_loss_and_valid([0, 0, 1, 1, 2], x, distance="euclidean"))
    assert (losses.tolist(), valid.tolist()) == ([0] * 5, [True] * 4 + [False])
    levels = np.array([[0, 0], [0, 1], [1, 2], [1, 2], [2, 3]])
    assert array(tl.losses.triplet_loss_and_valid(levels, x, relation="levels")[1]).tolist() == [True] * 4 + [False]


def test_explicit_triplets_of_two_precisions(float64):
    """The anchor was widened for the negative, after the positive had been brought to its dtype."""
    rows = np.random.default_rng(0).normal(size=(3, 4, 3))
    loss = tl.triplet_margin_loss(rows[0].astype("float32"), rows[1].astype("float32"), rows[2], "euclidean")
    d_positive, d_negative = (paired("euclidean", rows[0], other) for other in rows[1:])
    np.testing.assert_allclose(array(loss), np.maximum(d_positive - d_negative + 1, 0), rtol=1e-6)


@pytest.mark.parametrize("swap", [False, True])
def test_no_explicit_triplets(swap):
    """PyTorch has no minimum of nothing."""
    none = np.zeros((0, 3), "float32")
    assert array(tl.triplet_margin_loss(none, none, none, swap=swap)).shape == (0,)


@pytest.mark.parametrize("margin", [0, 0.25, 3, 1e-30, 1e-6, 1e6, 1e30])
def test_margins(margin):
    x = X.astype("float32")
    expected, valid = triplet_losses(Y, x, name="euclidean", margin=margin)
    np.testing.assert_allclose(array(tl.triplet_loss(Y, x, distance="euclidean", margin=margin)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(float(tl.TripletLoss("euclidean", margin=margin)(Y, x)), expected[valid].mean(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@each_distance
def test_widths_of_embeddings(distance, dtype, float64):
    """Half precision is widened before anything else, 64 bits are kept."""
    x = tensor(X, dtype)
    expected, valid = triplet_losses(Y, array(ops.cast(x, "float64")), name=distance)
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(array(tl.triplet_loss(Y, x, distance=distance)), expected, rtol=tolerance, atol=tolerance)
    loss = tl.TripletLoss(distance)
    np.testing.assert_allclose(array(loss(Y, x)), expected[valid].mean(), rtol=1e-4)
    assert np.isfinite(grad(lambda x: loss(Y, x), x)).all()


@pytest.mark.parametrize("settings", [("euclidean", "hard", "semi-hard", False), ("cosine", "all", "semi-hard", True)], ids=str)
def test_gradient_by_the_slope_of_the_mean(settings, float64):
    """Elsewhere gradients are compared triplet by triplet; here the whole number with itself beside it."""
    distance, positive, negative, soft = settings
    loss = tl.TripletLoss(*settings, dtype="float64")
    names = {"name": distance, "positive": positive, "negative": negative, "soft_margin": soft}
    expected = central_differences(lambda x: mean_loss(Y, x, **names), X)
    np.testing.assert_allclose(grad(lambda x: loss(Y, x), X), expected, rtol=1e-6, atol=1e-8)


def test_gradient_descent_ends_at_zero():
    x, loss = X.astype("float32"), tl.TripletLoss("squared_euclidean", "hard", "hard", margin=0.5)
    for _ in range(60):
        x = x - np.float32(0.3) * grad(lambda x: loss(Y, x), x)
    assert float(loss(Y, x)) < 0.02
