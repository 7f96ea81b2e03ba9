"""Draws new batches for so many seconds: `python tests/fuzz/for_a_while.py 600 tensorflow jax torch`.

Properties and backends take turns. Each turn has a seed of its own, printed with the command that repeats it.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROPERTIES = HERE / "test_properties.py"
TURN = 120  # seconds after which others have their turn


def turn(backend, name, seed, seconds):
    """One property, with new batches until the time is up; whether it failed."""
    test = f"{PROPERTIES.relative_to(Path.cwd()) if PROPERTIES.is_relative_to(Path.cwd()) else PROPERTIES}::{name}"
    command = [sys.executable, "-m", "pytest", "--hypothesis-profile=long", f"--hypothesis-seed={seed}", test]
    print(f"== KERAS_BACKEND={backend} {' '.join(command)}", flush=True)
    started, settings = time.monotonic(), {"KERAS_BACKEND": backend, "FUZZ_UNTIL": str(time.time() + seconds)}
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    print(f"{'ok' if done.returncode == 0 else done.stdout + done.stderr} after {time.monotonic() - started:.0f} s", flush=True)
    return done.returncode != 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("backends", nargs="+", choices=["tensorflow", "jax", "torch"])
    parser.add_argument("--seed", type=int, default=None, help="of the first turn; at random if not given")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    seed = random.SystemRandom().randrange(10**9) if arguments.seed is None else arguments.seed
    turns = [(backend, name) for name in re.findall(r"^def (test_\w+)", PROPERTIES.read_text(), re.M) for backend in arguments.backends]
    random.Random(seed).shuffle(turns)
    failed, done = [], 0
    while (left := end - time.monotonic()) > 0:
        backend, name = turns[done % len(turns)]
        if turn(backend, name, seed + done, min(left, TURN)):
            failed.append(f"{name} on {backend}, seed {seed + done}")
        done += 1
    print("\n".join([f"{done} turns from seed {seed}, {len(failed)} failed", *failed]))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
