"""The worked numbers, each checked by hand: what every strategy means."""

import numpy as np
import pytest
from on_backend import array, strategies
from reference import mean_loss, triplet_losses

import tripletloss as tl


def line(*x):
    return np.array(x, "float32")[:, None]


A = line(*range(9)), np.array([0, 0, 1, 1, 0, 2, 1, 1, 1])
B = line(0, 1, 4, 2, 6, 9), np.array([0, 0, 0, 1, 1, 1])
C = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], "float32")
D = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]], "float32"), np.array([0, 0, 0, 1, 1, 1])

BATCH = [
    (*A, "euclidean", "hard", "hard", False, 33 / 8),
    (*A, "euclidean", "hard", "semi-hard", False, 1.0),
    (*B, "euclidean", "hard", "semi-hard", False, 1.0),
    (*B, "euclidean", "easy", "semi-hard", False, 0.5),
    (C, [0, 0, 1, 1], "euclidean", "hard", "hard", False, 1.708146),
    (C, [0, 0, 1, 1], "euclidean", "hard", "semi-hard", False, 1.024374),
    (C, [0, 1, 2, 3], "euclidean", "hard", "hard", False, 0.0),
    (C, [0, 1, 2, 3], "euclidean", "hard", "semi-hard", False, 0.0),
    (C, [0, 0, 0, 0], "euclidean", "hard", "hard", False, 0.0),
    (C, [0, 0, 0, 0], "euclidean", "hard", "semi-hard", False, 0.0),
    (C, [0, 0, 1, 2], "euclidean", "hard", "hard", False, 1.650772),
    (C, [0, 0, 1, 2], "euclidean", "hard", "semi-hard", False, 0.707107),
    (*D, "cosine", "easy", "easy", False, 2 / 6),
    (*D, "cosine", "hard", "hard", False, 2.0),
    (*D, "cosine", "easy", "hard", False, 8 / 6),
    (*D, "cosine", "hard", "hard", True, 1.313262),
    (*D, "cosine", "hard", "semi-hard", True, 0.693147),
]
# With "all", and what is averaged.
FAMILY = [
    (*A, "all", "semi-hard", "triplets", 16 / 26),
    (*A, "all", "all", "active", 165 / 57),
    (*A, "all", "all", "triplets", 165 / 116),
    (*B, "all", "semi-hard", "triplets", 0.75),
    (*B, "all", "all", "active", 3.375),
    (C, [0, 0, 1, 1], "all", "all", "active", 1.366260),
    (C, [0, 1, 2, 3], "all", "all", "active", 0.0),
    (C, [0, 0, 0, 0], "all", "all", "active", 0.0),
    (C, [0, 0, 1, 2], "all", "all", "active", 1.178939),
]
ANCHORS = [
    (*A, "euclidean", "hard", "semi-hard", [0, 0, 4, 3, 1, 0, 0, 0, 0]),
    (*D, "cosine", "easy", "easy", [0, 0, 1, 0, 0, 1]),
    (*D, "cosine", "easy", "hard", [1, 1, 2, 1, 1, 2]),
]


@pytest.mark.parametrize("x, y, distance, positive, negative, soft, expected", BATCH)
def test_worked_numbers_of_a_batch(x, y, distance, positive, negative, soft, expected, way):
    y = np.array(y)
    by_loops = mean_loss(y, x, name=distance, positive=positive, negative=negative, soft_margin=soft)
    assert by_loops == pytest.approx(expected, abs=1e-6)
    assert float(tl.TripletLoss(distance, positive, negative, soft_margin=soft)(y, x)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("x, y, positive, negative, average, expected", FAMILY)
def test_worked_numbers_of_all_triplets(x, y, positive, negative, average, expected, way):
    y = np.array(y)
    losses, valid = triplet_losses(y, x, name="euclidean", positive=positive, negative=negative, average=average)
    assert losses.sum() / max(valid.sum(), 1) == pytest.approx(expected, abs=1e-6)
    assert float(tl.TripletLoss("euclidean", positive, negative, average=average)(y, x)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("x, y, distance, positive, negative, expected", ANCHORS)
def test_worked_numbers_of_each_anchor(x, y, distance, positive, negative, expected):
    losses, _ = triplet_losses(y, x, name=distance, positive=positive, negative=negative)
    np.testing.assert_allclose(losses, expected, atol=1e-6)
    losses = tl.triplet_loss(y, x, distance=distance, **strategies(positive, negative))
    np.testing.assert_allclose(array(losses), expected, atol=1e-6)


def test_anchor_5_of_batch_a_is_the_one_that_does_not_count():
    x, y = A
    valid = array(tl.mine_triplets(y, x, distance="euclidean").valid)
    np.testing.assert_array_equal(valid, np.arange(9) != 5)


def test_arguments_by_position_are_the_defaults():
    by_position = tl.TripletLoss("cosine", "hard", "semi-hard", False, 1.0, None)
    default = tl.TripletLoss()
    x, y = D
    assert float(default(y, x)) == float(by_position(y, x))
    assert {**default.get_config(), "name": None} == {**by_position.get_config(), "name": None}
