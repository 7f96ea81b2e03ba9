"""What holds for every batch: the answers of the loops, within what rounding may do to them, and what must not matter."""

import numpy as np
import pytest
import reference
import rounding
from batches import Batch, Loss, batches, engine, gradient_of, losses, losses_of, mined
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from keras import ops
from on_backend import BACKEND, array, compiled, tensor
from reference import DISTANCES, NEGATIVES, POSITIVES

import tripletloss as tl

CHOICES = [(p, n) for p in POSITIVES for n in NEGATIVES]  # those of one triplet for each query
EXACT = ("euclidean", "squared_euclidean", "manhattan", "inner_product")  # which lose nothing of small whole numbers


def times(share):
    """So many of the profile's examples."""
    return settings(max_examples=max(2, int(settings.default.max_examples * share)))


def assert_between(found, low, high):
    wrong = ~((found >= low) & (found <= high))  # and so is NaN
    assert not wrong.any(), f"at {np.argwhere(wrong).tolist()}: {found[wrong]} is not between {low[wrong]} and {high[wrong]}"


def assert_close(found, expected, size=1.0):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * size)


# Any rows, within error bars.


@given(batch=batches(whole=True), loss=losses(EXACT), name=st.sampled_from(list(DISTANCES)))
@times(1)
def test_bars_of_no_width_are_the_loops(batch, loss, name):
    """The bars themselves, where nothing is rounded and so nothing open: the package is not asked."""
    assume(batch.all_keys[0].size)
    exact = reference.pairwise(name, batch.x, batch.all_keys[1])
    np.testing.assert_allclose(rounding.distance(name, batch.x.astype("float64")[:, None], batch.all_keys[1].astype("float64")), exact, rtol=1e-9, atol=1e-12)
    pairs = rounding.pairs_of(loss.distance, batch, 0.0)
    chosen = rounding.choices(batch, loss, pairs)
    low, high = rounding.losses_between(rounding.triplets_of(loss, pairs, *chosen, 0.0), 0.0)
    assert_close(low, high)
    assert_close(low, loops(batch, loss)[0])


@pytest.mark.parametrize("name", DISTANCES)
def test_derivatives_are_those_of_the_loops(name):
    query, key = np.random.default_rng(0).normal(size=(2, 3, 5))
    by_query, by_key = rounding.derivatives(name, query, key)
    for i, q in enumerate(query):
        for j, k in enumerate(key):
            np.testing.assert_allclose(by_query[i, j], reference.central_differences(lambda x, k=k: reference.distance(name, x, k), q), atol=1e-7)
            np.testing.assert_allclose(by_key[i, j], reference.central_differences(lambda x, q=q: reference.distance(name, q, x), k), atol=1e-7)


def expected_of(batch, loss, found=None):
    """Bounds of the losses, and a function that makes those of the gradient; `found` are the triplets, if known, which are checked."""
    eps = float(np.finfo(batch.x.dtype).eps)
    pairs = rounding.pairs_of(loss.distance, batch, eps)
    chosen = rounding.choices(batch, loss, pairs)
    if found is not None:
        keys = np.arange(len(batch.all_keys[0]))
        for place, options in enumerate(chosen):
            assert [t is not None for t in found] == options.any(axis=(1, 2)).tolist()
            one = np.array([[keys == (t[place] if t else -1)] for t in found], bool).reshape(options.shape)
            assert not (one & ~options).any(), f"of {found} these may not be chosen: {np.argwhere(one & ~options)[:, [0, 2]]}"
            chosen = [*chosen[:place], one, *chosen[place + 1 :]]
    triplets = rounding.triplets_of(loss, pairs, *chosen, eps)
    between = rounding.losses_between(triplets, eps)
    return between, lambda weights: rounding.gradient_between(loss, pairs, triplets, *chosen, weights, eps)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=[pytest.mark.every] if BACKEND == "jax" else [])])
@given(data=st.data(), loss=losses())
@times(4)
def test_equals_the_loops(dtype, data, loss):
    """Chosen keys, losses and gradients."""
    batch = data.draw(batches(dtype))
    n = len(batch.x)
    weights = np.random.default_rng(n).uniform(0.5, 2, n).astype(dtype)
    found, gradient = losses_of(batch, loss), gradient_of(batch, loss, weights)
    assert found.dtype == gradient[0].dtype == dtype
    if not batch.all_keys[0].size:
        assert not found.any() and not gradient[0].any()
        return
    between, gradient_between = expected_of(batch, loss, None if "all" in loss else mined(batch, loss))
    assert_between(found, *between)
    low, high = gradient_between(weights)
    if batch.keys is None:
        assert_between(gradient[0], low[0] + low[1], high[0] + high[1])
    else:
        for side in (0, 1):
            assert_between(gradient[side], low[side], high[side])


@pytest.mark.every  # compiling is most of it; `test_strategies.test_compiled` is in `make test`
@given(batch=batches(), loss=losses(), unknown=st.booleans())
@times(0.1)
def test_compiled(batch, loss, unknown):
    """As each backend compiles it; on TensorFlow with a known number of rows under XLA, or in a graph that knows none."""
    assume(batch.all_keys[0].size)

    def fn(*arguments):
        return tl.triplet_loss(*arguments, remove_diagonal=batch.remove_diagonal, **loss.arguments)

    with engine(batch):
        if BACKEND == "tensorflow" and unknown:
            import tensorflow as tf

            fn = tf.function(fn, input_signature=[tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in batch.arguments])
        else:
            fn = compiled(fn)
        found = array(fn(*batch.arguments))
    assert_between(found, *expected_of(batch, loss)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(name=st.sampled_from(list(DISTANCES)), data=st.data())
@times(1)
def test_distances(name, dtype, data):
    """All pairs at once, as ranking takes them; and pair by pair, from the differences."""
    batch = data.draw(batches(dtype, keys=True))
    assume(batch.keys.size)
    n = min(len(batch.x), len(batch.keys))
    with engine(batch):
        distance = tl.distances.get(name)
        table, line = (array(x) for x in (distance.pairwise(batch.x, batch.keys), distance.paired(batch.x[:n], batch.keys[:n])))
    assert table.dtype == line.dtype == dtype
    pairs = rounding.pairs_of(name, batch, float(np.finfo(dtype).eps))
    assert_between(table, *pairs.table[:2])
    assert_between(line, *(x.diagonal()[:n] for x in pairs.direct[:2]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@given(batch=batches(keys=False), loss=losses(pairs=CHOICES))
@times(0.5)
def test_half_precision_is_widened_before_anything_else(dtype, batch, loss):
    x = tensor(batch.x, dtype)
    exact = array(ops.cast(x, "float32"))
    assume(exact.size and np.isfinite(exact).all())
    found = losses_of(batch._replace(x=x), loss)
    assert found.dtype == "float32"
    assert_between(found, *expected_of(batch._replace(x=exact), loss)[0])


# Where no digit is lost: rows of small whole numbers. There every tie is one, and must go to the lowest index.


def loops(batch, loss):
    """What the loops make of a batch: losses, and which queries are valid."""
    names = {"positive": loss.positive, "negative": loss.negative, "remove_diagonal": batch.remove_diagonal}
    return reference.triplet_losses(*batch.arguments, **names, name=loss.distance, **loss.margins, average=loss.average)


def exact_losses(distances=EXACT, **keywords):
    """Without those of which 32 bits do not tell whether they are active: softplus(-90), or a margin of 1e-30 between equal distances."""
    return losses(distances, **keywords).filter(lambda x: x.average != "active" or x.margin in (0.0, 0.1, 10.0))


@given(batch=batches(whole=True), loss=exact_losses())
@times(3)
def test_ties_go_to_the_lowest_index(batch, loss):
    expected, valid = loops(batch, loss)
    found = losses_of(batch, loss)
    assert_close(found, expected)
    assert not found[~valid].any()
    if "all" not in loss:
        table = reference.pairwise(loss.distance, batch.x, batch.all_keys[1])
        assert mined(batch, loss) == reference.mine(batch.labels, table, batch.key_labels, batch.without_diagonal, loss.positive, loss.negative)


def reduced(losses, valid, weights, reduction):
    """What Keras's reductions are, with means over those that count."""
    weighted = losses * weights
    if reduction in (None, "none"):
        return weighted
    divisor = {"sum": 1.0, "mean_with_sample_weight": (valid * weights).sum()}.get(reduction, valid.sum())
    return weighted.sum() / divisor if divisor else 0.0


REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)
A_SINGLETON = Batch(np.array([0, 0, 1, 2, 1]), np.arange(5, dtype="float32")[:, None])


@given(
    batch=batches(whole=True, keys=False),
    loss=exact_losses(),
    reduction=st.sampled_from(REDUCTIONS),
    kind=st.sampled_from(["nothing", "number", "row", "column"]),
    zeros=st.booleans(),
)
@example(A_SINGLETON, Loss("euclidean", "hard", "hard"), "mean_with_sample_weight", "column", True)
@times(2)
def test_weights_and_reductions(batch, loss, reduction, kind, zeros):
    batch, n, rng = batch._replace(remove_diagonal=None), len(batch.x), np.random.default_rng(1)
    row = np.where(rng.random(n) < 0.3 * zeros, 0, rng.integers(1, 9, n) / 4).astype("float32")
    weights = {"nothing": None, "number": np.float32(0.5), "row": row, "column": row[:, None]}[kind]
    with engine(batch):
        found = array(tl.TripletLoss(**loss.arguments, reduction=reduction)(batch.labels, batch.x, sample_weight=weights))
    expected, valid = loops(batch, loss)
    each = {"nothing": np.ones(n), "number": np.full(n, 0.5)}.get(kind, row)
    assert_close(found, reduced(expected, valid, each, reduction), size=max(1.0, expected.sum()))


# What must not matter.


def in_another_order(batch, rng):
    """Where key i is query i, or stands for it, the two have one order; and which query is which shows in the answer."""
    order = rng.permutation(len(batch.x))
    if batch.keys is None:
        return batch._replace(labels=batch.labels[order], x=batch.x[order]), order
    if batch.without_diagonal:
        return batch, np.arange(len(order))
    of_keys = rng.permutation(len(batch.keys))
    return Batch(batch.labels[order], batch.x[order], batch.key_labels[of_keys], batch.keys[of_keys], *batch[4:]), order


def renamed(batch, rng):
    known = np.unique(np.concatenate([batch.labels, batch.all_keys[0]]))
    names = rng.permutation(len(known)).astype("int32") - len(known) // 2
    return batch.with_labels(lambda labels: names[np.searchsorted(known, labels)])


@given(batch=batches(whole=True), loss=exact_losses(), seed=st.integers(0, 99))
@times(1)
def test_order_of_rows(batch, loss, seed):
    moved, order = in_another_order(batch, np.random.default_rng(seed))
    assert_close(losses_of(moved, loss), losses_of(batch, loss)[order])


@given(batch=batches(whole=True), loss=exact_losses(), seed=st.integers(0, 99))
@times(1)
def test_names_of_classes(batch, loss, seed):
    assert_close(losses_of(renamed(batch, np.random.default_rng(seed)), loss), losses_of(batch, loss))


@given(batch=batches(whole=True), loss=exact_losses(("euclidean", "squared_euclidean", "manhattan")), shift=st.integers(-50, 50))
@times(1)
def test_translation(batch, loss, shift):
    by = shift * np.arange(1, batch.x.shape[1] + 1, dtype="float32")
    assert_close(losses_of(batch.with_rows(lambda x: x + by), loss), losses_of(batch, loss))


@given(batch=batches(whole=True, columns=4), loss=losses(("snr",), pairs=CHOICES), seed=st.integers(0, 99))
@times(1)
def test_snr_of_rows_with_a_constant_added(batch, loss, seed):
    rng = np.random.default_rng(seed)
    moved = batch.with_rows(lambda x: x + rng.integers(-50, 50, (len(x), 1)).astype("float32"))
    assert_close(losses_of(moved, loss), losses_of(batch, loss))


@given(batch=batches(whole=True), loss=exact_losses(margins=(1.0, 0.1, 0.0, 10.0)), power=st.integers(-10, 10))
@times(1)
def test_scale(batch, loss, power):
    """By powers of two, which round nothing; the margin goes along."""
    by = 2.0 ** (power * (2 if loss.distance in ("squared_euclidean", "inner_product") else 1))
    scaled = losses_of(batch.with_rows(lambda x: x * np.float32(2.0**power)), loss._replace(margin=loss.margin * by))
    assert_close(scaled / by, losses_of(batch, loss))


@given(batch=batches(whole=True, keys=True), loss=exact_losses())
@times(1)
def test_queries_in_two_parts(batch, loss):
    """Against the same keys; with "anchors" a query's loss depends on no other query."""
    batch, loss, cut = batch._replace(remove_diagonal=False), loss._replace(average="anchors"), len(batch.x) // 2
    parts = [losses_of(batch._replace(labels=batch.labels[part], x=batch.x[part]), loss) for part in (slice(cut), slice(cut, None))]
    assert_close(np.concatenate(parts), losses_of(batch, loss))


@given(batch=batches(whole=True, keys=True), loss=exact_losses(pairs=[(p, n) for p in POSITIVES for n in ("hard", "easy")]))
@times(1)
def test_keys_in_two_parts(batch, loss):
    """What is chosen of all keys is the better of what is chosen of each half."""
    batch, cut = batch._replace(remove_diagonal=False), len(batch.keys) // 2
    halves = [mined(batch._replace(key_labels=batch.key_labels[part], keys=batch.keys[part]), loss) for part in (slice(cut), slice(cut, None))]
    table = reference.pairwise(loss.distance, batch.x, batch.keys)
    for i, (one, other, best) in enumerate(zip(*halves, mined(batch, loss), strict=True)):
        if one and other:
            for place, better in ((0, max if loss.positive == "hard" else min), (1, min if loss.negative == "hard" else max)):
                assert table[i, best[place]] == better(table[i, one[place]], table[i, cut + other[place]])


# Explicit triplets, and rows that are not finite.


@given(batch=batches(keys=True), loss=losses(), swap=st.booleans())
@times(1)
def test_explicit_triplets(batch, loss, swap):
    n = min(len(batch.x) // 2, len(batch.keys))
    assume(n)
    rows = anchor, positive, negative = batch.x[:n], batch.x[n : 2 * n], batch.keys[:n]
    pairs = [(anchor, positive), (anchor, negative), (positive, negative)]
    bars = [rounding.pairs_of(loss.distance, Batch(np.arange(n), one, np.arange(n), other), 2.0**-23).direct[:2] for one, other in pairs]
    (low, high), near, swapped = ([x.diagonal() for x in one] for one in bars)
    if swap:
        near = [np.minimum(*x) for x in zip(near, swapped, strict=True)]
    with engine(batch):
        found = array(tl.triplet_margin_loss(*rows, distance=loss.distance, swap=swap, **loss.margins))
    least, most = ([reference.loss_of_triplet(x, y, **loss.margins) for x, y in zip(*z, strict=True)] for z in ((low, near[1]), (high, near[0])))
    slack = 4e-6 * (1 + abs(high) + abs(near[1]) + loss.margin)
    assert_between(found, least - slack, most + slack)


@given(
    batch=batches(whole=True),
    loss=exact_losses(),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.integers(0, 1000),
    of_keys=st.booleans(),
)
@times(3)
def test_a_non_finite_row(batch, loss, bad, where, of_keys):
    """NaN for the queries that have a triplet of it, and nothing else; all others as if it were not there, gradients too."""
    batch, loss = batch._replace(remove_diagonal=None), loss._replace(average="anchors")
    of_keys = of_keys and batch.keys is not None
    rows = (batch.keys if of_keys else batch.x).copy()
    assume(len(rows))
    row = where % len(rows)

    def with_row(numbers):
        changed = rows.copy()
        changed[row, numbers] = bad if numbers is column else np.nan
        return batch._replace(**{"keys" if of_keys else "x": changed})

    column = where % rows.shape[1]
    broken = with_row(column)
    expected, valid = loops(with_row(slice(None)), loss)  # to the package one number makes the whole row NaN
    fine = ~np.isnan(expected)
    found, (by_query, by_key) = losses_of(broken, loss), gradient_of(broken, loss, fine.astype("float32"))
    np.testing.assert_array_equal(np.isnan(found), ~fine)
    assert_close(found[fine], expected[fine])
    assert not found[~valid].any()
    # A query of NaN has a gradient by the keys that it chose; with "all" by none.
    chosen = [] if "all" in loss else [t for t, is_fine in zip(mined(broken, loss), fine, strict=True) if t and not is_fine]
    touched = {key for triplet in chosen for key in triplet}
    bad_queries, bad_keys = ({*np.flatnonzero(~np.isfinite(x).all(axis=1))} for x in (by_query, by_key))
    if batch.keys is None:
        assert bad_queries <= {row, *touched, *np.flatnonzero(~fine)}
    else:
        assert bad_queries <= {*np.flatnonzero(~fine), *([] if of_keys else [row])}
        assert bad_keys <= {*touched, *([row] if of_keys else [])}
