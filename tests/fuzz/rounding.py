"""Every answer that float rounding may turn the exact one into, and no other.

A computed distance is off, so where two keys are almost equally far either may be chosen, and no test may insist on one
of them. But how far off it may be is known. A squared distance is computed around a row c, as a sum of products of the
coordinates of q - c and k - c, none larger than the way from q to k by c, `way` = |q - c| + |k - c|. So its error is
`rounding` * (square + way²), where `rounding` is what d additions lose. There are three such c:

- none where a pair is made from its difference: the way is 0, and the error relative;
- the key nearest to the mean, where a table ranks all keys;
- the first key of the query's class, where a table ranks the positives.

From these bars follow the keys that may be chosen, the least and the largest loss and slope of each triplet, and of all
that is made of them. In the arrays below n queries meet m keys, and each query has P times N triplets: P is m with all
positives, N is m with all negatives, and both are 1 otherwise.
"""

from typing import NamedTuple

import numpy as np


def norm(x):
    return np.sqrt((x * x).sum(axis=-1))


def prepared(name, x):
    """Rows of length 1 under cosine, with a 1 behind those of zeros; less their own means under snr."""
    if name == "cosine":
        zero = ~x.real.any(axis=-1, keepdims=True)
        return np.concatenate([x / np.where(zero, 1, norm(x)[..., None]) * ~zero, zero], axis=-1)
    return x - x.mean(axis=-1, keepdims=True) if name == "snr" else x


def distance(name, query, key):
    """Of rows (..., d), from their difference. The rows may be complex: only their real parts decide anything."""
    if name == "inner_product":
        return -(query * key).sum(axis=-1)
    query, key = prepared(name, query), prepared(name, key)
    difference = query - key
    if name == "manhattan":
        return (np.sign(difference.real) * difference).sum(axis=-1)
    square = (difference * difference).sum(axis=-1)
    if name == "cosine":
        return square / 2 + query[..., -1] * key[..., -1]
    if name == "snr":
        constant = ~query.real.any(axis=-1)
        return np.where(constant, 0, square / np.where(constant, 1, (query * query).sum(axis=-1)))
    return np.sqrt(square) if name == "euclidean" else square


def derivatives(name, query, key):
    """By the queries and by the keys, (n, m, d) each: an imaginary step so small that its square is 0."""
    steps = 1e-200j * np.eye(query.shape[1])
    query, key = query[:, None, None], key[None, :, None]
    return distance(name, query + steps, key).imag / 1e-200, distance(name, query, key + steps).imag / 1e-200


class Bars(NamedTuple):
    """From and to: the distances (n, m), and by how much their derivatives are off, which broadcasts to (n, m, d)."""

    low: np.ndarray
    high: np.ndarray
    error_by_query: np.ndarray
    error_by_key: np.ndarray


def bars(name, query, key, rounding, way):
    """Of all pairs, the way (n, m) being that by the row around which they are computed."""
    value, q, k = distance(name, query[:, None], key), prepared(name, query), prepared(name, key)
    of_query, of_key, difference = norm(query)[:, None], norm(key)[None], q[:, None] - k
    if name == "inner_product":
        error = rounding * of_query * (of_key + way)
        return Bars(value - error, value + error, rounding * of_key[..., None], rounding * of_query[..., None])
    if name == "manhattan":  # where two coordinates are equal, a table may have any derivative
        error, kink = rounding * value, rounding + (difference == 0) * (way > 0)[..., None]
        return Bars(value - error, value + error, kink, kink)
    # By this much the prepared rows are off: by the division under cosine, and the means' rounding under snr.
    off = {"cosine": rounding, "snr": rounding * (of_query + of_key)}.get(name, 0)
    far = norm(difference)
    error = rounding * (far**2 + way**2) + 2 * far * off + off**2
    low, high = np.maximum(far**2 - error, 0), far**2 + error
    # The derivative of the distance by its square: exact, and the largest that may be.
    slope = steepest = 1.0
    of_rows, of_signal = (1.0, 1.0), 0.0
    if name == "euclidean":
        low, high = np.sqrt(low), np.sqrt(high)
        slope, steepest = (0.5 / np.where(x > 0, x, np.where(far + way > 0, TINY, np.inf)) for x in (value, low))
    elif name == "cosine":
        zeros = q[:, None, -1] * k[:, -1]
        low, high, slope, steepest = low / 2 + zeros, high / 2 + zeros, 0.5, 0.5
        of_rows = [1 / np.where(x > 0, x, np.inf) for x in (of_query, of_key)]  # by which a unit row turns with its row
    elif name == "snr":
        signal, off = norm(q)[:, None] ** 2, rounding * of_query
        error = rounding * signal + 2 * np.sqrt(signal) * off + off**2
        least, exact, most = (np.where(signal > 0, np.maximum(x, TINY), np.inf) for x in (signal - error, signal, signal + error))
        low, high, slope, steepest = low / most, high / least, 1 / exact, 1 / least
        of_signal = 4 * (high - low) / np.sqrt(exact)
    error = 2 * steepest * (rounding * (far + way) + off) + 2 * (steepest - slope) * far
    return Bars(low, high, (error * of_rows[0] + of_signal)[..., None], (error * of_rows[1])[..., None])


TINY = 1e-100


class Pairs(NamedTuple):
    """All pairs of queries and keys."""

    by_query: np.ndarray  # (n, m, d) the exact derivatives
    by_key: np.ndarray
    direct: Bars  # from their differences
    table: Bars  # around a row for all
    of_class: Bars  # around a row for each class, meaningless where query and key are of two classes


def pairs_of(name, batch, eps):
    """What floats of this eps may make of a batch."""
    query, (key_labels, key) = batch.x.astype("float64"), batch.all_keys
    key = key.astype("float64")
    rounding = (query.shape[1] + 8) * eps * (4 if eps < 1e-12 else 1)  # in 64 bits, what is exact here is off itself
    q, k = prepared(name, query), prepared(name, key)
    first = k[(batch.labels[:, None] == key_labels).argmax(axis=1)]  # (n, d) of the query's class
    # The central key is no farther from the mean, in its largest coordinate, than any.
    mean = k.mean(axis=0)
    central = 2 * np.sqrt(k.shape[1]) * abs(k - mean).max(axis=1).min()
    ways = norm(q - mean)[:, None] + norm(k - mean) + central, norm(q - first)[:, None] + norm(k - first[:, None])
    if name == "inner_product":  # around a row of the class, what is ranked are products with k - c
        ways = np.zeros_like(ways[0]), norm(first)[:, None] + 0 * ways[0]
    if name == "manhattan":  # which goes around nothing; but a kink is another thing in a table
        ways = np.ones_like(ways)
    return Pairs(*derivatives(name, query, key), *(bars(name, query, key, rounding, way) for way in (np.zeros_like(ways[0]), *ways)))


# Which keys may be chosen. The last axis is that of the keys, and booleans say which of them are meant.


def farthest(low, high, among):
    """Those that may be the farthest."""
    return among & (high >= np.where(among, low, -np.inf).max(axis=-1, keepdims=True))


def nearest(low, high, among):
    return farthest(-high, -low, among)


def semi_hard(low, high, among, threshold):
    """Those that may be the nearest beyond a threshold, itself from and to; the farthest of all, if there may be none."""
    surely = among & (low > threshold[1][..., None])
    maybe = among & (high > threshold[0][..., None]) & (low <= np.where(surely, high, np.inf).min(axis=-1, keepdims=True))
    return np.where(surely.any(axis=-1, keepdims=True), maybe, maybe | farthest(low, high, among))


def choices(batch, loss, pairs):
    """The keys that may be each triplet's positive, and its negative: booleans (n, P, m); with all negatives, all that are."""
    same, m = batch.labels[:, None] == batch.all_keys[0], len(batch.all_keys[0])
    positive = same & ~(np.eye(*same.shape, dtype=bool) & batch.without_diagonal)
    positive, negative = (x & (positive.any(axis=1) & ~same.all(axis=1))[:, None] for x in (positive, ~same))
    table, of_class = pairs.table[:2], pairs.of_class[:2]
    if loss.positive == "all":
        positives, threshold = positive[:, None] & np.eye(m, dtype=bool), table
    else:
        positives = {"hard": farthest, "easy": nearest}[loss.positive](*of_class, positive)[:, None]
        threshold = [np.where(positive, x, -np.inf).max(axis=1, keepdims=True) for x in table]
    table, negative = [x[:, None] for x in table], negative[:, None]
    if loss.negative == "semi-hard":
        negative = semi_hard(*table, negative, threshold)
    elif loss.negative != "all":
        negative = {"hard": nearest, "easy": farthest}[loss.negative](*table, negative)
    return positives, np.broadcast_to(negative, positives.shape)


# What may come of them.


def between(low, high, among):
    """From and to of one of those that are meant, 0 where none is."""
    exists = among.any(axis=-1)
    return np.where(exists, np.where(among, low, np.inf).min(axis=-1), 0), np.where(exists, np.where(among, high, -np.inf).max(axis=-1), 0)


class Triplets(NamedTuple):
    """All triplets (n, P, N) of the queries, from and to."""

    exists: np.ndarray
    loss: tuple
    slope: tuple  # the loss's derivative by the difference of the two distances
    factor: tuple  # (n,) by what the sum of a query's losses is multiplied
    size: np.ndarray  # of what is added up


def triplets_of(loss, pairs, positives, negatives, eps):
    """What comes of these choices."""
    is_listed = "all" not in (loss.positive, loss.negative)  # else the distances are those of the tables
    of_positive, of_negative = (pairs.direct, pairs.direct) if is_listed else (pairs.of_class, pairs.table)
    exists = positives.any(axis=-1)[..., None] & (negatives if loss.negative == "all" else negatives.any(axis=-1)[..., None])
    far = [x[..., None] for x in between(of_positive.low[:, None], of_positive.high[:, None], positives)]
    near = [x[:, None] for x in of_negative[:2]]
    if loss.negative != "all":
        near = [x[..., None] for x in between(*near, negatives)]
    margin = 0 if loss.soft_margin else loss.margin
    size = exists * (abs(np.array(far)).max(axis=0) + abs(np.array(near)).max(axis=0) + margin)
    gaps = far[0] - near[1] - 4 * eps * size + margin, far[1] - near[0] + 4 * eps * size + margin
    if loss.soft_margin:
        cut = np.exp(-20) * (gaps[1] > 19.9)  # PyTorch takes softplus(x) for x beyond 20, whatever the dtype
        found = [np.logaddexp(0, x) for x in gaps]
        slack = 16 * eps * found[1] + cut
        slopes = [np.clip((1 + np.tanh(x / 2)) / 2 + sign * (8 * eps + cut), 0, 1) for x, sign in zip(gaps, (-1, 1), strict=True)]
        active = gaps[0] > -80, gaps[1] > -np.inf  # below, it may be 0 in 32 bits
    else:
        found, slopes, slack = [np.maximum(x, 0) for x in gaps], [1.0 * (x > 0) for x in gaps], 0
        active = slopes
    slack = slack + (0 if is_listed else eps * (negatives.shape[-1] + 8) * size)
    losses = (found[0] - slack) * exists, (found[1] + slack) * exists
    number = exists.sum(axis=(1, 2))
    if loss.average == "anchors":
        factors = (1 / np.maximum(number, 1),) * 2
    else:
        counts = (number.sum(),) * 2 if loss.average == "triplets" else [(x * exists).sum() for x in reversed(active)]
        factors = [np.full(len(number), (number > 0).sum() / max(x, 1.0)) for x in counts]
    return Triplets(exists, losses, [x * exists for x in slopes], factors, size)


def losses_between(triplets, eps):
    """Least and largest (n,) of what each query gets."""
    low, high = (x.sum(axis=(1, 2)) for x in triplets.loss)
    least, most = triplets.factor
    slack = 16 * eps * high * most
    return np.minimum(low * least, low * most) - slack, high * most + slack


def gradient_between(loss, pairs, triplets, positives, negatives, weights, eps):
    """Least and largest gradient, by the queries (n, d) and by the keys (m, d), of the weighted sum of losses."""
    is_listed = "all" not in (loss.positive, loss.negative)
    least, most = (slope * (weights * factor)[:, None, None] for slope, factor in zip(triplets.slope, triplets.factor, strict=True))
    total, radius = [0, 0], [0, 0]
    for sign, of_pairs, options, is_open, axis in (
        (1, pairs.direct if is_listed else pairs.of_class, positives, True, 2),
        (-1, pairs.direct if is_listed else pairs.table, negatives, loss.negative != "all", None),
    ):
        low, high = (least, most) if axis is None else (x.sum(axis=2, keepdims=True) for x in (least, most))
        surely = options & (options.sum(axis=2, keepdims=True) == 1) if is_open else options
        low, high = (low * surely).sum(axis=1), (high * options).sum(axis=1)  # (n, m) of each pair
        for side, exact, error, sum_of in (
            (0, pairs.by_query, of_pairs.error_by_query, "nm,nmd->nd"),
            (1, pairs.by_key, of_pairs.error_by_key, "nm,nmd->md"),
        ):
            error = error + eps * (sum(low.shape) + 16) * abs(exact)
            total[side] = total[side] + sign * np.einsum(sum_of, (low + high) / 2, exact)
            radius[side] = radius[side] + np.einsum(sum_of, high, error) + np.einsum(sum_of, (high - low) / 2, abs(exact))
    return [x - r for x, r in zip(total, radius, strict=True)], [x + r for x, r in zip(total, radius, strict=True)]
