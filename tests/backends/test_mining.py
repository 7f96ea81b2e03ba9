"""Which keys `mine_triplets` chooses, against the loops: in one table of masks, in blocks, and in rows of whole tiles."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, compiled, only, strategies, tensor
from reference import DISTANCES, NEGATIVES, POSITIVES, mine, pairwise

import tripletloss as tl
from tripletloss import _tables

rng = np.random.default_rng(4)
N, M, MANY = 12, 9, 300
X, Y = rng.normal(size=(N, 3)).astype("float32"), rng.integers(0, 4, N)
KEY_X, KEY_Y = rng.normal(size=(M, 3)).astype("float32"), rng.integers(0, 5, M)
Y[0] = 9  # a singleton class
# Rows long enough for tiles, and padded to a whole number of them.
MANY_X, MANY_Y = rng.normal(size=(MANY, 3)).astype("float32"), rng.integers(0, 60, MANY)
PAIRS = [(positive, negative) for positive in POSITIVES for negative in NEGATIVES]
each_distance = pytest.mark.parametrize("distance", DISTANCES)


@pytest.fixture(params={"one table": None, "blocks": 70 * (MANY + 20)}.items(), ids=lambda item: item[0])
def way_of_many(request, block_size):
    """One table, and blocks of 70 rows, the last of which is padded."""
    block_size(request.param[1])


def mined(y=Y, x=X, keys=None, **settings):
    """Positive, negative and valid, as arrays."""
    triplets = tl.mine_triplets(y, x, *(keys or ()), **settings)
    n, m = len(y), len(y) if keys is None else len(keys[0])
    positive, negative, valid = (array(field) for field in (triplets.positive, triplets.negative, triplets.valid))
    assert positive.shape == negative.shape == valid.shape == (n,) and valid.dtype == bool
    for indices in (positive, negative):
        assert np.issubdtype(indices.dtype, np.integer) and ((indices >= 0) & (indices < max(m, 1))).all()
    return positive, negative, valid


def assert_mined(computed, expected, but=None):
    """Equal to the loops' triplets, but for one query; what stands where a query is not valid means nothing."""
    positive, negative, valid = computed
    np.testing.assert_array_equal(valid, [t is not None for t in expected])
    found = [(int(p), int(n)) if v else None for p, n, v in zip(positive, negative, valid, strict=True)]
    differ = [(i, *pair) for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1] and i != but]
    assert not differ, f"(query, (positive, negative) found, expected): {differ}"


def assert_all_mined(labels, x, keys=None, distance="euclidean", pairs=PAIRS, remove_diagonal=None, but=None, table=None):
    """All strategies against the loops."""
    table = pairwise(distance, x, x if keys is None else keys[1]) if table is None else table
    for positive, negative in pairs:
        computed = mined(labels, x, keys, distance=distance, remove_diagonal=remove_diagonal, **strategies(positive, negative))
        assert_mined(computed, mine(labels, table, keys and keys[0], remove_diagonal, positive, negative), but)


# Keys, and whether key i is no positive of query i: None as it is by default.
SETTINGS = {
    "itself": (None, None),
    "itself with the diagonal": (None, False),
    "keys": ((KEY_Y, KEY_X), None),
    "keys without the diagonal": ((KEY_Y, KEY_X), True),
}


@pytest.mark.parametrize("setting", SETTINGS)
@each_distance
def test_equals_the_loops(distance, setting, way):
    keys, remove_diagonal = SETTINGS[setting]
    expected = mine(Y, pairwise(distance, X, KEY_X if keys else X), keys and keys[0], remove_diagonal)
    assert (any(expected) and not all(expected)) or setting == "itself with the diagonal"
    assert_all_mined(Y, X, keys, distance, remove_diagonal=remove_diagonal)


@pytest.mark.parametrize("rows", [1, 2, 7, N, 1000])
@pytest.mark.parametrize("keys", [None, (KEY_Y, KEY_X)], ids=["itself", "keys"])
def test_blocks_change_nothing(keys, rows, block_size):
    block_size(rows * (M if keys else N))
    for distance in ("euclidean", "manhattan"):
        assert_all_mined(Y, X, keys, distance, PAIRS[1:2])


def test_a_block_smaller_than_a_row(block_size):
    block_size(1)
    assert_all_mined(Y, X, distance="cosine")


# Rows of whole tiles.


@functools.cache
def table_of_many(distance):
    return pairwise(distance, MANY_X, MANY_X)


@pytest.mark.parametrize("rows", [40, 250, 1000])
def test_blocks_of_tiled_rows_change_nothing(rows, block_size):
    """Blocks of several rows with a padded last one, of all but a few, and the table of masks."""
    block_size(rows * (MANY + 20))
    assert_all_mined(MANY_Y, MANY_X, distance="cosine", pairs=PAIRS[1:2], table=table_of_many("cosine"))
    assert_all_mined(Y, X, (MANY_Y, MANY_X), "cosine", PAIRS[1:2])


@each_distance
def test_padding_is_not_chosen(distance, way_of_many):
    """Not by queries of label 0, and not where all other rows are not finite."""
    y = np.concatenate([[0], MANY_Y[1:] + 1])
    assert_all_mined(y, MANY_X, distance=distance, pairs=PAIRS[1:2], table=table_of_many(distance))
    x, y = MANY_X.copy(), np.zeros(MANY, int)
    x[1:] = np.nan
    assert not mined(y, x, distance=distance)[2].any()
    y[-1] = 1
    positive, negative, valid = mined(y, x, distance=distance)
    assert valid[:-1].all() and not valid[-1]
    assert positive[0] == 1 and (negative[:-1] == MANY - 1).all()


LISTED = _tables.MAX_LISTED_POSITIVES
SIZES = {
    "as many positives as are listed": [LISTED + 1] * 17 + [11],  # the query is none of them
    "one positive fewer": [LISTED] * 18 + [12],
    "one positive more": [LISTED + 2] * 16 + [12],
    "one large among small": [180, *[3] * 40],
    "small ones and singletons": [2] * 90 + [1] * 120,
    "two large": [140, 160],
}


@pytest.mark.parametrize("sizes", SIZES)
def test_classes_of_all_sizes(sizes, way_of_many):
    """Below, at and beyond the number of positives that are listed; against themselves and other keys."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(SIZES[sizes])), SIZES[sizes]))
    table = table_of_many("squared_euclidean")
    assert_all_mined(labels, MANY_X, distance="sql2", pairs=PAIRS[1:4], table=table)
    assert_all_mined(labels[:N], MANY_X[:N], (labels, MANY_X), "sql2", PAIRS[4:], table=table[:N])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64"])
def test_looking_up_labels_of_any_type(dtype, way_of_many):
    """Negative ones, and the largest of the type."""
    largest = np.iinfo("int32" if dtype == "int64" and BACKEND == "jax" else dtype).max
    y = (MANY_Y.astype("int64") - (30 if dtype.startswith("i") else 0)).astype(dtype)
    assert_all_mined(np.where(MANY_Y == 0, largest, y).astype(dtype), MANY_X, pairs=PAIRS[1:2], table=table_of_many("euclidean"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_non_finite_row_among_many(bad, way_of_many):
    x = MANY_X.copy()
    x[7] = bad
    # To a query that is not finite all keys are alike, and whichever it chooses, its loss is NaN.
    assert_all_mined(MANY_Y, x, distance="manhattan", pairs=PAIRS[:3], but=7)


def test_ties_among_many(way_of_many):
    """Rows on a few points: distances are often equal, and negatives as far as the farthest positive."""
    assert_all_mined(MANY_Y, np.random.default_rng(3).integers(0, 3, (MANY, 3)).astype("float32"), distance="manhattan")


@pytest.mark.parametrize("tight", [0.0, 1e-4])
def test_a_positive_is_never_beyond_itself(tight, way_of_many):
    """Equal products may round differently from one column to the next: what lies "beyond" must have another label."""
    x = np.repeat(np.random.default_rng(4).normal(size=(60, 129)), 5, axis=0)
    x = (x + tight * np.random.default_rng(5).normal(size=x.shape)).astype("float32")
    y = np.repeat(np.arange(60), 5)
    positive, negative, valid = mined(y, x, distance="euclidean")
    assert valid.all()
    assert (y[positive] == y).all() and (y[negative] != y).all() and (positive != np.arange(MANY)).all()


@pytest.mark.parametrize("m", [290, 40])  # rows of whole tiles, and short ones
def test_fewer_keys_than_queries_without_the_diagonal(m, way_of_many):
    """Query i is no key where i is beyond the last."""
    assert_all_mined(MANY_Y, MANY_X, (MANY_Y[:m], MANY_X[:m]), pairs=PAIRS[1:2], remove_diagonal=True, table=table_of_many("euclidean")[:, :m])


@pytest.mark.jit
@pytest.mark.parametrize("numbers", [None, 70 * (MANY + 20)] if BACKEND != "torch" else [None])  # it takes minutes for blocks
def test_compiled(numbers, block_size):
    """Several strategies in one function, with a row that is not finite."""
    block_size(numbers)
    x, y = MANY_X.copy(), ops.convert_to_tensor(MANY_Y.astype("int32"))
    x[7] = np.nan
    pairs, table = PAIRS[1:4] if BACKEND != "torch" else PAIRS[1:2], pairwise("euclidean", x, x)
    fn = compiled(lambda x: [tuple(tl.mine_triplets(y, x, distance="euclidean", **strategies(*pair))) for pair in pairs])
    for (positive, negative), found in zip(pairs, fn(ops.convert_to_tensor(x)), strict=True):
        assert_mined([array(t) for t in found], mine(MANY_Y, table, positive=positive, negative=negative), but=7)


@only("tensorflow", "traces a function without knowing the batch size")
@pytest.mark.parametrize("numbers", [3 * N, 5000])  # in a block; with 5000 only the largest batch is cut
def test_unknown_batch_size(numbers, block_size):
    import tensorflow as tf

    block_size(numbers)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 3], tf.float32)])
    def fn(y, x):
        return tuple(tl.mine_triplets(y, x, distance="euclidean"))

    for x, y in ((X, Y), (X[:4], Y[:4]), (X[:1], Y[:1]), (X[:0], Y[:0]), (MANY_X, MANY_Y)):
        assert_mined([array(t) for t in fn(y, x)], mine(y, pairwise("euclidean", x, x)))
    assert fn.experimental_get_tracing_count() == 1


# Ties, and values that are not finite.


def test_ties_go_to_the_lowest_index(way):
    x = np.array([0, 1, -1, 1, -1, 2, -2, 2, -2, 0, 3, 3], "float32")[:, None]
    assert_all_mined(np.array([0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1]), x, distance="manhattan")


def test_semi_hard_is_strictly_beyond(way):
    """The positive of 0 is at 2 and so is the negative at -2; the next one, at 3, is semi-hard."""
    _, negative, _ = mined(np.array([0, 0, 1, 2]), np.array([[0], [2], [-2], [-3]], "float32"), distance="manhattan")
    assert negative[0] == 3


@each_distance
def test_all_points_the_same(distance, way):
    """Every distance ties: the lowest index, and no negative is beyond the positive."""
    positive, negative, valid = mined(np.array([0, 1, 0, 1, 0, 1]), np.ones((6, 3), "float32"), distance=distance)
    assert valid.all()
    np.testing.assert_array_equal(positive, [2, 3, 0, 1, 0, 1])
    np.testing.assert_array_equal(negative, [1, 0, 1, 0, 1, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@each_distance
def test_a_non_finite_row_is_chosen_last(distance, bad, way):
    x, y, good = X.copy(), np.arange(N) % 2, np.flatnonzero(np.arange(N) != 4)
    x[4] = bad
    table = pairwise(distance, x[good], x[good])
    for positive, negative in PAIRS[::2]:
        chosen = np.transpose(mined(y, x, distance=distance, **strategies(positive, negative))[:2])[good]
        np.testing.assert_array_equal(chosen, good[np.array(mine(y[good], table, positive=positive, negative=negative))])


def test_a_product_that_overflows_is_far(cut):
    """Of the two positives one is farther away, by 2e40, than a float can say, and its product with the query infinity less itself."""
    cut(5)
    x = np.array([[1e20, 1e20], [1e20, -1e20], [1, 0], [-1, 0], [-2, 0]], "float32")
    positive, negative, _ = mined(np.array([0, 0, 0, 1, 1]), x, distance="inner_product", **strategies("hard", "hard"))
    assert (positive[0], negative[0]) == (1, 3)


def test_a_non_finite_row_is_chosen_where_there_is_no_other(way):
    positive, negative, valid = mined(np.array([0, 0, 1]), np.array([[0.0], [np.nan], [2.0]], "float32"), distance="euclidean")
    assert (positive[0], negative[0], *valid) == (1, 2, True, True, False)


# How many, and of which type.


@pytest.mark.parametrize("n", [0, 1, 2])
@each_distance
def test_few_queries(distance, n, way):
    assert_all_mined(Y[:n], X[:n], distance=distance, pairs=PAIRS[1:2])


def test_no_queries_and_no_keys(way):
    assert_mined(mined(Y[:0], X[:0], (KEY_Y, KEY_X)), [])
    assert not mined(Y, X, (KEY_Y[:0], KEY_X[:0]))[2].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@each_distance
def test_widths_of_embeddings(distance, dtype, float64, way):
    x = tensor(X, dtype)
    assert_all_mined(Y, x, distance=distance, pairs=PAIRS[1:2], table=pairwise(distance, *[array(ops.cast(x, "float64"))] * 2))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_widths_of_labels(dtype):
    """With keys whose labels are of another width; as a column too."""
    assert_all_mined(Y.astype(dtype), X, pairs=PAIRS[1:2])
    other = dtype if (BACKEND, dtype) == ("jax", "uint32") else "uint8"  # JAX has no type for both, unless told to use 64 bits
    assert_all_mined(Y.astype(dtype), X, (KEY_Y.astype(other), KEY_X), pairs=PAIRS[1:2])
    expected = mine(Y, pairwise("euclidean", X, KEY_X), KEY_Y)
    columns = Y[:, None].astype(dtype), KEY_Y[:, None].astype(other)
    assert_mined(mined(columns[0], X, (columns[1], KEY_X), distance="euclidean"), expected)


def test_under_snr_a_constant_query_is_as_far_from_all_keys(way):
    """0: it takes the first, of positives as of negatives."""
    x = X.copy()
    x[[2, 5]] = [[1.5] * 3, [0] * 3]
    assert_all_mined(Y, x, distance="snr")


def test_uint32_and_int32_labels_are_compared_as_numbers(way):
    queries, keys = np.array([2**32 - 1, 5, 5], "uint32"), np.array([-1, 5, 6], "int32")
    if BACKEND == "jax":  # 32 bits hold the one or the other
        with pytest.raises(ValueError, match="label"):
            mined(queries, X[:3], (keys, KEY_X[:3]))
        return
    expected = mine(queries.astype(object), pairwise("cosine", X[:3], KEY_X[:3]), keys.astype(object))
    assert_mined(mined(queries, X[:3], (keys, KEY_X[:3])), expected)


@pytest.mark.parametrize("labels", [[-1, -1, -2, -2], [2**24, 2**24, 2**24 + 1, 2**24 + 1]])
def test_labels_are_compared_exactly(labels, way):
    assert_all_mined(np.array(labels), X[:4], pairs=PAIRS[1:2])


@pytest.mark.parametrize("labels", [[2**40, 2**40, 2**40 + 2**33, 2**40 + 2**33], [0, 0, 2**32, 2**32]])
def test_labels_beyond_32_bits_are_exact_or_refused(labels, way):
    labels = np.array(labels, "int64")
    if BACKEND == "jax":
        with pytest.raises(ValueError, match=r"query_labels.*int64.*int32.*return_inverse"):
            mined(labels, X[:4])
        return
    assert_all_mined(labels, X[:4], pairs=PAIRS[1:2])


def test_labels_of_64_bits_on_every_backend(float64, way):
    assert_all_mined(np.array([0, 0, 2**32, 2**32]), X[:4], pairs=PAIRS[1:2])


def test_lists_and_variables_will_do():
    expected = mine(Y, pairwise("euclidean", X, X))
    assert_mined(mined(Y.tolist(), X.tolist(), distance="l2"), expected)
    assert_mined(mined(Y, keras.Variable(X), distance="l2"), expected)
