"""Numbers that were once wrong, each by its smallest example."""

import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, grad
from reference import STRATEGIES, WITH_ALL, pairwise

import tripletloss as tl

# JAX compiles each way through the code anew: it gets some of each kind.
EVERY = slice(None) if BACKEND != "jax" else slice(None, None, 5)


@pytest.mark.parametrize("positive, negative", WITH_ALL[EVERY])
def test_rows_that_fill_up_the_last_block_have_no_gradient(positive, negative, monkeypatch):
    """Of 6 rows in blocks of 4, two of the second are fillers; under the soft margin theirs was NaN."""
    monkeypatch.setattr(tl.mining, "BLOCK_NUMBERS", 4 * 6)
    for module in (tl.mining, tl.losses):
        monkeypatch.setattr(module, "WINDOW", 1)
    labels, x = np.array([0, 0, 0, 1, 1, 1]), np.array([[1.0], [-1.0], [5.0], [2.0], [4.0], [0.0]], "float32")
    loss = tl.TripletLoss("euclidean", positive, negative, soft_margin=True)
    assert np.isfinite(grad(lambda x: loss(labels, x), x)).all()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("positive, negative", STRATEGIES[EVERY])
def test_nan_where_the_only_positive_is_broken_and_not_the_first_key(positive, negative, bad, soft):
    """TensorFlow's argmax starts from minus the largest number, and found nobody there: a negative stood in, and 0 came out."""
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


@pytest.mark.parametrize("positive, negative", [("easy", "hard"), ("hard", "semi-hard"), ("all", "hard")])
def test_a_filler_that_comes_out_nearer_stands_for_its_key(positive, negative):
    """Rows of 257 keys are filled up to whole tiles with the first; once one of the fillers was chosen, and no key has its number."""
    labels, x = np.arange(257) % 2, np.zeros((257, 1), "float32")
    labels[0], x[2::2] = 1, 5.0
    strategies = {"positive_mining_strategy": positive, "negative_mining_strategy": negative}
    if positive != "all":
        for chosen in tl.mine_triplets(labels, x, distance=Uneven(), **strategies)[:2]:
            assert array(chosen).min() >= 0 and array(chosen).max() < 257
    assert np.isfinite(array(tl.triplet_loss(labels, x, distance=Uneven(), **strategies))).all()
