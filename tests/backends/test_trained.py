"""Trained networks: classes tight and far apart, where a product of the rows has lost the digits that tell neighbours apart."""

import numpy as np
import pytest
from on_backend import array, grad
from reference import NEGATIVES, POSITIVES, mine, pairwise

import tripletloss as tl


def clusters(classes, members, spread, d=64, norm=1.0, seed=0):
    """Labels (n,) and rows (n, d), members of each class around a center of this length; the spread is that of a coordinate."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, d))
    centers *= norm / np.linalg.norm(centers, axis=1, keepdims=True)
    labels = np.repeat(np.arange(classes), members)
    return labels, (centers[labels] + spread * rng.normal(size=(len(labels), d))).astype("float32")


def gradient_by_hand(labels, x, positive, negative, margin):
    """Of the mean hinge of the euclidean distance, triplet after triplet in 64 bits: unit vectors from the chosen keys."""
    x = x.astype("float64")
    gradient, mined = np.zeros_like(x), mine(labels, pairwise("euclidean", x, x), positive=positive, negative=negative)
    for i, (p, n) in enumerate(mined):
        if np.linalg.norm(x[i] - x[p]) - np.linalg.norm(x[i] - x[n]) + margin > 0:
            for key, sign in ((p, 1), (n, -1)):
                direction = (x[i] - x[key]) / np.linalg.norm(x[i] - x[key])
                gradient[i] += sign * direction
                gradient[key] -= sign * direction
    return gradient / len(x)


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("positive, negative", [(p, n) for p in POSITIVES for n in NEGATIVES])
@pytest.mark.parametrize("size", [(8, 4), (4, 30)])
@pytest.mark.parametrize("numbers", [None, 1])  # in a block: one table of masks, and blocks
def test_gradient_in_the_trained_regime(size, positive, negative, spread, numbers, block_size):
    """Within 1 %, where the peers are 27 to 56 % off: they choose the wrong positive."""
    block_size(numbers)
    labels, x = clusters(*size, spread)
    expected = gradient_by_hand(labels, x, positive, negative, margin=2.0)
    loss = tl.TripletLoss("euclidean", positive, negative, margin=2.0)
    error = np.linalg.norm(grad(lambda x: loss(labels, x), x) - expected) / np.linalg.norm(expected)
    assert np.linalg.norm(expected) > 0
    assert error < 1e-2


@pytest.mark.parametrize("norm", [1, 30, 1000])
@pytest.mark.parametrize("spread", [1e-3, 1e-2, 0.1])
@pytest.mark.parametrize("numbers", [None, 1])
def test_neighbours_among_close_points(norm, spread, numbers, block_size):
    """One spot of 64 points, far from 0: the nearest and the farthest of each, as positives and as negatives."""
    block_size(numbers)
    labels, x = clusters(1, 64, spread, norm=norm)
    table = pairwise("euclidean", x, x)
    np.fill_diagonal(table, np.inf)
    nearest = array(tl.mine_triplets(np.append(labels, 1), np.append(x, x[:1] + 10 * norm, axis=0), distance="euclidean", positive_mining_strategy="easy")[0])
    np.testing.assert_array_equal(nearest[:64], table.argmin(axis=1))
    # Each point is a class of two equal rows: every other point is a negative.
    twice = np.tile(np.arange(64), 2)
    nearest = array(tl.mine_triplets(twice, np.tile(x, (2, 1)), distance="euclidean", negative_mining_strategy="hard")[1])
    np.testing.assert_array_equal(nearest % 64, np.tile(table.argmin(axis=1), 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("members", [4, 30])
@pytest.mark.parametrize("numbers", [None, 1])
def test_a_non_finite_member_costs_no_digits(numbers, members, bad, block_size):
    """The first of each class, which other rows are compared around, is not finite: the others choose as if it were not there."""
    block_size(numbers)
    labels, x = clusters(4, members, 1e-4)
    first = np.arange(len(labels)) % members == 0
    x[first] = bad
    positive = array(tl.mine_triplets(labels, x, distance="euclidean")[0])
    table = np.where((labels[:, None] == labels[None]) & ~first[None], pairwise("euclidean", x, np.where(first[:, None], 0, x)), -np.inf)
    of_others = table[~first]
    np.testing.assert_allclose(of_others[np.arange(len(of_others)), positive[~first]], of_others.max(axis=1), rtol=1e-3)
