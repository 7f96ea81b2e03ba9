"""Numbers that were once wrong, each by its smallest example."""

import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, grad
from reference import STRATEGIES, WITH_ALL, paired, pairwise, triplet_losses

import tripletloss as tl
from tripletloss import _blocks, _sums, _tables

# JAX compiles each way through the code anew: it gets some of each kind.
EVERY = slice(None) if BACKEND != "jax" else slice(None, None, 5)


@pytest.mark.parametrize("positive, negative", WITH_ALL[EVERY])
def test_padding_of_the_last_block_has_no_gradient(positive, negative, block_size, monkeypatch):
    """Of 6 rows in blocks of 4, two of the second are padding; under the soft margin their gradient was NaN."""
    block_size(4 * 6)
    for module in (_tables, _blocks, _sums):
        monkeypatch.setattr(module, "MAX_LISTED_POSITIVES", 1)
    labels, x = np.array([0, 0, 0, 1, 1, 1]), np.array([[1.0], [-1.0], [5.0], [2.0], [4.0], [0.0]], "float32")
    loss = tl.TripletLoss("euclidean", positive, negative, soft_margin=True)
    assert np.isfinite(grad(lambda x: loss(labels, x), x)).all()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("positive, negative", STRATEGIES[EVERY])
def test_nan_where_the_only_positive_is_not_finite_and_not_the_first_key(positive, negative, bad, soft):
    """TensorFlow's argmax starts from minus the largest number: a negative was taken for the positive, and 0 came out."""
    labels, x = np.array([1, 0]), np.array([[1.0], [0.0]], "float32")
    keys = np.array([[0.0], [bad]], "float32")
    strategies = {"positive_mining_strategy": positive, "negative_mining_strategy": negative}
    losses = array(tl.triplet_loss(labels, x, np.array([0, 1]), keys, "euclidean", soft_margin=soft, **strategies))
    assert np.isnan(losses).all()


def test_snr_of_rows_far_from_0_in_64_bits(float64):
    """The mean of a row was taken in 32 bits: 16 off at 1e9, where the row itself spreads by 1."""
    rng = np.random.default_rng(0)
    query, key = 1e9 + rng.normal(size=(2, 4, 8))
    np.testing.assert_allclose(array(tl.distances.get("snr").pairwise(query, key)), pairwise("snr", query, key), rtol=1e-5)


@pytest.mark.parametrize("swap", [False, True])
def test_no_explicit_triplets(swap):
    """PyTorch has no minimum of nothing."""
    none = np.zeros((0, 3), "float32")
    assert array(tl.triplet_margin_loss(none, none, none, swap=swap)).shape == (0,)


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
    strategies = {"positive_mining_strategy": positive, "negative_mining_strategy": negative}
    if positive != "all":
        for chosen in tl.mine_triplets(labels, x, distance=Uneven(), **strategies)[:2]:
            assert array(chosen).min() >= 0 and array(chosen).max() < 257
    assert np.isfinite(array(tl.triplet_loss(labels, x, distance=Uneven(), **strategies))).all()


@pytest.mark.parametrize("name", ["cosine", "mine"])
def test_a_built_in_distance_by_another_name_is_the_same_distance(name):
    """What JAX compiles was looked up by the name, which is the user's to choose: Euclidean(name="cosine") was cosine."""
    labels, x = np.arange(6) % 2, np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    renamed = tl.distances.Euclidean(name=name)
    for numbers in (tl.triplet_loss, lambda *batch, distance: tl.TripletLoss(distance)(*batch)):
        np.testing.assert_allclose(array(numbers(labels, x, distance=renamed)), array(numbers(labels, x, distance="euclidean")), rtol=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "squared_euclidean", "snr"])
@pytest.mark.parametrize("positive, negative", [("all", "semi-hard"), ("all", "hard"), ("all", "all")])
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


@pytest.mark.parametrize("numbers", [None, 30])  # in a block
@pytest.mark.parametrize("average", ["triplets", "active"])
@pytest.mark.parametrize("negative", ["hard", "semi-hard", "all"])
def test_a_non_finite_row_does_not_change_the_averages_of_others(negative, average, numbers, block_size):
    """The number of active triplets was NaN, and what was divided by it was divided by 1."""
    block_size(numbers)
    labels, x = np.arange(12) % 3, np.random.default_rng(1).normal(size=(12, 2)).astype("float32")
    x[11] = np.nan
    settings = {"positive_mining_strategy": "all", "negative_mining_strategy": negative, "average": average}
    found = array(tl.triplet_loss(labels, x, distance="euclidean", **settings))
    expected, _ = triplet_losses(labels, x, name="euclidean", positive="all", negative=negative, average=average)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow traces a function without knowing the batch size")
@pytest.mark.parametrize("positive, negative", STRATEGIES)
def test_no_rows_in_a_graph_of_unknown_size(positive, negative):
    """With "all" it divided by 0, the length of a row of the table."""
    import tensorflow as tf

    loss = tl.TripletLoss("euclidean", positive, negative)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None, 3))])
    def both(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    value, gradient = both(np.zeros(0, "int64"), np.zeros((0, 3), "float32"))
    assert float(value) == 0 and gradient.shape == (0, 3)


def test_explicit_triplets_of_two_precisions(float64):
    """The anchor was widened for the negative, after the positive had been brought to its dtype."""
    rows = np.random.default_rng(0).normal(size=(3, 4, 5))
    loss = tl.triplet_margin_loss(rows[0].astype("float32"), rows[1].astype("float32"), rows[2], "euclidean")
    d_positive, d_negative = (paired("euclidean", rows[0], other) for other in rows[1:])
    np.testing.assert_allclose(array(loss), np.maximum(d_positive - d_negative + 1, 0), rtol=1e-6)


def test_a_word_is_no_switch():
    """The word "no" was taken for True."""
    x = np.eye(3, dtype="float32")
    with pytest.raises(ValueError, match="remove_diagonal must be True or False; received 'no'"):
        tl.triplet_loss([0, 0, 1], x, remove_diagonal="no")
    with pytest.raises(ValueError, match="swap must be True or False; received 'no'"):
        tl.triplet_margin_loss(x, x, x, swap="no")


def test_a_block_can_be_looked_up_by_32_bits():
    with pytest.raises(ValueError, match="numbers must be below 2\\^31; received 2147483648"):
        tl.distribution.set_block_size(2**31)


@pytest.mark.parametrize("members", [4, 20])  # listed, and in order
@pytest.mark.parametrize("negative", ["hard", "semi-hard", "easy", "all"])
def test_64_bits_of_the_soft_margin(negative, members, float64):
    """On PyTorch Keras's sums by segment are made in 32 bits."""
    labels, x = np.arange(2 * members) % 2, np.random.default_rng(3).normal(size=(2 * members, 2))
    losses = tl.triplet_loss(labels, x, distance="euclidean", positive_mining_strategy="all", negative_mining_strategy=negative, soft_margin=True)
    expected, _ = triplet_losses(labels, x, name="euclidean", positive="all", negative=negative, soft_margin=True)
    np.testing.assert_allclose(array(losses), expected, rtol=1e-13)


@pytest.mark.parametrize("negative", ["hard", "semi-hard", "easy", "all"])
def test_one_class_that_is_too_large_to_be_listed(negative, block_size):
    """Positives without a negative make no triplet, where blocks are put in order too."""
    block_size(60)
    x = np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    settings = {"positive_mining_strategy": "all", "negative_mining_strategy": negative}
    losses = tl.triplet_loss(np.zeros(20, "int64"), x, distance="euclidean", **settings)
    np.testing.assert_array_equal(array(losses), 0)
