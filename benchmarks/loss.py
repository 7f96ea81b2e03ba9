"""Time and peak memory of loss and gradient: `python -m benchmarks.loss --backend tensorflow [--quick]`.

Each case (n, d, distance, strategy) is timed in one process, all contenders in turn, round after round, so that a
noisy machine is noisy for all of them; a time counts as its ratio to the floor of that same process. Peak memory is
that of a process of its own for every contender, less the same at n = 64. A contender that fails there, or would
take too long by what it took before, becomes a row that says so.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.contenders import BUILDERS, FLOORS, LACKING, OWN, OWN_JIT, as_tensors, embeddings_and_labels

RESULTS = Path(__file__).parent / "results"
BASELINE = 64  # peak memory is counted above that of a run with so many rows
TOO_LONG = 10.0  # seconds: a contender expected to take longer for one step is not run
MEMORY_SHARE = 0.75  # of the machine's memory, above which a process is stopped
ROUNDS, SECONDS = 5, 2.0  # of timing a case, at least
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
    *[Case(512, strategy=strategy) for strategy in ("all/semi-hard", "all/hard", "all/all")],
    *[Case(512, strategy=strategy, members=256) for strategy in ("all/semi-hard", "all/all")],
    Case(4096, strategy="all/all"),
    *[Case(8192, strategy=strategy) for strategy in ("all/semi-hard", "all/hard")],
]
FULL = [
    *[Case(n) for n in (32, 128, 512, 2048, 4096, 8192, 16384, 32768)],
    *[Case(8192, distance=name) for name in ("euclidean", "squared_euclidean", "inner_product", "snr")],
    Case(4096, distance="manhattan"),
    *[Case(n, strategy="hard") for n in (32, 512, 8192, 32768)],
    *[Case(n, d) for d in (32, 512) for n in (512, 8192)],
    *FAMILY,
]
COMPARED = ("cosine",)  # the distances in which the peers are measured too


# One process: times, or a peak


def timed(backend: str, case: Case, libraries: list[str]) -> dict[str, list[float]]:
    """Seconds of every step of the floors and of the libraries, interleaved."""
    x, y = as_tensors(backend, *embeddings_and_labels(case.n, case.d, case.members), case.dtype)
    steps = {name: BUILDERS[backend][name](case.distance, case.strategy) for name in libraries} | FLOORS[backend]()
    for step in steps.values():
        step(x, y), step(x, y)  # the first traces and compiles
    seconds, start = {name: [] for name in steps}, time.perf_counter()
    while len(seconds["whole"]) < ROUNDS or (time.perf_counter() - start < SECONDS and len(seconds["whole"]) < 200):
        for name, step in steps.items():
            begin = time.perf_counter()
            step(x, y)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def peak(backend: str, case: Case, library: str) -> tuple[float, float]:
    """This process's peak memory in MB (on a GPU: the device's) after one step, and the seconds of another."""
    x, y = as_tensors(backend, *embeddings_and_labels(case.n, case.d, case.members), case.dtype)
    step = BUILDERS[backend][library](case.distance, case.strategy)
    step(x, y)
    begin = time.perf_counter()
    step(x, y)
    seconds = time.perf_counter() - begin
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**20, seconds
    if backend == "jax":
        import jax

        if jax.default_backend() == "gpu":
            return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20, seconds
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds


def in_process(what: str, backend: str, case: Case, libraries: list[str]) -> tuple[object, str]:
    """What a fresh process answers, or None and why there is no answer."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend}
    exact = case.dtype != "tf32"  # a GPU may round the factors of a float32 product to 10 bits: only where asked to
    environment |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest" if exact else "tensorfloat32", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0" if exact else "1"}
    if backend == "tensorflow":  # TensorFlow Similarity needs Keras 2; this package imports Keras 3 whatever it says
        environment["TF_USE_LEGACY_KERAS"] = "1"
    request = json.dumps([what, backend, case, libraries])
    command = [sys.executable, "-m", "benchmarks.loss", "--answer", request]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    while True:
        try:
            output, errors = process.communicate(timeout=0.1)
            break
        except subprocess.TimeoutExpired:
            if resident(process.pid) > limit:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                return None, f"out of memory: over {limit / 2**30:.0f} GB"
    if process.returncode:
        lines = [line.strip() for line in errors.splitlines() if "Error" in line and "File" not in line]
        return None, f"failed: {(lines or [f'exit status {process.returncode}'])[-1][:160]}"
    return json.loads(output.splitlines()[-1]), ""


def resident(process: int) -> int:
    """Bytes that a process holds in memory; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


# All processes of a backend


def measure(backend: str, case: Case, before: dict) -> list[dict]:
    """One row for each contender; `before` keeps the peak at the baseline, and the seconds of the largest case so far."""
    libraries = [name for name in BUILDERS[backend] if case.distance in COMPARED or name in (OWN, OWN_JIT)]
    libraries = [name for name in libraries if case.strategy not in LACKING.get(name, ())]
    if not libraries:
        return []
    rows = {name: {"library": name, "backend": backend, **case._asdict(), "note": ""} for name in libraries}
    for name in libraries:
        kind, base = (name, *case[1:]), (name, case.strategy)
        if base not in before:
            before[base] = in_process("peak", backend, Case(BASELINE, strategy=case.strategy, dtype=case.dtype), [name])
        answer, why = before[base]
        last_n, last_seconds, why = before.setdefault(kind, (BASELINE, 0.0, why))
        expected = last_seconds * (case.n / last_n) ** 2 if last_n >= 1024 else 0.0
        if not why and expected > TOO_LONG:
            why = f"not run: {expected:.0f} s expected from {last_seconds:.1f} s at n={last_n}"
        if not why:
            answer, why = in_process("peak", backend, case, [name])
            if not why:
                rows[name]["peak_mb"] = round(answer[0] - before[base][0][0], 1)
                before[kind] = (case.n, answer[1], "")
            elif case.n > 1024:
                before[kind] = (case.n, last_seconds, why)  # no larger case need be tried
        rows[name]["note"] = why
    runnable = [name for name in libraries if not rows[name]["note"]]
    seconds, why = in_process("timed", backend, case, runnable)
    for name in runnable:
        rows[name] |= {"note": why} if why else summary(seconds, name)
    return list(rows.values())


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
    "ratio_quarter", "ratio_three_quarters", "rounds", "peak_mb", "note",
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
            figures = f"{row['ratio']:8.2f} x floor {row.get('peak_mb', float('nan')):9.1f} MB" if "ratio" in row else row["note"]
            print(f"{backend:10s} n={case.n:<6d} d={case.d:<4d} {case.distance:17s} {case.strategy:13s} {row['library']:27s} {figures}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=sorted(BUILDERS), help="whose contenders are measured")
    parser.add_argument("--quick", action="store_true", help="three batch sizes of one kind")
    parser.add_argument("--dtype", default="float32", help="of the embeddings, such as bfloat16; tf32 is float32 with products in TensorFloat-32, on a GPU")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the tables")
    parser.add_argument("--answer", help=argparse.SUPPRESS)  # what a process of its own is asked
    arguments = parser.parse_args()
    if arguments.answer:
        what, backend, case, libraries = json.loads(arguments.answer)
        case = Case(*case)
        answer = peak(backend, case, libraries[0]) if what == "peak" else timed(backend, case, libraries)
        print(json.dumps(answer))
        return
    if not arguments.backend:
        parser.error("--backend is needed")
    cases = [case._replace(dtype=arguments.dtype) for case in (QUICK if arguments.quick else FULL)]
    run(arguments.backend, cases, arguments.output)


if __name__ == "__main__":
    main()
