"""Time and memory of loss and gradient on a GPU: `KERAS_BACKEND=jax python -m benchmarks.gpu`, or torch.

All in one process, under `jax.jit` or on PyTorch eagerly. Each row has the milliseconds of loss and gradient and of the
bare product `x @ x.T` (the floor: whole, or in blocks of rows where the table has more than 2^31 numbers), medians of at
least 5 rounds. `dtype` is "float32" (exact products), "tf32" (float32 with products in TensorFloat-32) or "bfloat16"
(embeddings; the loss widens them to float32, and its products are in TensorFloat-32; the floor's are in bfloat16).

`peak_mb` is the device's memory at its peak during the steps. PyTorch tells it for each case. JAX tells only the peak of
the process so far: the first cases come in rising order of n and without floors in between, so that each raises it; a
case that does not raise it has no figure.

What fails, or would take too long, becomes a row with a note. The table is written after each case.
"""

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import contenders
from benchmarks.contenders import Step, as_tensors, embeddings_and_labels
from benchmarks.loss import machine, seconds_of, write

COLUMNS = (
    "card", "backend", "library", "n", "d", "dtype", "strategy", "block_size", "floor_milliseconds", "milliseconds", "ratio",
    "peak_mb", "first_step_s", "rounds", "differing_share", "note",
)  # fmt: skip
OWN, PEER, DIFFERING = "tripletloss", "pytorch-metric-learning", "mined negatives, tf32 against exact"
SECONDS = 0.5  # of timing a case, at least
TOO_LONG = 3.0  # seconds: a step that is expected to take longer is not run
MILLION = 2**20


class Case(NamedTuple):
    """What is measured."""

    n: int
    d: int = 128
    dtype: str = "float32"
    strategy: str = "semi-hard"
    block_size: int = 64 * MILLION  # numbers; the default on a GPU
    library: str = OWN


def cases(sizes: tuple[int, ...], blocks: tuple[int, int, int]) -> list[Case]:
    """The most important first; the middle one of the sizes of blocks is the default."""
    small, default, large = blocks
    middle, *larger = [n for n in sizes if n >= 8192] or sizes[-1:]
    best = larger[0] if larger else middle
    plain = Case(best, block_size=default)
    return [
        *[plain._replace(n=n) for n in sizes],
        *[plain._replace(n=n, library=PEER) for n in sizes],
        plain._replace(n=middle, library=DIFFERING),
        *[plain._replace(dtype=dtype) for dtype in ("tf32", "bfloat16")],
        *[plain._replace(block_size=block) for block in (small, large)],
        *[plain._replace(n=middle, strategy=strategy) for strategy in ("all/semi-hard", "all/all")],
        *[plain._replace(d=d) for d in (512, 1024)],
        *[plain._replace(n=n, dtype=dtype) for dtype in ("tf32", "bfloat16") for n in sizes if n != best],
        *[plain._replace(n=n, block_size=block) for n in (middle, *larger[1:]) for block in (small, large)],
    ]


FULL = cases((512, 2048, 8192, 16384, 32768, 65536), (8 * MILLION, 64 * MILLION, 256 * MILLION))
TINY = cases((32, 64), (2**10, 2**12, 2**14))


# What differs between the backends


class Jax:
    """Steps under `jax.jit`."""

    name = "jax"

    def card(self) -> str:
        """The device's name."""
        import jax

        return jax.devices()[0].device_kind

    def set_precision(self, exact: bool) -> None:
        """Exact products of float32, or TensorFloat-32."""
        import jax

        jax.config.update("jax_default_matmul_precision", "highest" if exact else "tensorfloat32")

    def step(self, case: Case) -> Step:
        """Loss and gradient; compiled anew, since another size of blocks would not be seen."""
        return contenders.jax_step(contenders.own_loss("cosine", case.strategy))

    def product(self, rows: object, x: object) -> object:
        """Kept from being made only where it is looked at."""
        import jax

        return jax.lax.optimization_barrier(rows @ x.T)

    def floor(self, x: object, rows: int) -> Callable[[], object]:
        """The product, whole or `rows` at a time."""
        import jax

        if rows >= len(x):
            compiled = jax.jit(lambda x: self.product(x, x))
        else:
            compiled = jax.jit(lambda x: jax.lax.map(lambda part: self.product(part, x)[0, 0], x.reshape(-1, rows, x.shape[1])))
        return lambda: jax.block_until_ready(compiled(x))

    def start_peak(self) -> float:
        """MB at the peak so far."""
        import jax

        return ((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)) / 2**20

    def peak(self, before: float) -> float | None:
        """MB at the peak, if it has risen."""
        now = self.start_peak()
        return now if now > before else None

    def forget(self) -> None:
        """Free what earlier cases compiled."""
        import jax

        jax.clear_caches()


class Torch:
    """Steps as PyTorch runs them, one operation after the other."""

    name = "torch"

    def card(self) -> str:
        """The device's name."""
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

    def set_precision(self, exact: bool) -> None:
        """Exact products of float32, or TensorFloat-32."""
        import torch

        torch.set_float32_matmul_precision("highest" if exact else "high")

    def step(self, case: Case) -> Step:
        """Loss and gradient."""
        loss = {OWN: contenders.own_loss, PEER: contenders.metric_learning}[case.library]
        return contenders.torch_step(loss("cosine", case.strategy))

    def floor(self, x: object, rows: int) -> Callable[[], object]:
        """The product, whole or `rows` at a time."""
        import torch

        def product() -> None:
            for part in x.split(rows):
                part @ x.T
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return product

    def start_peak(self) -> float:
        """Begin to watch."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return 0.0

    def peak(self, before: float) -> float | None:
        """MB at the peak."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None

    def forget(self) -> None:
        """Free what a failure may have left."""
        import torch

        torch.cuda.empty_cache()


# Measuring


def median_milliseconds(step: Callable[[], object]) -> tuple[float, int]:
    """Of at least 5 rounds and SECONDS, and how many those were."""
    times, start = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - start < SECONDS and len(times) < 100):
        times.append(seconds_of(step))
    return statistics.median(times) * 1e3, len(times)


def own_figures(backend: Jax | Torch, case: Case, expected: float) -> dict:
    """Time, memory and first step of a case."""
    import tripletloss

    if expected > TOO_LONG:
        return {"note": f"not run: {expected:.1f} s expected"}
    backend.set_precision(case.dtype == "float32")
    tripletloss.distribution.set_block_size(case.block_size)
    x, y = as_tensors(backend.name, *embeddings_and_labels(case.n, case.d), case.dtype)
    before, step = backend.start_peak(), backend.step(case)
    first = seconds_of(lambda: step(x, y))
    second = seconds_of(lambda: step(x, y))
    if second > TOO_LONG:
        return {"milliseconds": second * 1e3, "first_step_s": first, "rounds": 1, "note": "one round"}
    milliseconds, rounds = median_milliseconds(lambda: step(x, y))
    return {"milliseconds": milliseconds, "first_step_s": first, "rounds": rounds, "peak_mb": backend.peak(before)}


def floor_milliseconds(backend: Jax | Torch, n: int, d: int, dtype: str) -> float:
    """The bare product of embeddings with themselves."""
    backend.set_precision(dtype == "float32")
    x, _ = as_tensors(backend.name, *embeddings_and_labels(n, d), dtype)
    floor = backend.floor(x, min(n, 2**31 // n))
    floor(), floor()
    return median_milliseconds(floor)[0]


def differing_share(backend: Jax | Torch, case: Case) -> dict:
    """In what share of the anchors another negative is mined when products are in TensorFloat-32."""
    from keras import ops

    import tripletloss

    tripletloss.distribution.set_block_size(case.block_size)
    x, y = as_tensors(backend.name, *embeddings_and_labels(case.n, case.d), "float32")
    chosen = []
    for exact in (True, False):
        backend.set_precision(exact)
        chosen.append(ops.convert_to_numpy(tripletloss.mine_triplets(y, x).negative))
    return {"differing_share": float((chosen[0] != chosen[1]).mean())}


def run(backend: Jax | Torch, some: list[Case], deadline: float, folder: Path) -> None:
    """Measure all cases until the deadline, and write what there is after each."""
    folder.mkdir(parents=True, exist_ok=True)
    card = backend.card()
    described = {"card": card, "default_block_size": 64 * MILLION} | machine()
    write(folder / "machine-gpu.csv", ("name", "value"), [{"name": k, "value": v} for k, v in described.items()])
    rows, floors, last = [], {}, {}
    floor_milliseconds(backend, 64, 8, "float32")  # wakes the card up
    first_group = len({case.n for case in some})
    for number, case in enumerate(some):
        row, kind = {"card": card, "backend": backend.name, **case._asdict(), "note": ""}, case[1:]
        last_n, last_seconds = last.get(kind, (case.n, 0.0))
        try:
            if time.perf_counter() > deadline:
                row["note"] = "not run: time"
            elif case.library == DIFFERING:
                row |= differing_share(backend, case)
            else:
                row |= own_figures(backend, case, last_seconds * (case.n / last_n) ** 2 if last_n >= 2048 else 0.0)
        except Exception as error:  # one failure is a row
            row["note"] = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:160]
        if "milliseconds" in row:
            last[kind] = case.n, row["milliseconds"] / 1e3
        rows.append(row)
        if row["note"].startswith("failed"):
            gc.collect()
            backend.forget()
        for unfinished in rows if number + 1 >= first_group else ():  # not between the first cases: floors raise JAX's peak
            complete(backend, unfinished, floors, deadline)
        write(folder / f"gpu-{backend.name}.csv", COLUMNS, [rounded(row) for row in rows])
        print(*(f"{name}={value}" for name, value in rounded(row).items() if value not in ("", None) and name != "card"), flush=True)


def complete(backend: Jax | Torch, row: dict, floors: dict, deadline: float) -> None:
    """Add the floor and the ratio to it, unless they are there."""
    if "milliseconds" not in row or "ratio" in row:
        return
    key = row["n"], row["d"], row["dtype"]
    if key not in floors and time.perf_counter() < deadline:
        try:
            floors[key] = floor_milliseconds(backend, *key)
        except Exception as error:
            floors[key] = None
            row["note"] = f"no floor: {type(error).__name__}"
    if floors.get(key):
        row |= {"floor_milliseconds": floors[key], "ratio": row["milliseconds"] / floors[key]}


def rounded(row: dict) -> dict:
    """Floats with four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=200, help="after which no further case is begun")
    parser.add_argument("--tiny", action="store_true", help="two small sizes, on a CPU too: does it work?")
    parser.add_argument("--output", type=Path, default=Path("build/gpu"), help="folder for the tables")
    arguments = parser.parse_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if arguments.tiny:
        global SECONDS
        SECONDS = 0.0
    backend = {"jax": Jax, "torch": Torch}[os.environ.get("KERAS_BACKEND", "jax")]()
    some = [case for case in (TINY if arguments.tiny else FULL) if backend.name == "torch" or case.library != PEER]
    run(backend, some, time.perf_counter() + arguments.seconds, arguments.output)


if __name__ == "__main__":
    main()
