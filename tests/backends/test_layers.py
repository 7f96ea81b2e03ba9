"""Rows of unit length: values, the row of zeros, gradients, widths, saving."""

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import array, grad, tensor
from reference import central_differences

import tripletloss as tl

X = np.random.default_rng(11).normal(size=(5, 4))


def unit(x):
    lengths = [np.sqrt(sum(float(a) ** 2 for a in row)) for row in x]
    return np.array([row / (length or 1.0) for row, length in zip(x, lengths, strict=True)])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_rows_have_unit_length(scale):
    y = tl.layers.L2Embedding()((scale * X).astype("float32"))
    np.testing.assert_allclose(array(y), unit(X), atol=1e-6)


def test_row_of_zeros_stays_zero_with_a_finite_gradient():
    x = X.astype("float32")
    x[2] = 0
    layer = tl.layers.L2Embedding()
    np.testing.assert_allclose(array(layer(x)), unit(x), atol=1e-6)
    gradient = grad(lambda x: ops.sum(layer(x)), x)
    assert np.isfinite(gradient).all()
    assert gradient[0].any()


def test_gradient(float64):
    layer = tl.layers.L2Embedding(dtype="float64")
    weight = np.arange(X.size, dtype="float64").reshape(X.shape)
    gradient = grad(lambda x: ops.sum(layer(x) * ops.convert_to_tensor(weight)), X)
    expected = central_differences(lambda x: (unit(x) * weight).sum(), X)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


def test_units_put_a_dense_layer_before():
    layer = tl.layers.L2Embedding(3)
    y = array(layer(X.astype("float32")))
    assert y.shape == (5, 3)
    np.testing.assert_allclose((y**2).sum(axis=1), 1, rtol=1e-5)
    assert layer.trainable_weights
    assert not tl.layers.L2Embedding().trainable_weights


@pytest.mark.parametrize("units, shape", [(None, (None, 4)), (3, (None, 3))])
def test_shape_without_data(units, shape):
    assert tl.layers.L2Embedding(units)(keras.Input((4,))).shape == shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_keeps_its_width(dtype):
    y = tl.layers.L2Embedding(dtype=dtype)(tensor(X * 100, dtype))
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    np.testing.assert_allclose(array(ops.cast(y, "float32")), unit(X), atol=2e-2)


@pytest.mark.parametrize("units", [None, 3])
def test_saved_and_loaded(units, tmp_path):
    model = keras.Sequential([keras.Input((4,)), tl.layers.L2Embedding(units)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = X.astype("float32")
    np.testing.assert_allclose(array(model(x)), array(loaded(x)), rtol=1e-6)


def test_learns_with_the_loss():
    y = np.arange(12) % 2
    x = 0.3 * np.random.default_rng(12).normal(size=(12, 4)).astype("float32")
    x[:, 0] += 1
    x[:, 1] += y - 0.5
    model = keras.Sequential([keras.Input((4,)), tl.layers.L2Embedding(8)])
    model.compile(optimizer=keras.optimizers.Adam(0.03), loss=tl.TripletLoss(negative_mining_strategy="hard"))
    losses = model.fit(x, y, batch_size=12, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
