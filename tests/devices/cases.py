"""Batches that are cut among replicas, and losses to try on them: for the tests and for the processes they start."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

import tripletloss as tl

N = 12
EMBEDDINGS = np.random.default_rng(3).normal(size=(N, 3)).astype("float32")
WEIGHTS = np.linspace(0.1, 1.2, N, dtype="float32")
CYCLE = [0, 1, 2] * 4


class Case(NamedTuple):
    """One batch on several replicas, and the arguments of its loss."""

    labels: list[int] | list[list[int]]  # of the whole batch
    sizes: tuple[int, ...]  # how many of its rows each replica gets
    arguments: dict
    weighted: bool = False

    def make_loss(self, pooled):
        """The loss for a replica, or for one device that has it all."""
        return tl.TripletLoss("euclidean", **self.arguments, gather_across_devices=pooled)

    def inputs(self, replica=None):
        """A replica's inputs, labels and weights, or all. A matrix product of inputs and EMBEDDINGS is rows of the latter."""
        start = sum(self.sizes[:replica]) if replica else 0
        rows = slice(None) if replica is None else slice(start, start + self.sizes[replica])
        return np.eye(N, dtype="float32")[rows], np.array(self.labels)[rows], WEIGHTS[rows] if self.weighted else None


def mining(positive, negative, **others):
    """Arguments of TripletLoss."""
    return {"positive_mining_strategy": positive, "negative_mining_strategy": negative, **others}


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
FEW, FEWER = CUTS["few valid anchors on one"], CUTS["fewer rows on one"]
# Of "all" triplets each row is an anchor, a positive and a negative of others: its gradient comes from every replica.
CASES = {f"hard/hard, {cut}": Case(*CUTS[cut], mining("hard", "hard")) for cut in CUTS}
for cut in ("every class on both", "fewer rows on one", "three replicas"):
    CASES[f"all/all, {cut}"] = Case(*CUTS[cut], mining("all", "all"))
for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight"):
    for weighted in (False, True):
        arguments = mining("hard", "semi-hard", reduction=reduction)
        CASES[f"hard/semi-hard, {reduction}{', weighted' * weighted}"] = Case(*FEWER, arguments, weighted)
for average in ("triplets", "active"):
    CASES[f"all/all, {average}"] = Case(*FEW, mining("all", "all", average=average))
CASES["all/semi-hard, triplets"] = Case(*FEWER, mining("all", "semi-hard", average="triplets"))
# Rows of labels travel too: those that several have in common, and paths, which are numbered when all are there.
SEVERAL = [[int(label in (row % 3, 3 + row % 2)) for label in range(5)] for row in range(N)]
PATHS = [[row % 2, row % 5] for row in range(N)]
CASES["all/all, any label in common"] = Case(SEVERAL, (8, 4), mining("all", "all", relation="any"))
levels = mining("all", "semi-hard", relation="levels", margin=[2.0, 1.0], average="triplets")
CASES["all/semi-hard, levels"] = Case(PATHS, (6, 6), levels)

# For where each case is compiled, and takes seconds.
SHORT = ["hard/semi-hard, mean_with_sample_weight, weighted", "hard/hard, no rows on one", "all/all, active"]


def trained(n, batch_size, pooled, pieces=None):
    """The weights after an epoch of `fit` on n rows, perhaps in pieces of so many, and the loss that it reports."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(5)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = tl.TripletLoss("euclidean", "hard", "hard", gather_across_devices=pooled)
    model = tl.training.GradientCache(model, pieces) if pieces else model
    model.compile(keras.optimizers.SGD(0.02), loss)
    x, labels = generator.normal(size=(n, 4)).astype("float32"), generator.integers(0, 4, n)
    history = model.fit(x, labels, batch_size=batch_size, shuffle=False, verbose=0)
    return {"loss": history.history["loss"][0], "weights": [weight.tolist() for weight in model.get_weights()]}


def write(results):
    """Hand the results to the test that started this process."""
    Path(sys.argv[1]).write_text(json.dumps(results))
