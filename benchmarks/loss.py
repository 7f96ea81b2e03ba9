"""Time and peak memory of loss and gradient: `python -m benchmarks.loss --backend tensorflow [--quick]`.

Each case (n, d, distance, strategy) is timed in one process, all contenders in turn, round after round, so that a
noisy machine is noisy for all of them; a time counts as its ratio to the floor of that same process. Peak memory is
that of a process of its own for every contender, less the same at n = 64; `first_step_s` is how long its first step
took, which traces and compiles. Small batches are timed without any compilation too (`eager_milliseconds`). A contender
that fails, or takes too long, becomes a row that says so.

A process of its own is forked from one that has imported the libraries and has done nothing with them.
"""

import argparse
import csv
import importlib.metadata
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from benchmarks.contenders import BUILDERS, EAGER, FLOORS, KNOWN, LACKING, OWN_JIT, as_tensors, embeddings_and_labels

RESULTS = Path(__file__).parent / "results"
BASELINE = 64  # peak memory is counted above that of a run with so many rows
TOO_LONG = 10.0  # seconds: a contender that takes longer for one step, or is expected to, is not timed
MEMORY_SHARE = 0.75  # of the machine's memory, above which a process is stopped
SECONDS = 1.5  # of timing a case, at least
KNOWN_SIZES = (32, 64, 512, 2048, 8192)  # where a graph for one batch size is timed too
EAGER_SIZES = (32, 64, 512)  # where steps without compilation are timed
PACKAGES = (
    "tripletloss", "keras", "tensorflow", "jax", "torch", "numpy", "tensorflow-similarity", "tensorflow-addons",
    "pytorch-metric-learning", "sentence-transformers",
)  # fmt: skip


class Case(NamedTuple):
    """What all contenders are given."""

    n: int
    d: int = 128
    distance: str = "cosine"
    strategy: str = "semi-hard"
    dtype: str = "float32"
    members: int = 4  # rows of each class


QUICK = [Case(n) for n in (32, 512, 8192)]
FAMILY = [
    *[Case(64, strategy=strategy) for strategy in ("all/semi-hard", "all/all")],
    *[Case(512, strategy=strategy) for strategy in ("all/semi-hard", "all/hard", "all/all")],
    *[Case(512, strategy=strategy, members=members) for strategy in ("all/semi-hard", "all/all") for members in (51, 256)],
    Case(4096, strategy="all/all"),
    *[Case(8192, strategy=strategy) for strategy in ("all/semi-hard", "all/hard")],
]
FULL = [
    *[Case(n) for n in (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)],
    *[Case(8192, distance=name) for name in ("euclidean", "squared_euclidean", "inner_product", "snr")],
    Case(4096, distance="manhattan"),
    *[Case(n, strategy="hard") for n in (32, 512, 8192)],
    *[Case(n, d) for d in (32, 512) for n in (512, 8192)],
    *FAMILY,
]
IMPORTS = {  # what the process that others are forked from imports
    "tensorflow": ["tripletloss", "tensorflow_similarity.losses"],
    "addons": ["tensorflow_addons"],
    "jax": ["tripletloss"],
    "torch": ["tripletloss", "pytorch_metric_learning.losses", "sentence_transformers.losses"],
}
COMPARED = ("cosine",)  # the distances in which the peers are measured too


def libraries_of(backend: str, case: Case) -> list[str]:
    """The contenders of a case: peers where they have it, our own where it tells something new."""
    names = [name for name in BUILDERS[backend] if case.strategy not in LACKING.get(name, ())]
    if case.distance not in COMPARED:
        names = [name for name in names if "tripletloss" in name]
    ordinary = (case.d, case.distance, case.members) == (128, "cosine", 4)
    if backend == "tensorflow" and not ordinary:
        names = [name for name in names if name != OWN_JIT]
    if not ordinary or case.strategy != "semi-hard" or case.n not in KNOWN_SIZES:
        names = [name for name in names if name != KNOWN]
    return names


# One process: times, or a peak


def in_turn(steps: dict[str, Callable[[], object]], seconds: float = SECONDS) -> dict[str, list[float]]:
    """Seconds of every step, round after round: for so long and 5 rounds, but only 3 where they take 10 seconds."""
    times, start = {name: [] for name in steps}, time.perf_counter()
    for rounds in range(200):
        passed = time.perf_counter() - start
        if rounds >= 3 and (passed > 10 or (rounds >= 5 and passed > seconds)):
            break
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    return times


def timed(backend: str, case: Case, libraries: list[str]) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step of the floors and of the libraries, interleaved; for small batches those of eager steps too."""
    x, y = as_tensors(backend, *embeddings_and_labels(case.n, case.d, case.members), case.dtype)

    def measured(steps: dict[str, Callable]) -> dict[str, list[float]]:
        for step in steps.values():
            for _ in range(2 if case.n < 8192 else 1):  # the first traces and compiles
                step(x, y)
        return in_turn({name: lambda step=step: step(x, y) for name, step in steps.items()})

    def built(builders: dict[str, Callable]) -> dict[str, Callable]:
        return {name: builders[name](case.distance, case.strategy) for name in libraries if name in builders}

    times = {"steps": measured(built(BUILDERS[backend]) | FLOORS[backend]()), "eager": {}}
    if case.n in EAGER_SIZES:
        times["eager"] = measured(built(EAGER[backend]))
    return times


def peak(backend: str, case: Case, libraries: list[str]) -> tuple[float, float, float]:
    """This process's peak memory in MB (on a GPU: the device's) after one step, and the seconds of that and of another."""
    x, y = as_tensors(backend, *embeddings_and_labels(case.n, case.d, case.members), case.dtype)
    step = BUILDERS[backend][libraries[0]](case.distance, case.strategy)
    first, second = seconds_of(lambda: step(x, y)), seconds_of(lambda: step(x, y))
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**20, first, second
    if backend == "jax":
        import jax

        if jax.default_backend() == "gpu":
            return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20, first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, first, second


def seconds_of(step: Callable[[], object]) -> float:
    """How long it takes once."""
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def answer(sender: Connection, what: Callable, *arguments: object) -> None:
    """Send what a function returns, and why there is nothing if it fails."""
    try:
        sender.send((what(*arguments), ""))
    except Exception as error:
        sender.send((None, f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:160]))


def environment(backend: str, dtype: str) -> dict[str, str]:
    """What the libraries want to be told before they are imported."""
    exact = dtype != "tf32"  # a GPU may round the factors of a float32 product to 10 bits: only where asked to
    variables = {
        "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest" if exact else "tensorfloat32",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0" if exact else "1",
    }  # fmt: skip
    # TensorFlow Similarity needs Keras 2; this package imports Keras 3 whatever it says.
    return variables | ({"TF_USE_LEGACY_KERAS": "1"} if backend == "tensorflow" else {})


def in_process(what: Callable, backend: str, case: Case, libraries: list[str]) -> tuple[object, str]:
    """What a process of its own returns, or None and why there is nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS[backend])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(sender, what, backend, case, libraries))
    with mock.patch.dict(os.environ, environment(backend, case.dtype)):  # that of the server, which the first call starts
        process.start()
    sender.close()
    limit = MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    while not receiver.poll(0.1):
        if resident(process.pid) > limit:
            process.kill()
            process.join()
            return None, f"out of memory: over {limit / 2**30:.0f} GB"
    try:
        reply = receiver.recv()
    except EOFError:
        reply = None, "failed: the process ended without an answer"
    process.join()
    return reply


def resident(process: int) -> int:
    """Bytes that a process holds in memory; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


# All processes of a backend


def measure(backend: str, case: Case, before: dict) -> list[dict]:
    """One row for each contender; `before` keeps the peak at the baseline, and the seconds of the largest case so far."""
    libraries = libraries_of(backend, case)
    rows = {name: {"library": name, "backend": backend, **case._asdict(), "note": ""} for name in libraries}
    for name in libraries:
        rows[name] |= weigh(backend, case, name, before)
    runnable = [name for name in libraries if not rows[name]["note"]]
    times, why = in_process(timed, backend, case, runnable) if runnable else ({}, "")
    for name in runnable:
        rows[name] |= {"note": why} if why else summary(times["steps"], name)
        if not why and name in times["eager"]:
            rows[name]["eager_milliseconds"] = round(statistics.median(times["eager"][name]) * 1e3, 3)
    return list(rows.values())


def weigh(backend: str, case: Case, name: str, before: dict) -> dict:
    """Peak memory and first step of a contender, or a note why it is not to be timed."""
    baseline, kind = Case(BASELINE, strategy=case.strategy, dtype=case.dtype), (name, *case[1:])
    if (name, baseline) not in before:
        before[name, baseline] = in_process(peak, backend, baseline, [name])
    base, why = before[name, baseline]
    last_n, last_seconds, why = before.setdefault(kind, (BASELINE, 0.0, why))
    expected = last_seconds * (case.n / last_n) ** 2 if last_n >= 1024 else 0.0
    if not why and expected > TOO_LONG:
        why = f"not run: {expected:.0f} s expected from {last_seconds:.1f} s at n={last_n}"
    if why:
        return {"note": why}
    figures, why = (base, "") if case == baseline else in_process(peak, backend, case, [name])
    if why:
        before[kind] = (case.n, last_seconds, why)  # no larger case need be tried
        return {"note": why}
    megabytes, first, seconds = figures
    before[kind] = (case.n, seconds, "")
    slow = f"not timed: a step took {seconds:.0f} s" if seconds > TOO_LONG else ""
    return {"peak_mb": round(megabytes - base[0], 1), "first_step_s": round(first, 3), "note": slow}


def summary(seconds: dict[str, list[float]], name: str) -> dict:
    """Milliseconds of a contender and of the faster floor, their ratio, and the spread of it."""
    floor = min(statistics.median(seconds["whole"]), statistics.median(seconds["blocked"]))
    ratios = [second / floor for second in seconds[name]]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {
        "milliseconds": round(median * floor * 1e3, 3), "floor_milliseconds": round(floor * 1e3, 3),
        "ratio": round(median, 3), "ratio_quarter": round(low, 3), "ratio_three_quarters": round(high, 3),
        "rounds": len(ratios),
    }  # fmt: skip


COLUMNS = (
    "backend", "library", "distance", "strategy", "dtype", "members", "n", "d", "milliseconds", "floor_milliseconds", "ratio",
    "ratio_quarter", "ratio_three_quarters", "rounds", "peak_mb", "first_step_s", "eager_milliseconds", "note",
)  # fmt: skip


def machine() -> dict[str, str]:
    """The machine and the versions that a result depends on."""
    known = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if ":" in line}
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    installed = {name: _version(name) for name in PACKAGES}
    described = {
        "processor": known.get("model name", platform.processor()), "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GB", "system": platform.system(), "python": platform.python_version(), "gpu": _gpu(),
    }  # fmt: skip
    return {name: value for name, value in (described | installed).items() if value}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _gpu() -> str:
    """Name, memory and driver of the graphics cards, as their own program tells it."""
    program = shutil.which("nvidia-smi")
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip().replace("\n", "; ") if program else ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def write(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """The rows as a table, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def run(backend: str, cases: list[Case], folder: Path) -> None:
    """Measure all cases, and write what there is after each."""
    write(folder / f"machine-{backend}.csv", ("name", "value"), [{"name": k, "value": v} for k, v in machine().items()])
    rows, before = [], {}
    for case in cases:
        if backend == "addons" and case.distance not in COMPARED:
            continue
        new = measure(backend, case, before)
        rows += new
        write(folder / f"loss-{backend}.csv", COLUMNS, rows)
        for row in new:
            figures = f"{row['ratio']:8.2f} x floor {row['peak_mb']:9.1f} MB {row['first_step_s']:6.2f} s" if "ratio" in row else row["note"]
            print(f"{backend:10s} n={case.n:<6d} d={case.d:<4d} {case.distance:17s} {case.strategy:13s} {row['library']:27s} {figures}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", required=True, choices=sorted(BUILDERS), help="whose contenders are measured")
    parser.add_argument("--quick", action="store_true", help="three batch sizes of one kind")
    parser.add_argument("--dtype", default="float32", help="of the embeddings, such as bfloat16; tf32 is float32 with products in TensorFloat-32, on a GPU")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the tables")
    arguments = parser.parse_args()
    cases = [case._replace(dtype=arguments.dtype) for case in (QUICK if arguments.quick else FULL)]
    run(arguments.backend, cases, arguments.output)


if __name__ == "__main__":
    main()
