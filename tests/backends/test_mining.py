"""Chosen indices and validity against the loops: in one table with masks, in one block and in several.

A table of fewer numbers than a block is made whole (`mine_small`), any other in blocks (`mine_large`).
"""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, compiled, tensor
from reference import DISTANCES, NEGATIVES, POSITIVES, mine, pairwise

import tripletloss as tl
from tripletloss import _tables

rng = np.random.default_rng(4)
N, M = 11, 8
X, Y = rng.normal(size=(N, 3)).astype("float32"), rng.integers(0, 4, N)
KEY_X, KEY_Y = rng.normal(size=(M, 3)).astype("float32"), rng.integers(0, 5, M)
Y[0] = 9  # a singleton class

# keys, and whether key i is no positive of query i
SETTINGS = {
    "itself": (False, None),
    "itself and the diagonal": (False, False),
    "keys": (True, None),
    "keys without the diagonal": (True, True),
}


def mined(y=Y, x=X, keys=None, **settings):
    """Positive, negative and valid, as arrays."""
    key_y, key_x = keys or (None, None)
    triplets = tl.mine_triplets(y, x, key_y, key_x, **settings)
    n, m = len(y), len(y) if keys is None else len(key_y)
    positive, negative, valid = (array(field) for field in (triplets.positive, triplets.negative, triplets.valid))
    assert positive.shape == negative.shape == valid.shape == (n,)
    assert valid.dtype == bool
    for indices in (positive, negative):
        assert np.issubdtype(indices.dtype, np.integer)
        assert ((indices >= 0) & (indices < max(m, 1))).all()
    return positive, negative, valid


def assert_mined(computed, expected, but=None):
    """Equal to the loops' triplets, but for one query; what stands where a query is not valid means nothing."""
    positive, negative, valid = computed
    np.testing.assert_array_equal(valid, [t is not None for t in expected])
    found = [(int(p), int(n)) if v else None for p, n, v in zip(positive, negative, valid, strict=True)]
    differ = [(i, *pair) for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1] and i != but]
    assert not differ, f"query, found, expected: {differ}"


def strategies(positive, negative):
    return {"positive_mining_strategy": positive, "negative_mining_strategy": negative}


WAYS = {"small": None, "large": 1}  # block sizes: with the default one table of masks, otherwise blocks


@pytest.fixture(params=WAYS)
def way(request, block_size):
    """Both ways through the engine, whatever the size of the batch; a test may set another block size."""
    block_size(WAYS[request.param])
    return request.param


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize("positive", POSITIVES)
@pytest.mark.parametrize("distance", DISTANCES)
def test_equals_the_loops(distance, positive, negative, setting, way):
    with_keys, remove = SETTINGS[setting]
    keys = (KEY_Y, KEY_X) if with_keys else None
    expected = mine(
        Y,
        pairwise(distance, X, KEY_X if with_keys else X),
        KEY_Y if with_keys else None,
        with_keys is False if remove is None else remove,
        positive,
        negative,
    )
    assert any(expected)
    assert not all(expected) or setting == "itself and the diagonal"
    computed = mined(
        keys=keys, distance=distance, remove_diagonal=remove, **strategies(positive, negative)
    )
    assert_mined(computed, expected)


@pytest.mark.parametrize("rows", [1, 2, 7, N, 1000])
@pytest.mark.parametrize("setting", ["itself", "keys"])
@pytest.mark.parametrize("distance", ["euclidean", "manhattan"])
def test_blocks_change_nothing(distance, setting, rows, block_size):
    keys = (KEY_Y, KEY_X) if setting == "keys" else None
    key_y, key_x = keys or (None, X)
    block_size(rows * len(key_x))
    assert_mined(mined(keys=keys, distance=distance), mine(Y, pairwise(distance, X, key_x), key_y))


MANY_X, MANY_Y = rng.normal(size=(300, 3)).astype("float32"), rng.integers(0, 60, 300)  # rows of whole tiles, padded to 320


@pytest.mark.parametrize("rows", [1, 7, 250, 1000])
@pytest.mark.parametrize("setting", ["itself", "keys"])
def test_blocks_of_tiled_rows_change_nothing(setting, rows, block_size):
    """Blocks of one row, of several with a padded last one, one block of all, and the table of masks."""
    query = (Y, X) if setting == "keys" else (MANY_Y, MANY_X)
    block_size(rows * 320)
    for negative in NEGATIVES:
        computed = mined(*query, (MANY_Y, MANY_X) if setting == "keys" else None, negative_mining_strategy=negative)
        table = pairwise("cosine", query[1], MANY_X)
        assert_mined(computed, mine(query[0], table, MANY_Y if setting == "keys" else None, negative=negative))


@pytest.mark.parametrize("distance", DISTANCES)
def test_tiled_rows(distance, way):
    """The rows of 300 keys are padded to whole tiles; padding is not chosen, not even by queries of label 0."""
    y = np.concatenate([[0], MANY_Y[1:] + 1])
    assert_mined(mined(y, MANY_X, distance=distance), mine(y, pairwise(distance, MANY_X, MANY_X)))


@pytest.mark.parametrize("distance", DISTANCES)
def test_padding_is_not_chosen_even_where_all_other_rows_are_not_finite(distance, way):
    x, y = MANY_X.copy(), np.zeros(300, int)
    x[1:] = np.nan
    positive, negative, valid = mined(y, x, distance=distance)
    assert not valid.any()
    y[-1] = 1
    positive, negative, valid = mined(y, x, distance=distance)
    assert valid[:-1].all() and not valid[-1]
    assert positive[0] == 1 and (negative[:-1] == 299).all()


LISTED = _tables.MAX_LISTED_POSITIVES
SIZES = {
    "as many positives as are listed": [LISTED + 1] * 20,  # the query is none of them
    "one positive fewer": [LISTED] * 20,
    "one positive more": [LISTED + 2] * 20,
    "one large among small": [200, *[3] * 40],
    "small ones and singletons": [2] * 100 + [1] * 120,
    "two large": [150, 170],
}


@pytest.mark.parametrize("setting", ["itself", "keys"])
@pytest.mark.parametrize("sizes", SIZES)
def test_classes_of_all_sizes(sizes, setting, way):
    """In rows long enough for tiles: classes below, at and beyond the number of positives that are listed."""
    y = np.repeat(np.arange(len(SIZES[sizes])), SIZES[sizes])
    y = np.random.default_rng(1).permutation(y)
    x = np.random.default_rng(2).normal(size=(len(y), 4)).astype("float32")
    query = (y[:50], x[:50]) if setting == "keys" else (y, x)
    table = pairwise("squared_euclidean", query[1], x)
    for positive in POSITIVES:
        for negative in NEGATIVES:
            computed = mined(*query, (y, x) if setting == "keys" else None, distance="sql2", **strategies(positive, negative))
            expected = mine(query[0], table, y if setting == "keys" else None, positive=positive, negative=negative)
            assert_mined(computed, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64"])
def test_looking_up_labels_of_any_type(dtype, way):
    y = (MANY_Y.astype("int64") - (30 if dtype.startswith("i") else 0)).astype(dtype)
    assert_mined(mined(y, MANY_X), mine(y, pairwise("cosine", MANY_X, MANY_X)))
    largest = np.iinfo("int32" if dtype == "int64" and BACKEND == "jax" else dtype).max
    y = np.where(MANY_Y == 0, largest, MANY_Y).astype(dtype)
    assert_mined(mined(y, MANY_X), mine(y, pairwise("cosine", MANY_X, MANY_X)))


@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_non_finite_row_among_many(negative, bad, way):
    x = MANY_X.copy()
    x[7] = bad
    computed = mined(MANY_Y, x, distance="manhattan", negative_mining_strategy=negative)
    # To a query that is not finite all keys are alike, and whichever it chooses, its loss is NaN.
    assert_mined(computed, mine(MANY_Y, pairwise("manhattan", x, x), negative=negative), but=7)


@pytest.mark.parametrize("negative", NEGATIVES)
def test_ties_among_many(negative, way):
    """Rows on a few points: distances are often equal, and negatives as far as the farthest positive."""
    x = np.random.default_rng(3).integers(0, 3, (300, 2)).astype("float32")
    table = pairwise("manhattan", x, x)
    for positive in POSITIVES:
        computed = mined(MANY_Y, x, distance="l1", **strategies(positive, negative))
        assert_mined(computed, mine(MANY_Y, table, positive=positive, negative=negative))


@pytest.mark.parametrize("tight", [0.0, 1e-4])
def test_a_positive_is_never_beyond_itself(tight, way):
    """Equal products may round differently from one column to the next: what lies "beyond" must have another label."""
    x = np.repeat(np.random.default_rng(4).normal(size=(60, 129)), 5, axis=0)
    x = (x + tight * np.random.default_rng(5).normal(size=x.shape)).astype("float32")
    y = np.repeat(np.arange(60), 5)
    positive, negative, valid = mined(y, x, distance="euclidean")
    assert valid.all()
    assert (y[positive] == y).all() and (y[negative] != y).all()
    assert (positive != np.arange(300)).all()


def test_many_compiled(way):
    y = ops.convert_to_tensor(MANY_Y.astype("int32"))
    triplets = compiled(lambda x: tuple(tl.mine_triplets(y, x, distance="euclidean")))(ops.convert_to_tensor(MANY_X))
    assert_mined(tuple(array(x) for x in triplets), mine(MANY_Y, pairwise("euclidean", MANY_X, MANY_X)))


@pytest.mark.parametrize("negative", NEGATIVES)
def test_one_non_finite_row_among_many_compiled(negative, way):
    x, y = MANY_X.copy(), ops.convert_to_tensor(MANY_Y.astype("int32"))
    x[7] = np.nan
    fn = compiled(lambda x: tuple(tl.mine_triplets(y, x, distance="euclidean", negative_mining_strategy=negative)))
    computed = tuple(array(t) for t in fn(ops.convert_to_tensor(x)))
    assert_mined(computed, mine(MANY_Y, pairwise("euclidean", x, x), negative=negative), but=7)


def test_block_smaller_than_a_row(block_size):
    block_size(1)
    assert_mined(mined(distance="cosine"), mine(Y, pairwise("cosine", X, X)))


@pytest.mark.parametrize("rows", [3, 1000])
def test_blocks_when_compiled(rows, block_size):
    block_size(rows * N)
    y = ops.convert_to_tensor(Y.astype("int32"))
    triplets = compiled(lambda x: tuple(tl.mine_triplets(y, x, distance="snr")))(ops.convert_to_tensor(X))
    assert_mined(tuple(array(x) for x in triplets), mine(Y, pairwise("snr", X, X)))


@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize("positive", POSITIVES)
@pytest.mark.parametrize("numbers", [3 * 9, 5000])  # in a block; with 5000 only the largest batch is cut
def test_blocks_when_the_graph_knows_no_batch_size(numbers, positive, negative, block_size):
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow traces a function without knowing the batch size")
    import tensorflow as tf

    block_size(numbers)
    traced = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 3], tf.float32)])
    def fn(y, x):
        traced.append(x.shape)
        return tuple(tl.mine_triplets(y, x, distance="euclidean", **strategies(positive, negative)))

    for x, y in ((X[:9], Y[:9]), (X[:4], Y[:4]), (X[:1], Y[:1]), (X[:0], Y[:0]), (MANY_X, MANY_Y)):
        y = y.astype("int64")
        expected = mine(y, pairwise("euclidean", x, x), positive=positive, negative=negative)
        assert_mined(tuple(array(t) for t in fn(y, x)), expected)
    assert len(traced) == 1


def test_ties_go_to_the_lowest_index(way):
    x = np.array([0, 1, -1, 1, -1, 2, -2, 2, -2], "float32")[:, None]
    y = np.array([0, 0, 0, 1, 1, 0, 0, 1, 1])
    table = pairwise("manhattan", x, x)
    for positive in POSITIVES:
        for negative in NEGATIVES:
            computed = mined(y, x, distance="manhattan", **strategies(positive, negative))
            assert_mined(computed, mine(y, table, positive=positive, negative=negative))


def test_semi_hard_is_strictly_beyond(way):
    """The positive of 0 is at 2 and so is the negative at -2; the next one, at 3, is semi-hard."""
    x, y = np.array([[0], [2], [-2], [-3]], "float32"), np.array([0, 0, 1, 2])
    _, negative, _ = mined(y, x, distance="manhattan")
    assert negative[0] == 3


def test_all_points_the_same(way):
    """Every distance ties: the lowest index, and no negative is beyond the positive."""
    x, y = np.ones((6, 3), "float32"), np.array([0, 1, 0, 1, 0, 1])
    for distance in DISTANCES:
        positive, negative, valid = mined(y, x, distance=distance)
        assert valid.all()
        np.testing.assert_array_equal(positive, [2, 3, 0, 1, 0, 1])
        np.testing.assert_array_equal(negative, [1, 0, 1, 0, 1, 0])


# Values that are not finite.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_non_finite_row_is_chosen_last(distance, bad, way):
    x, y = X.copy(), np.arange(N) % 2
    x[4] = bad
    good = np.arange(N) != 4
    index = np.flatnonzero(good)
    for positive in POSITIVES:
        for negative in NEGATIVES:
            computed = mined(y, x, distance=distance, **strategies(positive, negative))
            expected = mine(y[good], pairwise(distance, x[good], x[good]), positive=positive, negative=negative)
            chosen = [(int(p), int(n)) for p, n, _ in zip(*computed, strict=True)]
            assert [chosen[i] for i in index] == [(index[p], index[n]) for p, n in expected]


def test_a_non_finite_row_is_chosen_where_there_is_no_other(way):
    x = np.array([[0.0], [np.nan], [2.0]], "float32")
    positive, negative, valid = mined(np.array([0, 0, 1]), x, distance="euclidean")
    assert positive[0] == 1
    assert negative[0] == 2
    np.testing.assert_array_equal(valid, [True, True, False])


# How many, and of which dtype.


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("distance", DISTANCES)
def test_few_queries(distance, n, way):
    assert_mined(mined(Y[:n], X[:n], distance=distance), mine(Y[:n], pairwise(distance, X[:n], X[:n])))


def test_no_queries_but_keys(way):
    assert_mined(mined(Y[:0], X[:0], (KEY_Y, KEY_X)), [])


def test_no_keys(way):
    _, _, valid = mined(Y, X, (KEY_Y[:0], KEY_X[:0]))
    assert not valid.any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_widths_of_embeddings(distance, dtype, float64, way):
    x = tensor(X, dtype)
    exact = array(ops.cast(x, "float64"))
    assert_mined(mined(Y, x, distance=distance), mine(Y, pairwise(distance, exact, exact)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_widths_of_labels(dtype, way):
    assert_mined(mined(Y.astype(dtype), X, distance="euclidean"), mine(Y, pairwise("euclidean", X, X)))


def test_two_widths_of_labels(way):
    computed = mined(Y.astype("int8"), X, (KEY_Y.astype("int64"), KEY_X), distance="euclidean")
    assert_mined(computed, mine(Y, pairwise("euclidean", X, KEY_X), KEY_Y))


def test_uint32_and_int32_labels_are_compared_as_numbers(way):
    queries, keys = np.array([2**32 - 1, 5, 5], "uint32"), np.array([-1, 5, 6], "int32")
    if BACKEND == "jax":  # 32 bits hold the one or the other
        with pytest.raises(ValueError, match="label"):
            mined(queries, X[:3], (keys, KEY_X[:3]))
        return
    expected = mine(queries.astype(object), pairwise("cosine", X[:3], KEY_X[:3]), keys.astype(object))
    assert_mined(mined(queries, X[:3], (keys, KEY_X[:3])), expected)


def test_column_of_labels():
    expected = mine(Y, pairwise("euclidean", X, X))
    assert_mined(mined(Y[:, None], X, distance="euclidean"), expected)
    computed = mined(Y, X, (KEY_Y[:, None], KEY_X), distance="euclidean")
    assert_mined(computed, mine(Y, pairwise("euclidean", X, KEY_X), KEY_Y))


@pytest.mark.parametrize("labels", [[-1, -1, -2, -2, 0], [2**24, 2**24, 2**24 + 1, 2**24 + 1, 2**24 + 1]])
def test_labels_are_compared_exactly(labels, way):
    labels = np.array(labels)
    assert_mined(mined(labels, X[:5]), mine(labels, pairwise("cosine", X[:5], X[:5])))


@pytest.mark.parametrize("labels", [[2**40, 2**40, 2**40 + 2**33, 2**40 + 2**33], [0, 0, 2**32, 2**32]])
def test_labels_beyond_32_bits_are_exact_or_refused(labels, way):
    labels = np.array(labels, "int64")
    if BACKEND == "jax":
        with pytest.raises(ValueError, match=r"query_labels.*int64.*int32.*return_inverse"):
            mined(labels, X[:4])
        return
    assert_mined(mined(labels, X[:4]), mine(labels, pairwise("cosine", X[:4], X[:4])))


def test_labels_of_64_bits_on_every_backend(float64, way):
    labels = np.array([0, 0, 2**32, 2**32])
    assert_mined(mined(labels, X[:4]), mine(labels, pairwise("cosine", X[:4], X[:4])))


def test_lists_will_do():
    assert_mined(mined(Y.tolist(), X.tolist(), distance="l2"), mine(Y, pairwise("euclidean", X, X)))


# The choice has no gradient and makes no large table.


def test_no_table_is_larger_than_a_block(block_size):
    """A distance that writes down the shapes of the tables asked of it."""
    shapes = []

    class Watched(tl.distances.Distance):
        def call(self, query, key):
            shapes.append((query.shape[0], key.shape[0]))
            return -ops.matmul(query, ops.transpose(key))

    block_size(4 * N)
    assert_mined(mined(distance=Watched()), mine(Y, pairwise("inner_product", X, X)))
    assert shapes
    assert all(rows * columns <= 4 * N for rows, columns in shapes)


def test_embeddings_of_keras_variables():
    variable = keras.Variable(X)
    assert_mined(mined(Y, variable, distance="euclidean"), mine(Y, pairwise("euclidean", X, X)))


@pytest.mark.parametrize("m", [290, 40])  # rows of whole tiles, and short ones
def test_fewer_keys_than_queries_without_the_diagonal(m, way):
    """Query i is no key where i is beyond the last."""
    keys = MANY_Y[:m], MANY_X[:m]
    expected = mine(MANY_Y, pairwise("euclidean", MANY_X, keys[1]), keys[0], remove_diagonal=True)
    assert_mined(mined(MANY_Y, MANY_X, keys, distance="euclidean", remove_diagonal=True), expected)


# Short rows and tiles, few members of a class and many.
TRAINED = list(
    itertools.product(
        ["euclidean", "squared_euclidean", "cosine", "snr"], POSITIVES, [1e-3, 1e-4, 1e-5], [(8, 4), (80, 4), (4, 30), (10, 30)]
    )
)


@pytest.mark.parametrize("distance, positive, spread, size", TRAINED)
def test_positives_of_a_trained_network(distance, positive, spread, size, way):
    """Classes tight and far apart: a product of the rows has lost the digits that tell one positive from the other."""
    (classes, members), rng = size, np.random.default_rng(size)
    centers = rng.normal(size=(classes, 64))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    labels = np.repeat(np.arange(classes), members)
    x = (np.repeat(centers, members, axis=0) + spread * rng.normal(size=(len(labels), 64))).astype("float32")
    chosen = mined(labels, x, distance=distance, **strategies(positive, "hard"))[0]
    wide = x.astype("float64")
    wide = wide - wide.mean(axis=1, keepdims=True) if distance == "snr" else wide
    wide = wide / np.linalg.norm(wide, axis=1, keepdims=True) if distance == "cosine" else wide
    for i, p in enumerate(chosen):
        same = [j for j in np.flatnonzero(labels == labels[i]) if j != i]
        lengths = {j: np.linalg.norm(wide[i] - wide[j]) for j in same}
        best = (max if positive == "hard" else min)(lengths.values())
        # Rows of length 1 are themselves rounded, to about 1e-8 in each coordinate.
        assert lengths[p] == pytest.approx(best, rel=1e-4, abs=1e-6 if distance in ("cosine", "snr") else 0)
