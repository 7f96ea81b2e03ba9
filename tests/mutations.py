"""Would the tests notice? Breaks a copy of the package in one place at a time, and runs the backends' tests on it.

    python tests/mutations.py                  all mutations, and a table of what caught them
    python tests/mutations.py distances 3 17   those of a module, or by number

On PyTorch if it is there, since nothing is compiled, or on KERAS_BACKEND; what shows on one backend only, on that one.

A mutation is a piece of Python and what to put in its place. Names `_1`, `_2` and so on stand for any expression, the
same wherever they stand. The piece is looked for as syntax, so layout, comments and modules do not matter. It must fit
one place; `in_`, the name of a function or class around it, says where if there are several.
"""

import ast
import functools
import importlib.util
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BACKEND = os.environ.get("KERAS_BACKEND") or ("torch" if importlib.util.find_spec("torch") else "tensorflow")
SECONDS = 900  # for a test; what takes longer was caught in a loop without end
# Which tests know most about a module, behind those of its name; they come first.
ENGINE = ("regressions", "mining", "strategies")
NEAREST = {"_blocks": ENGINE, "_tables": ENGINE, "mining": ENGINE, "_sums": ("strategies", "regressions")}
NEAREST |= {"samplers": ("pk_sampler",), "_checks": ("misuse", "precision"), "distances": ("precision",), "losses": ("keras", "strategies"), "training": ("memory",)}


class Mutation(NamedTuple):
    why: str  # what is broken
    old: str
    new: str
    in_: str = ""
    only: str = ""  # the backend on which it can show


M = Mutation
MUTATIONS = [
    M("labels lose their upper bits", '_1 if _2 in ("int64", "uint64", "uint32") else ops.cast(_1, "int32")', 'ops.cast(_1, "int32")'),
    M("two label types meet in the narrow one", '(ops.cast(_1, "int64"), ops.cast(_2, "int64"))', '(ops.cast(_1, "int32"), ops.cast(_2, "int32"))'),
    M("a mask is not noticed", "_1 != (1,)", "False"),
    M("a margin below 0", "math.isfinite(_1) and 0 <= _1 <= _2", "math.isfinite(_1) and _1 <= _2"),
    M("a margin beside soft_margin", "_1 and _2 != 1.0", "False"),
    M("keys are not centered", "_1 = _1 - _2[1]", "_1 = _1 - 0 * _2[1]", "center_pair"),
    M("whole squares for half", "ops.sum(_1 * _1, axis=1, keepdims=True) / 2", "ops.sum(_1 * _1, axis=1, keepdims=True)", "augmented_rows"),
    M("a root with an infinite slope at 0", "ops.where(_1, 0, ops.sqrt(ops.where(_1, 1, _2)))", "ops.sqrt(_2)"),
    M("two rows of zeros are 0 apart in the table", "gram_table(_1, 1.0, _2)", "gram_table(_1, 1.0)"),
    M("two rows of zeros are 0 apart as a pair", "_1 / 2 + _2 * _3", "_1 / 2", "Cosine.call_paired"),
    M("the first coordinate left out", "ops.fori_loop(0, _1, _2, _3)", "ops.fori_loop(1, _1, _2, _3)"),
    M("a similarity for a distance", "-ops.sum(_1 * _2, axis=1)", "ops.sum(_1 * _2, axis=1)"),
    M("a constant key without a gradient", "ops.where(_1, _2 - ops.stop_gradient(_2), _2)", "ops.where(_1, 0 * _2, _2)"),
    M("a constant query is not 0 from everything", "ops.where(_1, 0 * _2, _2 / _3)", "ops.where(_1, _2, _2 / _3)"),
    M("a constant query ranks keys", "ops.where(_1, 0, _2)", "_2", "SNR.ranking_rows"),
    M("a distance of one's own inherits hooks that are not its own", '"call" in vars(_1)', "False"),
    M("the last block left out", "(_1 - 1) // _2 + 1", "(_1 - 1) // _2"),
    M("a query steps over itself one too late", 'ops.cast(_1 >= _2, "int32")', 'ops.cast(_1 > _2, "int32")', "gather_positives"),
    M("a query is counted among its positives", '_1 - ops.cast(_2, "int32")', "_1", "class_index"),
    M("queries and keys mixed up", "(_1[:_2], _1[_2:])", "(_1[:n], _1[n:])", "class_index"),
    M("a key's reference row is of another class", "(ops.take(_1, _2), ops.take(_1, _3))", "(ops.take(_1, _2), ops.take(_1, 0 * _3))"),
    M("a class's reference row is not finite, in blocks", "ops.where(ops.isnan(_1), -_2, -_3)", "-_3", "class_index"),
    M("the threshold itself is infinitely near", "1 / (_1 - _2[:, None])", "1 / (_1 - threshold[:, None])", "nearest_above"),
    M("one more is listed than the positives", "ops.where(_1 < _2, _1, 0)", "ops.where(_1 <= _2, _1, 0)", "first_positives"),
    M("the first of the tile for the largest", "_1 * TILE + first_match(_2)", "_1 * TILE + 0 * first_match(_2)"),
    M("a row that is not finite is taken for zeros", "ops.where(_1, ops.zeros((), _2), np.nan)", "ops.where(_1, ops.zeros((), _2), 0.0)"),
    M("the query is its own positive in a block's masks", "_1 & (_2[:, None] != _3)", "_1", "choose_by_masks"),
    M("a positive beyond the threshold is taken for a negative", "_1 & (ops.take(_2, _3) != _4)", "_1"),
    M("of equal positives the last", "_1 & ops.isfinite(_2) & (_2 > _3)", "_1 & ops.isfinite(_2) & (_2 >= _3)"),
    M("positives that are none", "(_1 < _2) & ops.isfinite(_3) & _4", "ops.isfinite(_3) & _4"),
    M("of one positive too many the last is left out", "_1 <= MAX_LISTED_POSITIVES", "_1 <= MAX_LISTED_POSITIVES + 1", "choose_quickly"),
    M("of the listed positives the last has no negative", "_1 < _2", "_1 < _2 - 1", "for_each_positive"),
    M("padding is not mapped back to its key", "(ops.take(_1, _2) for _2 in _3)", "_3", "mine_in_blocks"),
    M("the farthest for the nearest in a block", '_1(farthest=_2 == "easy")', '_1(farthest=_2 == "hard")'),
    M("the nearest positive for the farthest in a block", '_1 == "hard"', '_1 != "hard"', "mine_in_blocks"),
    M("unresolved rows are not searched with masks", "ops.all(_1)", "ops.all(_1 | True)", "mine_block"),
    M("no way back to the farthest negative", "(ops.where(_1, _2, _3), _4)", "(_2, _4)", "quick_negative"),
    M("a block's positives without a reference row of their class", "ranking(_1, _2, references(_3, _4, _5), _6)", "ranking(_1, _2, None, _6)"),
    M("the threshold from the nearest positive", "beyond(ops.max(_1, axis=1))", "beyond(ops.min(_1, axis=1))"),
    M("a query without negatives is valid", "(_1 > 0) & (_2 > 0)", "_1 > 0", "mine_in_blocks"),
    M("a product that overflows is not noticed", "_1 < float(_2)", "_1 == _1", "has_finite_products"),
    M("a key that is not finite ranks as zeros", "_1 + _2[:, None]", "_1", "ranking"),
    M("a mask dropped", "ops.where(_1 & (_2 < np.inf), _2, -np.inf)", "ops.where(_2 < np.inf, _2, -np.inf)", "pick"),
    M("semi-hard not strictly beyond", "_1 & (_2 > _3[:, None])", "_1 & (_2 >= _3[:, None])"),
    M("positives among the semi-hard negatives", "_1 & (_2 < np.inf)", "_2 < np.inf", "pick_semi_hard"),
    M("the largest for the smallest", '_1 == "easy"', '_1 == "hard"', "pick_negative"),
    M("every other key is a positive", "_1 & (_2[:, None] != _3)", "_1 | (_2[:, None] != _3)", "mine_small"),
    M("positives without a reference row of their class", "ranking(_1, _2, references(_3, _4, _5))", "ranking(_1, _2)"),
    M("a class's reference row is not finite, in one table", "first_match(_1 & _2)", "first_match(_1)", "mine_small"),
    M("the threshold from the table of the class", "ops.where(_1 & _2, _3, _4)", "ops.where(_1 & (of_positives < np.inf), of_positives, _4)", "mine_table"),
    M("singletons are their own positives", "ops.any(_1, axis=1) & ~ops.all(_2, axis=1)", "ops.any(_2, axis=1) & ~ops.all(_2, axis=1)"),
    M("the margin's sign", "ops.relu(_1 + _2)", "ops.relu(_1 - _2)"),
    M("positive and negative swapped", "ops.softplus(distance_gap(_1, _2))", "ops.softplus(distance_gap(_2, _1))"),
    M("a swap that swaps nothing", "_1.call_paired(positive, negative)", "_1.call_paired(anchor, negative)"),
    M("a swap to what is farther away", "ops.where(_1 < _2, _1, _2)", "_1", "triplet_margin_loss"),
    M("an anchor that is not finite is taken for zeros", "_1 + _2.nan + _3", "_1 + _3"),
    M("a chosen key that is not finite is taken for zeros", "_1 + _2.nan + _3", "_1 + _2.nan"),
    M("anchors without a triplet have a loss", "ops.where(_1, loss_of_distances(_2, _3, _4, _5), 0)", "loss_of_distances(_2, _3, _4, _5)"),
    M("an anchor's sum for its mean", "_1.total / clip_to_one(_2)", "_1.total"),
    M("divided by the wrong count", '_1 if _2 == "triplets" else _3', '_1 if _2 == "active" else _3'),
    M("a mean over triplets is not scaled for a mean over anchors", "_1 * (_2 / clip_to_one(_3))", "_1 / clip_to_one(_3)"),
    M("divided by no active triplet", "ops.where(_1 > 1, _1, 1)", "_1"),
    M("anchors that are not valid weigh", "_1 if _2 is None else ops.where(_3, _2, 0)", "_1 if _2 is None else _2"),
    M("weights ignored", "_1((), _2, _3)", "_1((), _2, None)", "MetricLoss.__call__"),
    M("labels go through float32", "_cast_probe_labels(_1)", 'ops.cast(ops.cast(_1, "float32"), "int64")', "MetricLoss"),
    M("a saved loss forgets its dtype", '(_1, _2, _3, _4, "reduction", "dtype")', '(_1, _2, _3, _4, "reduction")'),
    M("active only without the margin", "_1 + _2 > 0", "_1 > 0", "linearize"),
    M("a loss of 0 counts as active", "_1 + _2 > 0", "_1 + _2 >= 0", "linearize"),
    M("the margin left out of the offset, for one negative", "(_1, _2 * _1, _1)", "(_1, 0 * _1, _1)"),
    M("the margin left out of the offset, for all negatives", "(_1, _2, _3 * _2, _2)", "(_1, _2, 0 * _2, _2)"),
    M("the soft margin's offset is the loss", "_1 - _2 * _3", "_1", "linearize"),
    M("no triplet, an infinite gap", "ops.where(_1 > -1e4, _1, -1e4)", "_1"),
    M("a positive that is not finite is not noticed", "ops.isfinite(_1 + _2)", "ops.isfinite(_2)"),
    M("triplets miscounted", "(_1, _2, _3, _2 * _4, _5)", "(_1, ops.ones_like(_4), _3, _2 * _4, _5)"),
    M("of the positives with all negatives the last is left out", "_1 < _2", "_1 < _2 - 1", "weigh_all_negatives"),
    M("the easiest for the hardest", '_1 == "hard"', '_1 != "hard"', "weigh_positives"),
    M("one positive counted as often as there are positives", "ops.minimum(_1, 1)", "_1"),
    M("one positive too many", "ops.where(_1 < _2, _3, -1)", "ops.where(_1 <= _2, _3, -1)"),
    M("of one positive too many the last is not listed", "_1 <= MAX_LISTED_POSITIVES", "_1 <= MAX_LISTED_POSITIVES + 1", "sum_all"),
    M("listed triplets counted twice", "~_1", 'ops.ones((), "bool")', "sum_all"),
    M("distances of triplets that are none are added", "(ops.where(_1[2], _2, 0) for _2 in _3)", "(_2 for _2 in _3)"),
    M("the threshold from another table than the negatives", "take_per_row(_1, _2)", "take_per_row(distances, _2)", "of_few"),
    M("one positive too many for the list", "_1 <= MAX_LISTED_POSITIVES", "_1 <= MAX_LISTED_POSITIVES + 1", "weigh_mined_negatives"),
    M("classes too large for the list are cut", "ops.cond(_1, of_few, of_many)", "of_few()"),
    M("a negative as far away as the positive is semi-hard, in order", "take_per_row(_1, _2) <= _3", "take_per_row(_1, _2) < _3"),
    M("positives among the semi-hard negatives, in order", "ops.where(_1, _2, np.inf)", "_2", "semi_hard_for_each_key"),
    M("no way back to the farthest negative, in order", "_1 < ops.sum(_2, axis=1, keepdims=True)", "_1 <= ops.sum(_2, axis=1, keepdims=True)"),
    M("back to the nearest negative for the farthest, in order", "pick(_1, _2, farthest=True)", "pick(_1, _2, farthest=False)"),
    M("negatives are pulled", "ops.concatenate([_1, -_1], axis=1)", "ops.concatenate([_1, _1], axis=1)"),
    M("a query without a negative counts", "_1 & _2[:, None]", "_1", "sum_block"),
    M("a query without a negative counts, by masks", "_1 & ops.any(_2, axis=1, keepdims=True)", "_1", "sum_by_masks"),
    M("a query is its own positive, by masks", "_1[0] & _2", "_1[0]", "masks_of"),
    M("a query is its own negative, by masks", "_1[1] & _2 & ~_3", "_1[1] & ~_3", "masks_of"),
    M("a key is positive and negative", "_1[1] & _2 & ~_3", "_1[1] & _2", "masks_of"),
    M("a level without those above it", 'ops.cumsum(ops.cast(_1, "int32"), axis=1) > 0', "_1", "path_numbers"),
    M("the last of many labels are cut off", "_1.shape[1] // 30", "1", "pack_bits"),
    M("close points lose their digits without classes", "ops.where(_1, distance.table(_2, _3, _4), _5)", "_5", "table_around"),
    M("one margin for all levels", "zip(levels, margins, strict=True)", "zip(levels, margins[:1] * len(levels), strict=True)", "sum_levels"),
    M("each level averaged over its own anchors", "valid_at_any_level(_1) if len(_1) > 1 else None", "None", "reduce_levels"),
    M("keys that are left out take a place", 'np.argsort(_1, axis=1, kind="stable")', 'np.argsort(0 * _1, axis=1, kind="stable")', "relevance_by_masks"),
    M("average precision at places without a hit", "(_1 * _2 / _3).sum(axis=1)", "(_2 / _3).sum(axis=1)"),
    M("precision among the keys that there are", "_1[_2] / _2", "_1[_2] / min(_2, right.shape[1])", "measures"),
    M("the first that is found is taken for the query itself", "_1[:, :-1]", "found[:, 1:]", "without_own"),
    M("a query is relevant to itself", "count_relevant(_1, _2) - _3", "count_relevant(_1, _2)"),
    M("NaN does not show in the share of active triplets", "ops.where(ops.isnan(_1), np.nan, _2)", "_2"),
    M("distances divided by anchors", "[_1, _2, _1, _1, _2, _3]", "[_1, _2, valid, valid, _2, _3]", "triplet_statistics"),
    M("an example repeated while others wait", '_1[np.argsort(_2, kind="stable")]', "_1", "EpochShuffler"),
    M("every epoch the same plan", "range(_1, _2)", "range(_1, min(_2, 0))", "set_epoch"),
    M("each epoch augmented alike", "np.random.default_rng([_1, _2, _3])", "np.random.default_rng([_1, _3])"),
    M("another order at each run", "np.random.default_rng(_1)", "np.random.default_rng()", "PKSampler.__init__"),
    M("every rank the same batches", "_1[self.rank :: self.world_size]", "_1[:: self.world_size]"),
    M("an epoch that is gone back to is the next", "self.planner.restart(_1)", "None"),
    M("an epoch that ended early comes again", "self.begun = True", "self.begun = False"),
    M("a block of 2^31 numbers", "_1 >= 2 ** 31", "_1 > 2 ** 31"),
    M("a block size that cannot be taken back", "_1.clear()", "None", "set_block_size"),
    M("what is compiled keeps the block size", "block_size()", "0", "compiled_once", only="jax"),
    M("what is compiled keeps the distance", "get(_1)", 'get("cosine")', "_jitted", only="jax"),
    M("a distance of one's own is compiled as its parent", "type(_1) in _2", "isinstance(_1, tuple(_2))", "compiled_once", only="jax"),
    M("TensorFlow rewrites the source", "tf.autograph.experimental.do_not_convert(_1)", "_1", only="tensorflow"),
    M("sums in 32 bits", "_1.new_zeros(_2).index_add(0, _3, _1)", "ops.segment_sum(_1, _3, num_segments=_2)", only="torch"),
    M("a replica takes another's rows for its own", "_1[:_2.replica_id_in_sync_group]", "_1[:_2.replica_id_in_sync_group + 1]", only="tensorflow"),
    M("a process takes another's rows for its own", "_1[:_2.get_rank()]", "_1[:_2.get_rank() + 1]", only="torch"),
    M("gradients at another process's rows are lost", "_1.register_hook(_2)", "None", only="torch"),
    M("a process's mean is not scaled to that of all", "_1 * replicas()", "_1", only="torch"),
    M("places not filled yet are counted as negatives", "(_1 if _2 is None else _2) - _3", "_1 - _3", "class_index"),
    M("places not filled yet are negatives", "(_1 & _2, _3 & _2)", "(_1 & _2, _3)", "sum_block"),
    M("a copy of the query is its positive", "ops.where(_1 < _2.key_count, _1, 0)", "_1", "mine_small"),
    M("the memory is used while it warms up", "ops.where(_1 < _2, _3, _4)", "_4", "enqueue"),
    M("the memory is as old as the last batch", "ops.minimum(_1 + _2, self.size)", "_2 + 0 * _1", "enqueue"),
    M("keys as in training", "self.key_model(_1, training=False)", "self.key_model(_1, training=True)"),
    M("slow keys are fast", "_1 * _2 + (1 - _1) * _3", "_3", "follow"),
    M("the slow network never copies the other", "ops.where(_1 == 0, 0.0, _2)", "_2", "embed_keys"),
]  # fmt: skip
NOTHING = Mutation("nothing", "TILE = _1", "TILE = _1")


@functools.cache
def package():
    """The nodes of its syntax, by type; each with the names around it, its module and the module's tree."""
    nodes = {}

    def note(node, names, *module):
        nodes.setdefault(type(node), []).append((node, names, *module))
        for child in ast.iter_child_nodes(node):
            note(child, names | {getattr(node, "name", "")}, *module)

    for file in sorted((ROOT / "tripletloss").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        note(tree, {""}, file.stem, tree)
    return nodes


def fits(pattern, node, found):
    """Whether the node is what the pattern says; what its wildcards stand for is noted in `found`."""
    if isinstance(pattern, ast.Name) and not pattern.id.strip("_123456789"):
        known = found.setdefault(pattern.id, node)
        return isinstance(node, ast.expr) and (known is node or ast.unparse(known) == ast.unparse(node))
    if type(pattern) is not type(node):
        return False
    if isinstance(pattern, ast.AST):  # read or written, a name is the same
        return all(fits(value, getattr(node, name), found) for name, value in ast.iter_fields(pattern) if name != "ctx")
    if isinstance(pattern, list):
        return len(pattern) == len(node) and all(fits(*pair, found) for pair in zip(pattern, node, strict=True))
    return pattern == node


def rebuilt(node, instead):
    """A copy of the syntax, with what `instead` gives in the place of a node, if anything."""
    if isinstance(node, list):
        return [rebuilt(x, instead) for x in node]
    if not isinstance(node, ast.AST):
        return node
    return instead(node) or type(node)(**{name: rebuilt(value, instead) for name, value in ast.iter_fields(node)})


def broken(mutation):
    """The module with the mutation in it: its name and its text; a ValueError if the mutation does not fit one place."""
    pattern, new = (x.value if isinstance(x := ast.parse(text).body[0], ast.Expr) else x for text in mutation[1:3])
    candidates = (x for x in package()[type(pattern)] if x[1].issuperset(mutation.in_.split(".")))
    places = [(*where, found) for where in candidates if fits(pattern, where[0], found := {})]
    if len(places) != 1:
        hint = "Look for what became of it and adapt the piece, or name the function that is meant with in_"
        raise ValueError(f"{mutation.why!r} fits {len(places)} places, not one. {hint}: {mutation.old}")
    [(old, _, module, tree, found)] = places
    new = rebuilt(new, lambda x: isinstance(x, ast.Name) and found.get(x.id))
    return module, ast.unparse(ast.fix_missing_locations(rebuilt(tree, lambda x: x is old and new)))


class Watch:
    """Notes which test runs, and ends the process where a test does not end."""

    def pytest_runtest_logstart(self, nodeid):
        Path("running").write_text(nodeid)
        signal.alarm(SECONDS)


def run_tests(there, backend, tests):
    """In a process of its own, whose exit status tells how it went."""
    os.chdir(there)
    for stream in (1, 2):
        os.dup2(os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    os.environ["KERAS_BACKEND"], sys.dont_write_bytecode = backend, True
    sys.path[:] = [str(there), *(path for path in sys.path if not Path(path).is_relative_to(ROOT / "tests"))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tripletloss"]:
        del sys.modules[name]  # the whole package, if what forks has imported it
    import pytest

    sys.exit(pytest.main(["-x", "-p", "no:cacheprovider", *tests], plugins=[Watch()]))


def context_of(backend):
    """Forks from a process that has imported Keras with our backend; for another, starts from nothing."""
    os.environ.update({"KERAS_BACKEND": BACKEND, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"})
    multiprocessing.set_forkserver_preload(["tensorflow", BACKEND, "keras", "pytest", "hypothesis", "sklearn.neighbors"])
    return multiprocessing.get_context("forkserver" if backend == BACKEND else "spawn")


def caught_by(mutation, tests=None):
    """The first test that fails on a package with this mutation, of all or of those given; None if all pass."""
    (module, text), backend = broken(mutation), mutation.only or BACKEND
    every = (file.relative_to(ROOT) for name in ("backends", "fuzz") for file in (ROOT / "tests" / name).glob("test_*.py"))
    order = {f"test_{name}": place for place, name in enumerate((module, *NEAREST.get(module, ())))}
    tests = tests or list(map(str, sorted(every, key=lambda file: (order.get(file.stem, 9), file))))
    with tempfile.TemporaryDirectory(prefix="tripletloss-broken-") as folder:
        there = Path(folder)
        for name in ("tripletloss", "tests"):
            shutil.copytree(ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "settings.ini"):
            shutil.copy2(ROOT / name, there)
        (there / "tripletloss" / f"{module}.py").write_text(text, encoding="utf-8")
        process = context_of(backend).Process(target=run_tests, args=(there, backend, tests))
        process.start()
        process.join()
        if process.exitcode in (4, 5):  # pytest knows no such files, or finds no tests in them
            raise RuntimeError((there / "log").read_text())
        running = (there / "running").read_text() if (there / "running").exists() else "what is imported"
    return None if process.exitcode == 0 else running + " (no end)" * (process.exitcode == -signal.SIGALRM)


def main():
    if failed := caught_by(NOTHING):
        sys.exit(f"{failed} fails with nothing broken")
    asked, survivors = set(sys.argv[1:] or ["all"]), []

    def row(number, mutation):
        module, started = broken(mutation)[0], time.monotonic()
        if asked.isdisjoint({str(number), module, "all"}) or not importlib.util.find_spec(mutation.only or BACKEND):
            return
        caught = caught_by(mutation)
        survivors.extend([] if caught else [number])
        seconds = time.monotonic() - started
        print(f"| {number} | {module} | {mutation.why} | {caught or '**survived**'} | {seconds:.0f} |", flush=True)

    print("| | module | what is broken | caught by | s |\n|---|---|---|---|---|", flush=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(row, range(1, len(MUTATIONS) + 1), MUTATIONS))
    print(f"survived: {sorted(survivors) or 'none'}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
