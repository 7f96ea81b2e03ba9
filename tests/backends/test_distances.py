"""Each distance against the loops, in each width of numbers, and where numbers run out."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import array, grad, tensor
from reference import DISTANCES, paired, pairwise

from tripletloss import distances

rng = np.random.default_rng(1)
QUERY, KEY = rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
QUERY_32, KEY_32 = QUERY.astype("float32"), KEY.astype("float32")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "float16": 1e-5, "bfloat16": 1e-5}
each_name = pytest.mark.parametrize("name", DISTANCES)
each_of_differences = pytest.mark.parametrize("name", [name for name in DISTANCES if name != "inner_product"])
each_by_product = pytest.mark.parametrize("name", [name for name in DISTANCES if name != "manhattan"])


@pytest.mark.parametrize("dtypes", [*((dtype, dtype) for dtype in TOLERANCE), ("float32", "float64")], ids="-".join)
@each_name
def test_equals_the_loops(name, dtypes, float64):
    """Half precision is widened to 32 bits, and the narrower to the wider."""
    query, key = map(tensor, (QUERY, KEY), dtypes)
    exact_query, exact_key = (array(ops.cast(x, "float64")) for x in (query, key))  # as rounded to dtype
    distance, tolerance = distances.get(name), TOLERANCE[dtypes[1]]
    for method, computed, expected in (
        ("pairwise", distance.pairwise(query, key), pairwise(name, exact_query, exact_key)),
        ("paired", distance.paired(query, key[:5]), paired(name, exact_query, exact_key[:5])),
    ):
        assert keras.backend.standardize_dtype(computed.dtype) == ("float64" if "float64" in dtypes else "float32")
        np.testing.assert_allclose(array(computed), expected, rtol=tolerance, atol=tolerance, err_msg=f"{name}: {method}")


@each_name
def test_no_rows(name):
    distance, none = distances.get(name), np.zeros((0, 3), "float32")
    assert tuple(distance.pairwise(none, QUERY_32).shape) == (0, 5)
    assert tuple(distance.paired(none, none).shape) == (0,)


@each_name
def test_names_and_configurations(name):
    distance = distances.get(name)
    assert distances.get(distance) is distance
    for alias in (name, *DISTANCES[name]):
        assert distances.get(alias).name == name and type(distances.get(alias)) is type(distance)
    stored = json.loads(json.dumps(distances.serialize(distance)))
    assert type(distances.deserialize(stored)) is type(distances.get(stored)) is type(distance)


# Distances of one's own.


@keras.saving.register_keras_serializable(package="tests")
class Stretched(distances.Distance):
    """Manhattan distance times a factor, as a user would write it: `call` alone."""

    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor

    def call(self, query, key):
        return self.factor * ops.sum(ops.abs(query[:, None] - key[None]), axis=-1)

    def get_config(self):
        return {"factor": self.factor}


def test_a_custom_distance_needs_call_alone():
    distance = Stretched(3.0)
    np.testing.assert_allclose(array(distance.pairwise(QUERY_32, KEY_32)), 3 * pairwise("manhattan", QUERY_32, KEY_32), rtol=1e-5)
    np.testing.assert_allclose(array(distance.paired(QUERY_32, KEY_32[:5])), 3 * paired("manhattan", QUERY_32, KEY_32[:5]), rtol=1e-5)
    gradient = grad(lambda x: ops.sum(distance.paired(x, ops.convert_to_tensor(KEY_32[:5]))), QUERY_32)
    np.testing.assert_allclose(gradient, 3 * np.sign(QUERY_32 - KEY_32[:5]))
    stored = json.loads(json.dumps(distances.serialize(distance)))
    for loaded in (distances.deserialize(stored), distances.get(stored)):
        assert isinstance(loaded, Stretched) and loaded.factor == 3.0


class Leading(distances.Euclidean):
    """A built-in distance with another `call`: of the first coordinate alone."""

    def call(self, query, key):
        return super().call(query[:, :1], key[:, :1])


def test_a_derived_distance_takes_nothing_from_the_call_that_it_replaces():
    expected = abs(QUERY_32[:, :1] - KEY_32[:5, :1])[:, 0]
    np.testing.assert_allclose(array(Leading().paired(QUERY_32, KEY_32[:5])), expected, rtol=1e-5)
    assert Leading().ranking_rows(QUERY_32, KEY_32) is None


def test_a_distance_without_arguments_has_none_to_store():
    assert distances.deserialize(distances.serialize(distances.SNR())).get_config() == {}


def test_a_distance_without_call_says_so():
    with pytest.raises(NotImplementedError, match=r"call\(query, key\)"):
        distances.Distance().pairwise(QUERY_32, KEY_32)


@pytest.mark.parametrize("references", ["one for all", "one of each class"])
@each_by_product
def test_ranking_rows_order_keys_as_the_distance(name, references):
    """Among keys of one class around one of their members, whatever is around the others."""
    distance = distances.get(name)
    query, key = (distance.prepare(ops.convert_to_tensor(x)) for x in (QUERY_32, KEY_32))
    of_queries, of_keys = ((np.arange(n) % 2 if references == "one of each class" else np.zeros(n, int)) for n in (5, 7))
    around = [tuple(ops.take(key, ops.convert_to_tensor(y), axis=0) for y in (of_queries, of_keys))] if of_keys.any() else []
    query_rows, key_rows = distance.ranking_rows(query, key, *around)
    ranked, table = array(query_rows @ ops.transpose(key_rows)), pairwise(name, QUERY, KEY)
    for i, of_query in enumerate(of_queries):
        same = of_keys == of_query
        np.testing.assert_array_equal(np.argsort(ranked[i, same]), np.argsort(table[i, same]))


# What is refused.


@pytest.mark.parametrize(
    "given, message",
    [
        ("cosin", "distance.*'cosin'.*Did you mean 'cosine'"),
        ("L2", "distance.*'L2'.*Did you mean 'l2'"),
        (7, "distance.*7"),
        (distances.Cosine, "distance.*Did you mean Cosine()"),
        (keras.saving.serialize_keras_object(keras.losses.MeanSquaredError()), "distance"),
    ],
)
def test_refuses_what_is_no_distance(given, message):
    with pytest.raises(ValueError, match=message):
        distances.get(given)


@pytest.mark.parametrize("method", ["pairwise", "paired"])
@pytest.mark.parametrize(
    "query, key, words",
    [
        (QUERY, QUERY[:, :2], ["query", "key", "(5, 3)", "(5, 2)"]),
        (QUERY[0], QUERY, ["query", "(3,)", "(n, d)"]),
        (QUERY, QUERY[None], ["key", "(1, 5, 3)", "(n, d)"]),
        (QUERY, QUERY.astype(int), ["key", "int", "float"]),
    ],
)
def test_refuses_shapes_and_dtypes(method, query, key, words):
    with pytest.raises(ValueError) as caught:
        getattr(distances.get("euclidean"), method)(query, key)
    assert all(word in str(caught.value) for word in words), caught.value


# Where digits and numbers run out.


@each_name
def test_ranks_close_points_as_they_are(name):
    """At norm 1 and spread 1e-3 a plain |a|^2 + |b|^2 - 2ab gets most nearest neighbours wrong."""
    draw = np.random.default_rng(2)
    x = draw.normal(size=(1, 16))
    x = (x / np.linalg.norm(x) + 1e-3 * draw.normal(size=(32, 16))).astype("float32")
    exact, computed = pairwise(name, x, x), array(distances.get(name).pairwise(x, x)).astype("float64")
    if name == "inner_product":  # no digit to save there: the product itself is the distance
        np.testing.assert_allclose(computed, exact, rtol=1e-6)
        return
    nearest = [(table + np.diag([np.inf] * 32)).argmin(axis=1) for table in (computed, exact)]
    np.testing.assert_array_equal(*nearest)


@each_of_differences
def test_a_pair_of_close_points_keeps_its_digits(name):
    draw = np.random.default_rng(3)
    query = draw.normal(size=(8, 16)).astype("float32")
    key = (query + 1e-4 * draw.normal(size=query.shape)).astype("float32")
    # A coordinate near 1 is rounded by 6e-8 when its row is normalised, about 1e-3 of the difference.
    tolerance = 1e-2 if name in ("cosine", "snr") else 1e-5
    np.testing.assert_allclose(array(distances.get(name).paired(query, key)), paired(name, query, key), rtol=tolerance)


@each_of_differences
def test_a_row_is_0_from_itself(name):
    """A peer adds 1e-6 to every difference: 2.3e-5 at 512 coordinates."""
    x = np.random.default_rng(4).normal(size=(8, 512)).astype("float32")
    np.testing.assert_array_equal(array(distances.get(name).paired(x, x)), 0)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_cosine_has_no_scale(scale):
    query, key = (QUERY * scale).astype("float32"), (KEY * scale).astype("float32")
    expected = pairwise("cosine", QUERY, KEY)
    np.testing.assert_allclose(array(distances.get("cosine").pairwise(query, key)), expected, atol=1e-5)
    np.testing.assert_allclose(array(distances.get("cosine").paired(query, key[:5])), expected.diagonal(), atol=1e-5)


@pytest.mark.parametrize("name", ["euclidean", "squared_euclidean", "cosine", "snr"])
def test_half_precision_does_not_overflow(name):
    query, key = np.array([[300.0, -300, 300, 300]]), np.full((1, 4), -300.0)
    if name == "snr":  # of which a constant key is no good example
        key = np.array([[300.0, 300, -300, 300]])
    computed = distances.get(name).pairwise(tensor(query, "float16"), tensor(key, "float16"))
    np.testing.assert_allclose(array(computed), pairwise(name, query, key), rtol=1e-5)


def test_snr_of_rows_far_from_0_in_64_bits(float64):
    """The mean of a row was taken in 32 bits: 16 off at 1e9, where the row itself spreads by 1."""
    query, key = 1e9 + np.random.default_rng(0).normal(size=(2, 4, 8))
    np.testing.assert_allclose(array(distances.get("snr").pairwise(query, key)), pairwise("snr", query, key), rtol=1e-5)


def test_rows_of_zeros_are_1_from_everything_under_cosine():
    x = np.array([[0, 0, 0], [1, 2, 3], [0, 0, 0]], "float32")
    cosine = distances.get("cosine")
    table = array(cosine.pairwise(x, x))
    np.testing.assert_allclose(table, pairwise("cosine", x, x), atol=1e-6)
    np.testing.assert_allclose(table[0], 1)
    np.testing.assert_allclose(array(cosine.paired(x[[0, 0, 1]], x[[2, 1, 0]])), 1)
    assert np.isfinite(grad(lambda x: ops.sum(cosine.paired(x, ops.flip(x, axis=0))), x)).all()


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 1e4])
def test_a_constant_query_is_0_from_everything_under_snr(constant):
    query = np.stack([np.full(5, constant), np.arange(5)]).astype("float32")
    key = np.array([[1, 5, 2, 4, 0], [2, 2, 2, 2, 3]], "float32")
    snr = distances.get("snr")
    table = array(snr.pairwise(query, key))
    np.testing.assert_allclose(table[0], 0)
    np.testing.assert_allclose(table[1], pairwise("snr", query, key)[1], rtol=1e-5)
    gradient = grad(lambda x: ops.sum(snr.paired(x, ops.convert_to_tensor(key))), query)
    assert not gradient[0].any() and gradient[1].any() and np.isfinite(gradient).all()


@pytest.mark.parametrize("constant", [0.0, 0.1, 3.0])
def test_a_constant_key_has_a_gradient_under_snr(constant):
    """Its distance is 1; a change of the key to the query's shape makes it smaller."""
    query, key = np.arange(5, dtype="float32")[None], np.full((1, 5), constant, "float32")
    gradient = grad(lambda x: ops.sum(distances.get("snr").paired(ops.convert_to_tensor(query), x)), key)
    centered = query - 2
    np.testing.assert_allclose(gradient, -2 * centered / np.square(centered).sum(), rtol=1e-5, atol=1e-6)


@each_name
def test_gradient_where_points_coincide(name):
    other = ops.convert_to_tensor(QUERY_32)
    gradient = grad(lambda x: ops.sum(distances.get(name).paired(x, other)), QUERY_32)
    np.testing.assert_allclose(gradient, -QUERY_32 if name == "inner_product" else 0 * QUERY_32, atol=1e-6)


@each_name
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_row_harms_no_other(name, bad):
    query, key = QUERY_32.copy(), KEY_32.copy()
    query[2, 1] = key[3, 0] = bad
    table = array(distances.get(name).pairwise(query, key))
    good = np.ix_(np.arange(5) != 2, np.arange(7) != 3)
    assert not np.isfinite(table[2]).any() and not np.isfinite(table[:, 3]).any()
    np.testing.assert_allclose(table[good], pairwise(name, query, key)[good], rtol=1e-5, atol=1e-5)
