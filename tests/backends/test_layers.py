"""Rows of unit length: values, the row of zeros, gradients, widths, saving."""

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import array, grad, tensor
from reference import central_differences

from tripletloss.layers import L2Embedding

X = np.random.default_rng(11).normal(size=(5, 4))


def unit(x):
    lengths = [np.sqrt(sum(float(a) ** 2 for a in row)) for row in x]
    return np.array([row / (length or 1.0) for row, length in zip(x, lengths, strict=True)])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_rows_have_unit_length(scale):
    np.testing.assert_allclose(array(L2Embedding()((scale * X).astype("float32"))), unit(X), atol=1e-6)


def test_row_of_zeros_stays_zero_with_a_finite_gradient():
    x = X.astype("float32")
    x[2] = 0
    np.testing.assert_allclose(array(L2Embedding()(x)), unit(x), atol=1e-6)
    gradient = grad(lambda x: ops.sum(L2Embedding()(x)), x)
    assert np.isfinite(gradient).all() and gradient[0].any()


def test_gradient(float64):
    layer, weight = L2Embedding(dtype="float64"), np.arange(X.size, dtype="float64").reshape(X.shape)
    gradient = grad(lambda x: ops.sum(layer(x) * ops.convert_to_tensor(weight)), X)
    expected = central_differences(lambda x: (unit(x) * weight).sum(), X)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_keeps_its_width(dtype):
    y = L2Embedding(dtype=dtype)(tensor(X * 100, dtype))
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    np.testing.assert_allclose(array(ops.cast(y, "float32")), unit(X), atol=2e-2)


@pytest.mark.parametrize("units, width", [(None, 4), (3, 3)])
def test_units_put_a_dense_layer_before_also_when_saved_and_loaded(units, width, tmp_path):
    layer, x = L2Embedding(units), X.astype("float32")
    assert layer(keras.Input((4,))).shape == (None, width)  # without data
    assert bool(layer.trainable_weights) == bool(units)
    model = keras.Sequential([keras.Input((4,)), layer])
    y = array(model(x))
    assert y.shape == (5, width)
    np.testing.assert_allclose((y**2).sum(axis=1), 1, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(array(keras.models.load_model(tmp_path / "model.keras")(x)), y, rtol=1e-6)
