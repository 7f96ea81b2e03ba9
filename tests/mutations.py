"""Would the tests notice? Breaks a copy of the package in one place at a time, and runs the tests of that module on it.

    python tests/mutations.py                  all of them, and a table of what was caught
    python tests/mutations.py distances 3 17   those of a module, or by number

On TensorFlow, unless KERAS_BACKEND names another: PyTorch takes a third of the time, and skips what is TensorFlow's own.

Each text must stand in its file exactly once, so that this list cannot fall behind the code unseen.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROPERTIES = ["tests/fuzz"]
TESTS = {
    "distances": ["tests/backends/test_distances.py", *PROPERTIES],
    "mining": ["tests/backends/test_mining.py", "tests/backends/test_found.py", "tests/backends/test_trained.py", *PROPERTIES],
    "losses": [f"tests/backends/test_{name}.py" for name in ("semantics", "losses", "keras", "family", "precision", "found")] + PROPERTIES,
    "distribution": ["tests/backends/test_distribution.py"],
}
SECONDS = 600  # what takes longer was caught in a loop without end


class Mutation(NamedTuple):
    module: str
    old: str
    new: str
    why: str


MUTATIONS = [
    Mutation("distances", "    key = key - centre\n", "    key = key - 0 * centre\n", "keys are not centred"),
    Mutation("distances", "half_squares = ops.sum(key * key, axis=1, keepdims=True) / 2 + extra", "half_squares = ops.sum(key * key, axis=1, keepdims=True) + extra", "whole squares for half"),
    Mutation("distances", "return ops.where(zero, 0, ops.sqrt(ops.where(zero, 1, squares)))", "return ops.sqrt(squares)", "a root with an infinite slope at 0"),
    Mutation("distances", "+ zero_rows(query) + zero_rows(key)) / 2", "+ zero_rows(query)) / 2", "a key of zeros is half as far"),
    Mutation("distances", "ops.fori_loop(0, ", "ops.fori_loop(1, ", "the first coordinate left out"),
    Mutation("distances", "return -ops.sum(query * key, axis=1)", "return ops.sum(query * key, axis=1)", "a similarity for a distance"),
    Mutation("distances", "ops.where(power <= limit, centred - ops.stop_gradient(centred), centred)", "ops.where(power <= limit, 0 * centred, centred)", "a constant key without a gradient"),
    Mutation("distances", "ops.where(signal == 0, 0 * noise, noise /", "ops.where(signal == 0, noise, noise /", "a constant query is not 0 from everything"),
    Mutation("mining", "column, value = first_best(ops.where(mask & (values < np.inf), values, -np.inf), largest=True)", "column, value = first_best(ops.where(values < np.inf, values, -np.inf), largest=True)", "a mask dropped"),
    Mutation("mining", "beyond = negatives & (distances > threshold[:, None])", "beyond = negatives & (distances >= threshold[:, None])", "semi-hard not strictly beyond"),
    Mutation("mining", "    positives = same & (own[:, None] != search.columns[None])\n", "    positives = same\n", "the query is its own positive in the table"),
    Mutation("mining", '(masked_argmin if negative_mining_strategy == "hard" else masked_argmax)(distances, negatives)', '(masked_argmax if negative_mining_strategy == "hard" else masked_argmin)(distances, negatives)', "the largest for the smallest"),
    Mutation("mining", "    valid = valid & ops.not_equal(positive, own)\n", "", "singletons are their own positives"),
    Mutation("mining", "blocks = (n - 1) // size + 1", "blocks = (n - 1) // size", "the last block left out"),
    Mutation("mining", "which[None] >= by_label.own_place[:, None]", "which[None] > by_label.own_place[:, None]", "a query steps over itself one too late"),
    Mutation("mining", 'return tensor if dtype in ("int64", "uint64", "uint32") else ops.cast(tensor, "int32")', 'return ops.cast(tensor, "int32")', "labels lose their upper bits"),
    Mutation("mining", 'return ops.cast(labels, "int64"), ops.cast(other_labels, "int64")', 'return ops.cast(labels, "int32"), ops.cast(other_labels, "int32")', "two label types meet in the narrow one"),
    Mutation("mining", "return negative, found & (ops.take(search.labels, negative) != labels)", "return negative, found", "a positive beyond itself is taken for a negative"),
    Mutation("mining", "1 / (table - next_above(threshold)[:, None])", "1 / (table - threshold[:, None])", "the threshold itself is infinitely near"),
    Mutation("mining", "return done + SECOND_LOOK, *(", "return done + SECOND_LOOK + 1, *(", "one row in doubt skipped in each round"),
    Mutation("mining", "better = there & ops.isfinite(found) & (found > value)", "better = there & ops.isfinite(found) & (found >= value)", "of equal positives the last"),
    Mutation("mining", "better = there & ops.isfinite(found) & (found > value)", "better = ops.isfinite(found) & (found > value)", "partners that are none"),
    Mutation("mining", "    table = ops.where(negatives & (table < np.inf), table, -np.inf)", "    table = ops.where(table < np.inf, table, -np.inf)", "positives among the semi-hard negatives of a pair"),
    Mutation("mining", "there = there & ((by_label.positives <= WINDOW)", "there = there & ((by_label.positives < WINDOW)", "a class that just fills the window is left out"),
    Mutation("mining", "ranks(ops.concatenate([key_labels, labels]))[m:]", "ranks(ops.concatenate([key_labels, labels]))[n:]", "queries and keys mixed up"),
    Mutation("mining", "(ops.take(search.columns, column) for column in look_twice(search, rows, by_label))", "look_twice(search, rows, by_label)", "a filler is no key"),
    Mutation("losses", "    if shape != (1,):\n", "    if False:\n", "a mask goes unseen"),
    Mutation("losses", "ops.relu(shortfall(positive_distance, negative_distance) + margin)", "ops.relu(shortfall(positive_distance, negative_distance) - margin)", "the margin's sign"),
    Mutation("losses", "ops.softplus(shortfall(positive_distance, negative_distance))", "ops.softplus(shortfall(negative_distance, positive_distance))", "positive and negative swapped"),
    Mutation("losses", "distance.call_paired(positive, negative)", "distance.call_paired(anchor, negative)", "a swap that swaps nothing"),
    Mutation("losses", "rows = distance.prepare(ops.where((valid | used)[:, None], batch.query_embeddings, 0))", "rows = distance.prepare(ops.where(valid[:, None], batch.query_embeddings, 0))", "negatives that are no anchors become zeros"),
    Mutation("losses", "return ops.where(triplets.valid, loss_of_distances(positive, negative, rule.soft_margin, rule.margin), 0)", "return loss_of_distances(positive, negative, rule.soft_margin, rule.margin)", "anchors without a triplet have a loss"),
    Mutation("losses", 'tally.triplets if average == "triplets" else tally.active', 'tally.triplets if average == "active" else tally.active', "divided by the wrong count"),
    Mutation("losses", "weights = counts if sample_weight is None else ops.where(valid, sample_weight, 0)", "weights = counts if sample_weight is None else sample_weight", "who does not count weighs"),
    Mutation("losses", "dtype=self.dtype)((), losses, weight)", "dtype=self.dtype)((), losses, None)", "weights ignored"),
    Mutation("losses", "share = ops.cast(gap + rule.margin > 0, gap.dtype)", "share = ops.cast(gap > 0, gap.dtype)", "active only without the margin"),
    Mutation("losses", "shares = ops.cast(apart < (positive_distance + rule.margin)[:, None], apart.dtype)", "shares = ops.cast(apart <= (positive_distance + rule.margin)[:, None], apart.dtype)", "a loss of 0 counts as active"),
    Mutation("losses", "apart, equal=True)", "apart, equal=False)", "a loss of 0 has a slope"),
    Mutation("losses", "far, near, rest, active = (ops.stop_gradient(x) for x in pull_of(table, rule))", "far, near, rest, active = pull_of(table._replace(distances=distances, close=close), rule)", "stop_gradient left out"),
    Mutation("losses", "met = others_of(table) if of_own_class else negatives_of(table)", "met = negatives_of(table)", "a broken positive goes unseen"),
    Mutation("losses", 'farthest=rule.positive_mining_strategy == "hard"', 'farthest=rule.positive_mining_strategy != "hard"', "the easiest for the hardest"),
    Mutation("losses", 'farthest=negative_mining_strategy == "easy"', 'farthest=negative_mining_strategy == "hard"', "the farthest for the nearest"),
    Mutation("losses", "zip(strategies, (by_label.positives, by_label.negatives), strict=True)", "zip(strategies, (by_label.negatives, by_label.positives), strict=True)", "triplets miscounted"),
    Mutation("losses", "own, by_label, (triplets > 0) & ~in_window(by_label))", "own, by_label, triplets > 0)", "small classes counted twice"),
    Mutation("losses", 'labels, embeddings = as_labels(y_true, "y_true"), as_embeddings(y_pred, "y_pred")', 'labels, embeddings = as_labels(ops.cast(ops.cast(y_true, "float32"), "int64"), "y_true"), as_embeddings(y_pred, "y_pred")', "labels go through float32"),
    Mutation("losses", 'base = {"name": self.name, "reduction": self.reduction, "dtype": self.dtype}', 'base = {"name": self.name, "reduction": self.reduction}', "a saved loss forgets its dtype"),
    Mutation("distribution", "tf.reduce_sum(sizes[: context.replica_id_in_sync_group])", "tf.reduce_sum(sizes[: context.replica_id_in_sync_group + 1])", "a replica takes another's rows for its own"),
]  # fmt: skip


def broken(text, mutation):
    """The module's text with the mutation in it."""
    if text.count(mutation.old) != 1:
        sys.exit(f"{mutation.module}.py holds {text.count(mutation.old)} times, not once: {mutation.old!r}")
    return text.replace(mutation.old, mutation.new)


def copy_to(there):
    """The package and its tests, as they are."""
    for name in ("tripletloss", "tests"):
        shutil.copytree(ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "settings.ini"):
        shutil.copy2(ROOT / name, there)


def run(there, tests):
    """What the tests say: "caught by ..." the first that fails, or None if all pass."""
    # Compiling takes long, and computes the same.
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-k", "not compil", *tests]
    settings = {"KERAS_BACKEND": "tensorflow", "OMP_NUM_THREADS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=there, env=settings, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "time"
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode == 0:
        return None
    return failures[0].split()[1] if failures else f"exit status {done.returncode}"


def chosen(arguments):
    """The numbers of those asked for, all if none are."""
    return [i for i, x in enumerate(MUTATIONS, 1) if not arguments or x.module in arguments or str(i) in arguments]


def main():
    numbers, survivors = chosen(sys.argv[1:]), []
    for mutation in MUTATIONS:
        broken((ROOT / "tripletloss" / f"{mutation.module}.py").read_text(), mutation)
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        copy_to(there)
        for module in sorted({MUTATIONS[i - 1].module for i in numbers}):
            if failure := run(there, TESTS[module]):
                sys.exit(f"{module}: {failure} fails with nothing broken")
        print("| | module | what is broken | caught by | s |\n|---|---|---|---|---|", flush=True)
        for number in numbers:
            mutation, started = MUTATIONS[number - 1], time.monotonic()
            file = there / "tripletloss" / f"{mutation.module}.py"
            whole = file.read_text()
            file.write_text(broken(whole, mutation))
            caught = run(there, TESTS[mutation.module])
            file.write_text(whole)
            survivors += [] if caught else [number]
            seconds = time.monotonic() - started
            print(f"| {number} | {mutation.module} | {mutation.why} | {caught or '**survived**'} | {seconds:.0f} |", flush=True)
    print(f"{len(numbers) - len(survivors)} of {len(numbers)} caught; survived: {survivors or 'none'}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
