"""Batches at the edge: no triplet, one spot, ties, rows that are not finite, numbers at the end of the type."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import WAYS, array, grad, numbers_in_a_block, one_in, strategies, values_and_grad
from reference import DISTANCES, STRATEGIES, distance_gradients, loss_gradients, pairwise, triplet_losses

import tripletloss as tl

# Of a kind each: one negative by a table or in order, all negatives, all positives, all of both.
KINDS = [("hard", "semi-hard"), ("hard", "all"), ("all", "semi-hard"), ("all", "all")]
N = 12
X = np.random.default_rng(0).normal(size=(N, 3)).astype("float32")
# Every pair of strategies with one distance, and each distance with the first and the last kind.
BOTH = [("euclidean", *pair) for pair in STRATEGIES] + [(distance, *pair) for distance in DISTANCES if distance != "euclidean" for pair in KINDS[::3]]
# Classes with few positives, and classes with more than are listed.
SIZES = [(N, 3), (40, 2)]


class Chebyshev(tl.distances.Distance):
    """A distance of one's own, with `call` alone."""

    def call(self, query, key):
        return ops.max(ops.abs(query[:, None] - key[None]), axis=-1)

    def __str__(self):  # a test's name, the same in every process
        return "chebyshev"


# Without a valid triplet the loss is 0, and its gradient exists and is 0, so that a training step goes on.

LABELS = {"all distinct": np.arange(6), "one class": np.zeros(6, "int64"), "one row": np.array([3]), "no rows": np.zeros(0, "int64")}


def check_nothing(loss, labels, x, *weights):
    values, gradient = values_and_grad(lambda x: loss(labels, x, *weights), x)
    assert values.shape == ((len(x),) if loss.reduction in (None, "none") else ()) and gradient.shape == x.shape
    assert not values.any() and not gradient.any()


@pytest.mark.parametrize("of, way", one_in(3, BOTH, WAYS), ids=str)
def test_no_triplet(of, way, block_size):
    (distance, positive, negative), _ = of, block_size(numbers_in_a_block(way, 5))
    for average, soft in [("anchors", False), ("active", True)]:
        loss = tl.TripletLoss(distance, positive, negative, soft, average=average)
        check_nothing(loss, LABELS["all distinct"], X[:6])
        check_nothing(loss, LABELS["one class"], X[:6])


@pytest.mark.parametrize("pair, batch, distance, way", one_in(3, KINDS, LABELS, ["euclidean", Chebyshev()], WAYS), ids=str)
def test_no_triplet_in_any_batch(pair, batch, distance, way, block_size):
    (positive, negative), _ = pair, block_size(numbers_in_a_block(way, 5))
    check_nothing(tl.TripletLoss(distance, positive, negative), LABELS[batch], X[: len(LABELS[batch])])


REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None]


@pytest.mark.parametrize("pair, batch, reduction", one_in(5, KINDS[::3], LABELS, REDUCTIONS), ids=str)
def test_no_triplet_by_any_reduction(pair, batch, reduction):
    labels = LABELS[batch]
    for weights in (None, np.ones(len(labels), "float32"), np.zeros((len(labels), 1), "float32")):
        check_nothing(tl.TripletLoss("cosine", *pair, reduction=reduction), labels, X[: len(labels)], weights)


KEY_LABELS = {"positives alone": [0] * 4, "negatives alone": [9] * 4, "no keys": []}


@pytest.mark.parametrize("pair, keys, way", one_in(5, STRATEGIES, KEY_LABELS, WAYS), ids=str)
def test_no_triplet_with_other_keys(pair, keys, way, block_size):
    """Queries of one class against keys of one class: 0 for each, and gradients of 0 by both."""
    block_size(numbers_in_a_block(way, 4))
    n, key_labels = 6, KEY_LABELS[keys]
    m = len(key_labels)

    def losses(x):
        keys = np.array(key_labels, "int64"), x[n : n + m]
        return tl.triplet_loss(np.zeros(n, "int64"), x[:n], *keys, distance="euclidean", **strategies(*pair))

    values, gradient = values_and_grad(losses, X)
    assert values.shape == (n,) and not values.any() and not gradient.any()


@pytest.mark.parametrize("positive, negative", KINDS)
def test_a_training_step_without_a_triplet_changes_nothing(positive, negative, way):
    """Without a graph, in which a missing gradient is an error."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(1.0), tl.TripletLoss("euclidean", positive, negative), run_eagerly=True)
    before = model.get_weights()
    for labels in (np.arange(6), np.zeros(6, "int64")):
        assert model.fit(X[:6], labels, batch_size=5, verbose=0).history["loss"] == [0.0]  # the last batch has one row
    for weights, same in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, same)


# Points that coincide.


POINTS = {"hinge, at 0": (0.0, "anchors", False), "soft, at 1": (1.0, "triplets", True), "hinge, at 0.3, active": (0.3, "active", False)}


@pytest.mark.parametrize("of, point, way", one_in(5, BOTH, POINTS, WAYS), ids=str)
def test_a_collapsed_batch_sits_at_the_margin(of, point, way, block_size):
    """All points the same: the margin, or log 2; and a gradient of 0, where the distance has no slope or no kink there."""
    (distance, positive, negative), (value, average, soft) = of, POINTS[point]
    labels, x = np.array([0, 0, 0, 1, 1, 2]), np.full((6, 3), value, "float32")
    block_size(numbers_in_a_block(way, 5))
    loss = tl.TripletLoss(distance, positive, negative, soft, average=average)
    found, gradient = values_and_grad(lambda x: loss(labels, x), x)
    assert found == pytest.approx(np.log(2) if soft else 1, abs=1e-5), "the mean loss"
    # At the kinks of the manhattan distance each slope from -1 to 1 is right.
    np.testing.assert_allclose(gradient, 0, atol=1 if distance in ("inner_product", "manhattan") else 1e-6)


@pytest.mark.parametrize("spread", [1e-3, 1e-20])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_nearly_collapsed_batch_has_a_finite_gradient(distance, spread, way):
    loss = tl.TripletLoss(distance)
    found, gradient = values_and_grad(lambda x: loss(np.arange(N) % 3, x), (1 + spread * X).astype("float32"))
    assert np.isfinite(found) and np.isfinite(gradient).all()


@pytest.mark.parametrize("pair, size, way", one_in(3, STRATEGIES, SIZES, WAYS), ids=str)
def test_ties(pair, size, way, block_size):
    """Rows on nine points: distances are often equal, and each tie goes to the lowest index, by which the gradient tells."""
    (positive, negative), (n, classes) = pair, size
    block_size(numbers_in_a_block(way, n))
    rng = np.random.default_rng(4)
    labels, x = np.arange(n) % classes, rng.integers(0, 3, (n, 3)).astype("float32")
    found, gradient = values_and_grad(
        lambda x: tl.triplet_loss(labels, x, distance="squared_euclidean", soft_margin=True, **strategies(positive, negative)), x
    )
    names = {"positive": positive, "negative": negative, "soft_margin": True}
    expected = triplet_losses(labels, x, name="squared_euclidean", **names)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5, err_msg="losses, which tell nothing of ties")
    by_query, by_key = loss_gradients(labels, pairwise("squared_euclidean", x, x), squared_gradients(n), **names)
    np.testing.assert_allclose(gradient, by_query + by_key, rtol=2e-4, atol=1e-4, err_msg="gradients: the triplets are others")


@functools.cache
def squared_gradients(n):
    """Of the rows above."""
    x = np.random.default_rng(4).integers(0, 3, (n, 3)).astype("float32")
    return distance_gradients("squared_euclidean", x, x)


@pytest.mark.parametrize("distance", DISTANCES)
def test_rows_of_zeros_and_constant_rows(distance, way):
    x = np.array([[0, 0, 0], [1, 2, 3], [0, 0, 0], [3, 1, 2], [1, 1, 1], [2, 0, 1], [1, 0, 0]], "float32")
    labels = np.array([0, 0, 1, 1, 0, 2, 2])
    found, gradient = values_and_grad(lambda x: tl.triplet_loss(labels, x, distance=distance, **strategies("hard", "hard")), x)
    np.testing.assert_allclose(found, triplet_losses(labels, x, name=distance, negative="hard")[0], atol=1e-4)
    assert np.isfinite(gradient).all()


# Numbers that are not finite, and nearly so.


ROWS = [(np.nan, SIZES[0], "anchors", False), (np.inf, SIZES[1], "triplets", True), (-np.inf, SIZES[0], "active", False)]


@pytest.mark.parametrize("of, row, way", one_in(5, BOTH, ROWS, WAYS), ids=str)
def test_a_non_finite_row_is_nan_where_it_is_met_and_nowhere_else(of, row, way, block_size):
    """Queries with a triplet of it get NaN, all others what they would get without it; their gradients are not harmed."""
    (distance, positive, negative), (bad, (n, classes), average, soft) = of, row
    settings = {"soft_margin": soft, "average": average}
    block_size(numbers_in_a_block(way, n))
    labels, x = np.arange(n) % classes, np.random.default_rng(2).normal(size=(n, 3)).astype("float32")
    x[n - 1] = np.nan  # to the loops
    expected, _ = triplet_losses(labels, x, name=distance, positive=positive, negative=negative, **settings)
    fine = np.flatnonzero(~np.isnan(expected))
    assert n - 1 not in fine and bool(len(fine)) == ((positive, negative) != ("all", "all"))
    x[n - 1, 1:] = bad, 0

    def of_fine(x):
        found = tl.triplet_loss(labels, x, distance=distance, **settings, **strategies(positive, negative))
        np.testing.assert_allclose(array(ops.stop_gradient(found)), expected, rtol=2e-4, atol=1e-5)
        return ops.sum(ops.take(found, ops.convert_to_tensor(fine, "int32")))

    gradient = grad(of_fine, x)
    assert np.isfinite(gradient[fine]).all() and gradient[fine].any() == bool(len(fine))


@pytest.mark.parametrize(
    "of, bad, where, way", one_in(5, BOTH, [np.nan, np.inf], ["the only positive", "the only negative"], WAYS), ids=str
)
def test_nan_where_there_is_no_choice_but_a_non_finite_row(of, bad, where, way, block_size):
    """TensorFlow's argmax starts from minus the largest number: a negative was taken for the positive, and 0 came out."""
    (distance, positive, negative), soft = of, bad == np.inf
    block_size(None if way == WAYS[0] else 1)
    labels, x = np.array([1, 0]), np.array([[1.0, 2, 4], [0, 1, 0]], "float32")
    keys = np.array([[0.0, 1, 3], [bad, 2, 5]], "float32")
    of_keys = np.array([0, 1] if where == "the only positive" else [1, 0])
    losses = tl.triplet_loss(labels, x, of_keys, keys, distance, soft_margin=soft, **strategies(positive, negative))
    assert np.isnan(array(losses)[0])


def test_a_non_finite_singleton_harms_no_other(way):
    labels, x = np.arange(N) % 2, X.copy()
    x[4], labels[4] = np.nan, 5
    good = np.arange(N) != 4
    losses = array(tl.triplet_loss(labels, x, distance="euclidean"))
    np.testing.assert_allclose(losses[good], triplet_losses(labels[good], x[good], name="euclidean")[0], atol=1e-5)


def test_an_infinite_distance_counts_only_in_its_triplets(cut):
    """Of two positives one is infinitely near, and not the farthest: 0 times infinity is not added."""
    cut(4)
    x = np.array([[10, 0], [10, 0], [3e38, 0], [-1, 0]], "float32")
    losses = tl.triplet_loss(np.array([0, 0, 0, 1]), x, distance="inner_product", margin=200.0, **strategies("hard", "all"))
    assert float(losses[0]) == -100 - 10 + 200


def test_the_soft_margin_does_not_overflow():
    labels, loss = np.array([0, 0, 1, 1]), tl.TripletLoss("euclidean", "hard", "hard", soft_margin=True)
    for x, expected in (([0, 0, 1000, 1000], 0), ([0, 1000, 0, 1000], 1000)):
        found, gradient = values_and_grad(lambda x: loss(labels, x), np.array(x, "float32")[:, None])
        assert found == pytest.approx(expected, abs=1e-6) and np.isfinite(gradient).all()


@pytest.mark.parametrize("pair, size, way", one_in(3, STRATEGIES, SIZES, WAYS), ids=str)
def test_huge_distances(pair, size, way, block_size):
    """Any finite number of the type may be a distance: none stands for "no distance"."""
    (positive, negative), (n, classes) = pair, size
    block_size(numbers_in_a_block(way, n))
    labels, x = np.arange(n) % classes, np.random.default_rng(3).normal(size=(n, 3)).astype("float32") * 1e16
    for soft in (False, True):
        losses = tl.triplet_loss(labels, x, distance="squared_euclidean", soft_margin=soft, **strategies(positive, negative))
        expected, _ = triplet_losses(labels, x, name="squared_euclidean", positive=positive, negative=negative, soft_margin=soft)
        np.testing.assert_allclose(array(losses), expected, rtol=2e-4)
