"""Would the tests notice? Breaks a copy of the package in one place at a time, and runs the tests of that module on it.

    python tests/mutations.py                  all of them, and a table of what was caught
    python tests/mutations.py distances 3 17   those of a module, or by number

On TensorFlow, unless KERAS_BACKEND names another: PyTorch takes a third of the time.

Each text must stand in its file exactly once, so that a change of the code shows here.
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
ENGINE = [f"tests/backends/test_{name}.py" for name in ("mining", "regressions", "strategies", "trained")] + PROPERTIES
TESTS = {
    "_checks": [f"tests/backends/test_{name}.py" for name in ("misuse", "precision", "mining")],
    "distances": ["tests/backends/test_distances.py", *PROPERTIES],
    "_tables": ENGINE,
    "_blocks": ENGINE,
    "mining": ENGINE,
    "_sums": [f"tests/backends/test_{name}.py" for name in ("strategies", "regressions", "metrics")] + PROPERTIES,
    "losses": [f"tests/backends/test_{name}.py" for name in ("semantics", "losses", "keras", "strategies", "precision", "regressions")] + PROPERTIES,
    "metrics": ["tests/backends/test_metrics.py"],
    "distribution": ["tests/backends/test_distribution.py"],
}
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
SECONDS = 600  # what takes longer was caught in a loop without end


class Mutation(NamedTuple):
    module: str
    old: str
    new: str
    why: str
    only: str | None = None  # the backend on which it can show


MUTATIONS = [
    Mutation("_checks", 'return tensor if dtype in ("int64", "uint64", "uint32") else ops.cast(tensor, "int32")', 'return ops.cast(tensor, "int32")', "labels lose their upper bits"),
    Mutation("_checks", 'return ops.cast(labels, "int64"), ops.cast(other_labels, "int64")', 'return ops.cast(labels, "int32"), ops.cast(other_labels, "int32")', "two label types meet in the narrow one"),
    Mutation("_checks", "    if shape != (1,):\n", "    if False:\n", "a mask is not noticed"),
    Mutation("distances", "    key = key - around[1]\n", "    key = key - 0 * around[1]\n", "keys are not centered"),
    Mutation("distances", "half_squares = ops.sum(key * key, axis=1, keepdims=True) / 2", "half_squares = ops.sum(key * key, axis=1, keepdims=True)", "whole squares for half"),
    Mutation("distances", "return ops.where(zero, 0, ops.sqrt(ops.where(zero, 1, squares)))", "return ops.sqrt(squares)", "a root with an infinite slope at 0"),
    Mutation("distances", "1.0, (query[:, -1:], key[:, -1:]))", "1.0)", "two rows of zeros are 0 apart in the table"),
    Mutation("distances", "ops.sum(difference * difference, axis=1) / 2 + query[:, -1] * key[:, -1]", "ops.sum(difference * difference, axis=1) / 2", "two rows of zeros are 0 apart as a pair"),
    Mutation("distances", "ops.fori_loop(0, ", "ops.fori_loop(1, ", "the first coordinate left out"),
    Mutation("distances", "return -ops.sum(query * key, axis=1)", "return ops.sum(query * key, axis=1)", "a similarity for a distance"),
    Mutation("distances", "ops.where(power <= limit, centered - ops.stop_gradient(centered), centered)", "ops.where(power <= limit, 0 * centered, centered)", "a constant key without a gradient"),
    Mutation("distances", "ops.where(signal == 0, 0 * noise, noise /", "ops.where(signal == 0, noise, noise /", "a constant query is not 0 from everything"),
    Mutation("_tables", "blocks = (n - 1) // size + 1", "blocks = (n - 1) // size", "the last block left out"),
    Mutation("_tables", 'ops.cast(rank >= self_rank, "int32")', 'ops.cast(rank > self_rank, "int32")', "a query steps over itself one too late"),
    Mutation("_tables", 'size - ops.cast(is_key, "int32"), m - size', "size, m - size", "a query is counted among its positives"),
    Mutation("_tables", "(numbers[:m], numbers[m:])", "(numbers[:n], numbers[n:])", "queries and keys mixed up"),
    Mutation("_tables", "1 / (table - just_above[:, None])", "1 / (table - threshold[:, None])", "the threshold itself is infinitely near"),
    Mutation("_tables", "ops.where(rank < index.positives[:, None], rank, 0)", "ops.where(rank <= index.positives[:, None], rank, 0)", "one more is listed than the positives"),
    Mutation("_tables", "return tile * TILE + first_match(", "return tile * TILE + 0 * first_match(", "the first of the tile for the largest"),
    Mutation("_tables", "ops.zeros((), x.dtype), np.nan)", "ops.zeros((), x.dtype), 0.0)", "a row that is not finite is taken for zeros"),
    Mutation("_blocks", "    positives = same & (block.self_index[:, None] != search.padded)\n", "    positives = same\n", "the query is its own positive in a block's masks"),
    Mutation("_blocks", "return negative, found & (ops.take(key_labels, negative) != label)", "return negative, found", "a positive beyond the threshold is taken for a negative"),
    Mutation("_blocks", "& ops.isfinite(value) & (value > best_value)", "& ops.isfinite(value) & (value >= best_value)", "of equal positives the last"),
    Mutation("_blocks", "better = (rank < index.positives) & ops.isfinite", "better = ops.isfinite", "positives that are none"),
    Mutation("_blocks", "(block.count <= MAX_LISTED_POSITIVES)", "(block.count <= MAX_LISTED_POSITIVES + 1)", "of one positive too many the last is left out"),
    Mutation("_blocks", "*(ops.take(padded, column) for column in chosen), valid", "*chosen, valid", "padding is not mapped back to its key"),
    Mutation("_blocks", 'return extreme(farthest=negative_mining_strategy == "easy")', 'return extreme(farthest=negative_mining_strategy == "hard")', "the farthest for the nearest in a block"),
    Mutation("_blocks", 'farthest=strategies[0] == "hard")', 'farthest=strategies[0] != "hard")', "the nearest positive for the farthest in a block"),
    Mutation("_blocks", "ops.cond(ops.all(resolved), ", "ops.cond(ops.all(resolved | True), ", "unresolved rows are not searched with masks"),
    Mutation("_blocks", "return ops.where(beyond, nearest, farthest), beyond | found", "return nearest, beyond | found", "no way back to the farthest negative"),
    Mutation("_blocks", "within_class = ranking(batch, distance, references(batch, index.query_reference, index.key_reference), padded)", "within_class = ranking(batch, distance, None, padded)", "a block's positives without a reference row of their class"),
    Mutation("_blocks", "negative, found = beyond(ops.max(numbers, axis=1))", "negative, found = beyond(ops.min(numbers, axis=1))", "the threshold from the nearest positive"),
    Mutation("_blocks", "    valid = (index.positives > 0) & (index.negatives > 0)\n", "    valid = index.positives > 0\n", "a query without negatives is valid"),
    Mutation("mining", "candidates = ops.where(allowed & (distances < np.inf), distances, -np.inf)", "candidates = ops.where(distances < np.inf, distances, -np.inf)", "a mask dropped"),
    Mutation("mining", "finite & (distances > threshold[:, None])", "finite & (distances >= threshold[:, None])", "semi-hard not strictly beyond"),
    Mutation("mining", "finite = negatives & (distances < np.inf)", "finite = distances < np.inf", "positives among the semi-hard negatives"),
    Mutation("mining", 'return pick(distances, negatives, farthest=negative_mining_strategy == "easy")', 'return pick(distances, negatives, farthest=negative_mining_strategy == "hard")', "the largest for the smallest"),
    Mutation("mining", "positives = same & (batch.self_index[:, None]", "positives = same | (batch.self_index[:, None]", "every other key is a positive"),
    Mutation("mining", "ranking(batch, distance, references(batch, first, of_key))", "ranking(batch, distance)", "positives without a reference row of their class"),
    Mutation("mining", "threshold = ops.max(ops.where(positives & (distances < np.inf), distances, -np.inf), axis=1)", "threshold = ops.max(ops.where(positives & (of_positives < np.inf), of_positives, -np.inf), axis=1)", "the threshold from the table of the class"),
    Mutation("mining", "ops.any(positives, axis=1) & ~ops.all(same, axis=1)", "ops.any(same, axis=1) & ~ops.all(same, axis=1)", "singletons are their own positives"),
    Mutation("losses", "ops.relu(distance_gap(positive_distance, negative_distance) + margin)", "ops.relu(distance_gap(positive_distance, negative_distance) - margin)", "the margin's sign"),
    Mutation("losses", "ops.softplus(distance_gap(positive_distance, negative_distance))", "ops.softplus(distance_gap(negative_distance, positive_distance))", "positive and negative swapped"),
    Mutation("losses", "distance.call_paired(positive, negative)", "distance.call_paired(anchor, negative)", "a swap that swaps nothing"),
    Mutation("losses", "axis=0)) + batch.nan + ops.take(nan, chosen)", "axis=0)) + ops.take(nan, chosen)", "an anchor that is not finite is taken for zeros"),
    Mutation("losses", "axis=0)) + batch.nan + ops.take(nan, chosen)", "axis=0)) + batch.nan", "a chosen key that is not finite is taken for zeros"),
    Mutation("losses", "ops.where(triplets.valid, loss_of_distances(positive, negative, spec.soft_margin, spec.margin), 0)", "loss_of_distances(positive, negative, spec.soft_margin, spec.margin)", "anchors without a triplet have a loss"),
    Mutation("losses", 'sums.triplets if average == "triplets" else sums.active', 'sums.triplets if average == "active" else sums.active', "divided by the wrong count"),
    Mutation("losses", "weights = counts if sample_weight is None else ops.where(valid, sample_weight, 0)", "weights = counts if sample_weight is None else sample_weight", "anchors that are not valid weigh"),
    Mutation("losses", "dtype=self.dtype)((), losses, weight)", "dtype=self.dtype)((), losses, None)", "weights ignored"),
    Mutation("losses", 'labels, embeddings = as_labels(_cast_probe_labels(y_true), "y_true"), as_embeddings(y_pred, "y_pred")', 'labels, embeddings = as_labels(ops.cast(ops.cast(y_true, "float32"), "int64"), "y_true"), as_embeddings(y_pred, "y_pred")', "labels go through float32"),
    Mutation("losses", '"name", "reduction", "dtype"\n', '"name", "reduction"\n', "a saved loss forgets its dtype"),
    Mutation("_sums", "slope = ops.cast(gap + spec.margin > 0, gap.dtype)", "slope = ops.cast(gap > 0, gap.dtype)", "active only without the margin"),
    Mutation("_sums", "slope = ops.cast(gap + spec.margin > 0, gap.dtype)", "slope = ops.cast(gap + spec.margin >= 0, gap.dtype)", "a loss of 0 counts as active"),
    Mutation("_sums", "    return slope, spec.margin * slope, slope\n", "    return slope, 0 * slope, slope\n", "the margin left out of the offset, for one negative"),
    Mutation("_sums", "    return slopes, slope, spec.margin * slope, slope\n", "    return slopes, slope, 0 * slope, slope\n", "the margin left out of the offset, for all negatives"),
    Mutation("_sums", "return slope, loss - slope * gap, ", "return slope, loss, ", "the soft margin's offset is the loss"),
    Mutation("_sums", "ops.isfinite(distance + negative_sum)", "ops.isfinite(negative_sum)", "a positive that is not finite is not noticed"),
    Mutation("_sums", "intercept + broken, negative_count, active", "intercept + broken, ops.ones_like(distance), active", "triplets miscounted"),
    Mutation("_sums", 'farthest=spec.positive_mining_strategy == "hard"), ops.minimum', 'farthest=spec.positive_mining_strategy != "hard"), ops.minimum', "the easiest for the hardest"),
    Mutation("_sums", "), ops.minimum(most, 1)", "), most", "one positive counted as often as there are positives"),
    Mutation("_sums", "ops.where(rank < index.positives, positive(rank), -1)", "ops.where(rank <= index.positives, positive(rank), -1)", "one positive too many"),
    Mutation("_sums", "listed = ops.max(index.positives) <= MAX_LISTED_POSITIVES", "listed = ops.max(index.positives) <= MAX_LISTED_POSITIVES + 1", "of one positive too many the last is not listed"),
    Mutation("_sums", "needed=~listed)", "needed=numbers >= 0)", "listed triplets counted twice"),
    Mutation("_sums", "tuple(ops.where(column[2], x, 0) for x in", "tuple(x for x in", "distances of triplets that are none are added"),
    Mutation("_sums", "limits = take_per_row(order, listed)", "limits = take_per_row(distances, listed)", "the threshold from another table than the negatives"),
    Mutation("_sums", "ops.cond(most <= MAX_LISTED_POSITIVES, of_few", "ops.cond(most <= MAX_LISTED_POSITIVES + 1, of_few", "one positive too many for the list"),
    Mutation("_sums", "ops.minimum(middle, last)) <= limits)", "ops.minimum(middle, last)) < limits)", "a negative as far away as the positive is semi-hard, in order"),
    Mutation("_sums", "is_found = place < ops.sum(ops.cast(finite", "is_found = place <= ops.sum(ops.cast(finite", "no way back to the farthest negative, in order"),
    Mutation("_sums", "ops.concatenate([slope, -slope], axis=1)", "ops.concatenate([slope, slope], axis=1)", "negatives are pulled"),
    Mutation("_sums", "others & valid[:, None], ~same, index", "others, ~same, index", "a query without a negative counts"),
    Mutation("metrics", "active = ops.where(ops.isnan(sums.total), np.nan, sums.active)", "active = sums.active", "NaN does not show in the share of active triplets"),
    Mutation("metrics", "ops.stack([triplets, n, triplets, triplets, n, ops.ones_like(n)])", "ops.stack([triplets, n, valid, valid, n, ops.ones_like(n)])", "distances divided by anchors"),
    Mutation("distribution", "tf.reduce_sum(sizes[: context.replica_id_in_sync_group])", "tf.reduce_sum(sizes[: context.replica_id_in_sync_group + 1])", "a replica takes another's rows for its own", "tensorflow"),
    Mutation("distribution", "return rows, sum(sizes[: group.get_rank()])", "return rows, sum(sizes[: group.get_rank() + 1])", "a process takes another's rows for its own", "torch"),
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
    settings = {"KERAS_BACKEND": BACKEND, "OMP_NUM_THREADS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=there, env=settings, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "the limit of time"
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode == 0:
        return None
    return failures[0].split()[1] if failures else f"exit status {done.returncode}"


def chosen(arguments):
    """The numbers of those asked for, all if none are, but for those that cannot show on this backend."""
    can_show = [(i, x) for i, x in enumerate(MUTATIONS, 1) if x.only in (None, BACKEND)]
    return [i for i, x in can_show if not arguments or x.module in arguments or str(i) in arguments]


def main():
    numbers, survivors = chosen(sys.argv[1:]), []
    for mutation in MUTATIONS:
        broken((ROOT / "tripletloss" / f"{mutation.module}.py").read_text(), mutation)
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        copy_to(there)
        for tests in dict.fromkeys(tuple(TESTS[MUTATIONS[i - 1].module]) for i in numbers):
            if failure := run(there, tests):
                sys.exit(f"{failure} fails with nothing broken")
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
