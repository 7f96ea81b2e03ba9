"""Balanced batches: what is in them, whose turn it is, what a seed fixes, what is refused."""

import collections

import keras
import numpy as np
import pytest
from on_backend import BACKEND

import tripletloss as tl

CLASSES, EACH = 6, 5
Y = np.repeat(np.arange(CLASSES) * 10, EACH)  # labels need not be 0, 1, 2
X = np.arange(len(Y), dtype="float32")[:, None]  # each example carries its index
P, K = 3, 2


def batches(sampler):
    return [(np.array(x), np.array(y)) for x, y in (sampler[i] for i in range(len(sampler)))]


def epochs(sampler, count):
    drawn = []
    for _ in range(count):
        drawn += batches(sampler)
        sampler.on_epoch_end()
    return drawn


def sampler(**settings):
    settings = {"classes_per_batch": P, "examples_per_class": K, "batches_per_epoch": 5, "seed": 1, **settings}
    return tl.samplers.PKBatches(X, Y, **settings)


def test_batches_hold_p_classes_with_k_examples():
    drawn = epochs(sampler(), 3)
    assert len(drawn) == 15
    for x, y in drawn:
        assert x.shape == (P * K, 1)
        assert y.shape in ((P * K,), (P * K, 1))
        assert np.issubdtype(y.dtype, np.integer)
        np.testing.assert_array_equal(np.ravel(y), Y[x[:, 0].astype(int)])
        assert sorted(collections.Counter(np.ravel(y).tolist()).values()) == [K] * P
        assert len(set(x[:, 0])) == P * K


def test_is_a_dataset_of_keras():
    assert isinstance(sampler(), keras.utils.PyDataset)
    assert len(sampler()) == 5
    assert len(sampler(batches_per_epoch=None)) >= 1


def test_every_class_and_every_example_gets_its_turn():
    drawn = epochs(sampler(), 6)
    classes = collections.Counter(label for _, y in drawn for label in np.unique(y).tolist())
    assert set(classes) == set(Y.tolist())
    assert max(classes.values()) - min(classes.values()) <= 6
    assert {int(i) for x, _ in drawn for i in x[:, 0]} == set(range(len(Y)))


def test_a_seed_fixes_every_epoch():
    first, second, other = epochs(sampler(), 2), epochs(sampler(), 2), epochs(sampler(seed=2), 2)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first, other, strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first[:5], first[5:], strict=True))


def test_order_of_asking_changes_nothing():
    forward, backward = sampler(), sampler()
    in_order = [np.array(forward[i][0]) for i in range(5)]
    reverse = [np.array(backward[i][0]) for i in reversed(range(5))][::-1]
    np.testing.assert_array_equal(in_order, reverse)


def test_a_function_from_indices_to_examples():
    asked = []

    def load(indices):
        asked.append(np.array(indices))
        return X[indices]

    loaded = batches(tl.samplers.PKBatches(load, Y, P, K, batches_per_epoch=5, seed=1))
    for (x, y), (same_x, same_y) in zip(loaded, batches(sampler()), strict=True):
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)
    assert all(len(indices) == P * K for indices in asked)


def test_small_classes_are_drawn_again_with_a_warning_that_names_them():
    y = np.array([0] * 4 + [1] * 4 + [7])
    with pytest.warns(UserWarning, match="7"):
        small = tl.samplers.PKBatches(X[:9], y, 3, 2, batches_per_epoch=2, seed=0)
        drawn = batches(small)
    for x, labels in drawn:
        np.testing.assert_array_equal(x[np.ravel(labels) == 7][:, 0], [8, 8])


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((X, Y, CLASSES + 1, K), ["classes_per_batch", "7", "6"]),
        ((X, Y, P, 1), ["examples_per_class", "1"]),
        ((X, Y, 1, K), ["classes_per_batch", "1"]),
        ((X[:-1], Y, P, K), ["29", "30"]),
        ((X, Y.astype("float32"), P, K), ["y", "float32"]),
        ((X, np.eye(len(Y), dtype=int), P, K), ["y", "(30, 30)"]),
    ],
)
def test_refuses(arguments, words):
    with pytest.raises(ValueError) as caught:
        tl.samplers.PKBatches(*arguments)
    assert all(word in str(caught.value) for word in words), caught.value


def losses_with(workers):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss=tl.TripletLoss("euclidean", soft_margin=True))
    return model.fit(sampler(workers=workers), epochs=2, shuffle=False, verbose=0).history["loss"]


@pytest.mark.parametrize("workers", [1, 3])
def test_fit_is_reproducible_with_several_workers(workers):
    np.testing.assert_allclose(losses_with(workers), losses_with(workers), rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere Keras trains on what several workers read ahead")
def test_the_number_of_workers_changes_nothing():
    np.testing.assert_allclose(losses_with(3), losses_with(1), rtol=1e-5)
