"""Balanced batches: what is in them, whose turn it is, what a seed fixes. (What is refused: test_misuse.py.)"""

import collections
import itertools

import keras
import numpy as np
import pytest
from on_backend import BACKEND

import tripletloss as tl
from tripletloss.samplers import PKBatches, PKPlanner, RenewNeighbours, nearest_classes

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


def test_augmentation_is_another_in_each_epoch():
    drawn = draw(sampler(augment=lambda x, generator: np.full_like(x, generator.random())), epochs=2)
    assert len({x.flat[0] for x, _ in drawn}) == len(drawn) == 10


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


# Batches of a class and its neighbours.

NEAR = np.array([[10, 20, 30], [0, 20, 30], [0, 10, 50], [40, 50, 0], [30, 50, 10], [30, 40, 0]])  # by label


def classes_of(drawn):
    """The classes of each batch, in their order."""
    return [list(dict.fromkeys(np.ravel(y).tolist())) for _, y in drawn]


@pytest.mark.parametrize("p_random, strangers", [(0, 0), (0.5, 1), (1, 2), (0.3, 1)])
def test_a_batch_is_a_class_and_its_neighbours(p_random, strangers):
    """In each a seed class, P - 1 - strangers of its neighbours, and others; each class is the seed equally often."""
    drawn = draw(sampler(class_neighbours=NEAR, p_random=p_random, batches_per_epoch=CLASSES * 4))
    for x, y in drawn:
        assert list(collections.Counter(np.ravel(y).tolist()).values()) == [K] * P and len(set(x[:, 0])) == P * K
    for first, *others in classes_of(drawn):
        assert sum(c in NEAR[first // 10] for c in others[: P - 1 - strangers]) == P - 1 - strangers
    assert set(collections.Counter(first for first, *_ in classes_of(drawn)).values()) == {4}
    if strangers == P - 1:
        times = collections.Counter(itertools.chain(*classes_of(drawn)))
        assert max(times.values()) - min(times.values()) <= 6
    else:
        assert {tuple(c) for c in classes_of(drawn)} > {tuple(c) for c in classes_of(drawn[:CLASSES])}  # which neighbours: by lot


def test_short_lists_are_filled_up():
    for first, *others in classes_of(draw(sampler(class_neighbours=NEAR[:, :1], p_random=0), epochs=3)):
        assert others[0] == NEAR[first // 10, 0] and len({first, *others}) == P


def test_without_neighbours_nothing_changes():
    assert rows(draw(sampler(p_random=1), 2)) == rows(draw(sampler(), 2))
    batches = sampler(class_neighbours=NEAR)
    assert rows(draw(sampler(class_neighbours=NEAR), 2)) == rows(draw(batches, 2)) != rows(draw(sampler(), 2))
    batches.class_neighbours = None
    assert batches.class_neighbours is None and len(draw(batches)) == 5


def test_neighbours_may_be_set_between_epochs():
    """They count from the next batch on, and in the batches are those that are read back."""
    batches = sampler(p_random=0)
    batches.on_epoch_end()
    batches.class_neighbours = NEAR[:, :2]
    np.testing.assert_array_equal(batches.class_neighbours, NEAR[:, :2])
    assert all(set(others) == set(NEAR[first // 10, :2]) for first, *others in classes_of(draw(batches, epochs=2)))
    assert batches.sampler.epoch_plan[0] == 3


def test_a_planner_takes_neighbours_too():
    labels, near = (x.astype("uint64") + np.uint64(2**63) for x in (Y, NEAR))
    for rows_of_batch in PKPlanner(labels, 3, 2, np.random.default_rng(0), near, 0).draw(12):
        first, *others = Y[rows_of_batch[:, 0]]
        assert set(others) <= set(NEAR[first // 10])


def loop_nearest_classes(x, y, count):
    """By label, the nearest others of each class, by euclidean distances of means."""
    means = {c: x[y == c].mean(axis=0) for c in np.unique(y)}
    return [sorted((o for o in means if o != c), key=lambda o: np.linalg.norm(means[o] - means[c]))[:count] for c in means]


def test_nearest_classes_against_a_loop(block_size):
    x, y = np.random.default_rng(0).normal(size=(40, 3)).astype("float32"), np.random.default_rng(1).integers(-4, 9, 40)
    for size in (None, 30):
        block_size(size)
        assert nearest_classes(x, y[:, None], 4, "euclidean").tolist() == loop_nearest_classes(x, y, 4)


def fit_with_renewal(settings=None, as_x=lambda x: x, epochs=4, **renewal):
    """Neighbours and embeddings after each epoch, the losses, and the rows."""
    keras.utils.set_random_seed(3)
    found, positions = [], np.random.default_rng(0).normal(size=(len(Y), 4)).astype("float32")
    batches = PKBatches(as_x(positions), Y, P, K, batches_per_epoch=3, p_random=0.5, seed=1, **settings or {})
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(1e-2), tl.TripletLoss("euclidean", soft_margin=True), run_eagerly=True)
    after = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: found.append((batches.class_neighbours, model.predict(positions, verbose=0)))
    )
    renew = RenewNeighbours(batches, distance="euclidean", batch_size=16, **renewal)
    history = model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[renew, after]).history
    return found, history["loss"], positions


def test_a_callback_renews_the_neighbours():
    found, *_ = fit_with_renewal(every=2)
    assert found[0][0] is None
    for which in (1, 3):
        near, embeddings = found[which]
        assert near.tolist() == loop_nearest_classes(embeddings, Y, P - 1)
        if which == 1:
            assert np.array_equal(found[2][0], near)


def test_renewal_reads_functions_and_rows_of_its_own():
    whole, losses, positions = fit_with_renewal(count=4)
    by_function, same_losses, _ = fit_with_renewal(as_x=lambda x: lambda rows: x[rows], count=4)
    np.testing.assert_allclose(same_losses, losses, rtol=1e-5)
    assert whole[-1][0].shape == (CLASSES, 4) and np.array_equal(whole[-1][0], by_function[-1][0])
    some = np.arange(0, len(Y), 2)
    found, *_ = fit_with_renewal(count=4, x=positions[some], y=Y[some], epochs=1)
    assert found[-1][0].tolist() == loop_nearest_classes(found[-1][1][some], Y[some], 4)


def test_renewal_is_the_same_with_several_workers():
    several = fit_with_renewal({"workers": 3})[1]
    np.testing.assert_allclose(fit_with_renewal({"workers": 3})[1], several, rtol=1e-5)
    if BACKEND == "tensorflow":  # elsewhere Keras trains on what several workers read ahead
        np.testing.assert_allclose(fit_with_renewal()[1], several, rtol=1e-5)


def test_an_embedder_may_be_named():
    """Where the trained model ends in something else than the embeddings."""
    inputs = keras.Input((1,))
    embeddings = keras.layers.Dense(2)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(embeddings))
    batches, embedder = sampler(), keras.Model(inputs, embeddings)
    model.compile("sgd", tl.TripletLoss("euclidean", soft_margin=True), run_eagerly=True)
    model.fit(batches, verbose=0, callbacks=[RenewNeighbours(batches, embedder=embedder, distance="euclidean")])
    assert batches.class_neighbours.tolist() == loop_nearest_classes(embedder.predict(X, verbose=0), Y, P - 1)
