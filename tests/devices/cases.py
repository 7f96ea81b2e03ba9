"""Batches that are cut among replicas, and losses to try on them: for the tests and for the processes they start."""

import functools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

import tripletloss as tl
from tripletloss import distribution

N = 12
EMBEDDINGS = np.random.default_rng(3).normal(size=(N, 3)).astype("float32")
WEIGHTS = np.linspace(0.1, 1.2, N, dtype="float32")
CYCLE = [0, 1, 2] * 4


class Case(NamedTuple):
    """One batch on several replicas, and a loss of it."""

    labels: list[int]  # of the whole batch
    sizes: tuple[int, ...]  # how many of its rows each replica gets
    loss: type
    arguments: dict
    weighted: bool = False

    def make_loss(self, pooled: bool) -> keras.losses.Loss:
        """The loss for a replica, or for one device that has it all."""
        return self.loss(**self.arguments, gather_across_devices=pooled)

    def part(self, replica: int) -> slice:
        """The replica's rows."""
        start = sum(self.sizes[:replica])
        return slice(start, start + self.sizes[replica])

    def inputs(self, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Inputs, labels and weights. A matrix product of inputs and EMBEDDINGS is the rows of the latter."""
        return np.eye(N, dtype="float32")[rows], np.array(self.labels)[rows], WEIGHTS[rows] if self.weighted else None


class Attraction(keras.losses.Loss):
    """A loss in small that needs all of `distribution`: squared distances to positives, each key with its own weight."""

    def __init__(self, reduction: str = "sum_over_batch_size", gather_across_devices: bool = False):
        super().__init__(reduction=reduction)
        self.pooled = gather_across_devices

    def losses_and_counts(self, labels, x):
        """One number for each row (n,), and 1 where the row has a positive, 0 where not (n,)."""
        (keys, offset), (key_labels, _) = (distribution.gather(rows) if self.pooled else (rows, 0) for rows in (x, labels))
        self_index = offset + ops.arange(ops.shape(x)[0])
        positives = (labels[:, None] == key_labels[None]) & (self_index[:, None] != ops.arange(ops.shape(keys)[0])[None])
        pull = (1 + ops.cast(key_labels, x.dtype)) * ops.sum(ops.square(x[:, None] - keys[None]), axis=-1)
        return ops.sum(ops.where(positives, pull, 0), axis=1), ops.cast(ops.any(positives, axis=1), x.dtype)

    def __call__(self, y_true, y_pred, sample_weight=None):
        losses, counts = self.losses_and_counts(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred))
        weights = counts if sample_weight is None else counts * ops.convert_to_tensor(sample_weight)
        share = distribution.mean_scale if self.pooled else ops.divide_no_nan
        if self.reduction == "sum_over_batch_size":
            factor = share(ops.cast(ops.size(losses), losses.dtype), ops.sum(counts))
        elif self.reduction == "mean_with_sample_weight":
            factor = share(ops.sum(weights), ops.sum(weights))
        else:
            factor = distribution.sum_scale() if self.pooled else 1
        return ops.sum(Reducer(reduction=self.reduction)((), losses * factor, weights))


class Reducer(keras.losses.Loss):
    """Keras's reduction of losses that are computed already."""

    def call(self, y_true, y_pred):
        return y_pred


CUTS = {
    "even": (CYCLE, (6, 6)),
    "every class on both": ([0, 1, 2, 3, 4, 5] * 2, (6, 6)),
    "few valid anchors on one": ([0, 0, 1, 1, 0, 1, 2, 3, 4, 5, 6, 2], (6, 6)),
    "no valid anchor on one": ([0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8], (6, 6)),
    "no valid anchor at all": (list(range(12)), (6, 6)),
    "fewer rows on one": ([0, 1, 2, 0, 1, 2, 3, 3, 0, 4, 5, 1], (8, 4)),
    "no rows on one": (CYCLE, (12, 0)),
    "three replicas": (CYCLE, (5, 3, 4)),
}
FEW = CUTS["few valid anchors on one"]

CASES = {f"attraction, {cut}": Case(*CUTS[cut], Attraction, {}) for cut in CUTS}
for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight"):
    for weighted in (False, True):
        name = f"attraction, {reduction}{', weighted' * weighted}"
        CASES[name] = Case(*CUTS["fewer rows on one"], Attraction, {"reduction": reduction}, weighted)


def triplets(positive: str, negative: str, **others: str) -> dict:
    """Arguments of TripletLoss."""
    strategies = {"positive_mining_strategy": positive, "negative_mining_strategy": negative}
    return {"distance": "euclidean", **strategies, **others}


for cut in CUTS:
    CASES[f"hard/hard, {cut}"] = Case(*CUTS[cut], tl.TripletLoss, triplets("hard", "hard"))
CASES["hard/semi-hard"] = Case(*CUTS["fewer rows on one"], tl.TripletLoss, triplets("hard", "semi-hard"))
for reduction in ("sum", "mean_with_sample_weight"):
    CASES[f"hard/semi-hard, {reduction}"] = Case(
        *CUTS["fewer rows on one"], tl.TripletLoss, triplets("hard", "semi-hard", reduction=reduction), True
    )
for average in ("anchors", "triplets", "active"):
    CASES[f"all/all, {average}"] = Case(*FEW, tl.TripletLoss, triplets("all", "all", average=average))
CASES["all/semi-hard, triplets"] = Case(
    *CUTS["fewer rows on one"], tl.TripletLoss, triplets("all", "semi-hard", average="triplets")
)


# For where each case is compiled, and takes seconds.
SHORT = [
    "attraction, fewer rows on one",
    "attraction, sum",
    "attraction, mean_with_sample_weight, weighted",
    "hard/hard, no rows on one",
    "all/all, active",
]

LOSSES = {
    "attraction": functools.partial(Attraction),
    "hard/hard": functools.partial(tl.TripletLoss, **triplets("hard", "hard")),
}


def trained(loss: keras.losses.Loss, n: int, batch_size: int) -> dict:
    """The weights after an epoch of `fit` on n rows, and the loss that it reports."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(5)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.02), loss)
    x, labels = generator.normal(size=(n, 4)).astype("float32"), generator.integers(0, 4, n)
    history = model.fit(x, labels, batch_size=batch_size, shuffle=False, verbose=0)
    return {"loss": history.history["loss"][0], "weights": [weight.tolist() for weight in model.get_weights()]}
