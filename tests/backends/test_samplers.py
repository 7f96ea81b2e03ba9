"""Balanced batches: what is in them, whose turn it is, what a seed fixes. (What is refused: test_misuse.py.)"""

import collections
import itertools

import keras
import numpy as np
import pytest
from on_backend import BACKEND

import tripletloss as tl

CLASSES, EACH = 6, 5
Y = np.repeat(np.arange(CLASSES) * 10, EACH)  # labels need not be 0, 1, 2
X = np.arange(len(Y), dtype="float32")[:, None]  # each example carries its index
P, K = 3, 2


def sampler(x=X, **settings):
    settings = {"classes_per_batch": P, "examples_per_class": K, "batches_per_epoch": 5, "seed": 1, **settings}
    return tl.samplers.PKBatches(x, Y, **settings)


def draw(sampler, epochs=1):
    """All batches, epoch after epoch."""
    drawn = []
    for _ in range(epochs):
        drawn += [(np.array(x), np.array(y)) for x, y in (sampler[i] for i in range(len(sampler)))]
        sampler.on_epoch_end()
    return drawn


def rows(drawn):
    return [x[:, 0].tolist() for x, _ in drawn]


def test_batches_hold_p_classes_with_k_examples():
    assert isinstance(sampler(), keras.utils.PyDataset)
    assert len(sampler()) == 5 and len(sampler(batches_per_epoch=None)) >= 1
    drawn = draw(sampler(), epochs=3)
    assert len(drawn) == 15
    for x, y in drawn:
        assert x.shape == (P * K, 1) and y.shape in ((P * K,), (P * K, 1))
        assert np.issubdtype(y.dtype, np.integer)
        np.testing.assert_array_equal(np.ravel(y), Y[x[:, 0].astype(int)])
        assert list(collections.Counter(np.ravel(y).tolist()).values()) == [K] * P
        assert len(set(x[:, 0])) == P * K


def test_every_class_and_every_example_gets_its_turn():
    drawn = draw(sampler(), epochs=6)
    classes = collections.Counter(label for _, y in drawn for label in np.unique(y).tolist())
    assert set(classes) == set(Y.tolist())
    assert max(classes.values()) - min(classes.values()) <= 6
    assert set(itertools.chain(*rows(drawn))) == set(range(len(Y)))


def test_a_seed_fixes_every_epoch():
    first, second, other = (rows(draw(sampler(seed=seed), epochs=2)) for seed in (1, 1, 2))
    assert first == second != other
    assert first[:5] != first[5:]


def test_order_of_asking_changes_nothing():
    batches = sampler()
    backward = [(batches[i][0], None) for i in reversed(range(5))][::-1]
    assert rows(backward) == rows(draw(sampler()))


def test_a_function_from_indices_to_examples():
    asked = []

    def load(indices):
        asked.append(len(indices))
        return X[indices]

    for loaded, given in zip(draw(sampler(load)), draw(sampler()), strict=True):
        for from_function, from_array in zip(loaded, given, strict=True):
            np.testing.assert_array_equal(from_function, from_array)
    assert asked == [P * K] * 5


def test_small_classes_are_drawn_again_with_a_warning_that_names_them():
    with pytest.warns(UserWarning, match="7"):
        small = tl.samplers.PKBatches(X[:9], np.array([0] * 4 + [1] * 4 + [7]), 3, 2, batches_per_epoch=2, seed=0)
    for x, labels in draw(small):
        np.testing.assert_array_equal(x[np.ravel(labels) == 7][:, 0], [8, 8])


def losses_with(workers):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(1e-3), tl.TripletLoss("euclidean", soft_margin=True), run_eagerly=True)
    return model.fit(sampler(workers=workers, batches_per_epoch=3), epochs=2, shuffle=False, verbose=0).history["loss"]


def test_fit_is_reproducible_with_several_workers():
    several = losses_with(3)
    np.testing.assert_allclose(losses_with(3), several, rtol=1e-5)
    if BACKEND == "tensorflow":  # elsewhere Keras trains on what several workers read ahead
        np.testing.assert_allclose(losses_with(1), several, rtol=1e-5)
