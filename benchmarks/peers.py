"""What the peers answer, call by call, on a few fixed batches: `python -m benchmarks.peers --library torch`.

`MAPPINGS` says of every call of a peer what it is here, on which batches it is run, and where the two may differ and
why. The page "Coming from another library" and its test read this table and the stored answers; they need no peer.
Libraries are imported inside functions, since no environment has them all.
"""

import argparse
import csv
import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.loss import RESULTS, write

KEY = ("call", "miner", "given", "batch")
COLUMNS = ("library", *KEY, "value", "version")
TOLERANCE = 1e-5  # within which two answers are the same; of their size where that is above 1


# Batches


class Batch(NamedTuple):
    """What every library is given."""

    x: np.ndarray  # (n, d) float32
    y: np.ndarray  # (n,) int64


def unit(x: np.ndarray) -> np.ndarray:
    """The rows at length 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


NOTES = {
    "random": "rows of unit length, classes that mean nothing: an untrained network",
    "trained": "rows of unit length, each class a cluster",
    "lengths": "the random rows, at lengths from 0.5 to 2",
    "singletons": "the random rows; two are alone in their class",
    "no positives": "six of the random rows, each a class of its own",
    "one class": "six of the random rows, all of one class",
    "grid": "points with integer coordinates: many distances are equal",
    "line": "0, 1, ..., 8: can be worked out by hand; one is alone in its class",
    "twins": "each row is there twice",
    "large trained": "the trained rows, a thousand times as long",
    "large random": "the random rows, a thousand times as long",
}


def batches() -> dict[str, Batch]:
    """The batches by name, always the same."""
    rng = np.random.default_rng(0)
    of_four = np.repeat(np.arange(6), 4)
    random, centres = unit(rng.normal(size=(24, 8))), unit(rng.normal(size=(6, 8)))
    trained = unit(centres[of_four] + 0.2 * rng.normal(size=(24, 8)))
    grid = np.stack(np.meshgrid(np.arange(1, 5), np.arange(1, 4)), axis=-1).reshape(12, 2)
    made = {
        "random": (random, of_four),
        "trained": (trained, of_four),
        "lengths": (random * rng.uniform(0.5, 2, size=(24, 1)), of_four),
        "singletons": (random, np.repeat(np.arange(8), [6, 5, 4, 3, 2, 2, 1, 1])),
        "no positives": (random[:6], np.arange(6)),
        "one class": (random[:6], np.zeros(6)),
        "grid": (grid, np.arange(12) * 5 % 12 % 3),
        "line": (np.arange(9)[:, None], [0, 0, 1, 1, 0, 2, 1, 1, 1]),
        "twins": (np.repeat(centres, 2, axis=0), np.repeat(np.arange(6), 2)),
        "large trained": (1000 * trained, of_four),
        "large random": (1000 * random, of_four),
    }
    return {name: Batch(np.asarray(x, "float32"), np.asarray(y, "int64")) for name, (x, y) in made.items()}


def all_triplets(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Anchor, positive and negative of every triplet in a batch, for losses that are given explicit ones."""
    same, other = y[:, None] == y[None], y[:, None] != y[None]
    np.fill_diagonal(same, False)
    return np.nonzero(same[:, :, None] & other[:, None, :])


# What each call of a peer is here

SPACE = ("random", "trained", "lengths", "singletons", "no positives", "one class", "grid")
PLANE = (*SPACE, "line")  # for distances that need neither an angle nor a variance
TRIPLETS = ("random", "trained", "lengths", "singletons", "grid")  # where there are any
LARGE = ("large trained", "large random")

REASONS = {
    "lonely": "an anchor without a positive or without a negative",
    "fallback": "an anchor without a semi-hard negative",
    "threshold": "another positive decides what is semi-hard",
    "sign": "the inner product is used as a distance",
    "length": "the cosine of rows that are not of unit length",
    "constant": "a row whose numbers are all equal",
    "ties": "equal distances that rounding tells apart",
    "overflow": "the exponential of a large number",
    "logsumexp": "one soft margin for the whole batch",
    "margin": "a margin inside the soft margin",
    "reduction": "a reduction that is ignored",
    "epsilon": "a small number is added to a distance",
    "signed": "differences are added with their signs",
}


class Mapping(NamedTuple):
    """One call of a peer, and what it is here."""

    call: str  # Python, in the words of `vocabulary`
    ours: dict[str, object]  # arguments of `TripletLoss`, or of the function that `given` names
    batches: tuple[str, ...] = PLANE  # what it is run on
    may_differ: dict[str, str] | None = None  # on which of these the two need not agree, and the reason
    miner: str = ""  # of pytorch-metric-learning
    unit_rows: bool = False  # the peer brings rows to unit length by itself; here the network does
    given: str = "batch"  # or "triplets": explicit ones, to `triplet_margin_loss`; or "keys": to `triplet_loss`

    def reason(self, batch: str) -> str:
        """Why the two may differ on a batch: a key of `REASONS`, or nothing where they must not."""
        return (self.may_differ or {}).get(batch, "")


def settings(distance: str, positive: str, negative: str, **others: object) -> dict[str, object]:
    """Arguments of `TripletLoss`."""
    return {"distance": distance, "positive_mining_strategy": positive, "negative_mining_strategy": negative, **others}


def because(reason: str, *names: str) -> dict[str, str]:
    """The same reason for several batches."""
    return dict.fromkeys(names, reason)


PAIRS = [(positive, negative) for positive in ("hard", "easy") for negative in ("hard", "semi-hard", "easy")]
LONELY = because("lonely", "singletons", "no positives", "one class", "line")
LENGTHS = because("length", "lengths", "grid")


def similarity_calls() -> list[Mapping]:
    """TensorFlow Similarity 0.17, whose `margin=None`, the default, is the soft margin."""
    soft = LONELY | because("overflow", *LARGE)
    rows = [Mapping("TripletLoss()", settings("cosine", "hard", "semi-hard", soft_margin=True), SPACE, LONELY | LENGTHS)]
    for pair in PAIRS:
        strategies = "'{}', '{}'".format(*pair)
        rows += [
            Mapping(f"TripletLoss('cosine', {strategies}, margin=1.0)", settings("cosine", *pair), SPACE, LONELY | LENGTHS),
            Mapping(f"TripletLoss('euclidean', {strategies}, margin=1.0)", settings("euclidean", *pair), PLANE, LONELY),
            Mapping(f"TripletLoss('euclidean', {strategies})", settings("euclidean", *pair, soft_margin=True), (*PLANE, *LARGE), soft),
        ]
    for distance in ("squared_euclidean", "manhattan", "snr", "inner_product"):
        differs = {"snr": LONELY | because("constant", "grid"), "inner_product": because("sign", *SPACE)}.get(distance, LONELY)
        for pair in (("hard", "hard"), ("easy", "semi-hard")):
            call = f"TripletLoss('{distance}', '{pair[0]}', '{pair[1]}', margin=0.5)"
            rows.append(Mapping(call, settings(distance, *pair, margin=0.5), SPACE, differs))
    answer = "TripletLoss(distance='l2', positive_mining_strategy='hard', negative_mining_strategy='semi-hard', margin=1.0)"  # of issue 370
    against_keys = "partial(triplet_loss, distance=EuclideanDistance(), remove_diagonal=False, margin=1.0)"
    return [
        *rows,
        Mapping(answer, settings("euclidean", "hard", "semi-hard"), PLANE, LONELY),
        Mapping("TripletLoss('euclidean', margin=1.0, reduction='sum')", settings("euclidean", "hard", "semi-hard", reduction="sum"), PLANE, LONELY),
        Mapping(against_keys, settings("euclidean", "hard", "semi-hard"), ("random", "trained"), given="keys"),
    ]


def similarity_016_calls() -> list[Mapping]:
    """TensorFlow Similarity 0.16, which had `soft_margin`, and no semi-hard negative where none is beyond the positive."""
    fallback = because("fallback", "random", "lengths", "grid") | LONELY
    rows = []
    for pair in PAIRS:
        differs = fallback if pair[1] == "semi-hard" else LONELY
        rows.append(Mapping("TripletLoss('euclidean', '{}', '{}')".format(*pair), settings("euclidean", *pair), PLANE, differs))
    return [
        Mapping("TripletLoss()", settings("cosine", "hard", "semi-hard"), SPACE, fallback | LENGTHS),
        *rows,
        Mapping("TripletLoss(soft_margin=True)", settings("cosine", "hard", "semi-hard", soft_margin=True), SPACE, because("logsumexp", *SPACE)),
    ]


def addons_calls() -> list[Mapping]:
    """TensorFlow Addons, whose semi-hard loss takes all positives and is a mean over triplets."""
    rows, no_triplet = [], because("lonely", "no positives", "one class")
    distances = {
        "": "euclidean", "distance_metric='squared-L2'": "squared_euclidean", "distance_metric='angular'": "cosine",
        "distance_metric=city_blocks": "manhattan",
    }  # fmt: skip
    for given, distance in distances.items():
        over, ties = (SPACE, because("ties", "grid")) if distance == "cosine" else (PLANE, {})
        semi_hard = settings(distance, "all", "semi-hard", average="triplets")
        rows += [
            Mapping(f"TripletSemiHardLoss({given})", semi_hard, over, no_triplet | ties),
            Mapping(f"TripletHardLoss({given})", settings(distance, "hard", "hard"), over, LONELY),
        ]
    semi_hard = settings("euclidean", "all", "semi-hard", margin=0.5, average="triplets")
    soft = settings("euclidean", "hard", "hard", soft_margin=True)
    return [
        *rows,
        Mapping("TripletSemiHardLoss(margin=0.5)", semi_hard, PLANE, no_triplet),
        Mapping("TripletHardLoss(soft=True)", soft, (*PLANE, *LARGE), LONELY | because("overflow", *LARGE)),
        Mapping("TripletHardLoss(reduction='sum')", settings("euclidean", "hard", "hard", reduction="sum"), PLANE, because("reduction", *PLANE)),
    ]


def sentence_transformers_calls() -> list[Mapping]:
    """sentence-transformers: margin 5 and euclidean unless told otherwise; `TripletLoss` is given triplets."""
    rows = []
    kinds = {
        "BatchAllTripletLoss": (("all", "all"), {"average": "active"}, {}, {}),
        "BatchHardTripletLoss": (("hard", "hard"), {}, LONELY, LONELY),
        "BatchSemiHardTripletLoss": (
            ("all", "semi-hard"), {"average": "triplets"}, because("lonely", "one class"),
            because("lonely", "one class") | because("ties", "grid"),
        ),
    }  # fmt: skip
    for name, (pair, more, differs, differs_in_cosine) in kinds.items():
        rows += [
            Mapping(f"{name}(model)", settings("euclidean", *pair, margin=5.0, **more), PLANE, differs),
            Mapping(f"{name}(model, margin=1.0)", settings("euclidean", *pair, **more), PLANE, differs),
            Mapping(f"{name}(model, cosine_distance, 0.5)", settings("cosine", *pair, margin=0.5, **more), SPACE, differs_in_cosine),
        ]
    squared, soft = settings("squared_euclidean", "all", "all", margin=5.0, average="active"), settings("euclidean", "hard", "hard", soft_margin=True)
    explicit = {"": "euclidean", ", TripletDistanceMetric.COSINE": "cosine", ", TripletDistanceMetric.MANHATTAN": "manhattan"}
    return [
        *rows,
        Mapping("BatchAllTripletLoss(model, partial(euclidean_distance, squared=True))", squared),
        Mapping("BatchHardSoftMarginTripletLoss(model)", soft, (*PLANE, *LARGE), LONELY),
        Mapping("BatchHardSoftMarginTripletLoss(model, cosine_distance)", soft | {"distance": "cosine"}, SPACE, LONELY),
        *(Mapping(f"TripletLoss(model{metric})", {"distance": name, "margin": 5.0}, TRIPLETS, given="triplets") for metric, name in explicit.items()),
    ]


def metric_learning_calls() -> list[Mapping]:
    """pytorch-metric-learning: rows are brought to unit length, and triplets without a loss do not count, unless told otherwise."""
    call, mean = "TripletMarginLoss(margin=1.0)", "TripletMarginLoss(margin=1.0, reducer=MeanReducer())"
    everything = settings("euclidean", "all", "all", average="active")
    small, plain = everything | {"margin": 0.05}, everything | {"average": "triplets"}
    soft = plain | {"soft_margin": True}
    swap = {"distance": "euclidean", "swap": True, "average": "active"}
    raw = "normalize_embeddings=False"
    distances = {
        f"LpDistance({raw})": ("euclidean", PLANE), f"LpDistance({raw}, p=1)": ("manhattan", PLANE),
        f"LpDistance({raw}, power=2)": ("squared_euclidean", PLANE), "CosineSimilarity()": ("cosine", SPACE),
        "DotProductSimilarity()": ("cosine", SPACE),
        f"DotProductSimilarity({raw})": ("inner_product", PLANE), f"SNRDistance({raw})": ("snr", SPACE),
    }  # fmt: skip
    rows = [
        Mapping("TripletMarginLoss()", small, SPACE, unit_rows=True),
        Mapping(call, everything, SPACE, unit_rows=True),
        Mapping(mean, plain, SPACE, unit_rows=True),
        Mapping("TripletMarginLoss(margin=0.0, smooth_loss=True)", soft, SPACE, unit_rows=True),
        Mapping("TripletMarginLoss(smooth_loss=True)", soft, SPACE, because("margin", *TRIPLETS), unit_rows=True),
        Mapping("TripletMarginLoss(margin=1.0, swap=True)", swap, TRIPLETS, unit_rows=True, given="triplets"),
        Mapping(mean, plain, ("random", "trained"), unit_rows=True, given="keys"),
        Mapping(call, settings("euclidean", "hard", "hard", average="active"), SPACE, miner="BatchHardMiner()", unit_rows=True),
        Mapping(mean, settings("euclidean", "hard", "hard"), SPACE, miner="BatchHardMiner()", unit_rows=True),
        Mapping(call, everything, SPACE, miner="TripletMarginMiner(margin=1.0)", unit_rows=True),
    ]
    for distance, (name, over) in distances.items():
        constant = because("constant", "grid") if name == "snr" else None
        rows.append(Mapping(f"TripletMarginLoss(distance={distance})", small | {"distance": name}, over, constant))
    for pair in (("all", "hard"), ("hard", "all"), ("easy", "hard"), ("hard", "easy"), ("all", "easy"), ("easy", "easy")):
        miner = "BatchEasyHardMiner('{}', '{}')".format(*pair)
        rows.append(Mapping(mean, settings("euclidean", *pair, average="triplets"), SPACE, miner=miner, unit_rows=True))
    measure = f"distance=LpDistance({raw})"
    unlike = because("fallback", "random", "lengths", "singletons", "grid")
    return [
        *rows,
        Mapping(f"TripletMarginLoss(margin=1.0, {measure}, reducer=MeanReducer())", settings("euclidean", "hard", "hard"), PLANE, miner=f"BatchHardMiner({measure})"),
        Mapping(mean, settings("euclidean", "hard", "semi-hard"), SPACE, unlike, "BatchEasyHardMiner('hard', 'semihard')", unit_rows=True),
        Mapping(mean, settings("euclidean", "easy", "semi-hard"), SPACE, because("threshold", *TRIPLETS), "BatchEasyHardMiner('easy', 'semihard')", unit_rows=True),
    ]


def torch_calls() -> list[Mapping]:
    """PyTorch's own losses of explicit triplets."""
    over, cosine = (*TRIPLETS, "line", "twins"), "lambda a, b: 1 - cosine_similarity(a, b)"
    return [
        Mapping("TripletMarginLoss()", {"distance": "euclidean"}, over, given="triplets"),
        Mapping("TripletMarginLoss(margin=0.5, p=1)", {"distance": "manhattan", "margin": 0.5}, over, given="triplets"),
        Mapping("TripletMarginLoss(swap=True)", {"distance": "euclidean", "swap": True}, over, given="triplets"),
        Mapping(f"TripletMarginWithDistanceLoss(distance_function={cosine})", {"distance": "cosine"}, (*TRIPLETS, "twins"), given="triplets"),
    ]


def optax_calls() -> list[Mapping]:
    """optax's loss of explicit triplets."""
    over, close = (*TRIPLETS, "line", "twins"), because("epsilon", "twins")
    return [
        Mapping("triplet_margin_loss", {"distance": "euclidean"}, over, close, given="triplets"),
        Mapping("partial(triplet_margin_loss, margin=1.5)", {"distance": "euclidean", "margin": 1.5}, over, close, given="triplets"),
        Mapping("partial(triplet_margin_loss, norm_degree=1)", {"distance": "manhattan"}, over, because("signed", *over), given="triplets"),
    ]


MAPPINGS = {
    "tensorflow-addons": addons_calls(),
    "tensorflow-similarity": similarity_calls(),
    "tensorflow-similarity-0.16": similarity_016_calls(),
    "pytorch-metric-learning": metric_learning_calls(),
    "sentence-transformers": sentence_transformers_calls(),
    "torch": torch_calls(),
    "optax": optax_calls(),
}


# The same, here


ORDER = ("distance", "positive_mining_strategy", "negative_mining_strategy", "soft_margin", "margin", "swap", "average", "reduction")


def own_call(mapping: Mapping) -> str:
    """The call as it is written here."""
    given = {name: mapping.ours[name] for name in ORDER if name in mapping.ours}
    if mapping.given == "keys":
        arguments = ["y", "x", "key_y", "key_x"]
    else:
        arguments = [repr(given.pop(name)) for name in ORDER[:3] if name in given]
    if mapping.given == "triplets":
        arguments = ["a", "p", "n", *arguments]
        given.pop("average", None)  # is taken of what it returns
    arguments += [f"{name}={value!r}" for name, value in given.items()]
    name = {"batch": "TripletLoss", "keys": "triplet_loss", "triplets": "triplet_margin_loss"}[mapping.given]
    return f"{name}({', '.join(arguments)})".replace("'", '"')


def own_value(mapping: Mapping, batch: Batch) -> float:
    """What the package answers."""
    from keras import ops

    import tripletloss

    x, y = unit(batch.x) if mapping.unit_rows else batch.x, batch.y
    if mapping.given == "batch":
        return float(tripletloss.TripletLoss(**mapping.ours)(y, x))
    if mapping.given == "keys":
        return float(ops.mean(tripletloss.triplet_loss(y[::2], x[::2], y[1::2], x[1::2], **mapping.ours)))
    arguments = {name: value for name, value in mapping.ours.items() if name != "average"}
    losses = ops.convert_to_numpy(tripletloss.triplet_margin_loss(*(x[index] for index in all_triplets(y)), **arguments))
    return float(losses[losses > 0].mean() if mapping.ours.get("average") == "active" else losses.mean())


def stored(library: str, folder: Path = RESULTS) -> dict[tuple[str, ...], float]:
    """A peer's answers by call, miner, what was given, and batch."""
    with open(folder / f"peers-{library}.csv", newline="") as file:
        return {tuple(row[name] for name in KEY): float(row["value"]) for row in csv.DictReader(file)}


def version_of(library: str, folder: Path = RESULTS) -> str:
    """The version of a peer that gave the stored answers."""
    with open(folder / f"peers-{library}.csv", newline="") as file:
        return next(csv.DictReader(file))["version"]


def agree(one: float, other: float) -> bool:
    """Whether two answers are the same within `TOLERANCE`; NaN is no answer."""
    return abs(one - other) <= TOLERANCE * max(1, abs(other))


# Running a peer

MODULES = {
    "tensorflow-addons": ("tensorflow_addons.losses",),
    "tensorflow-similarity": ("tensorflow_similarity.losses", "tensorflow_similarity.losses.triplet_loss"),
    "tensorflow-similarity-0.16": ("tensorflow_similarity.losses",),
    "pytorch-metric-learning": (
        "pytorch_metric_learning.losses", "pytorch_metric_learning.miners",
        "pytorch_metric_learning.distances", "pytorch_metric_learning.reducers",
    ),
    "sentence-transformers": ("sentence_transformers.sentence_transformer.losses",),
    "torch": ("torch.nn", "torch.nn.functional"),
    "optax": ("optax.losses",),
}  # fmt: skip


def vocabulary(library: str) -> dict[str, object]:
    """What the calls of a library are written in: the names in its modules, and a few more."""
    known = {name: value for module in MODULES[library] for name, value in vars(importlib.import_module(module)).items()}
    if library == "tensorflow-addons":
        import tensorflow as tf

        known["city_blocks"] = lambda x: tf.reduce_sum(tf.abs(x[:, None] - x[None]), axis=2)
    if library == "tensorflow-similarity":
        known |= vars(importlib.import_module("tensorflow_similarity.distances"))
    if library == "sentence-transformers":
        measures = known["BatchHardTripletLossDistanceFunction"]
        known |= {"model": None, "cosine_distance": measures.cosine_distance, "euclidean_distance": measures.euclidean_distance}
    return known | {"partial": functools.partial}


def in_tensorflow(loss: Callable, miner: None, batch: Batch, given: str) -> float:
    """TensorFlow Addons and Similarity: labels before embeddings."""
    import tensorflow as tf

    x, y = tf.constant(batch.x), tf.constant(batch.y)
    return float(tf.reduce_mean(loss(y[::2], x[::2], y[1::2], x[1::2]) if given == "keys" else loss(y, x)))


def in_torch(loss: Callable, miner: Callable | None, batch: Batch, given: str) -> float:
    """PyTorch, pytorch-metric-learning and sentence-transformers: embeddings before labels."""
    import torch

    x, y = torch.as_tensor(batch.x), torch.as_tensor(batch.y)
    rows = [x[torch.as_tensor(index)] for index in all_triplets(batch.y)] if given == "triplets" else [x]
    if hasattr(loss, "compute_loss_from_embeddings"):
        return float(loss.compute_loss_from_embeddings(rows, y))
    if hasattr(loss, "reducer"):
        if given == "keys":
            return float(loss(x[::2], y[::2], ref_emb=x[1::2], ref_labels=y[1::2]))
        return float(loss(x, y, miner(x, y) if miner else None))
    return float(loss(*rows))


def in_jax(loss: Callable, miner: None, batch: Batch, given: str) -> float:
    """optax, which returns one loss for each triplet."""
    import jax.numpy as jnp

    return float(loss(*(jnp.asarray(batch.x[index]) for index in all_triplets(batch.y))).mean())


def answers(library: str) -> list[dict[str, str]]:
    """A row for each call and batch."""
    known, made = vocabulary(library), batches()
    version = importlib.metadata.version(library.removesuffix("-0.16"))
    run = in_tensorflow if "tensorflow" in library else in_jax if library == "optax" else in_torch
    rows = []
    for mapping in MAPPINGS[library]:
        for name in mapping.batches:
            loss, miner = (eval(text or "None", known) for text in (mapping.call, mapping.miner))
            value = repr(run(loss, miner, made[name], mapping.given))
            rows.append(dict(zip(COLUMNS, (library, mapping.call, mapping.miner, mapping.given, name, value, version), strict=True)))
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=MAPPINGS, required=True, help="whose calls are run; it must be installed")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the table")
    arguments = parser.parse_args()
    if "similarity" in arguments.library:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"  # it needs Keras 2
    write(arguments.output / f"peers-{arguments.library}.csv", COLUMNS, answers(arguments.library))


if __name__ == "__main__":
    main()
