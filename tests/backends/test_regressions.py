"""Numbers that were once wrong, each by its smallest example, where no other file has the room for it."""

import numpy as np
import pytest
from keras import ops
from on_backend import array, grad, strategies
from reference import WITH_ALL, pairwise, triplet_losses, triplets_of

import tripletloss as tl
from tripletloss._sums import LossSpec
from tripletloss._tables import as_batch
from tripletloss.losses import sum_triplets

OF_ALL = [pair for pair in WITH_ALL if pair[0] == "all"]


@pytest.mark.parametrize("positive, negative", WITH_ALL)
def test_padding_of_the_last_block_has_no_gradient(positive, negative, block_size):
    """Of 40 rows in blocks of 28, some of the second are padding; under the soft margin their gradient was NaN."""
    block_size(28 * 40)
    labels, x = np.arange(40) % 2, np.random.default_rng(0).normal(size=(40, 1)).astype("float32")
    loss = tl.TripletLoss("euclidean", positive, negative, soft_margin=True)
    assert np.isfinite(grad(lambda x: loss(labels, x), x)).all()


@pytest.mark.parametrize("positive, negative", WITH_ALL)
def test_each_triplet_is_counted_once(positive, negative, cut):
    """Counts and sums of distances, which no mean shows when all are doubled; the classes have 5, 4, 2 and 1 members."""
    cut(12)
    labels, x = np.repeat([0, 1, 2, 3], [5, 4, 2, 1]), np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    batch = as_batch(labels, x, None, None, tl.distances.get("euclidean"), None)
    sums = sum_triplets(batch, tl.distances.get("euclidean"), LossSpec(positive, negative, False, 1.0))
    table = pairwise("euclidean", x, x)
    of_queries = triplets_of(labels, table, positive=positive, negative=negative)
    for i, pairs in enumerate(of_queries):
        of_loops = [len(pairs), sum(table[i][p] for p, _ in pairs), sum(table[i][n] for _, n in pairs)]
        found = [float(x[i]) for x in (sums.triplets, sums.positive_distance, sums.negative_distance)]
        assert (found if pairs else found[:1]) == pytest.approx(of_loops if pairs else [0], rel=1e-5)


def test_a_negative_in_the_place_of_a_positive_is_not_beyond_it():
    """However their distances are rounded: the semi-hard negative of each positive is the next one."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    x[10:15] = x[:5]  # of another class
    labels = np.repeat([0, 1], 10)
    losses = tl.triplet_loss(labels, x, distance="euclidean", **strategies("all", "semi-hard"))
    np.testing.assert_allclose(array(losses), triplet_losses(labels, x, name="euclidean", positive="all")[0], rtol=1e-4, atol=1e-4)


class Uneven(tl.distances.Distance):
    """The same key in a later column comes out a little nearer: so may a matrix product, whose last columns go another way."""

    def call(self, query, key):
        table = ops.abs(query - ops.transpose(key))
        return table - 1e-3 * ops.cast(ops.arange(ops.shape(key)[0]), table.dtype)


@pytest.mark.parametrize("numbers", [None, 100 * 320, 257 * 320])
@pytest.mark.parametrize("positive, negative", [("easy", "hard"), ("hard", "semi-hard"), ("all", "hard")])
def test_padding_that_comes_out_nearer_stands_for_its_key(positive, negative, numbers, block_size):
    """Rows of 257 keys are padded to whole tiles with the first; padding was chosen, and its index is that of no key."""
    block_size(numbers)
    labels, x = np.arange(257) % 2, np.zeros((257, 1), "float32")
    labels[0], x[2::2] = 1, 5.0
    if positive != "all":
        for chosen in tl.mine_triplets(labels, x, distance=Uneven(), **strategies(positive, negative))[:2]:
            assert array(chosen).min() >= 0 and array(chosen).max() < 257
    assert np.isfinite(array(tl.triplet_loss(labels, x, distance=Uneven(), **strategies(positive, negative)))).all()


@pytest.mark.jit
@pytest.mark.parametrize("name", ["cosine", "mine"])
def test_a_built_in_distance_by_another_name_is_the_same_distance(name):
    """What JAX compiles was looked up by the name, which is the user's to choose: Euclidean(name="cosine") was cosine."""
    labels, x = np.arange(6) % 2, np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    renamed, expected = tl.distances.Euclidean(name=name), triplet_losses(labels, x, name="euclidean")[0]
    np.testing.assert_allclose(array(tl.triplet_loss(labels, x, distance=renamed)), expected, rtol=1e-5)
    assert float(tl.TripletLoss(renamed)(labels, x)) == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("distance", ["snr", "squared_euclidean", "cosine"])
@pytest.mark.parametrize("positive, negative", [("all", "all"), ("all", "semi-hard"), ("all", "hard")])
def test_close_rows_keep_their_gradient_where_the_table_rounds_to_0(positive, negative, distance, float64):
    """The table's squares are cut off at 0, and with them went the gradient of pairs that are closer than rounding."""
    rng = np.random.default_rng(0)
    labels, x = np.arange(24) // 6, np.repeat(rng.normal(size=(4, 8)), 6, axis=0)
    x = (x + 1e-4 * rng.normal(size=x.shape)).astype("float32").astype("float64")
    x[::6] = rng.normal(size=(4, 8)).astype("float32")  # the first of each class, around which it is compared, lies elsewhere

    def gradient(dtype):
        loss = tl.TripletLoss(distance, positive, negative, soft_margin=True, dtype=dtype)
        return grad(lambda x: loss(labels, x), x.astype(dtype)).astype("float64")

    exact = gradient("float64")
    np.testing.assert_allclose(gradient("float32"), exact, atol=2e-5 * abs(exact).max())


@pytest.mark.parametrize("members", [4, 20])  # listed, and in order
@pytest.mark.parametrize("positive, negative", OF_ALL)
def test_64_bits_of_the_soft_margin(positive, negative, members, float64):
    """On PyTorch Keras's sums by segment are made in 32 bits."""
    labels, x = np.arange(2 * members) % 2, np.random.default_rng(3).normal(size=(2 * members, 2))
    losses = tl.triplet_loss(labels, x, distance="euclidean", soft_margin=True, **strategies(positive, negative))
    expected, _ = triplet_losses(labels, x, name="euclidean", positive=positive, negative=negative, soft_margin=True)
    np.testing.assert_allclose(array(losses), expected, rtol=1e-13)


@pytest.mark.parametrize("positive, negative", OF_ALL)
def test_one_class_that_is_too_large_to_be_listed(positive, negative, block_size):
    """Positives without a negative make no triplet, where blocks are put in order too."""
    block_size(60)
    x = np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    losses = tl.triplet_loss(np.zeros(20, "int64"), x, distance="euclidean", **strategies(positive, negative))
    np.testing.assert_array_equal(array(losses), 0)
