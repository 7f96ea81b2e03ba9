"""What holds for every batch: the answers of the loops, within what rounding may do to them, and what must not matter."""

import functools
import os
import time

import numpy as np
from ask import ask_compiled, loss_of, machine, mined
from batches import (
    USUAL,
    Batch,
    Settings,
    batches,
    few_limits,
    limits,
    settings_of_a_loss,
    whole_numbers,
)
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st
from on_backend import BACKEND, array, tensor
from reference import (
    DISTANCES,
    NEGATIVES,
    POSITIVES,
    loss_of_triplet,
    mine,
    pairwise,
    triplet_losses,
)
from rounding import (
    Question,
    choices,
    first_of_class,
    gradient_between,
    is_well_conditioned,
    losses_between,
    pairs_of,
)

import tripletloss as tl
from tripletloss import _checks

MANY = settings.default.max_examples > 100  # there is time
LIMITS = limits if MANY or BACKEND != "jax" else few_limits
LOSSES = settings_of_a_loss()
CHOICES = settings_of_a_loss(strategies=[(p, n) for p in POSITIVES for n in NEGATIVES])
EXACT = ("euclidean", "squared_euclidean", "manhattan", "inner_product")  # which lose nothing of small whole numbers


def batches_of(*arguments, **keywords):
    return batches(*arguments, few=not MANY, **keywords)


def times(number):
    """As many examples as the profile has, times a number; fewer if a time is given and over."""
    until = float(os.environ.get("FUZZ_UNTIL", "inf"))

    def decorate(test):
        @functools.wraps(test)
        def in_time(*arguments, **keywords):
            if time.time() < until:
                test(*arguments, **keywords)

        return settings(max_examples=max(1, int(settings.default.max_examples * number)))(in_time)

    return decorate


def question_of(batch, loss, limits):
    strategies, margins = (loss.positive, loss.negative), (loss.soft_margin, loss.margin)
    small = limits.is_small(len(batch.x), len(batch.all_keys[0]))
    return Question(batch.labels, batch.all_keys[0], batch.without_diagonal, *strategies, *margins, small, limits.listed)


def pairs_in(batch, loss, dtype):
    """All pairs of a batch, with the keys around which each query meets its class."""
    key_labels, keys = batch.all_keys
    return pairs_of(loss.distance, batch.x, keys, dtype, first_of_class(batch.labels, key_labels))


def assert_between(found, low, high):
    assert np.isfinite(found).all(), found
    wrong = ~((found >= low) & (found <= high))
    assert not wrong.any(), f"at {np.argwhere(wrong).tolist()}: {found[wrong]} is not between {low[wrong]} and {high[wrong]}"


def assert_may_be_chosen(found, question, pairs):
    for i, triplet in enumerate(found):
        allowed = choices(question, pairs, i)
        assert (triplet is None) == (not allowed), f"query {i}: {triplet}, and the loops say {allowed}"
        assert triplet is None or triplet in allowed[0], f"query {i}: {triplet} is none of {allowed[0]}"


def check(batch, loss, limits):
    """Chosen keys, losses and gradients of a batch against the loops."""
    dtype = batch.x.dtype.name
    keys = batch.all_keys[1]
    n = len(batch.x)
    assume(is_well_conditioned(loss.distance, batch.x, dtype) and is_well_conditioned(loss.distance, keys, dtype))
    question, pairs = question_of(batch, loss, limits), pairs_in(batch, loss, dtype)
    weights = np.random.default_rng(n).uniform(0.5, 2, n).astype(dtype)
    chosen = None
    with machine(limits, len(keys), dtype):
        if "all" not in (loss.positive, loss.negative):
            found = mined(batch, loss)
            assert_may_be_chosen(found, question, pairs)
            chosen = [[[triplet]] if triplet else [] for triplet in found]
        losses, by_query, by_key = loss_of(batch, loss, weights)
    assert losses.dtype == dtype
    valid = np.array([bool(choices(question, pairs, i)) for i in range(n)], bool)
    event(f"valid: {'all' if valid.all() else 'some' if valid.any() else 'none'}")
    assert not losses[~valid].any()
    assert_between(losses, *losses_between(question, pairs, loss.average, dtype, chosen))
    assert np.isfinite(by_query).all() and (by_key is None or np.isfinite(by_key).all())
    between = gradient_between(question, pairs, loss.average, weights, dtype, chosen)
    event(f"gradient: {'open' if between is None else 'known'}")
    if between is None:
        return
    low, high = between
    if by_key is None:
        assert_between(by_query, low[:n] + low[n:], high[:n] + high[n:])
    else:
        assert_between(np.concatenate([by_query, by_key]), low, high)


@given(batch=batches_of(), loss=LOSSES, limits=LIMITS)
@times(4)
def test_equals_the_loops(batch, loss, limits):
    check(batch, loss, limits)


@given(batch=batches_of(dtype="float64"), loss=LOSSES, limits=LIMITS)
@times(2)
def test_equals_the_loops_in_64_bits(batch, loss, limits):
    check(batch, loss, limits)


@given(batch=batches_of(), loss=LOSSES, limits=LIMITS, unknown=st.booleans())
@times(0.1 if BACKEND != "torch" else 0.04)  # tracing takes PyTorch half a minute
def test_compiled(batch, loss, limits, unknown):
    """As each backend compiles it; on TensorFlow with a known number of rows under XLA, or in a graph that knows none."""
    keys = batch.all_keys[1]
    assume(is_well_conditioned(loss.distance, batch.x, "float32") and is_well_conditioned(loss.distance, keys, "float32"))
    question, pairs = question_of(batch, loss, limits), pairs_in(batch, loss, "float32")
    with machine(limits, len(keys)):
        losses = ask_compiled(batch, loss, unknown)
    assert_between(losses, *losses_between(question, pairs, loss.average, "float32"))


@given(name=st.sampled_from(list(DISTANCES)), batch=batches_of(queries=12, keys=True), wide=st.booleans())
@times(2)
def test_distances(name, batch, wide):
    """All pairs at once, as ranking takes them; and pair by pair, from the differences."""
    dtype = "float64" if wide else "float32"
    query, keys = batch.x.astype(dtype), batch.keys.astype(dtype)
    assume(is_well_conditioned(name, query, dtype) and is_well_conditioned(name, keys, dtype))
    pairs = pairs_of(name, query, keys, dtype)
    paired = len(query) if len(query) < len(keys) else len(keys)
    with machine(USUAL, len(keys), dtype):
        distance = tl.distances.get(name)
        table = array(distance.pairwise(query, keys))
        line = array(distance.paired(query[:paired], keys[:paired]))
    assert table.dtype == line.dtype == dtype
    assert_between(table, pairs.value - pairs.table.value, pairs.value + pairs.table.value)
    exact, error = (x.diagonal()[:paired] for x in (pairs.value, pairs.direct.value))
    assert_between(line, exact - error, exact + error)


@given(batch=batches_of(queries=12, keys=False), loss=CHOICES, dtype=st.sampled_from(["float16", "bfloat16"]))
@times(0.5)
def test_half_precision_is_widened_before_anything_else(batch, loss, dtype):
    x = tensor(batch.x, dtype)
    exact = array(_checks.as_embeddings(x))
    assume(np.isfinite(exact).all() and is_well_conditioned(loss.distance, exact, "float32"))
    batch = batch._replace(x=exact)
    question, pairs = question_of(batch, loss, USUAL), pairs_in(batch, loss, "float32")
    with machine(USUAL, len(exact)):
        losses = array(tl.triplet_loss(batch.labels, x, remove_diagonal=batch.remove_diagonal, **loss.arguments))
    assert losses.dtype == "float32"
    assert_between(losses, *losses_between(question, pairs, loss.average, "float32"))


# Where no digit is lost: rows of small whole numbers. There every tie is one, and must go to the lowest index.


def exact_batches(**keywords):
    return batches_of(recipes=whole_numbers, **keywords)


def active_is_clear(batch, loss):
    """Whether 32 bits tell a loss above 0 from none: not softplus(-90), nor a margin of 1e-30 between equal distances."""
    if loss.soft_margin:
        table = pairwise(loss.distance, batch.x, batch.all_keys[1])
        return not table.size or np.ptp(table) < 80
    return loss.margin == 0 or loss.margin > 1e-3


def loops(batch, loss):
    """What the loops make of a batch: losses, and which queries are valid."""
    assume(loss.average != "active" or active_is_clear(batch, loss))
    names = {"positive": loss.positive, "negative": loss.negative, "remove_diagonal": batch.remove_diagonal}
    margins = {"name": loss.distance, "soft_margin": loss.soft_margin, "margin": loss.margin, "average": loss.average}
    return triplet_losses(*batch.arguments, **names, **margins)


def losses_of(batch, loss, limits=USUAL):
    """What the package makes of it."""
    with machine(limits, len(batch.all_keys[0])):
        return array(tl.triplet_loss(*batch.arguments, remove_diagonal=batch.remove_diagonal, **loss.arguments))


def assert_close(found, expected, size=1.0):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * size)


@given(batch=exact_batches(), loss=settings_of_a_loss(EXACT, [(p, n) for p in POSITIVES for n in NEGATIVES]), limits=LIMITS)
@times(3)
def test_ties_go_to_the_lowest_index(batch, loss, limits):
    table = pairwise(loss.distance, batch.x, batch.all_keys[1])
    with machine(limits, len(batch.all_keys[0])):
        found = mined(batch, loss)
    key_labels = batch.key_labels
    assert found == mine(batch.labels, table, key_labels, batch.without_diagonal, loss.positive, loss.negative)


@given(batch=exact_batches(), loss=settings_of_a_loss(EXACT), limits=LIMITS)
@times(3)
def test_exact_losses(batch, loss, limits):
    losses = losses_of(batch, loss, limits)
    expected, valid = loops(batch, loss)
    assert_close(losses, expected)
    assert not losses[~valid].any()


REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)


def reduced(losses, valid, weights, reduction):
    """What Keras's reductions are, with means over those that count."""
    weighted = losses * weights
    if reduction in (None, "none"):
        return weighted
    divisor = {"sum": 1.0, "mean_with_sample_weight": (valid * weights).sum()}.get(reduction, valid.sum())
    return weighted.sum() / divisor if divisor else 0.0


@given(
    batch=exact_batches(keys=False),
    loss=settings_of_a_loss(EXACT),
    reduction=st.sampled_from(REDUCTIONS),
    kind=st.sampled_from(["nothing", "number", "row", "column"]),
    zeros=st.booleans(),
)
@example(
    batch=Batch(np.array([0, 0, 1, 2, 1]), np.arange(5, dtype="float32")[:, None], None, None, None),
    loss=Settings("euclidean", "hard", "hard", False, 1.0, "anchors"),
    reduction="mean_with_sample_weight",
    kind="column",
    zeros=True,
)
@times(2)
def test_weights_and_reductions(batch, loss, reduction, kind, zeros):
    """As `losses_and_valid` of the loops, weighted and reduced by hand."""
    batch = batch._replace(remove_diagonal=None)
    n, rng = len(batch.x), np.random.default_rng(1)
    line = np.where(rng.random(n) < 0.3 * zeros, 0, rng.integers(1, 9, n) / 4).astype("float32")
    weights = {"nothing": None, "number": np.float32(0.5), "row": line, "column": line[:, None]}[kind]
    expected, valid = loops(batch, loss)
    full = np.ones(n) if weights is None else np.broadcast_to(np.reshape(weights, (-1,) if kind == "number" else (n,)), (n,))
    with machine(USUAL, n):
        names = {**loss.arguments, "reduction": reduction}
        found = array(tl.TripletLoss(**names)(batch.labels, batch.x, sample_weight=weights))
    assert_close(found, reduced(expected, valid, full, reduction), size=max(1.0, expected.sum()))


# What must not matter.


@given(batch=exact_batches(), loss=settings_of_a_loss(EXACT), seed=st.integers(0, 99))
@times(1)
def test_order_of_rows(batch, loss, seed):
    """With other keys and without the diagonal, key i belongs to query i, and the order of the two is one."""
    rng, n = np.random.default_rng(seed), len(batch.x)
    order = rng.permutation(n)
    moved = batch._replace(labels=batch.labels[order], x=batch.x[order])
    if batch.keys is not None and not batch.without_diagonal:
        of_keys = rng.permutation(len(batch.keys))
        moved = moved._replace(key_labels=batch.key_labels[of_keys], keys=batch.keys[of_keys])
    elif batch.keys is not None:
        moved = batch._replace(key_labels=batch.key_labels.copy(), keys=batch.keys.copy())
        order = np.arange(n)
    assert_close(losses_of(moved, loss), losses_of(batch, loss)[order])


def times_of(name, factor):
    """By what a distance is multiplied where the rows are multiplied by a factor."""
    return {"squared_euclidean": factor**2, "inner_product": factor**2, "cosine": 1, "snr": 1}.get(name, factor)


@given(
    batch=exact_batches(),
    loss=settings_of_a_loss(("euclidean", "squared_euclidean", "manhattan")),
    shift=st.integers(-50, 50),
)
@times(1)
def test_translation(batch, loss, shift):
    by = np.float32(shift) * np.arange(1, batch.x.shape[1] + 1, dtype="float32")
    moved = batch._replace(x=batch.x + by, keys=None if batch.keys is None else batch.keys + by)
    assert_close(losses_of(moved, loss), losses_of(batch, loss))


@given(batch=exact_batches(columns=st.sampled_from([2, 4, 8])), strategies=CHOICES, shift=st.integers(-50, 50))
@times(1)
def test_snr_of_rows_with_a_constant_added(batch, strategies, shift):
    loss = strategies._replace(distance="snr")
    rng = np.random.default_rng(abs(shift))
    by = [rng.integers(-50, 50, (len(x), 1)).astype("float32") for x in (batch.x, batch.all_keys[1])]
    moved = batch._replace(x=batch.x + by[0], keys=None if batch.keys is None else batch.keys + by[1])
    assert_close(losses_of(moved, loss), losses_of(batch, loss))


@given(batch=exact_batches(), loss=settings_of_a_loss(EXACT), power=st.integers(-10, 10))
@times(1)
def test_scale(batch, loss, power):
    """By powers of two, which round nothing; the margin goes along."""
    factor = 2.0**power
    of_distance = times_of(loss.distance, factor)
    loss = loss._replace(soft_margin=False, margin=1.0 if loss.soft_margin else min(loss.margin, 10.0))
    scaled = batch._replace(x=batch.x * np.float32(factor), keys=None if batch.keys is None else batch.keys * np.float32(factor))
    found = losses_of(scaled, loss._replace(margin=loss.margin * of_distance))
    assert_close(found / of_distance, losses_of(batch, loss))


@given(batch=exact_batches(), loss=settings_of_a_loss(EXACT), data=st.data())
@times(1)
def test_names_of_classes(batch, loss, data):
    """Labels are names: any others will do as well, in any order."""
    known = np.unique(np.concatenate([batch.labels, batch.all_keys[0]]))
    others = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(known)) - len(known) // 2
    rename = dict(zip(known.tolist(), others.tolist(), strict=True))

    def renamed(labels):
        return None if labels is None else np.array([rename[label] for label in labels.tolist()], "int32")

    moved = batch._replace(labels=renamed(batch.labels), key_labels=renamed(batch.key_labels))
    assert_close(losses_of(moved, loss), losses_of(batch, loss))


@given(batch=exact_batches(keys=True), loss=settings_of_a_loss(EXACT), share=st.floats(0, 1) if MANY or BACKEND != "jax" else st.just(0.4))
@times(1)
def test_queries_in_two_parts(batch, loss, share):
    """Against the same keys; with "anchors" a query's loss depends on no other query."""
    batch, loss = batch._replace(remove_diagonal=False), loss._replace(average="anchors")
    cut = int(share * len(batch.x))
    parts = [losses_of(batch._replace(labels=batch.labels[part], x=batch.x[part]), loss) for part in (slice(cut), slice(cut, None))]
    assert_close(np.concatenate(parts), losses_of(batch, loss))


@given(batch=exact_batches(keys=True), loss=settings_of_a_loss(EXACT, [(p, n) for p in POSITIVES for n in ("hard", "easy")]))
@times(1)
def test_keys_in_two_parts(batch, loss):
    """What is chosen of all keys is the better of what is chosen of each half."""
    batch, cut = batch._replace(remove_diagonal=False), len(batch.keys) // 2
    table = pairwise(loss.distance, batch.x, batch.keys)
    with machine(USUAL, len(batch.keys)):
        halves = [
            [t and (t[0] + start, t[1] + start) for t in mined(batch._replace(key_labels=batch.key_labels[part], keys=batch.keys[part]), loss)]
            for part, start in ((slice(cut), 0), (slice(cut, None), cut))
        ]
        whole = mined(batch, loss)
    for i, (one, other, best) in enumerate(zip(*halves, whole, strict=True)):
        if one and other:
            for place, sign in ((0, 1 if loss.positive == "hard" else -1), (1, -1 if loss.negative == "hard" else 1)):
                assert sign * table[i, best[place]] == max(sign * table[i, half[place]] for half in (one, other))


@given(batch=exact_batches(), loss=settings_of_a_loss(EXACT), limits=LIMITS)
@times(1)
def test_size_of_blocks(batch, loss, limits):
    assert_close(losses_of(batch, loss, limits), losses_of(batch, loss))


# Explicit triplets.


@given(batch=batches_of(queries=12, keys=True), loss=LOSSES, swap=st.booleans())
@times(1)
def test_explicit_triplets(batch, loss, swap):
    n = min(len(batch.x) // 2, len(batch.keys))
    anchor, positive, negative = batch.x[:n], batch.x[n : 2 * n], batch.keys[:n]
    name, rows = loss.distance, (anchor, positive, negative)
    assume(all(is_well_conditioned(name, x, "float32") for x in rows))
    of_positive, of_negative, swapped = (
        (pairs.value.diagonal(), pairs.direct.value.diagonal())
        for pairs in (pairs_of(name, *both, "float32") for both in ((anchor, positive), (anchor, negative), (positive, negative)))
    )
    low, high = of_negative[0] - of_negative[1], of_negative[0] + of_negative[1]
    if swap:
        low, high = np.minimum(low, swapped[0] - swapped[1]), np.minimum(high, swapped[0] + swapped[1])
    with machine(USUAL, n):
        margins = {"soft_margin": loss.soft_margin, "margin": loss.margin}
        found = array(tl.triplet_margin_loss(*rows, distance=name, swap=swap, **margins))
    slack = 4e-6 * (1 + abs(of_positive[0]) + abs(high) + loss.margin)
    least = [loss_of_triplet(p, q, **margins) for p, q in zip(of_positive[0] - of_positive[1], high, strict=True)]
    most = [loss_of_triplet(p, q, **margins) for p, q in zip(of_positive[0] + of_positive[1], low, strict=True)]
    assert_between(found, np.array(least) - slack, np.array(most) + slack)


# One row that is not finite.


@given(
    batch=exact_batches(),
    loss=settings_of_a_loss(EXACT),
    limits=LIMITS,
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.integers(0, 1000),
    of_keys=st.booleans(),
)
@times(3)
def test_a_non_finite_row(batch, loss, limits, bad, where, of_keys):
    """NaN for the queries that have a triplet of it, and nothing else; all others as if it were not there, gradients too."""
    batch, loss = batch._replace(remove_diagonal=None), loss._replace(average="anchors")
    n, of_keys = len(batch.x), of_keys and batch.keys is not None
    rows = (batch.keys if of_keys else batch.x).copy()
    assume(len(rows))
    row = where % len(rows)
    rows[row, where % rows.shape[1]] = bad
    bad_batch = batch._replace(keys=rows) if of_keys else batch._replace(x=rows)
    # To the loops all of it is NaN: to the package one number makes the whole row so.
    known = rows.copy()
    known[row] = np.nan
    known = batch._replace(keys=known) if of_keys else batch._replace(x=known)
    expected, valid = loops(known, loss)
    fine = ~np.isnan(expected)
    with machine(limits, len(batch.all_keys[0])):
        losses, by_query, by_key = loss_of(bad_batch, loss, fine.astype("float32"))
        chosen = None if "all" in (loss.positive, loss.negative) else mined(bad_batch, loss)
    np.testing.assert_array_equal(np.isnan(losses), ~fine)
    assert_close(losses[fine], expected[fine])
    assert not losses[~valid].any()
    # A query of NaN has a gradient by the keys that it chose; with "all" by none.
    touched = [] if chosen is None else [key for i, triplet in enumerate(chosen) if not fine[i] and triplet for key in triplet]
    of_fine_queries = np.isfinite(by_query).all(axis=1)
    if by_key is None:
        assert set(np.flatnonzero(~of_fine_queries)) <= {row, *touched, *np.flatnonzero(~fine)}
        return
    assert of_fine_queries[fine & ~((np.arange(n) == row) & (not of_keys))].all()
    assert set(np.flatnonzero(~np.isfinite(by_key).all(axis=1))) <= {*touched, *([row] if of_keys else [])}
