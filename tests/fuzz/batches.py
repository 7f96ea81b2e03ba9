"""Batches of every kind: what hypothesis draws is how to make one, so that a failure shrinks to few rows and a plain recipe."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from on_backend import BACKEND
from reference import AVERAGES, DISTANCES, STRATEGIES

# What JAX takes of a shape it has not seen costs seconds, even without jit: unless there is time, it gets few shapes.
FEW_SHAPES = {"queries": (9,), "keys": (7,), "columns": (4,)}


class Batch(NamedTuple):
    labels: np.ndarray  # (n,)
    x: np.ndarray  # (n, d)
    key_labels: np.ndarray | None  # (m,)
    keys: np.ndarray | None  # (m, d)
    remove_diagonal: bool | None

    @property
    def arguments(self):
        return (self.labels, self.x) if self.keys is None else (self.labels, self.x, self.key_labels, self.keys)

    @property
    def all_keys(self):
        return (self.labels, self.x) if self.keys is None else (self.key_labels, self.keys)

    @property
    def without_diagonal(self):
        return self.keys is None if self.remove_diagonal is None else self.remove_diagonal


class Recipe(NamedTuple):
    """How to make rows."""

    seed: int
    kind: str  # one of KINDS
    duplicates: bool
    zeros: bool
    constant: bool
    power: int  # the rows are multiplied by 10 ** power
    offset: int  # and this was added before


def spread(rng, classes, d):
    return rng.normal(size=(len(classes), d))


def clustered(rng, classes, d):
    """Around one center for each class, from loose to tight."""
    centers = rng.normal(size=(max([0, *classes]) + 1, d))
    return centers[classes] + 10.0 ** -rng.integers(0, 5) * rng.normal(size=(len(classes), d))


def strewn(rng, classes, d):
    """Clusters that have nothing to do with the classes."""
    return clustered(rng, rng.integers(0, 3, len(classes)), d)


def grid(rng, classes, d):
    """Whole numbers, which tie and lose nothing."""
    return rng.integers(-3, 4, (len(classes), d)).astype("float64")


def collapsed(rng, classes, d):
    return np.repeat(rng.integers(-3, 4, (1, d)).astype("float64"), len(classes), axis=0)


KINDS = {kind.__name__: kind for kind in (spread, clustered, strewn, grid, collapsed)}


def rows(recipe, classes, d, dtype="float32"):
    """Rows (n, d) for rows of these classes (n,)."""
    rng, n = np.random.default_rng(recipe.seed), len(classes)
    x = KINDS[recipe.kind](rng, classes, d) + recipe.offset
    if n:
        some = rng.random((3, n)) < 0.3
        x = np.where((some[0] & recipe.duplicates)[:, None], x[rng.integers(0, n, n)], x)
        x = np.where((some[1] & recipe.constant)[:, None], rng.integers(-3, 4, (n, 1)), x)
        x = np.where((some[2] & recipe.zeros)[:, None], 0, x)
    # Rounded to 32 bits before all else, so that a constant row is one in the loops of any width.
    return (x * 10.0**recipe.power).astype("float32").astype(dtype)


recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(list(KINDS)),
    duplicates=st.booleans(),
    zeros=st.booleans(),
    constant=st.booleans(),
    power=st.sampled_from([0, 0, 0, -6, -3, -1, 1, 3, 6]),
    offset=st.sampled_from([0, 0, 0, 1, 30, 1000]),
)
whole_numbers = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["grid", "grid", "collapsed"]),
    duplicates=st.booleans(),
    zeros=st.booleans(),
    constant=st.booleans(),
    power=st.just(0),
    offset=st.just(0),
)


def label_dtypes(wide):
    """The integer types that the backend takes from numpy; `wide` if JAX has 64 bits."""
    if BACKEND == "tensorflow":
        return ["int64", "int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64"]
    if BACKEND == "torch":
        return ["int64", "int8", "int16", "int32", "uint8", "uint16", "uint32"]
    return ["int32", "int8", "int16", "uint8", "uint16", "uint32", *(["int64", "uint64"] if wide else [])]


@st.composite
def classes(draw, n, m):
    """Which of so many classes each of n queries and m keys has: few, many, one, all different, balanced."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pattern = draw(st.sampled_from(["random", "balanced", "one", "different", "one and singletons"]))
    total = max(n + m, 1)
    number = {"one": 1, "different": total}.get(pattern) or draw(st.integers(2, max(2, total // 2)))
    if pattern == "different":
        return np.arange(n), np.arange(m)  # a key has a query of its class, but no query has another
    if pattern == "balanced":
        return np.arange(n) % number, np.arange(m) % number
    found = rng.integers(0, number, (2, max(n, m)))
    if pattern == "one and singletons":
        found = np.where(rng.random(found.shape) < 0.5, 0, np.arange(max(n, m)))
    return found[0, :n], found[1, :m]


@st.composite
def names(draw, number, dtype):
    """A label for each of so many classes: anywhere in the type, its ends included, or small and in turn."""
    limits = np.iinfo(dtype)
    number = int(number)
    if number > 200 or draw(st.booleans()):
        return np.arange(number).astype(dtype)
    anywhere = st.one_of(st.integers(limits.min, limits.max), st.sampled_from([limits.min, limits.max, limits.max - 1]))
    found = draw(st.lists(anywhere, min_size=min(number, 4), max_size=min(number, 4), unique=True))
    more = (x for x in range(limits.max, limits.min, -1) if x not in found)
    return np.array([*found, *(next(more) for _ in range(number - len(found)))], dtype)


def sizes(largest, few):
    return st.sampled_from(few) if BACKEND == "jax" and few else st.integers(0, largest)


@st.composite
def batches(draw, recipes=recipes, dtype="float32", queries=40, columns=None, few=True, keys=None):
    """A batch against itself or against other keys; `keys` True or False insists on one of these."""
    n = draw(sizes(queries, few and FEW_SHAPES["queries"]))
    d = draw(columns if columns is not None else st.sampled_from(FEW_SHAPES["columns"]) if BACKEND == "jax" and few else st.integers(1, 20))
    with_keys = draw(st.booleans()) if keys is None else keys
    m = draw(sizes(queries, few and FEW_SHAPES["keys"])) if with_keys else 0
    of_queries, of_keys = draw(classes(n, m))
    table = draw(names(max([-1, *of_queries, *of_keys]) + 1, draw(st.sampled_from(label_dtypes(dtype == "float64")))))
    together = np.concatenate([of_queries, of_keys])
    x = rows(draw(recipes), together, d, dtype)
    others = (table[of_keys], x[n:]) if with_keys else (None, None)
    return Batch(table[of_queries], x[:n], *others, draw(st.sampled_from([None, False, True])))


class Settings(NamedTuple):
    distance: str
    positive: str
    negative: str
    soft_margin: bool
    margin: float
    average: str

    @property
    def mining(self):
        return {"distance": self.distance, "positive_mining_strategy": self.positive, "negative_mining_strategy": self.negative}

    @property
    def arguments(self):
        return {**self.mining, "soft_margin": self.soft_margin, "margin": self.margin, "average": self.average}

    @property
    def of_loops(self):
        return {**self._asdict(), "name": self.distance, "distance": None}


@st.composite
def settings_of_a_loss(draw, distances=tuple(DISTANCES), strategies=tuple(STRATEGIES)):
    margin = draw(st.sampled_from(["soft", 1.0, 0.1, 0.0, 10.0, 1e-30, 1e30]))
    return Settings(
        draw(st.sampled_from(distances)),
        *draw(st.sampled_from(strategies)),
        margin == "soft",
        1.0 if margin == "soft" else margin,
        draw(st.sampled_from(AVERAGES)),
    )


class Limits(NamedTuple):
    """The package's own sizes, set so low that a small batch is mined as a large one: in blocks, with tiles and padding."""

    block_rows: int | None  # rows of a block; None: the usual block, in which all of these batches fit
    tile: int
    listed: int  # positives of a query

    def numbers(self, m):
        """In a block, for m keys; None: as usual."""
        return None if self.block_rows is None else self.block_rows * max(m, 1)

    def is_small(self, n, m):
        """Whether n queries and m keys fit in one table, which masks search."""
        return self.block_rows is None or n * m < self.numbers(m)


USUAL = Limits(None, 64, 16)
limits = st.one_of(
    st.just(USUAL),
    st.builds(
        Limits,
        block_rows=st.sampled_from([1, 3, 7]),
        tile=st.sampled_from([64, 1, 2, 3]),
        listed=st.sampled_from([16, 1, 2, 5]),
    ),
)
few_limits = st.sampled_from([USUAL, Limits(4, 2, 2)])
