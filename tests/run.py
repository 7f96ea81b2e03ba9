"""Runs parts of the tests side by side, and says at the end what ran, where the time went and what was skipped.

    python tests/run.py tensorflow jax pages package     `make test`; each part is a pytest of its own
    python tests/run.py --every jax                      every combination of one part

A part compiles and traces once what its tests share, so each core gets a part rather than a share of every part. What a part
prints while it runs stands in build/tests/PART.txt.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
THERE = ROOT / "build" / "tests"
BACKENDS = ("tensorflow", "jax", "torch")
PAGES = ["tests/project/test_notebooks.py", "tests/project/test_pages.py", "tests/site"]
# The longest first, so that no core waits for another at the end.
PARTS = {
    "tensorflow": ["tests/backends", "tests/fuzz"],
    "jax": ["tests/backends"],  # each drawn batch has other shapes, for which it would compile every operation
    "pages": PAGES,
    "package": ["tests/project", *(f"--ignore={path}" for path in PAGES)],
    "torch": ["tests/backends", "tests/fuzz"],
}


def run(part, every, workers, coverage):
    """One part in a process of its own: its seconds and exit status."""
    results, started = THERE / f"{part}.xml", time.monotonic()
    command = [sys.executable, "-m", "pytest", *PARTS[part], f"--junitxml={results}", *(["-m", ""] if every else [])]
    command += ["-n", str(workers), "--dist", "loadgroup"] if workers > 1 else []
    command += ["--cov", "--cov-report=", "--cov-fail-under=0"] if coverage else []
    environment = {
        **os.environ,
        "KERAS_BACKEND": part if part in BACKENDS else "tensorflow",
        "COVERAGE_FILE": str(THERE / f"coverage.{part}"),
        # Or the threads of one part would wait for those of another.
        **dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"),
    }
    with open(THERE / f"{part}.txt", "w") as output:
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
    seconds = time.monotonic() - started
    if status:
        print((THERE / f"{part}.txt").read_text())
    print(f"{part}: {'failed' if status else 'passed'} after {clock(seconds)}", flush=True)
    return seconds, status


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def cases(part):
    """Of each test of a part: its name, its seconds, and why it was skipped, if it was."""
    if not (THERE / f"{part}.xml").exists():
        return
    for case in ElementTree.parse(THERE / f"{part}.xml").iter("testcase"):
        skip, failed = case.find("skipped"), case.find("failure") is not None or case.find("error") is not None
        name = f"{case.get('classname').rpartition('.')[2]}::{case.get('name')}"
        yield name, float(case.get("time")), None if skip is None else skip.get("message"), failed


def summary(parts, outcomes):
    """What a person wants to know of all parts."""
    found = {part: list(cases(part)) for part in parts}
    lines = ["", f"{'part':12}{'passed':>8}{'failed':>8}{'skipped':>8}{'time':>8}"]
    for part in parts:
        failed, skipped = sum(case[3] for case in found[part]), sum(case[2] is not None for case in found[part])
        passed = len(found[part]) - failed - skipped
        lines.append(f"{part:12}{passed:8,}{failed:8,}{skipped:8,}{clock(outcomes[part][0]):>8}" + "  <- failed" * bool(outcomes[part][1]))
    slowest = sorted(((seconds, part, name) for part in parts for name, seconds, *_ in found[part]), reverse=True)[:10]
    lines += ["", "the ten slowest tests", *(f"{seconds:6.1f} s  {part:12}{name}" for seconds, part, name in slowest)]
    reasons = Counter((part, why) for part in parts for _, _, why, _ in found[part] if why is not None)
    lines += ["", "skipped", *(f"{count:6}    {part:12}{why}" for (part, why), count in reasons.items() or [(("", "nothing"), 0)])]
    failures = [f"  {part:12}{name}" for part in parts for name, _, _, failed in found[part] if failed]
    return "\n".join([*lines, *(["", "failed", *failures] if failures else [])])


def report_coverage():
    """Of all parts together; below 100 % of the lines that are not excluded in pyproject.toml it fails."""
    coverage = [sys.executable, "-m", "coverage"]
    environment = {**os.environ, "COVERAGE_FILE": str(THERE / "coverage")}
    subprocess.run([*coverage, "combine", "--keep", "--quiet", str(THERE)], cwd=ROOT, env=environment)
    print(flush=True)
    return subprocess.run([*coverage, "report"], cwd=ROOT, env=environment).returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all, if none is named")
    parser.add_argument("--every", action="store_true", help="the combinations marked so as well")
    parser.add_argument("--coverage", action="store_true", help="which lines of the package ran, where all parts run")
    arguments = parser.parse_args()
    parts = [part for part in PARTS if part in arguments.parts or not arguments.parts]
    covered = arguments.coverage and set(parts) == set(PARTS)  # each backend has lines of its own
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers, started = max(1, cores // len(parts)), time.monotonic()
    THERE.mkdir(parents=True, exist_ok=True)
    for old in THERE.iterdir():
        old.unlink()
    print(f"{', '.join(parts)}: side by side on {cores} cores, each with its output in {THERE.relative_to(ROOT)}", flush=True)
    with ThreadPoolExecutor(max(1, cores // workers)) as pool:
        outcomes = dict(zip(parts, pool.map(lambda part: run(part, arguments.every, workers, covered), parts), strict=True))
    print(summary(parts, outcomes))
    status = report_coverage() if covered else 0
    failed = [part for part in parts if outcomes[part][1]]
    print(f"\n{'failed: ' + ', '.join(failed) if failed else 'all passed'} in {clock(time.monotonic() - started)}")
    return bool(failed) or status


if __name__ == "__main__":
    sys.exit(main())
