"""Large batches in pieces: the training is that of the whole batch, beside the same network without pieces."""

import gc
import json

import keras
import numpy as np
import pytest
from keras import layers, ops
from on_backend import BACKEND, array, grad, only

import tripletloss as tl
from tripletloss.training import GradientCache

generator = np.random.default_rng(0)
N = 11
X, Y = generator.normal(size=(N, 5)).astype("float32"), np.arange(N) % 4
TARGETS, WEIGHTS = generator.normal(size=(N, 3)).astype("float32"), np.linspace(0.5, 1.5, N, dtype="float32")
LOSS = tl.TripletLoss("euclidean", "all", "all")
WAYS = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}, "compiled": {"jit_compile": True}}
if BACKEND == "torch":  # where XLA is another package, and what else compiles needs a C++ compiler
    del WAYS["compiled"]
QUICK = {"torch": WAYS, "tensorflow": ("eager", "graph"), "jax": ("compiled",)}[BACKEND]
EACH_WAY = [pytest.param(way, marks=[pytest.mark.jit] if way in QUICK else [pytest.mark.jit, pytest.mark.every]) for way in WAYS]


def network(others=tuple):
    """A small network with the layers that `others` makes, always from the same start."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5,)), layers.Dense(6, "tanh"), *others(), layers.Dense(3)])


def trained(model, x=X, y=Y, weights=None, loss=LOSS, optimizer=None, batch_size=N, epochs=1, **settings):
    """The losses that `fit` reports, and all that it changes: weights, state and moving averages."""
    model.compile(optimizer or keras.optimizers.SGD(0.5), loss, **(settings or WAYS["eager"]))
    history = model.fit(x, y, sample_weight=weights, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return [history.history["loss"], *(array(x) for x in model.variables)]


def assert_same(found, expected, tolerance=1e-6):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1, np.abs(other).max()))


class InPieces(keras.Model):
    """The same pieces, of which nothing is made again: a loop over calls of the model."""

    def __init__(self, model, size):
        super().__init__()
        self.model, self.size = model, size

    def call(self, x, training=None):
        first = (x.shape[0] - 1) % self.size + 1
        starts = [0, *range(first, x.shape[0], self.size)]
        ends = [*starts[1:], x.shape[0]]
        return ops.concatenate([self.model(x[a:b], training=training) for a, b in zip(starts, ends, strict=True)])


@pytest.mark.parametrize("way", EACH_WAY)
def test_fit_is_that_of_the_whole_batch(way):
    """Sixteen rows: a batch of eleven in pieces of three, four and four, and a last one that has fewer rows than two pieces."""
    x, y = np.concatenate([X, X[:5] + 1]), np.concatenate([Y, Y[:5]])
    arguments = {"x": x, "y": y, "epochs": 2, **WAYS[way]}
    assert_same(trained(GradientCache(network(), 4), **arguments), trained(network(), **arguments))


@pytest.mark.parametrize("size", [1, 5, 10, N])
def test_any_micro_batch_gives_the_same_step(size):
    assert_same(trained(GradientCache(network(), size), weights=WEIGHTS), trained(network(), weights=WEIGHTS))


def test_any_loss_and_any_structure():
    """Two inputs, one of integers, and two outputs, for losses that know nothing of metric learning."""

    def two_headed():
        keras.utils.set_random_seed(0)
        number, word = keras.Input((5,), name="number"), keras.Input((2,), dtype="int32", name="word")
        joined = layers.Concatenate()([number, layers.Flatten()(layers.Embedding(7, 2)(word))])
        return keras.Model({"number": number, "word": word}, {"a": layers.Dense(3)(joined), "b": layers.Dense(2)(joined)})

    x = {"number": X, "word": generator.integers(0, 7, (N, 2))}
    arguments = {"x": x, "y": {"a": TARGETS, "b": TARGETS[:, :2]}, "weights": WEIGHTS, "loss": {"a": "mse", "b": "mae"}}
    assert_same(trained(GradientCache(two_headed(), 4), **arguments), trained(two_headed(), **arguments))


def test_accumulated_and_clipped_gradients():
    def optimizer():
        return keras.optimizers.SGD(0.5, momentum=0.9, clipnorm=0.1, gradient_accumulation_steps=2)

    cached, plain = (trained(model, optimizer=optimizer(), epochs=3) for model in (GradientCache(network(), 4), network()))
    assert_same(cached, plain)


def test_regularizers_of_weights_count_once():
    def regularized():
        return (layers.Dense(6, kernel_regularizer=keras.regularizers.L2(0.1)),)

    assert_same(trained(GradientCache(network(regularized), 4)), trained(network(regularized)))


def random_layers():
    return layers.GaussianNoise(0.3), layers.BatchNormalization(momentum=0.8), layers.Dropout(0.4)


@pytest.mark.parametrize("way", EACH_WAY)
def test_random_layers_repeat_their_draw_and_averages_move_once(way):
    """Two steps: what the second pass leaves behind would show in the second step."""
    arguments = {"epochs": 2, "x": X + 1, **WAYS[way]}
    cached = trained(GradientCache(network(random_layers), 4), **arguments)
    assert_same(cached, trained(InPieces(network(random_layers), 4), **arguments), tolerance=3e-6)


def test_moving_averages_by_hand():
    model = keras.Sequential([keras.Input((5,)), layers.BatchNormalization(momentum=0.8)])
    GradientCache(model, 4)(X, training=True)
    mean = np.zeros(5)
    for piece in (X[:3], X[3:7], X[7:]):
        mean = 0.8 * mean + 0.2 * piece.mean(axis=0)
    np.testing.assert_allclose(array(model.layers[0].moving_mean), mean, atol=1e-6)
    before = [array(x) for x in model.variables]
    GradientCache(model, 4)(X)
    assert_same([array(x) for x in model.variables], before, tolerance=0)


def test_frozen_layers_stay_as_they_are():
    def frozen():
        model = network(lambda: (layers.BatchNormalization(), layers.Dropout(0.4, seed=1)))
        model.layers[0].trainable = False
        return model

    cached, model = GradientCache(frozen(), 4), frozen()
    kernel = array(cached.model.layers[0].kernel)
    assert_same(trained(cached), trained(InPieces(model, 4)))
    np.testing.assert_array_equal(array(cached.model.layers[0].kernel), kernel)


@pytest.fixture
def mixed():
    """A policy for all layers that are made."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, mixed):
    """The loss is scaled where Keras scales it for the model, and weights reach the layers unrounded."""
    mixed(policy)
    exact = {"dtype": "float32", "kernel_initializer": keras.initializers.Constant(1 + 2**-20)}
    cached, plain = (network(lambda: [layers.Dense(2, use_bias=False, **exact)]) for _ in range(2))
    cached = GradientCache(cached, 4)
    found, expected = trained(cached), trained(plain)
    assert type(cached.optimizer) is type(plain.optimizer)
    assert isinstance(cached.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    assert_same(found, expected, tolerance=2e-3 if policy == "mixed_float16" else 1e-2)
    wide = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, **exact)])
    assert float(GradientCache(wide, 1)(np.ones((1, 1)))[0, 0]) == 1 + 2**-20


def test_gradients_reach_what_comes_before():
    model = network()
    cached = GradientCache(model, 4)
    found, expected = (grad(lambda x, f=f: ops.sum(ops.square(f(x))), X) for f in (cached, model))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_to_train():
    model = keras.Sequential([keras.Input((5,)), layers.Rescaling(2.0)])
    np.testing.assert_allclose(array(GradientCache(model, 4)(X)), 2 * X)


def test_evaluation_metrics_and_callbacks():
    cached, plain = GradientCache(network(), 4), network()
    for model in (cached, plain):
        model.compile("sgd", LOSS, metrics=[tl.metrics.TripletMetrics(LOSS)], run_eagerly=True)
    for found, expected in (
        (cached.evaluate(X, Y, batch_size=N, verbose=0), plain.evaluate(X, Y, batch_size=N, verbose=0)),
        (cached.predict(X, batch_size=6, verbose=0), plain.predict(X, verbose=0)),
        (array(cached(X)), array(plain(X))),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    logs = [
        model.fit(X, Y, batch_size=N, verbose=0, validation_data=(X, Y), callbacks=[tl.metrics.RetrievalCallback(X, Y)]).history
        for model in (cached, plain)
    ]
    assert logs[0].keys() == logs[1].keys() >= {"val_recall_at_1", "val_loss", "active_share"}
    assert {name: logs[0][name] for name in logs[0]} == {name: pytest.approx(logs[1][name], abs=1e-6) for name in logs[1]}


def test_saved_and_loaded_the_training_goes_on(tmp_path):
    model = GradientCache(network(lambda: [layers.BatchNormalization()]), 4, name="mine")  # Keras saves no generator's state
    trained(model, optimizer="adam")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())
    assert (loaded.name, loaded.micro_batch_size, type(loaded.optimizer).__name__) == ("mine", 4, "Adam")
    for one in (model, loaded):
        one.fit(X, Y, batch_size=N, verbose=0, shuffle=False)
    assert_same([array(x) for x in loaded.variables], [array(x) for x in model.variables])


def test_a_model_is_built_by_its_first_batch():
    model = keras.Sequential([layers.Dense(3)])
    cached = GradientCache(model, 4)
    trained(cached)
    assert model.built and array(model(X)).shape == (N, 3) and len(cached.variables) == 2
    assert tuple(cached(keras.Input((5,))).shape) == (None, 3)


class Rows(keras.utils.PyDataset):
    """Batches of eight rows."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[:8], Y[:8]


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "4", None])
def test_a_micro_batch_is_a_number_of_rows(size):
    with pytest.raises(ValueError, match="micro_batch_size must be an integer of at least 1"):
        GradientCache(network(), size)


def test_a_model_is_a_keras_model():
    with pytest.raises(ValueError, match=r"model must be a keras\.Model; received <function"):
        GradientCache(network, 4)


@pytest.mark.parametrize(
    "batches, rows", [((X, Y), 11), ((X, Y, 10), 10), ((np.ones((40, 5)), np.ones(40)), 32), (({"x": X}, Y), 11), ((Rows(),), 8)]
)
def test_a_micro_batch_larger_than_the_first_batch(batches, rows):
    cached = GradientCache(network(), rows + 1)
    cached.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=f"micro_batch_size must be at most the number of rows in a batch, {rows}; received {rows + 1}"):
        cached.fit(*batches)


def test_batches_of_a_generator_are_taken_as_they_come():
    cached = GradientCache(network(), 4)
    cached.compile("sgd", LOSS, run_eagerly=True)
    history = cached.fit(((X[:n], Y[:n]) for n in (3, 8)), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_losses_of_outputs_are_refused():
    cached = GradientCache(network(lambda: [layers.ActivityRegularization(0.1)]), 4)
    with pytest.raises(ValueError, match="model must not have layers that add losses of their outputs"):
        cached(X, training=True)


class Stranger(keras.layers.Layer):
    """Changes a variable that Keras does not know of."""

    def __init__(self):
        super().__init__()
        self.hidden = lambda: VARIABLE

    def call(self, x):
        self.hidden().assign(self.hidden() + 1)
        return x


VARIABLE = keras.Variable(0.0)


def test_variables_of_others_are_refused():
    cached = GradientCache(network(lambda: [Stranger()]), 4)
    with pytest.raises(ValueError, match="model must change no variables but its own"):
        cached(X, training=True)


@only("jax", "a compiler that tells how much memory it is going to take")
@pytest.mark.jit
def test_memory_is_that_of_a_piece():
    import jax

    def temporary_memory(model, n):
        model.build((None, 5))

        def loss(weights, x):
            outputs, _ = model.stateless_call(weights, [], x, training=True)
            return ops.sum(ops.square(outputs))

        compiled = jax.jit(jax.grad(loss)).lower([x.value for x in model.trainable_variables], np.ones((n, 5), "float32")).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    deep = network(lambda: [layers.Dense(256, "tanh") for _ in range(4)])
    piece, whole, cached = temporary_memory(deep, 64), temporary_memory(deep, 1024), temporary_memory(GradientCache(deep, 64), 1024)
    gradient = 4 * deep.count_params()  # the sum over the pieces
    assert whole > 8 * piece and cached < piece + 1.5 * gradient < whole / 3


@only("torch", "hooks that see what is kept for the gradient")
def test_only_embeddings_are_kept():
    import torch

    kept, deep = [], network(lambda: [layers.Dense(256, "tanh") for _ in range(4)])
    weights = {x.value.data_ptr() for x in deep.variables}  # which are there anyway
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel() * (x.data_ptr() not in weights)) or x, lambda x: x):
        plain = ops.sum(ops.square(deep(X, training=True)))
        whole, kept[:] = sum(kept), []
        ops.sum(ops.square(GradientCache(deep, 4)(X, training=True))).backward()
    assert whole > N * 4 * 256 and max(kept) <= N * 256 and plain.requires_grad


@only("torch", "a garbage collector that frees what a piece leaves")
def test_a_piece_leaves_nothing_behind():
    from torch.multiprocessing.reductions import StorageWeakRef

    made, alive = [], []

    class Watched(layers.Layer):
        def call(self, x):
            y = ops.tanh(x)
            alive.append(sum(not one.expired() for one in made))
            made.append(StorageWeakRef(y.untyped_storage()))
            return y

    x = keras.Input((5,))
    once = layers.Add()([x, Watched()(x)])
    deep = keras.Model(x, layers.Dense(3)(layers.Add()([once, Watched()(once)])))  # lists of inputs are what Keras leaves behind
    trained(GradientCache(deep, 1))
    made.clear(), alive.clear()
    try:
        gc.disable()  # what is garbage stays, unless the pieces see to it
        trained(GradientCache(deep, 1))
    finally:
        gc.enable()
    assert len(alive) >= 2 * 2 * N and max(alive) <= 2  # as many as one piece has
