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
NAMES = list(DISTANCES)
TOLERANCE = {"float16": 1e-5, "bfloat16": 1e-5, "float32": 1e-5, "float64": 1e-12}


def dtype_of(x):
    return keras.backend.standardize_dtype(x.dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_loops(name, dtype, float64):
    query, key = tensor(QUERY, dtype), tensor(KEY, dtype)
    exact_query, exact_key = (array(ops.cast(x, "float64")) for x in (query, key))  # as rounded to dtype
    distance = distances.get(name)
    for computed, expected in (
        (distance.pairwise(query, key), pairwise(name, exact_query, exact_key)),
        (distance.paired(query, key[:5]), paired(name, exact_query, exact_key[:5])),
    ):
        assert dtype_of(computed) == ("float64" if dtype == "float64" else "float32")
        np.testing.assert_allclose(array(computed), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", NAMES)
def test_one_width_for_two(name, float64):
    query, key = tensor(QUERY, "float32"), tensor(KEY, "float64")
    computed = distances.get(name).pairwise(query, key)
    assert dtype_of(computed) == "float64"
    np.testing.assert_allclose(array(computed), pairwise(name, array(query), KEY), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows(name):
    distance, none = distances.get(name), np.zeros((0, 3), "float32")
    rows = QUERY.astype("float32")
    assert tuple(distance.pairwise(none, rows).shape) == (0, 5)
    assert tuple(distance.paired(none, none).shape) == (0,)


@pytest.mark.parametrize("name, alias", [(name, alias) for name in NAMES for alias in (name, *DISTANCES[name])])
def test_names(name, alias):
    assert distances.get(alias).name == name
    assert type(distances.get(alias)) is type(distances.get(name))


@pytest.mark.parametrize("name", NAMES)
def test_survives_json(name):
    distance = distances.get(name)
    stored = json.loads(json.dumps(distances.serialize(distance)))
    assert type(distances.deserialize(stored)) is type(distance)
    assert type(distances.get(stored)) is type(distance)
    assert distances.get(distance) is distance


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
    query, key = QUERY.astype("float32"), KEY.astype("float32")
    distance = Stretched(3.0)
    np.testing.assert_allclose(array(distance.pairwise(query, key)), 3 * pairwise("manhattan", query, key), rtol=1e-5)
    np.testing.assert_allclose(array(distance.paired(query, key[:5])), 3 * paired("manhattan", query, key[:5]), rtol=1e-5)
    gradient = grad(lambda x: ops.sum(distance.paired(x, ops.convert_to_tensor(key[:5]))), query)
    np.testing.assert_allclose(gradient, 3 * np.sign(query - key[:5]))


class Leading(distances.Euclidean):
    """A built-in distance with another `call`: of the first coordinate alone."""

    def call(self, query, key):
        return super().call(query[:, :1], key[:, :1])


def test_derived_distance_takes_nothing_from_the_call_that_it_replaces():
    query, key = QUERY.astype("float32"), KEY.astype("float32")
    expected = abs(query[:, :1] - key[:5, :1])[:, 0]
    np.testing.assert_allclose(array(Leading().paired(query, key[:5])), expected, rtol=1e-5)
    assert Leading().ranking_rows(query, key) is None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "manhattan"])
def test_ranking_rows_order_keys_as_the_distance(name):
    query, key = (ops.convert_to_tensor(x.astype("float32")) for x in (QUERY, KEY))
    distance = distances.get(name)
    query_rows, key_rows = distance.ranking_rows(distance.prepare(query), distance.prepare(key))
    order = np.argsort(array(query_rows @ ops.transpose(key_rows)), axis=1)
    np.testing.assert_array_equal(order, np.argsort(pairwise(name, QUERY, KEY), axis=1))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "manhattan"])
def test_ranking_rows_order_keys_around_a_reference_of_each_class(name):
    """Among keys of one class, around one of their members, whatever is around the others."""
    query, key = (ops.convert_to_tensor(x.astype("float32")) for x in (QUERY, KEY))
    labels, key_labels = np.arange(len(QUERY)) % 2, np.arange(len(KEY)) % 2
    distance = distances.get(name)
    query, key = distance.prepare(query), distance.prepare(key)
    around = tuple(ops.take(key, ops.convert_to_tensor(y), axis=0) for y in (labels, key_labels))  # key 0 or key 1
    query_rows, key_rows = distance.ranking_rows(query, key, around)
    ranked, table = array(query_rows @ ops.transpose(key_rows)), pairwise(name, QUERY, KEY)
    for i, label in enumerate(labels):
        same = key_labels == label
        np.testing.assert_array_equal(np.argsort(ranked[i, same]), np.argsort(table[i, same]))


def test_a_custom_distance_survives_json():
    stored = json.loads(json.dumps(distances.serialize(Stretched(3.0))))
    for loaded in (distances.deserialize(stored), distances.get(stored)):
        assert isinstance(loaded, Stretched)
        assert loaded.factor == 3.0


def test_distance_without_call_says_so():
    with pytest.raises(NotImplementedError, match=r"call\(query, key\)"):
        distances.Distance().pairwise(QUERY.astype("float32"), KEY.astype("float32"))


@pytest.mark.parametrize(
    "given, message",
    [
        ("cosin", "distance.*'cosin'.*Did you mean 'cosine'"),
        ("L2", "distance.*'L2'.*Did you mean 'l2'"),
        (7, "distance.*7"),
        (distances.Cosine, "distance.*Did you mean Cosine()"),
    ],
)
def test_unknown(given, message):
    with pytest.raises(ValueError, match=message):
        distances.get(given)


def test_configuration_of_something_else():
    config = keras.saving.serialize_keras_object(keras.losses.MeanSquaredError())
    with pytest.raises(ValueError, match="distance"):
        distances.get(config)


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


# Where numbers run out.


@pytest.mark.parametrize("name", NAMES)
def test_ranks_close_points_as_they_are(name):
    """At norm 1 and spread 1e-3 a plain |a|^2 + |b|^2 - 2ab gets most nearest neighbours wrong."""
    draw = np.random.default_rng(2)
    x = draw.normal(size=(1, 16))
    x = x / np.linalg.norm(x) + 1e-3 * draw.normal(size=(32, 16))
    x = x.astype("float32")
    exact = pairwise(name, x, x)
    computed = array(distances.get(name).pairwise(x, x)).astype("float64")
    if name == "inner_product":  # no digit to save there: the product itself is the distance
        np.testing.assert_allclose(computed, exact, rtol=1e-6)
        return
    np.fill_diagonal(exact, np.inf)
    np.fill_diagonal(computed, np.inf)
    np.testing.assert_array_equal(computed.argmin(1), exact.argmin(1))


@pytest.mark.parametrize("name", ["cosine", "euclidean", "squared_euclidean", "manhattan", "snr"])
def test_pair_of_close_points_keeps_its_digits(name):
    draw = np.random.default_rng(3)
    query = draw.normal(size=(8, 16)).astype("float32")
    key = (query + 1e-4 * draw.normal(size=query.shape)).astype("float32")
    # A coordinate near 1 is rounded by 6e-8 when its row is normalised, about 1e-3 of the difference.
    tolerance = 1e-2 if name in ("cosine", "snr") else 1e-5
    np.testing.assert_allclose(array(distances.get(name).paired(query, key)), paired(name, query, key), rtol=tolerance)


@pytest.mark.parametrize("name", ["cosine", "euclidean", "squared_euclidean", "manhattan", "snr"])
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
    query, key = tensor(np.full((1, 4), 300.0) * [1, -1, 1, 1], "float16"), tensor(np.full((1, 4), -300.0), "float16")
    if name == "snr":
        key = tensor(np.array([[300.0, 300.0, -300.0, 300.0]]), "float16")
    expected = pairwise(name, array(query), array(key))
    np.testing.assert_allclose(array(distances.get(name).pairwise(query, key)), expected, rtol=1e-5)


def test_rows_of_zeros_are_1_from_everything_under_cosine():
    x = np.array([[0, 0, 0], [1, 2, 3], [0, 0, 0]], "float32")
    table = array(distances.get("cosine").pairwise(x, x))
    np.testing.assert_allclose(table, pairwise("cosine", x, x), atol=1e-6)
    np.testing.assert_allclose(table[0], 1)
    np.testing.assert_allclose(array(distances.get("cosine").paired(x[[0, 0, 1]], x[[2, 1, 0]])), 1)
    gradient = grad(lambda x: ops.sum(distances.get("cosine").paired(x, ops.flip(x, axis=0))), x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 1e4])
def test_constant_query_is_0_from_everything_under_snr(constant):
    query = np.stack([np.full(5, constant), np.arange(5)]).astype("float32")
    key = np.array([[1, 5, 2, 4, 0], [2, 2, 2, 2, 3]], "float32")
    snr = distances.get("snr")
    np.testing.assert_allclose(array(snr.pairwise(query, key))[0], 0)
    np.testing.assert_allclose(array(snr.pairwise(query, key))[1], pairwise("snr", query, key)[1], rtol=1e-5)
    gradient = grad(lambda x: ops.sum(snr.paired(x, ops.convert_to_tensor(key))), query)
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.isfinite(gradient).all()
    assert gradient[1].any()


@pytest.mark.parametrize("constant", [0.0, 0.1, 3.0])
def test_a_constant_key_has_a_gradient_under_snr(constant):
    """Its distance is 1; a change of the key to the query's shape makes it smaller."""
    query, key = np.arange(5, dtype="float32")[None], np.full((1, 5), constant, "float32")
    snr, centered = distances.get("snr"), query - 2
    gradient = grad(lambda x: ops.sum(snr.paired(ops.convert_to_tensor(query), x)), key)
    np.testing.assert_allclose(gradient, -2 * centered / np.square(centered).sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_where_points_coincide(name):
    x = QUERY.astype("float32")
    other = ops.convert_to_tensor(x)
    gradient = grad(lambda x: ops.sum(distances.get(name).paired(x, other)), x)
    expected = -x if name == "inner_product" else np.zeros_like(x)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_row_harms_no_other(name, bad):
    query, key = QUERY.astype("float32"), KEY.astype("float32")
    query[2, 1] = key[3, 0] = bad
    table = array(distances.get(name).pairwise(query, key))
    rows, columns = np.arange(5) != 2, np.arange(7) != 3
    assert not np.isfinite(table[2]).any()
    assert not np.isfinite(table[:, 3]).any()
    kept = table[rows][:, columns]
    np.testing.assert_allclose(kept, pairwise(name, query[rows], key[columns]), rtol=1e-5, atol=1e-5)
