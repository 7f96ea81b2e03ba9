"""Every combination of strategies, averages, margins and distances against the loops, and its gradients.

Values of one batch are computed once for all three averages, which are read from the same sums.
"""

import functools
import itertools

import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, compiled, grad, raw_grad
from reference import (
    AVERAGES,
    DISTANCES,
    NEGATIVES,
    STRATEGIES,
    WITH_ALL,
    central_differences,
    pairwise,
    triplet_losses,
    triplets_of,
)

import tripletloss as tl
from tripletloss import _tables, losses
from tripletloss.distances import Distance


def batch(n, classes, seed=0, d=4):
    """n random rows, unbalanced classes, and a singleton."""
    rng = np.random.default_rng((seed, n))
    labels = np.minimum(rng.geometric(min(1.0, 1.5 / classes), n), classes)
    labels[0] = 99
    return labels, rng.normal(size=(n, d)).astype("float32")


# Two classes of 45 rows have more positives than are listed, those of 12 rows fewer; 64 rows have classes of both kinds.
BATCHES = [(2, 1), (3, 2), (12, 4), (45, 2), (64, 12)]


def settings_of(distance, positive, negative, soft):
    return {
        "distance": distance,
        "positive_mining_strategy": positive,
        "negative_mining_strategy": negative,
        "soft_margin": soft,
    }


def by_average(labels, x, *keys, **settings):
    """`triplet_loss` for each average; on JAX compiled, once for all three, since eager loops are compiled at each call."""

    def all_averages(*arrays):
        return [tl.triplet_loss(*arrays, average=average, **settings) for average in AVERAGES]

    found = (compiled(all_averages) if BACKEND == "jax" else all_averages)(labels, x, *keys)
    return [array(losses) for losses in found]


def check(labels, x, *keys, remove_diagonal=None, **settings):
    """All averages against the loops; the last of the loops' results."""
    names = {"name": settings["distance"], "soft_margin": settings["soft_margin"], "remove_diagonal": remove_diagonal}
    strategies = {kind: settings[f"{kind}_mining_strategy"] for kind in ("positive", "negative")}
    found = by_average(labels, x, *keys, remove_diagonal=remove_diagonal, **settings)
    for average, values in zip(AVERAGES, found, strict=True):
        expected, valid = triplet_losses(labels, x, *keys, average=average, **names, **strategies)
        np.testing.assert_allclose(values, expected, rtol=2e-4, atol=1e-5)
    return expected, valid


def gradient_of(loss, labels, x):
    """The gradient by x; on JAX compiled."""
    if BACKEND == "jax":
        return array(compiled(lambda x: raw_grad(functools.partial(loss, labels), x))(x))
    return grad(functools.partial(loss, labels), x)


# JAX compiles each case for a second or two, where the others compute it in a hundredth: it gets some of each kind.
EVERY = slice(None) if BACKEND != "jax" else slice(None, None, 5)
COMBINATIONS = list(itertools.product(DISTANCES, STRATEGIES, [False, True]))[EVERY]


WAYS = {"small": None, "large": 1, "several blocks": 200}  # numbers in a block; with the default there is one table


@pytest.fixture(params=WAYS)
def way(request, block_size):
    """All ways through the engine, whatever the size of the batch."""
    block_size(WAYS[request.param])
    return request.param


@pytest.mark.parametrize("distance, strategies, soft", COMBINATIONS)
def test_equals_the_loops(distance, strategies, soft, way):
    positive, negative = strategies
    labels, x = batch(12, 4)
    settings = settings_of(distance, positive, negative, soft)
    expected, valid = check(labels, x, **settings)
    loss = tl.TripletLoss(**settings, average=AVERAGES[-1])
    mean = (compiled(loss) if BACKEND == "jax" else loss)(labels, x)
    np.testing.assert_allclose(array(mean), expected[valid].mean(), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size, strategies, soft", list(itertools.product(BATCHES, STRATEGIES, [False, True]))[EVERY])
def test_batches_of_all_kinds(batch_size, strategies, soft, way):
    (n, classes), (positive, negative) = batch_size, strategies
    labels, x = batch(n, classes)
    if n > 40:
        x[3] = x[7]  # a tie, and a distance of 0
    check(labels, x, **settings_of("euclidean", positive, negative, soft))


@pytest.mark.parametrize("more", [0, 1, 2])
@pytest.mark.parametrize("positive, negative", [("all", negative) for negative in NEGATIVES])
def test_classes_around_the_number_of_listed_positives(positive, negative, more, block_size):
    """One positive fewer than are listed, as many, and one more."""
    block_size(200)
    labels = np.repeat(np.arange(2), [_tables.MAX_LISTED_POSITIVES + more, 5])
    x = np.random.default_rng(more).normal(size=(len(labels), 3)).astype("float32")
    check(labels, x, **settings_of("euclidean", positive, negative, False))


@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("positive, negative", STRATEGIES)
def test_every_triplet_is_counted_once(positive, negative, more, way):
    """Averages divide sums by counts, and would not show it if both were twice what they are."""
    labels = np.repeat(np.arange(3), [_tables.MAX_LISTED_POSITIVES + more, 5, 1])
    x = np.random.default_rng(more).normal(size=(len(labels), 3)).astype("float32")
    loss = tl.TripletLoss("euclidean", positive, negative)
    batch = losses.gather_batch(ops.convert_to_tensor(labels.astype("int32")), ops.convert_to_tensor(x), loss.distance, False)
    sums = losses.sum_triplets(batch, loss.distance, loss.spec)
    table = pairwise("euclidean", x, x)
    triplets = triplets_of(labels, table, positive=positive, negative=negative)
    np.testing.assert_array_equal(array(sums.triplets), [len(of_query) for of_query in triplets])
    for found, place in ((sums.positive_distance, 0), (sums.negative_distance, 1)):
        expected = [sum(table[i][triplet[place]] for triplet in of_query) for i, of_query in enumerate(triplets)]
        valid = [bool(of_query) for of_query in triplets]
        np.testing.assert_allclose(array(found)[valid], np.array(expected)[valid], rtol=1e-4)


@pytest.mark.parametrize("positive, negative", WITH_ALL)
def test_ties(positive, negative, way):
    rng = np.random.default_rng(4)
    labels, x = rng.integers(0, 2, 40), rng.integers(0, 3, (40, 2)).astype("float32")
    check(labels, x, **settings_of("squared_euclidean", positive, negative, False))


@pytest.mark.parametrize("remove_diagonal", [None, True])
@pytest.mark.parametrize("positive, negative", WITH_ALL[EVERY])
def test_other_keys(positive, negative, remove_diagonal, way):
    (labels, x), (key_labels, keys) = batch(9, 3), batch(30, 3, seed=1)
    settings = settings_of("euclidean", positive, negative, False)
    check(labels, x, key_labels, keys, remove_diagonal=remove_diagonal, **settings)


class Custom(Distance):
    """A distance that says no more than it must."""

    def call(self, query, key):
        return ops.sum(ops.abs(query[:, None] - key[None]) ** 1.5, axis=-1)


@pytest.mark.parametrize("positive, negative", WITH_ALL)
def test_a_custom_distance(positive, negative, way):
    labels, x = batch(24, 2)
    settings = settings_of(Custom(), positive, negative, False)
    found = by_average(labels, x, **settings)[AVERAGES.index("triplets")]
    table = [[sum(abs(a - b) ** 1.5 for a, b in zip(one, other, strict=True)) for other in x.astype("float64")] for one in x]
    line = np.array(table)
    expected = expected_of_table(labels, line, positive, negative)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


def expected_of_table(labels, table, positive, negative):
    pairs = triplets_of(labels, table, positive=positive, negative=negative)
    sums = np.array([sum(max(0, table[i][p] - table[i][n] + 1) for p, n in of) for i, of in enumerate(pairs)])
    return sums * sum(map(bool, pairs)) / sum(map(len, pairs))


GRADIENTS = [(12, 4, False), (12, 4, True), (24, 2, False), (24, 2, True)]


@pytest.mark.parametrize("positive, negative", STRATEGIES)
@pytest.mark.parametrize("n, classes, soft", GRADIENTS if BACKEND != "jax" else GRADIENTS[::3])
def test_gradient(n, classes, soft, positive, negative, float64, way):
    labels, x = batch(n, classes, d=2)
    x = x.astype("float64")
    for average in AVERAGES if (n, soft, BACKEND) == (12, False, "tensorflow") else ("active",):
        names = {"name": "euclidean", "positive": positive, "negative": negative, "soft_margin": soft, "average": average}

        def by_loops(x, names=names):
            expected, valid = triplet_losses(labels, x, **names)
            return expected.sum() / valid.sum()

        loss = tl.TripletLoss("euclidean", positive, negative, soft, average=average, dtype="float64")
        gradient = gradient_of(loss, labels, x)
        np.testing.assert_allclose(gradient, central_differences(by_loops, x), rtol=1e-5, atol=1e-8)
        assert gradient.any() == (by_loops(x) > 0)


@pytest.mark.parametrize("positive, negative", [("hard", "all"), ("all", "semi-hard"), ("all", "all")][EVERY])
@pytest.mark.parametrize("distance", DISTANCES)
def test_gradient_of_each_distance(distance, positive, negative, float64, way):
    labels, x = batch(10, 3, d=3)
    x = x.astype("float64")
    names = {"name": distance, "positive": positive, "negative": negative, "soft_margin": True}
    loss = tl.TripletLoss(distance, positive, negative, soft_margin=True, dtype="float64")
    gradient = gradient_of(loss, labels, x)

    def by_loops(x):
        expected, valid = triplet_losses(labels, x, **names)
        return expected.sum() / valid.sum()

    np.testing.assert_allclose(gradient, central_differences(by_loops, x), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("positive, negative", [("hard", "all"), ("all", "hard"), ("all", "semi-hard"), ("all", "all")][EVERY])
def test_blocks_and_compilation_change_nothing(positive, negative, block_size, float64):
    labels, x = batch(50, 2)
    labels[20:] = np.arange(30) // 3 + 5  # some have more positives than are listed, most have fewer
    x = x.astype("float64")
    loss = tl.TripletLoss("euclidean", positive, negative, average="active", dtype="float64")

    def both(x):
        return loss(labels, x)

    whole, gradient = float(both(x)), grad(both, x)
    block_size(7 * 50)
    # In TensorFlow and JAX the gradient is part of what is compiled, as in a training step.
    compiled_gradient = grad(compiled(both), x) if BACKEND == "torch" else array(compiled(lambda x: raw_grad(both, x))(x))
    for again in (grad(both, x), compiled_gradient):
        np.testing.assert_allclose(again, gradient, rtol=1e-7, atol=1e-9)
    for fn in (both, compiled(both)):
        assert float(fn(ops.convert_to_tensor(x))) == pytest.approx(whole, abs=1e-9)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow traces a function without knowing the batch size")
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("positive, negative", [("hard", "semi-hard"), ("easy", "all"), ("all", "semi-hard"), ("all", "all")])
@pytest.mark.parametrize("numbers", [None, 300])  # in a block; with 300 only the largest of the batches is cut
def test_unknown_batch_size(numbers, positive, negative, jit, block_size):
    import tensorflow as tf

    block_size(numbers)
    loss = tl.TripletLoss("euclidean", positive, negative, average="active")

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None, 4))], jit_compile=jit)
    def both(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    for n, classes in ((1, 1), (12, 4), (45, 2)) if not jit else ((45, 2),):  # XLA takes long for each size
        labels, x = batch(n, classes)
        value, gradient = both(labels, x)
        np.testing.assert_allclose(value, float(loss(labels, x)), rtol=1e-5)
        np.testing.assert_allclose(gradient, grad(functools.partial(loss, labels), x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("positive, negative", STRATEGIES[EVERY])
@pytest.mark.parametrize("average", AVERAGES)
def test_weights_and_reductions(average, positive, negative, way):
    labels, x = batch(12, 4)
    weights = np.linspace(0, 1, 12).astype("float32")
    expected, valid = triplet_losses(labels, x, name="euclidean", positive=positive, negative=negative, average=average)
    strategies = {"positive_mining_strategy": positive, "negative_mining_strategy": negative}
    weighted = expected * weights
    reductions = {
        "sum": weighted.sum(),
        "sum_over_batch_size": weighted.sum() / valid.sum(),
        "mean": weighted.sum() / valid.sum(),
        "mean_with_sample_weight": weighted.sum() / weights[valid].sum(),
        None: weighted,
    }

    def reduced(x):
        settings = {"distance": "euclidean", **strategies, "average": average}
        return [tl.TripletLoss(**settings, reduction=reduction)(labels, x, weights) for reduction in reductions]

    found = (compiled(reduced) if BACKEND == "jax" else reduced)(x)
    for result, value in zip(found, reductions.values(), strict=True):
        np.testing.assert_allclose(array(result), value, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("positive, negative", WITH_ALL[EVERY])
def test_few_rows_and_one_class(positive, negative, way):
    loss = tl.TripletLoss("euclidean", positive, negative, average="active")
    for labels in ([], [3], [3, 3, 3], [1, 2, 3]):
        labels = np.array(labels, "int32")
        x = np.ones((len(labels), 2), "float32")
        assert float(loss(labels, x)) == 0
        assert not gradient_of(loss, labels, x).any()


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("positive, negative", WITH_ALL[EVERY])
def test_a_collapsed_batch_sits_at_the_margin(positive, negative, average, way):
    labels, x = np.array([0, 0, 0, 1, 1, 1, 2]), np.ones((7, 3), "float32")
    assert float(tl.TripletLoss("euclidean", positive, negative, average=average)(labels, x)) == pytest.approx(1)
    soft = tl.TripletLoss("euclidean", positive, negative, True, average=average)
    assert float(soft(labels, x)) == pytest.approx(np.log(2), abs=1e-6)
    assert not gradient_of(soft, labels, x).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n, classes", [(12, 3), (40, 2)])
@pytest.mark.parametrize("positive, negative", WITH_ALL[EVERY])
def test_a_non_finite_row(positive, negative, n, classes, bad, way):
    """Queries with a triplet of it get NaN, all others what they would get without it; their gradients are not harmed."""
    labels, x = np.arange(n) % classes, np.random.default_rng(2).normal(size=(n, 3)).astype("float32")
    x[n - 1] = bad
    settings = settings_of("euclidean", positive, negative, False)
    found = by_average(labels, x, **settings)[AVERAGES.index("anchors")]
    assert np.isnan(found[n - 1])
    alike = labels == labels[n - 1]
    meet = (alike if positive == "all" else np.zeros(n, bool)) | (~alike if negative == "all" else np.zeros(n, bool))
    meet[n - 1] = True
    np.testing.assert_array_equal(np.isnan(found), meet)
    without, _ = triplet_losses(labels[:-1], x[:-1], name="euclidean", positive=positive, negative=negative)
    np.testing.assert_allclose(found[~meet], without[~meet[:-1]], rtol=2e-4, atol=1e-5)
    fine = np.flatnonzero(~meet)
    if len(fine):
        gradient = gradient_of(lambda labels, x: ops.sum(ops.take(tl.triplet_loss(labels, x, **settings), fine)), labels, x)
        assert np.isfinite(gradient[fine]).all()


class Watched(Distance):
    """A euclidean distance that writes down for how many queries and keys it is called."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def call(self, query, key):
        self.shapes.add((query.shape[0], key.shape[0]))
        return tl.distances.Euclidean().call(query, key)


@pytest.mark.parametrize("n, classes", [(50, 2), (48, 12)])
@pytest.mark.parametrize("positive, negative", [("hard", "all"), ("all", "semi-hard"), ("all", "all")])
def test_no_table_is_larger_than_a_block(positive, negative, n, classes, block_size):
    """Neither forward nor backward: a block of 7 rows is the most that is made."""
    block_size(7 * 64)
    labels, x = np.arange(n) % classes, np.random.default_rng(1).normal(size=(n, 4)).astype("float32")
    distance = Watched()
    loss = tl.TripletLoss(distance, positive, negative)
    assert gradient_of(loss, labels, x).any()
    assert {m for rows, m in distance.shapes if rows > 1} <= {n, 64}  # 64 with padding
    assert 1 < max(rows for rows, _ in distance.shapes) <= 7 * 64 // n


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("n, classes", [(12, 3), (40, 2)])
@pytest.mark.parametrize("positive, negative", WITH_ALL[EVERY])
def test_huge_distances(positive, negative, n, classes, soft, way):
    """Any finite number of the dtype may be a distance: none stands for "no distance"."""
    labels, x = np.arange(n) % classes, np.random.default_rng(3).normal(size=(n, 2)).astype("float32") * 1e16
    check(labels, x, **settings_of("squared_euclidean", positive, negative, soft))


def test_batches_have_classes_of_both_kinds():
    """Those whose positives are all listed, and larger ones."""
    listed = _tables.MAX_LISTED_POSITIVES
    largest = [max(np.bincount(batch(*sizes)[0])) - 1 for sizes in BATCHES]  # positives of a query
    assert min(largest[1:]) <= listed < max(largest) and np.bincount(batch(64, 12)[0])[1:99].min() <= listed


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow captures tensors")
@pytest.mark.parametrize("positive, negative", [("hard", "all"), ("all", "semi-hard"), ("all", "all")])
def test_labels_and_keys_from_outside_a_graph(positive, negative, block_size):
    """A training step of one's own may close over labels, or over a bank of keys, that never change."""
    import tensorflow as tf

    block_size(7 * 40)  # several blocks, made again for the gradient
    labels, x = tf.constant(np.arange(40) % 2), np.random.default_rng(1).normal(size=(40, 4)).astype("float32")
    bank_labels, bank = tf.constant(np.arange(50) % 2), tf.constant(np.random.default_rng(2).normal(size=(50, 4)), "float32")
    strategies = {"positive_mining_strategy": positive, "negative_mining_strategy": negative}
    for keys in ((), (bank_labels, bank)):
        eagerly = grad(lambda rows, keys=keys: ops.sum(tl.triplet_loss(labels, rows, *keys, **strategies)), x)
        in_graph = tf.function(lambda rows, keys=keys: raw_grad(lambda r: ops.sum(tl.triplet_loss(labels, r, *keys, **strategies)), rows))
        np.testing.assert_allclose(in_graph(tf.constant(x)), eagerly, rtol=1e-4, atol=1e-6)
