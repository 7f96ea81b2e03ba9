"""Batches of every kind, and how to ask the package about them."""

import contextlib
from typing import NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from keras import ops
from on_backend import BACKEND, array, grad, strategies
from reference import AVERAGES, DISTANCES, STRATEGIES

import tripletloss as tl
from tripletloss.distribution import set_block_size

MANY = settings.default.max_examples > 100  # there is time
# Queries, other keys and columns: some with classes of more than 16 positives, which are not listed, and rows of more
# than 256 numbers, which are cut into tiles. JAX compiles each operation for each shape: unless there is time, it gets one.
SHAPES = st.one_of(*[st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 20))] * 2, st.sampled_from([(21, 25, 3), (5, 300, 3)]))
BLOCKS = st.integers(1, 3)
if BACKEND == "jax" and not MANY:
    SHAPES, BLOCKS = st.just((20, 260, 4)), st.integers(1, 2)


class Batch(NamedTuple):
    labels: np.ndarray  # (n,)
    x: np.ndarray  # (n, d)
    key_labels: np.ndarray | None = None  # (m,)
    keys: np.ndarray | None = None  # (m, d)
    remove_diagonal: bool | None = None
    blocks: int = 1  # 1: all of it is one table

    @property
    def arguments(self):
        return self[:2] if self.keys is None else self[:4]

    @property
    def all_keys(self):
        return self[:2] if self.keys is None else self[2:4]

    @property
    def without_diagonal(self):
        return self.keys is None if self.remove_diagonal is None else self.remove_diagonal

    def with_rows(self, change):
        """With all rows changed by a function."""
        return self._replace(x=change(self.x), keys=None if self.keys is None else change(self.keys))

    def with_labels(self, change):
        return self._replace(labels=change(self.labels), key_labels=None if self.keys is None else change(self.key_labels))


def grid(rng, number, d):
    """Small whole numbers, which tie and lose nothing."""
    return rng.integers(-3, 4, (number, d)).astype("float64")


def rows_like(kind, rng, classes, d):
    """Rows (n, d) for rows of these classes (n,)."""
    if kind == "spread":
        return rng.normal(size=(len(classes), d))
    if kind in ("grid", "collapsed"):
        return grid(rng, len(classes), d)[np.arange(len(classes)) * (kind == "grid")]
    if kind == "strewn":  # clusters that have nothing to do with the classes
        classes = rng.integers(0, 3, len(classes))
    centers = rng.normal(size=(max([0, *classes]) + 1, d))
    return centers[classes] + 10.0 ** -rng.integers(0, 5) * rng.normal(size=(len(classes), d))  # from loose to tight


@st.composite
def rows(draw, classes, d, whole):
    """The same, some of them duplicates, constant or zeros; all moved and scaled, unless they are to be whole numbers."""
    rng, n = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), len(classes)
    x = rows_like(draw(st.sampled_from(["grid", "grid", "collapsed"] if whole else ["spread", "clustered", "clustered", "strewn", "grid", "collapsed"])), rng, classes, d)
    x = x + (0 if whole else draw(st.sampled_from([0, 0, 0, 1, 30, 1000])))
    for other in (x[rng.integers(0, max(n, 1), n)], rng.integers(-3, 4, (n, 1)), 0):
        x = np.where((rng.random(n) < draw(st.sampled_from([0, 0.3])))[:, None], other, x)
    # Rounded to 32 bits before all else, so that a constant row is one in the loops of any width.
    return (x * 10.0 ** (0 if whole else draw(st.sampled_from([0, 0, 0, -6, -3, -1, 1, 3, 6])))).astype("float32")


@st.composite
def classes(draw, n, m):
    """Which of so many classes each of n queries and m keys has."""
    rng, total = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), n + m
    pattern = draw(st.sampled_from(["random", "balanced", "one", "different", "singletons", "listed"]))
    if pattern == "different":  # a key has a query of its class, but no query has another
        return np.arange(n), np.arange(m)
    if pattern == "balanced":
        number = draw(st.integers(2, max(2, total // 2)))
        return np.arange(n) % number, np.arange(m) % number
    found = rng.integers(0, {"one": 1, "singletons": 2}.get(pattern) or draw(st.integers(2, max(2, total // 2))), total)
    if pattern == "singletons":
        found = np.where(rng.random(total) < 0.5, found, 2 + np.arange(total))
    if pattern == "listed":  # as many positives as are listed one by one, or one more
        most = draw(st.integers(16, 18))
        found[n:] = rng.permutation(np.where(np.arange(m) < most, 0, 1 + np.arange(m) // 3))
        found[:n] = rng.permutation(np.where(np.arange(n) < (2 if m else most), 0, 1 + np.arange(n) // 3))
    return found[:n], found[n:]


# The integer types that the backend takes from numpy; JAX has those of 64 bits together with floats of 64.
LABEL_DTYPES = ["int32", "int8", "int16", "uint8", "uint16", "uint32"]
WIDE_LABEL_DTYPES = LABEL_DTYPES + {"tensorflow": ["int64", "uint64"], "jax": ["int64", "uint64"], "torch": ["int64"]}[BACKEND]


@st.composite
def names(draw, number, dtypes):
    """A label for each of so many classes: from anywhere in the type, and beyond its upper end from the lower."""
    limits = np.iinfo(draw(st.sampled_from(dtypes)) if number < 256 else "int32")
    start = draw(st.one_of(st.just(0), st.just(limits.max - number // 2), st.integers(limits.min, limits.max)))
    return np.array([(start + i - limits.min) % 2**limits.bits + limits.min for i in range(number)], limits.dtype)


@st.composite
def batches(draw, dtype="float32", whole=False, keys=None, shapes=SHAPES, columns=None):
    """A batch against itself or against other keys; `keys` True or False insists on one of these."""
    n, m, d = draw(shapes)
    keys = draw(st.booleans()) if keys is None else keys
    m = m if keys else 0
    of_queries, of_keys = draw(classes(n, m))
    table = draw(names(int(max([-1, *of_queries, *of_keys])) + 1, LABEL_DTYPES if BACKEND == "jax" and dtype == "float32" else WIDE_LABEL_DTYPES))
    x = draw(rows(np.concatenate([of_queries, of_keys]), columns or d, whole)).astype(dtype)
    others = (table[of_keys], x[n:]) if keys else (None, None)
    return Batch(table[of_queries], x[:n], *others, draw(st.sampled_from([None, False, True])), draw(BLOCKS))


class Loss(NamedTuple):
    """The settings of a loss."""

    distance: str
    positive: str
    negative: str
    soft_margin: bool = False
    margin: float = 1.0
    average: str = "anchors"

    @property
    def mining(self):
        return {"distance": self.distance, **strategies(self.positive, self.negative)}

    @property
    def margins(self):
        return {"soft_margin": self.soft_margin, "margin": self.margin}

    @property
    def arguments(self):
        return {**self.mining, **self.margins, "average": self.average}


@st.composite
def losses(draw, distances=tuple(DISTANCES), pairs=tuple(STRATEGIES), margins=("soft", 1.0, 0.1, 0.0, 10.0, 1e-30, 1e30)):
    margin = draw(st.sampled_from(margins))
    margin = (True, 1.0) if margin == "soft" else (False, margin)
    return Loss(draw(st.sampled_from(distances)), *draw(st.sampled_from(pairs)), *margin, draw(st.sampled_from(AVERAGES)))


# How to ask.


@contextlib.contextmanager
def engine(batch):
    """The package with blocks as the batch wants them; on JAX with 64 bits where its rows have them."""
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", batch.x.dtype == "float64")
    rows = -(-len(batch.x) // batch.blocks)
    set_block_size(max(rows * len(batch.all_keys[0]), 1) if batch.blocks > 1 else None)
    try:
        yield
    finally:
        set_block_size(None)
        if BACKEND == "jax":
            jax.config.update("jax_enable_x64", False)


def losses_of(batch, loss):
    """What `triplet_loss` makes of a batch (n,)."""
    with engine(batch):
        return array(tl.triplet_loss(*batch.arguments, remove_diagonal=batch.remove_diagonal, **loss.arguments))


def gradient_of(batch, loss, weights):
    """The gradient by queries (n, d) and keys (m, d) of the weighted sum; what weighs nothing is left out, even if NaN."""
    n = len(batch.x)

    def total(x):
        others = () if batch.keys is None else (batch.key_labels, x[n:])
        found = tl.triplet_loss(batch.labels, x[:n], *others, remove_diagonal=batch.remove_diagonal, **loss.arguments)
        return ops.sum(ops.where(ops.convert_to_tensor(weights != 0), found, 0) * ops.convert_to_tensor(weights))

    with engine(batch):
        gradient = grad(total, batch.x if batch.keys is None else np.concatenate([batch.x, batch.keys]))
    return gradient[:n], gradient[n:]


def mined(batch, loss):
    """What `mine_triplets` chooses: for each query a positive and a negative, or None."""
    with engine(batch):
        found = tl.mine_triplets(*batch.arguments, remove_diagonal=batch.remove_diagonal, **loss.mining)
        positive, negative, valid = (array(x) for x in found)
    assert positive.shape == negative.shape == valid.shape == batch.labels.shape
    return [(int(p), int(n)) if v else None for p, n, v in zip(positive, negative, valid, strict=True)]
