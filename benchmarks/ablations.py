"""The engine's tricks, each with and without: `python -m benchmarks.ablations --backend jax [--output DIR]`.

"Without" is the engine with a function of its modules replaced by a plainer one; the package has no switches for it. The
two are timed in turn, in one process; the ratio is the time without over the time with, so that above 1 the trick
pays. Both must give the same loss, but for "class references": that one buys digits, and its ratio is its price.
"""

import argparse
import importlib
import os
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarks.contenders import BUILDERS, OWN, OWN_JIT, Step, as_tensors, embeddings_and_labels
from benchmarks.loss import RESULTS, SECONDS, environment, in_turn, write

COLUMNS = ("backend", "trick", "n", "members", "strategy", "with_milliseconds", "without_milliseconds", "ratio")
MEMBERS = 4  # rows of each class


class Trick(NamedTuple):
    """Where it is measured, and what stands in the place of a module's function; modules without "tripletloss."."""

    name: str
    sizes: tuple[int, ...]
    without: Mapping[str, Callable]
    with_it: Mapping[str, Callable] = MappingProxyType({})
    strategy: str = "semi-hard"
    is_exact: bool = True  # both give the same loss


# What is put in the place of the engine's functions

ORIGINALS: dict[str, Callable] = {}  # what stood there


def in_one_table(batch: Any, distance: Any, *strategies: str, relation: str = "equal") -> Any:
    """`mine_batch` for small batches: the definition."""
    from tripletloss import mining

    return mining.mine_small(batch, distance, *strategies)


def in_blocks(batch: Any, distance: Any, *strategies: str, relation: str = "equal") -> Any:
    """`mine_batch` for large batches: listed positives, negatives in few passes, block by block."""
    from tripletloss import mining

    return mining.Triplets(*mining.mine_in_blocks(batch, distance, mining.mine_table, *strategies))


def plain_argmax(values: Any) -> tuple[Any, Any]:
    """`argmax_tiled` by a maximum, and a comparison of the whole row with it."""
    from keras import ops

    from tripletloss import _tables

    value = ops.max(values, axis=1)
    return _tables.first_match(values == value[:, None]), value


def masked_negative(table: Any, threshold: Any, label: Any, key_labels: Any, strategy: str) -> tuple[Any, Any]:
    """`quick_negative` by the masks of the definition."""
    from tripletloss import mining

    negative = mining.pick_negative(table, label[:, None] != key_labels[None], threshold, strategy)
    return negative, label == label


def sum_all_in_tables(batch: Any, distance: Any, spec: Any, sum_mined: Callable) -> Any:
    """`sum_all` by tables alone."""
    from keras import ops

    from tripletloss import _sums, _tables

    index = _tables.class_index(batch.labels, batch.key_labels, batch.self_index, batch.keys[2])
    return _sums.sum_in_tables(batch, index, distance, spec, needed=ops.max(index.positives) >= 0)


def put_in_order(*arguments: Any) -> Any:
    """`weigh_mined_negatives` by sorting alone, as for many positives."""
    return ORIGINALS["_sums.weigh_mined_negatives"](*arguments[:-1], lists_few=False)


TRICKS = (
    Trick("one table", (64, 256, 1024), {"losses.mine_batch": in_blocks}, {"losses.mine_batch": in_one_table}),
    Trick("blocks", (1024, 2048, 8192), {"losses.mine_batch": in_one_table}, {"losses.mine_batch": in_blocks}),
    Trick("tiles", (1024, 2048, 8192), {"_tables.argmax_tiled": plain_argmax, "_blocks.argmax_tiled": plain_argmax}),
    Trick("one over the difference", (1024, 2048, 8192), {"_blocks.quick_negative": masked_negative}),
    Trick("listed triplets", (1024, 2048, 4096), {"losses.sum_all": sum_all_in_tables}, strategy="all/semi-hard"),
    Trick("few positives listed", (64, 512), {"_sums.weigh_mined_negatives": put_in_order}, strategy="all/semi-hard"),
    Trick("class references", (64, 512), {"mining.has_ranking_rows": lambda distance: False}, is_exact=False),
)
SMALL_BLOCKS = {f"{module}.block_size": lambda: 1024 for module in ("distribution", "mining", "_blocks", "_sums")}


# With and without


def replaced(functions: Mapping[str, Callable]) -> ExitStack:
    """A context in which modules of the package have other functions."""
    stack = ExitStack()
    for name, function in functions.items():
        module, attribute = name.split(".")
        place = importlib.import_module(f"tripletloss.{module}")
        ORIGINALS.setdefault(name, getattr(place, attribute))
        stack.enter_context(mock.patch.object(place, attribute, function))
    return stack


def built(backend: str, trick: Trick, functions: Mapping[str, Callable], x: object, y: object) -> tuple[Step, float]:
    """A step with other functions, traced, and its loss."""
    from tripletloss import distribution

    step = BUILDERS[backend][OWN_JIT if backend == "jax" else OWN]("cosine", trick.strategy)

    def step_replaced(x: object, y: object) -> object:
        with replaced(functions):
            return step(x, y)

    distribution._jitted.cache_clear()  # what JAX has compiled with other functions
    value = float(step_replaced(x, y)[0])
    return (step_replaced if backend == "torch" else step), value  # a traced step keeps its functions


def compare(backend: str, trick: Trick, n: int, seconds: float = SECONDS) -> dict:
    """One row of the table."""
    x, y = as_tensors(backend, *embeddings_and_labels(n, 128, MEMBERS), "float32")
    (step, value), (plain_step, plain_value) = (built(backend, trick, which, x, y) for which in (trick.with_it, trick.without))
    if trick.is_exact:
        np.testing.assert_allclose(value, plain_value, rtol=1e-5, err_msg=f"{trick.name}, n={n}: with and without differ")
    for warm_up in (step, plain_step):
        warm_up(x, y)
    times = in_turn({"with": lambda: step(x, y), "without": lambda: plain_step(x, y)}, seconds)
    ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
    milliseconds = (round(statistics.median(times[name]) * 1e3, 3) for name in ("with", "without"))
    figures = backend, trick.name, n, MEMBERS, trick.strategy, *milliseconds, round(ratio, 3)
    return dict(zip(COLUMNS, figures, strict=True))


def run(backend: str, tiny: bool, folder: Path) -> None:
    """Measure all tricks at all sizes, and write what there is after each."""
    rows = []
    for trick in TRICKS:
        for n in (64,) if tiny else trick.sizes:
            with replaced(SMALL_BLOCKS) if tiny else ExitStack():
                rows.append(compare(backend, trick, n, *([0.0] if tiny else [])))
            write(folder / f"ablations-{backend}.csv", COLUMNS, rows)
            print(*rows[-1].values(), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", required=True, choices=("tensorflow", "jax", "torch"))
    parser.add_argument("--tiny", action="store_true", help="64 rows in small blocks: does it work?")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the table")
    arguments = parser.parse_args()
    os.environ.update(environment(arguments.backend, "float32"))
    run(arguments.backend, arguments.tiny, arguments.output)


if __name__ == "__main__":
    main()
