"""What the package relies on and no documentation promises: these tests fail when it changes, before users' numbers do."""

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import array, compiled, only

import tripletloss as tl
from tripletloss import _checks

X, Y = np.ones((4, 3), "float32"), np.arange(4, dtype="int32") // 2


class Given(keras.losses.Loss):
    """Losses that are computed already."""

    def call(self, y_true, y_pred):
        return y_pred


class Watched(keras.losses.Loss):
    """A loss with a `__call__` of its own, as `MetricLoss` has, which notes what `look` makes of its arguments."""

    def __init__(self, look):
        super().__init__()
        self.look, self.seen = look, []

    def __call__(self, y_true, y_pred, sample_weight=None):
        self.seen.append(self.look(y_true, y_pred))
        return ops.sum(y_pred)


def network(loss, *first, **settings):
    model = keras.Sequential([keras.Input((3,)), *first, keras.layers.Dense(3)])
    model.compile("sgd", loss, **settings)
    return model


def test_keras_still_divides_by_what_the_loss_relies_on():
    """Its means divide by the number of losses, or by the sum of the weights; `TripletLoss` scales its losses for that."""
    values, weight = np.array([1, 2, 0, 5], "float32"), np.array([1, 1, 0, 2], "float32")
    for reduction, expected in (("sum_over_batch_size", 2), ("mean", 2), ("sum", 8), ("mean_with_sample_weight", 2)):
        assert float(Given(reduction=reduction)(values, values)) == pytest.approx(expected)
    assert float(Given(reduction="mean_with_sample_weight")(values, values, weight)) == pytest.approx(13 / 4)
    assert float(Given()(values, values, weight)) == pytest.approx(13 / 4)


def test_the_losses_of_an_empty_batch_add_up_to_0():
    """Keras hands them back unreduced, and `MetricLoss` adds them up; a mean over nothing would be NaN."""
    nothing = np.zeros(0, "float32")
    assert float(ops.sum(Given()(nothing, nothing))) == 0


def test_a_sum_never_loses_nan():
    """Mining trusts a row of the table whose sum is finite. (A maximum may lose NaN under XLA.)"""
    fast = compiled(lambda x: ops.sum(x, axis=1))
    for width in (5, 64, 1000):
        rows = np.zeros((3, width), "float32")
        rows[range(3), [0, width // 2, width - 1]] = np.nan
        for total in (fast, lambda x: ops.sum(x, axis=1)):
            assert np.isnan(array(total(ops.convert_to_tensor(rows)))).all()


@pytest.mark.jit
@pytest.mark.parametrize("masked", [True, False])
def test_a_mask_shows_in_what_a_loss_of_shape_1_becomes(masked):
    """`check_no_mask`: without a mask (1,) stays (1,), and with one it takes the mask's shape, in `fit` as well."""
    probe = _checks._MaskProbe("mask_probe", reduction="none")
    loss = Watched(lambda y_true, y_pred: tuple(probe((), y_pred).shape))
    model = network(loss, *[keras.layers.Masking(-1.0)] * masked)
    for step in (model.fit, model.evaluate):
        loss.seen.clear()
        step(X, Y, verbose=0)
        assert any(shape in ((4,), (None,)) for shape in loss.seen) == masked, step.__name__
        assert masked or set(loss.seen) == {(1,)}


def test_the_mask_that_the_package_looks_for_is_the_one_of_keras():
    """Keras's own losses find it too: rows that it hides do not count in their mean."""
    y_pred = keras.layers.Masking(-1.0)(np.array([[1.0], [-1.0], [3.0]], "float32"))
    with pytest.raises(ValueError, match="no Keras mask"):
        tl.TripletLoss()(np.array([0, 0, 1]), y_pred)
    assert float(Given()(np.zeros((3, 1), "float32"), y_pred)) == pytest.approx(2)


def test_a_dense_tensor_is_itself_without_gaps():
    """`as_dense` takes what comes back changed for sparse or ragged."""
    for x in (X, keras.Variable(X)):
        tensor = ops.convert_to_tensor(x)
        assert ops.convert_to_tensor(tensor, sparse=False, ragged=False) is tensor
    compiled(lambda x: _checks.as_dense(x, "x", "floats"))(ops.ones((2, 3)))


@pytest.mark.jit
def test_keras_hands_labels_to_a_loss_as_they_are():
    """`Loss.__call__` casts them to floats; what calls it does not, so that a loss with its own `__call__` gets integers."""
    loss = Watched(lambda y_true, y_pred: keras.backend.standardize_dtype(y_true.dtype))
    network(loss).fit(X, Y, verbose=0)
    assert loss.seen[-1] == "int32"


def test_what_a_callback_puts_into_the_logs_reaches_those_behind_it():
    """`RetrievalCallback` stands before EarlyStopping, and History behind both."""

    class Puts(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_found"] = float(epoch)

    found = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: found.append(logs["val_found"]))
    history = network("mse", run_eagerly=True).fit(X, X, epochs=2, verbose=0, callbacks=[Puts(), watch]).history
    assert found == history["val_found"] == [0.0, 1.0]


def test_a_metric_may_be_several_numbers():
    """`TripletMetrics.result` returns a dict, which Keras spreads over the logs."""

    class Two(keras.metrics.Metric):
        def update_state(self, y_true, y_pred, sample_weight=None):
            pass

        def result(self):
            return {"one": ops.ones(()), "two": 2 * ops.ones(())}

    model = network("mse", metrics=[Two()])
    assert {"one": 1.0, "two": 2.0}.items() <= model.evaluate(X, X, verbose=0, return_dict=True).items()


@only("tensorflow", "strategies that cut a batch")
def test_keras_asks_a_strategy_for_shapes_with_averages_for_labels():
    """`is_shape_probe`: only there may labels be floats. The question itself is asked in test_distribution.py."""
    import tensorflow as tf

    assert not tl.distribution.is_shape_probe()
    assert not tf.function(lambda: tf.constant(tl.distribution.is_shape_probe()))()


@only("torch", "tensors with flags")
def test_torch_tells_what_is_sparse_or_nested():
    import torch

    x = torch.eye(3)
    sparse = x.to_sparse().is_sparse and x.to_sparse_csr().is_sparse_csr
    assert sparse and torch.nested.nested_tensor([x[0], x[0, :2]]).is_nested
    assert not (x.is_sparse or x.is_sparse_csr or x.is_nested)
