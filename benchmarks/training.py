"""The loss's share of a training step: `python -m benchmarks.training [--quick]`, on TensorFlow.

The network's forward and backward pass is timed with a loss that costs nothing, the mean of the embeddings; the triplet
loss and its gradient are timed for the same number of embeddings. A large network is timed at a small batch, and its
time is taken to grow in proportion: the table says at how many rows it was measured.

On every backend (`KERAS_BACKEND`), a step of `fit` with 64 rows is timed with the loss and with a plain mean of squares
in its place: what the loss adds to a real step of a network that costs nearly nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from benchmarks.contenders import BUILDERS, OWN_JIT, as_tensors, embeddings_and_labels, own_loss
from benchmarks.loss import RESULTS, write

COLUMNS = ("network", "batch", "network_rows", "network_milliseconds", "loss_milliseconds", "loss_share")
BATCHES = (64, 256, 1024)
WIDTH = 128  # of the embeddings


def resnet() -> tuple[keras.Model, tuple[int, ...]]:
    """ResNet-50 on 224 x 224 images, with an embedding of `WIDTH` numbers."""
    body = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    return keras.Sequential([body, keras.layers.Dense(WIDTH)]), (224, 224, 3)


def small() -> tuple[keras.Model, tuple[int, ...]]:
    """A small convolutional network on 8 x 8 digits."""
    layers = [keras.layers.Conv2D(32, 3, activation="relu"), keras.layers.Conv2D(64, 3, activation="relu")]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(WIDTH)]), (8, 8, 1)


FIT_COLUMNS = ("backend", "jit", "batch", "with_loss_milliseconds", "without_loss_milliseconds", "difference_milliseconds")
FIT_BATCH, FIT_STEPS = 64, 50  # rows of a step, steps of an epoch

NETWORKS = {"ResNet-50, 224 x 224": (resnet, 16), "two convolutions, 8 x 8": (small, 1024)}  # and rows timed at most


def network_step(model: keras.Model) -> Callable[[object], None]:
    """Forward and backward pass, as a graph."""
    import tensorflow as tf

    @tf.function
    def step(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    return lambda x: step(x).numpy()


def median_milliseconds(step: Callable[[], object], rounds: int) -> float:
    """Of so many rounds, after one that compiles."""
    step()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def share(build: Callable[[], tuple[keras.Model, tuple[int, ...]]], most: int, batch: int, rounds: int) -> tuple[int, float, float]:
    """Rows at which the network was timed, and the milliseconds of network and loss for a whole batch."""
    model, shape = build()
    measured = min(batch, most)
    images = np.random.default_rng(0).normal(size=(measured, *shape)).astype("float32")
    step = network_step(model)
    network = median_milliseconds(lambda: step(images), rounds) * batch / measured
    loss = BUILDERS["tensorflow"][OWN_JIT]("cosine", "semi-hard")
    embeddings, labels = as_tensors("tensorflow", *embeddings_and_labels(batch, WIDTH), "float32")
    return measured, network, median_milliseconds(lambda: loss(embeddings, labels), 5 * rounds)


class Clock(keras.callbacks.Callback):
    """How long the last epoch took."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start it."""
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop it."""
        self.seconds = time.perf_counter() - self.begin


def fit_epoch(loss: Callable, jit_compile: bool | str, steps: int) -> Callable[[], float]:
    """A function that fits the small network to random data for an epoch, and returns the milliseconds of a step."""
    model, shape = small()
    model.compile("sgd", loss, jit_compile=jit_compile)
    rows, clock = FIT_BATCH * steps, Clock()
    x = np.random.default_rng(0).normal(size=(rows, *shape)).astype("float32")

    def epoch() -> float:
        model.fit(x, np.arange(rows) // 4 % 16, batch_size=FIT_BATCH, shuffle=False, verbose=0, callbacks=[clock])
        return clock.seconds / steps * 1e3

    return epoch


def run_fit(epochs: int, folder: Path, steps: int = FIT_STEPS) -> None:
    """A step with and without the loss, in turn; as `fit` compiles it, and on TensorFlow without XLA too."""
    backend, rows = keras.backend.backend(), []
    losses = own_loss("cosine", "semi-hard"), lambda y, x: keras.ops.mean(keras.ops.square(x), axis=-1)
    for jit_compile in ("auto", False) if backend == "tensorflow" else ("auto",):
        fits = [fit_epoch(loss, jit_compile, steps) for loss in losses]
        times = [[fit() for fit in fits] for _ in range(1 + epochs)][1:]  # the first compiles
        medians = map(statistics.median, zip(*((a, b, a - b) for a, b in times), strict=True))
        rows.append(dict(zip(FIT_COLUMNS, (backend, jit_compile, FIT_BATCH, *(round(x, 3) for x in medians)), strict=True)))
        print(rows[-1], flush=True)
    write(folder / f"fit-{backend}.csv", FIT_COLUMNS, rows)


def run(rounds: int, folder: Path) -> None:
    """Measure both networks at every batch size."""
    rows = []
    for name, (build, most) in NETWORKS.items():
        for batch in BATCHES:
            measured, network, loss = share(build, most, batch, rounds)
            figures = (name, batch, measured, round(network, 1), round(loss, 3), round(loss / (loss + network), 6))
            rows.append(dict(zip(COLUMNS, figures, strict=True)))
            print(rows[-1], flush=True)
        write(folder / "training.csv", COLUMNS, rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine")
    parser.add_argument("--tiny", action="store_true", help="two steps of fit alone: does it work?")
    parser.add_argument("--fit", action="store_true", help="the step of fit alone; so on JAX and PyTorch anyway")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the tables")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else 9
    if arguments.tiny:
        run_fit(1, arguments.output, steps=2)
        return
    run_fit(rounds, arguments.output)
    if keras.backend.backend() == "tensorflow" and not arguments.fit:
        run(rounds, arguments.output)


if __name__ == "__main__":
    main()
