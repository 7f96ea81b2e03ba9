"""Losses and gradients against the loops: strategies x distances x margins x averages x ways through the engine.

`make test` runs every combination of the euclidean distance, and of each other distance one for each pair of strategies;
`make test-all` runs all. Edges are in `test_edges.py`, worked numbers in `test_semantics.py`.
"""

import functools
import itertools

import numpy as np
import pytest
from keras import ops
from on_backend import (
    BACKEND,
    WAYS,
    array,
    compiled_values_and_grad,
    grad,
    numbers_in_a_block,
    one_in,
    only,
    raw_values_and_grad,
    strategies,
    values_and_grad,
)
from reference import (
    AVERAGES,
    DISTANCES,
    STRATEGIES,
    distance_gradients,
    loss_gradients,
    pairwise,
    triplet_losses,
    triplets_of,
)

import tripletloss as tl
from tripletloss import _tables, losses
from tripletloss.distances import Distance


def batch(sizes, seed=0, d=3):
    """Labels, one class of each size in turn, in any order, and random rows (n, d) in 64 bits."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return labels, rng.normal(size=(len(labels), d))


# A query of the second has more positives than are listed, as many, fewer, or none.
BATCHES = {"few positives": (5, 3, 3, 1), "many positives": (_tables.MAX_LISTED_POSITIVES + 2, _tables.MAX_LISTED_POSITIVES + 1, 5, 1)}
WEIGHTS = np.linspace(0.5, 2, 50)


class Bent(Distance):
    """A distance of one's own, that says no more than it must."""

    def call(self, query, key):
        return ops.sum(ops.abs(query[:, None] - key[None]) ** 1.5, axis=-1)


def bent(query, key):
    return sum(abs(a - b) ** 1.5 for a, b in zip(query, key, strict=True))


# By name: what the package is given, and what the loops are.
BOTH = {name: (name, name) for name in sorted(DISTANCES, key="euclidean".__ne__)} | {"of one's own": (Bent(), bent)}


@functools.cache
def known(sizes, name):
    """The loops' distances of a batch, and their derivatives."""
    _, x = batch(sizes)
    return pairwise(BOTH[name][1], x, x), distance_gradients(BOTH[name][1], x, x)


PLACES = list(itertools.product(BATCHES, WAYS))
COUNTS = list(itertools.product([False, True], AVERAGES))


def is_quick(d, s, p, c):
    """Whether `make test` runs the distance, pair of strategies, place and count of these numbers: all others are run in full."""
    if d == 0:  # every pair in every place, by each kind of margin and average in turn
        return c == (s + 5 * p) % 6
    return 6 * p + c == (7 * d + 5 * s) % 24  # another distance meets every pair in some place, by some margin and average


COMBINATIONS = [
    pytest.param(name, *pair, *place, *count, marks=[] if is_quick(d, s, p, c) else pytest.mark.every)
    for (d, name), (s, pair), (p, place), (c, count) in itertools.product(*map(enumerate, (BOTH, STRATEGIES, PLACES, COUNTS)))
]


@pytest.mark.parametrize("name, positive, negative, size, way, soft, average", COMBINATIONS)
def test_equals_the_loops(name, positive, negative, size, way, soft, average, block_size, float64):
    block_size(numbers_in_a_block(way, sum(BATCHES[size])))
    labels, x = batch(BATCHES[size])
    weights, settings = WEIGHTS[: len(labels)], {"soft_margin": soft, "average": average}
    loss = tl.TripletLoss(BOTH[name][0], positive, negative, **settings, dtype="float64", reduction="none")
    values, gradient = values_and_grad(lambda x: loss(labels, x, weights), x)
    table, of_distances = known(BATCHES[size], name)
    settings |= {"positive": positive, "negative": negative}
    expected, _ = triplet_losses(labels, x, name=BOTH[name][1], **settings)
    np.testing.assert_allclose(values, weights * expected, rtol=1e-9, atol=1e-11, err_msg="losses of the anchors")
    expected = sum(loss_gradients(labels, table, of_distances, weights=weights, **settings))
    np.testing.assert_allclose(gradient, expected, atol=1e-6, err_msg="the gradient, where the losses are right")


@pytest.mark.parametrize("pair, place", one_in(1, STRATEGIES, [PLACES[0], PLACES[-1]]), ids=str)
def test_in_32_bits(pair, place, block_size):
    (positive, negative), (size, way) = pair, place
    block_size(numbers_in_a_block(way, sum(BATCHES[size])))
    labels, x = batch(BATCHES[size])
    loss = tl.TripletLoss("squared_euclidean", positive, negative, average="active", reduction="none")
    values, gradient = values_and_grad(lambda x: loss(labels, x), x.astype("float32"))
    assert values.dtype == gradient.dtype == "float32"
    settings = {"positive": positive, "negative": negative, "average": "active"}
    expected, _ = triplet_losses(labels, x, name="squared_euclidean", **settings)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, sum(loss_gradients(labels, *known(BATCHES[size], "squared_euclidean"), **settings)), rtol=1e-4, atol=1e-4)


# Keys, and whether key i is no positive of query i: None as it is by default.
KEYS = {"itself with the diagonal": (False, False), "keys": (True, None), "keys without the diagonal": (True, True)}


@pytest.mark.parametrize("pair, setting, way", one_in(5, STRATEGIES, KEYS, WAYS), ids=str)
def test_other_keys(pair, setting, way, block_size, float64):
    """By the gradient of the queries and that of the keys."""
    (positive, negative), _ = pair, block_size(numbers_in_a_block(way, 12))
    with_keys, remove_diagonal = KEYS[setting]
    labels, x = batch(BATCHES["few positives"])
    key_labels, keys = batch((6, 4, 2, 2, 1), seed=1) if with_keys else (labels, x)
    n, settings = len(labels), {"soft_margin": True, "average": "active"}

    def losses(both):
        others = (key_labels, both[n:]) if with_keys else ()
        return tl.triplet_loss(
            labels, both[:n], *others, distance="squared_euclidean", remove_diagonal=remove_diagonal, **settings, **strategies(positive, negative)
        )

    values, gradient = values_and_grad(losses, np.concatenate([x, keys]) if with_keys else x)
    settings |= {"positive": positive, "negative": negative, "remove_diagonal": bool(remove_diagonal)}
    expected, _ = triplet_losses(labels, x, key_labels, keys, name="squared_euclidean", **settings)
    table, of_distances = pairwise("squared_euclidean", x, keys), distance_gradients("squared_euclidean", x, keys)
    by_query, by_key = loss_gradients(labels, table, of_distances, key_labels, **settings)
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(gradient, np.concatenate([by_query, by_key]) if with_keys else by_query + by_key, atol=1e-6)


REDUCTIONS = {
    "sum": lambda losses, weights, valid: losses.sum(),
    "sum_over_batch_size": lambda losses, weights, valid: losses.sum() / valid.sum(),
    "mean": lambda losses, weights, valid: losses.sum() / valid.sum(),
    "mean_with_sample_weight": lambda losses, weights, valid: losses.sum() / weights[valid].sum(),
    None: lambda losses, weights, valid: losses,
}


@pytest.mark.parametrize("pair, average", one_in(5, STRATEGIES, AVERAGES), ids=str)
def test_weights_and_reductions(pair, average):
    positive, negative = pair
    labels, x = batch(BATCHES["few positives"])
    x, weights = x.astype("float32"), np.linspace(0, 1, len(labels)).astype("float32")
    expected, valid = triplet_losses(labels, x, name="euclidean", positive=positive, negative=negative, average=average)
    for reduction, reduced in REDUCTIONS.items():
        loss = tl.TripletLoss("euclidean", positive, negative, average=average, reduction=reduction)
        np.testing.assert_allclose(array(loss(labels, x, weights)), reduced(weights * expected, weights, valid), rtol=2e-4, atol=1e-6)


# Compiled: the same numbers. On TensorFlow under XLA; PyTorch's compiler takes half a minute for each.
IN_BLOCKS = [("hard", "semi-hard"), ("hard", "all"), ("all", "semi-hard"), ("all", "all")]
OF_EACH_KIND = [pytest.param(*pair, marks=[] if pair in IN_BLOCKS else pytest.mark.every) for pair in STRATEGIES]
COMPILED = [(*pair, size, None) for pair in STRATEGIES for size in BATCHES if size.startswith("few") or "all" in pair]
COMPILED += [(*pair, "many positives", 300) for pair in IN_BLOCKS]
QUICK = {"torch": COMPILED[:1]}.get(BACKEND, [case for case in COMPILED if case[3] or case == ("all", "all", "many positives", None)])


@pytest.mark.jit
@pytest.mark.parametrize(
    "positive, negative, size, numbers", [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.every) for case in COMPILED]
)
def test_compiled(positive, negative, size, numbers, block_size):
    block_size(numbers)
    labels, x = batch(BATCHES[size])
    loss = tl.TripletLoss("euclidean", positive, negative, average="active", reduction="none")
    fixed = ops.convert_to_tensor(labels.astype("int32"))
    values, gradient = compiled_values_and_grad(lambda x: loss(fixed, x), x.astype("float32"))
    settings = {"positive": positive, "negative": negative, "average": "active"}
    np.testing.assert_allclose(values, triplet_losses(labels, x, name="euclidean", **settings)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, sum(loss_gradients(labels, *known(BATCHES[size], "euclidean"), **settings)), rtol=1e-4, atol=1e-4)


@only("tensorflow", "traces a function without knowing the batch size")
@pytest.mark.parametrize("positive, negative", OF_EACH_KIND)
@pytest.mark.parametrize("numbers", [pytest.param(None, marks=pytest.mark.every), 600])  # in a block; with 600 the largest is cut
def test_unknown_batch_size(numbers, positive, negative, block_size):
    """One trace for batches of all sizes, those without a row among them; labels as a column, as Keras hands them on."""
    import tensorflow as tf

    block_size(numbers)
    loss = tl.TripletLoss("euclidean", positive, negative, average="active", reduction="none")

    @tf.function(input_signature=[tf.TensorSpec((None, 1), tf.int64), tf.TensorSpec((None, 3))])
    def both(labels, x):
        return raw_values_and_grad(lambda x: loss(labels, x), x)

    for sizes in ((), (1,), (2, 1), *BATCHES.values()):
        labels, x = batch(sizes)
        values, gradient = both(labels[:, None], x.astype("float32"))
        settings = {"positive": positive, "negative": negative, "average": "active"}
        np.testing.assert_allclose(values, triplet_losses(labels, x, name="euclidean", **settings)[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient, sum(loss_gradients(labels, *known(sizes, "euclidean"), **settings)), rtol=1e-4, atol=1e-4)
    assert both.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("pair, place", one_in(5, STRATEGIES, [PLACES[0], *PLACES[2:]]), ids=str)
def test_every_triplet_is_counted_once(pair, place, block_size):
    """Averages divide sums by counts, and would not show it if both were twice what they are."""
    (positive, negative), (size, way) = pair, place
    block_size(numbers_in_a_block(way, sum(BATCHES[size])))
    labels, x = batch(BATCHES[size])
    loss = tl.TripletLoss("euclidean", positive, negative)
    tensors = ops.convert_to_tensor(labels.astype("int32")), ops.convert_to_tensor(x.astype("float32"))
    sums = losses.sum_triplets(losses.gather_batch(*tensors, loss.distance, False), loss.distance, loss.spec)
    table, _ = known(BATCHES[size], "euclidean")
    triplets = triplets_of(labels, table, positive=positive, negative=negative)
    valid = np.array([bool(of_query) for of_query in triplets])
    np.testing.assert_array_equal(array(sums.triplets), [len(of_query) for of_query in triplets])
    for found, place in ((sums.positive_distance, 0), (sums.negative_distance, 1)):
        expected = np.array([sum(table[i][triplet[place]] for triplet in of_query) for i, of_query in enumerate(triplets)])
        np.testing.assert_allclose(array(found)[valid], expected[valid], rtol=1e-4)


class Watched(tl.distances.Euclidean):
    """A distance that writes down of how many queries and keys tables are asked for."""

    def __init__(self):
        super().__init__()
        self.tables = set()

    def call(self, query, key):
        self.tables.add((query.shape[0], key.shape[0]))
        return super().call(query, key)


@pytest.mark.parametrize("positive, negative", IN_BLOCKS)
def test_no_table_is_larger_than_a_block(positive, negative, block_size):
    """Neither forward nor backward."""
    numbers = 7 * 26
    block_size(numbers)
    labels, x = batch((20, 6))
    distance = Watched()
    loss = tl.TripletLoss(distance, positive, negative)
    assert grad(lambda x: loss(labels, x), x.astype("float32")).any()
    assert distance.tables and all(rows * columns <= numbers for rows, columns in distance.tables), distance.tables


@only("tensorflow", "captures tensors from outside a graph")
@pytest.mark.parametrize("positive, negative", IN_BLOCKS)
def test_labels_and_keys_from_outside_a_graph(positive, negative, block_size):
    """A training step of one's own may close over labels, or over a bank of keys, that never change."""
    import tensorflow as tf

    block_size(300)
    (labels, x), (bank_labels, bank) = batch(BATCHES["many positives"]), batch((20, 30), seed=1)
    fixed = tf.constant(labels), tf.constant(bank_labels), tf.constant(bank, tf.float32)
    step = tf.function(
        lambda x: raw_values_and_grad(lambda x: tl.triplet_loss(fixed[0], x, *fixed[1:], distance="euclidean", **strategies(positive, negative)), x)
    )
    values, gradient = step(tf.constant(x, tf.float32))
    names = {"positive": positive, "negative": negative}
    np.testing.assert_allclose(values, triplet_losses(labels, x, bank_labels, bank, name="euclidean", **names)[0], rtol=1e-4, atol=1e-5)
    by_query, _ = loss_gradients(labels, pairwise("euclidean", x, bank), distance_gradients("euclidean", x, bank), bank_labels, **names)
    np.testing.assert_allclose(gradient, by_query, rtol=1e-4, atol=1e-4)
