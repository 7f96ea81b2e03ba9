"""How large a batch fits, and what it costs: `KERAS_BACKEND=tensorflow python -m benchmarks.batches`, or jax, or torch.

A batch whole, in the pieces of a `GradientCache`, and beside the keys of a `CrossBatchMemory`. Each row is a process of its
own, which trains for three epochs of 1,024 examples, in one step or in many: `milliseconds` is the fastest for each
example, `peak_mb` the memory of the process at its peak, or the device's where there is a GPU. There the network is
ResNet-50 on images of 224 x 224, elsewhere three convolutions on 32 x 32. In rows of one dense layer, which costs nothing,
the memory is full from the start: what the search among so many keys takes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.loss import RESULTS, write

COLUMNS = ("card", "backend", "network", "batch", "piece", "remembered", "peak_mb", "milliseconds", "note")
CONVOLUTIONS, RESNET, DENSE = "three convolutions, 32 x 32", "ResNet-50, 224 x 224", "one dense layer"


class Case(NamedTuple):
    """What is measured; 0 stands for none."""

    network: str
    batch: int
    piece: int = 0  # rows of a piece
    remembered: int = 0  # keys


def cases(network: str) -> list[Case]:
    """A batch that is taken to fit, one 16 times larger, and how it is reached; the first is what all others are above."""
    small = [Case(network, batch) for batch in (8, 64)]
    large = [Case(network, 1024, piece) for piece in (64, 32, 0)]
    return [*small, *large, *[Case(network, batch) for batch in (128, 256, 512)], Case(network, 64, 0, 4096)]


def memories(sizes: tuple[int, ...]) -> list[Case]:
    """The search among the keys alone."""
    return [Case(DENSE, 64, 0, size) for size in sizes]


MILLION = 1_000_000
EXAMPLES = 1024  # of an epoch
TINY = [Case(CONVOLUTIONS, 8), Case(CONVOLUTIONS, 8, 4), Case(DENSE, 8, 0, 64)]


# One process


def embedder(network: str) -> tuple[object, tuple[int, ...]]:
    """The model, and the shape of one of its inputs."""
    import keras

    from tripletloss.layers import L2Embedding

    layers, convolution = keras.layers, {"kernel_size": 3, "padding": "same", "activation": "relu"}
    if network == RESNET:
        body = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
        return keras.Sequential([body, L2Embedding(128)]), (224, 224, 3)
    if network == DENSE:
        return keras.Sequential([keras.Input((128,)), L2Embedding(128)]), (128,)
    first = [keras.Input((32, 32, 3)), layers.Conv2D(32, **convolution), layers.Conv2D(32, **convolution)]
    return keras.Sequential([*first, layers.MaxPooling2D(), layers.Conv2D(64, **convolution), layers.GlobalAveragePooling2D(), L2Embedding(32)]), (32, 32, 3)  # fmt: skip


def card_of(backend: str) -> str:
    """The name of the GPU that the backend takes; "" without one."""
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    if backend == "jax":
        import jax

        return jax.devices()[0].device_kind if jax.default_backend() == "gpu" else ""
    return ""


def peak(backend: str) -> float:
    """MB of the device at its peak, or of this process."""
    if not card_of(backend):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    if backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    import jax

    return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20


def measure(case: Case) -> dict:
    """Train for three epochs on random data."""
    import keras
    import numpy as np

    import tripletloss

    backend = keras.backend.backend()
    keras.utils.set_random_seed(0)
    model, shape = embedder(case.network)
    x = np.random.default_rng(0).standard_normal((EXAMPLES, *shape), dtype="float32")
    y = np.arange(EXAMPLES) // 4
    if case.piece:
        model = tripletloss.training.GradientCache(model, case.piece)
    if case.remembered:
        model = tripletloss.training.CrossBatchMemory(model, case.remembered)
        if case.network == DENSE:  # full from the start, of classes of four
            model.build(x.shape)
            model.filled.assign(case.remembered)
            model.embeddings.assign(np.random.default_rng(1).normal(size=model.embeddings.shape))
            model.labels.assign(np.arange(case.remembered) // 4)
    model.compile("sgd", tripletloss.TripletLoss(margin=0.5), jit_compile=backend == "jax")  # pieces on a CPU: see 09_training
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        loss = model.fit(x, y, batch_size=case.batch, shuffle=False, verbose=0).history["loss"][0]
        times.append(time.perf_counter() - begin)
    if not np.isfinite(loss):
        raise ValueError(f"the loss is {loss}")
    return {"card": card_of(backend), "peak_mb": peak(backend), "milliseconds": 1e3 * min(times[1:]) / EXAMPLES}


# All of them


def in_process(case: Case, seconds: float) -> dict:
    """What a process of its own finds, or why it finds nothing."""
    command = [sys.executable, "-m", "benchmarks.batches", "--one", json.dumps(case)]
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    try:
        child = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"note": f"not finished in {seconds:.0f} s"}
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    if "out of memory" in child.stderr.lower() or "RESOURCE_EXHAUSTED" in child.stderr:
        return {"note": "out of memory"}
    return {"note": f"failed: {(child.stderr.strip().splitlines() or [f'exit status {child.returncode}'])[-1]}"[:160]}


def run(backend: str, some: list[Case], deadline: float, folder: Path) -> None:
    """Measure the cases in turn, and write what there is after each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in some:
        left = deadline - time.perf_counter()
        figures = in_process(case, left) if left > 5 else {"note": "not run: time"}
        figures |= {name: float(f"{figures[name]:.4g}") for name in ("peak_mb", "milliseconds") if name in figures}
        rows.append({"backend": backend, **case._asdict(), "note": "", **figures})
        print(*(f"{name}={value}" for name, value in rows[-1].items() if value != ""), flush=True)
        write(folder / f"batches-{backend}.csv", COLUMNS, rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800, help="after which no further row is measured")
    parser.add_argument("--gpu", action="store_true", help="ResNet-50, and a memory of a million keys")
    parser.add_argument("--tiny", action="store_true", help="three small rows: does it work?")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(Case(*json.loads(arguments.one)))))
        return
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if arguments.gpu:
        some = [Case(RESNET, 64), Case(RESNET, 1024, 64), Case(RESNET, 1024, 32), *memories((MILLION,)), *(Case(RESNET, n) for n in (512, 1024))]
    else:
        some = [*cases(CONVOLUTIONS), *memories((10_000, 100_000, MILLION))]
    run(backend, TINY if arguments.tiny else some, time.perf_counter() + arguments.seconds, arguments.output)


if __name__ == "__main__":
    main()
