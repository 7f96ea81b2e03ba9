"""The loops with error bars: every answer that float rounding may turn the exact one into, and no other.

A computed distance is not the exact one, so where two keys are almost equally far either may be chosen, and no test may
insist on one of them. But how far off a distance may be is known: sums of d products are off by at most about d roundings
of what was added up. From that follow, with plain loops in 64 bits, the keys that may be chosen, and the least and the
largest value and gradient that may come of them. With exact ties and kinks the same holds: each side of a kink is right.

There are three kinds of distance in the package, and three error bars here. `direct` is the rounding of a distance made
from the differences of two rows. `table` is that of a matrix product around a row c, the one nearest to the keys' mean:
a sum of products of the coordinates of q - c and k - c, and of their halved squares. What is added up is no larger than
(|q - c| + |k - c|)^2, the square of the way from q to k by c, and its roundings remain however close q and k are to one
another. `of_class` is the same around another row c, the first key of the query's class: for positives alone.
"""

import math
from typing import NamedTuple

import numpy as np
import reference

BY_PRODUCT = ("cosine", "euclidean", "squared_euclidean", "snr")  # whose table is a product around a centre


class Errors(NamedTuple):
    """By how much what is computed may be off, at most."""

    value: np.ndarray  # (n, m)
    rank: np.ndarray  # (n, m)
    by_query: np.ndarray  # (n, m, d)
    by_key: np.ndarray  # (n, m, d)


class Pairs(NamedTuple):
    """All pairs of n queries and m keys, in 64 bits."""

    value: np.ndarray  # (n, m) distances
    rank: np.ndarray  # (n, m) numbers in the order of each query's distances: squares, where these are what is compared
    by_query: np.ndarray  # (n, m, d) the distance's derivative by the query
    by_key: np.ndarray  # (n, m, d) its derivative by the key
    direct: Errors
    table: Errors
    of_class: Errors  # meaningless where query i's class is not key j's


def roundings(d, dtype):
    """A bound for the relative error of a sum of d products and a few operations around it."""
    eps = float(np.finfo(dtype).eps)
    return (d + 8) * eps * (4 if eps < 1e-12 else 1)  # in 64 bits these loops are off themselves


def length(row):
    return math.sqrt(float(np.dot(row, row)))


def unit(row):
    return row / length(row) if row.any() else row


def prepared(name, x):
    """Rows as they enter a product: under cosine with one number more, 1 for a row of zeros."""
    if name == "cosine":
        return np.array([[*unit(row), float(not row.any())] for row in x]).reshape(len(x), x.shape[1] + 1)
    return x - x.mean(axis=1, keepdims=True) if name == "snr" else x


def is_well_conditioned(name, x, dtype):
    """Whether rounding leaves enough of each row: under snr, a row that is almost constant is all rounding."""
    if name != "snr":
        return True
    powers = [length(row) for row in prepared(name, x)]
    return all(p == 0 or p > 1e4 * roundings(x.shape[1], dtype) * abs(row).max() for p, row in zip(powers, x, strict=True))


def ways_around(query, key):
    """(n, m, m) |query - c| + |key - c| of all pairs, for each of the keys as c."""
    of_query, of_key = (np.array([[length(row - c) for c in key] for row in x]).reshape(-1, len(key)) for x in (query, key))
    return of_query[:, None] + of_key[None]


def first_of_class(labels, key_labels):
    """(n,) the first key of each query's class; 0 where there is none, and no positive."""
    return np.array([next((j for j, other in enumerate(key_labels) if other == label), 0) for label in labels], int)


def centers(key, dtype):
    """The key nearest to the mean, as it is taken for the whole table; all that are, if rounding leaves several."""
    mean, scale = key.mean(axis=0), abs(key).max()
    reach = [abs(row - mean).max() for row in key]
    slack = 4 * len(key) * roundings(1, dtype) * scale
    return [j for j, r in enumerate(reach) if r <= min(reach) + slack]


def euclidean(q, k, way, rounding):
    difference = q - k
    square = float(np.dot(difference, difference))
    value = math.sqrt(square)
    gradient = difference / value if value else 0 * difference
    direct = rounding * value, rounding * square, rounding + 0 * q, rounding + 0 * q
    error = rounding * (square + way * way)
    low, high = math.sqrt(max(0.0, square - error)), math.sqrt(square + error)
    # A gradient from the table is a difference of two rows over a distance, and both are off.
    off = value * (1 / low - 1 / value) + rounding * way / low + rounding if low and value else (math.inf if way else 0.0)
    return square, gradient, -gradient, direct, (max(high - value, value - low), error, off + 0 * q, off + 0 * q)


def squared_euclidean(q, k, way, rounding):
    difference = q - k
    square = float(np.dot(difference, difference))
    off, far_off = 2 * rounding * abs(difference), 2 * rounding * (abs(difference) + way)
    error = rounding * (square + way * way)
    return square, 2 * difference, -2 * difference, (rounding * square, rounding * square, off, off), (error, error, far_off, far_off)


def manhattan(q, k, way, rounding):
    difference = q - k
    total = abs(difference).sum()
    at_kink = rounding + (difference == 0)  # there the table may have any derivative from -1 to 1
    direct = rounding * total, rounding * total, rounding + 0 * q, rounding + 0 * q
    return total, np.sign(difference), -np.sign(difference), direct, (*direct[:2], at_kink, at_kink)


def inner_product(q, k, way, rounding):
    error = rounding * float(np.dot(abs(q), abs(k)))
    errors = error, error, rounding * abs(k), rounding * abs(q)
    return -float(np.dot(q, k)), -k, -q, errors, errors


def cosine(q, k, way, rounding):
    u, v = unit(q), unit(k)
    difference, product = u - v, float(np.dot(u, v))
    away, value = length(difference), reference.distance("cosine", q, k)
    error = rounding * value + 2 * rounding * away + 2 * rounding**2 + 1e-15  # the loops' own: they take a cosine from 1
    of_query, of_key = (1 / length(x) if x.any() else 0.0 for x in (q, k))
    gradients = -(v - product * u) * of_query, -(u - product * v) * of_key
    off = [rounding * factor * (4 + 0 * q) for factor in (of_query, of_key)]
    far_off = [rounding * factor * (4 + 2 * way + 0 * q) for factor in (of_query, of_key)]
    far = error + rounding * way * way
    return value, *gradients, (error, error, *off), (far, far, *far_off)


def snr(q, k, way, rounding):
    a, b = q - q.mean(), k - k.mean()
    if not a.any():  # a constant query is 0 from everything
        nothing = 0.0, 0.0, 0 * q, 0 * q
        return 0.0, 0 * q, 0 * q, nothing, nothing
    signal, noise, difference = float(np.dot(a, a)), float(np.dot(a - b, a - b)), a - b
    of_query = rounding * math.sqrt(len(q)) * abs(q).max()  # what the mean's rounding does to the row
    off = of_query + rounding * math.sqrt(len(q)) * abs(k).max()
    of_signal = rounding + 2 * of_query / math.sqrt(signal) + of_query**2 / signal
    by_key = -2 * difference / signal
    by_query = -by_key - 2 * noise / signal**2 * a

    def errors(of_noise, of_difference):
        off_key = 2 * of_difference / signal + abs(by_key) * of_signal
        by_value = 2 * (of_noise * abs(a) + noise * of_query) / signal**2 + 4 * noise * abs(a) / signal**2 * of_signal
        return of_noise / signal + noise / signal * 2 * of_signal, of_noise, off_key + by_value, off_key

    of_noise = rounding * noise + 2 * math.sqrt(noise) * off + off**2
    direct = errors(of_noise, rounding * abs(difference) + off)
    table = errors(of_noise + rounding * way * way, rounding * (abs(difference) + way) + off)
    return noise, by_query, by_key, direct, table


DISTANCES = {
    "cosine": cosine,
    "euclidean": euclidean,
    "squared_euclidean": squared_euclidean,
    "manhattan": manhattan,
    "inner_product": inner_product,
    "snr": snr,
}


def pairs_of(name, query, key, dtype, references=None):
    """All pairs, one after the other; `references` (n,) are the keys around which each query meets its own class."""
    (n, d), m = query.shape, len(key)
    query, key, rounding = query.astype("float64"), key.astype("float64"), roundings(d, dtype)
    ways = of_class = np.zeros((n, m))
    if name in BY_PRODUCT and n and m:
        around = ways_around(prepared(name, query), prepared(name, key))
        ways = around[:, :, centers(prepared(name, key), dtype)].max(axis=2)
        of_class = ways if references is None else np.array([around[i, :, c] for i, c in enumerate(references)])
    found, of_class = (
        [DISTANCES[name](q, k, way[i, j], rounding) for i, q in enumerate(query) for j, k in enumerate(key)] for way in (ways, of_class)
    )
    table, matrix = (n, m), (n, m, d)

    def collect(numbers, shape):
        return np.array(list(numbers), "float64").reshape(shape)

    direct, by_table, by_class = (
        Errors(*(collect((x[place][k] for x in numbers), table if k < 2 else matrix) for k in range(4)))
        for numbers, place in ((found, 3), (found, 4), (of_class, 4))
    )
    if name == "inner_product" and n and m and references is not None:
        # Ranks of a class are products with k - c: of these |k| + |c| is rounded, once by the difference.
        far = abs(key)[None] + abs(key[references])[:, None]
        by_class = by_class._replace(rank=rounding * (abs(query)[:, None] * far).sum(axis=2))
    gradients = (collect((x[place] for x in found), matrix) for place in (1, 2))
    ranks = collect((x[0] for x in found), table)
    return Pairs(reference.pairwise(name, query, key), ranks, *gradients, direct, by_table, by_class)


# Which keys may be chosen.


def largest(values, errors, among):
    """Those that may be the largest."""
    at_least = max(values[j] - errors[j] for j in among)
    return [j for j in among if values[j] + errors[j] >= at_least]


def smallest(values, errors, among):
    return largest(-values, errors, among)


def nearest_beyond(values, errors, among, low, high):
    """Those that may be the nearest beyond a threshold from low to high; the farthest of all, if there may be none."""
    surely = [values[j] + errors[j] for j in among if values[j] - errors[j] > high]
    maybe = [j for j in among if values[j] + errors[j] > low and values[j] - errors[j] <= min(surely, default=math.inf)]
    return maybe if surely else sorted({*maybe, *largest(values, errors, among)})


class Question(NamedTuple):
    """What is asked of a batch: labels, and how to mine and to count."""

    labels: np.ndarray
    key_labels: np.ndarray
    remove_diagonal: bool
    positive: str
    negative: str
    soft_margin: bool
    margin: float
    small: bool  # all queries and keys are in one table
    listed: int  # up to so many positives are taken one by one where they are not


def candidates(question, i):
    """The positives and the negatives of query i."""
    labels, keys = question.labels, range(len(question.key_labels))
    same = [j for j in keys if question.key_labels[j] == labels[i] and not (question.remove_diagonal and j == i)]
    return same, [j for j in keys if question.key_labels[j] != labels[i]]


def one_by_one(question):
    """Whether the chosen triplets are listed, and each has its distances made from differences."""
    if "all" not in (question.positive, question.negative):
        return True
    most = max((len(candidates(question, i)[0]) for i in range(len(question.labels))), default=0)
    return question.negative != "all" and not question.small and most <= question.listed


def choices(question, pairs, i):
    """For query i its triplets; for each of them the list of all (positive, negative) that it may be."""
    same, other = candidates(question, i)
    if not same or not other:
        return []
    rank, errors = pairs.rank[i], pairs.table.rank[i]
    # By products around a member of the class; in blocks by differences, unless a row of the block is left unresolved.
    of_same = np.maximum(pairs.of_class.rank[i], pairs.direct.rank[i])

    def negatives(low, high):
        if question.negative == "semi-hard":
            return nearest_beyond(rank, errors, other, low, high)
        return {"hard": smallest, "easy": largest}[question.negative](rank, errors, other)

    if question.positive == "all":
        if question.negative == "all":
            return [[(p, n)] for p in same for n in other]
        return [[(p, n) for n in negatives(rank[p] - errors[p], rank[p] + errors[p])] for p in same]
    positives = {"hard": largest, "easy": smallest}[question.positive](rank, of_same, same)
    if question.negative == "all":
        return [[(p, n) for p in positives] for n in other]
    low, high = max(rank[p] - errors[p] for p in same), max(rank[p] + errors[p] for p in same)
    return [[(p, n) for n in negatives(low, high) for p in positives]]


# What may come of them.


def errors_of_values(question, pairs, i):
    """The errors of query i's distances to its positives, and to its negatives."""
    return (pairs.direct, pairs.direct) if one_by_one(question) else (pairs.of_class, pairs.table)


class Bounds(NamedTuple):
    """Of each query's triplets, from and to."""

    low: np.ndarray  # (n,) the sum of their losses
    high: np.ndarray
    triplets: np.ndarray  # (n,) how many there are
    least_active: np.ndarray  # (n,) how many have a loss above 0
    most_active: np.ndarray


def cut_off(gap):
    """PyTorch takes softplus(x) for x beyond 20, whatever the dtype."""
    return math.exp(-20) if gap > 19.9 else 0.0


def loss_between(question, gap, error, dtype):
    """Least and largest loss of a triplet whose distances differ by gap, and whether it is, and may be, above 0."""
    if question.soft_margin:
        low, high = (reference.loss_of_triplet(x, 0.0, soft_margin=True) for x in (gap - error, gap + error))
        error = 16 * np.finfo(dtype).eps * high + cut_off(gap)
        return low - error, high + error, gap - error > -80, True  # below, it may be 0 in 32 bits
    low, high = gap + question.margin - error, gap + question.margin + error
    return max(0.0, low), max(0.0, high), low > 0, high > 0


def gap_of(question, pairs, i, p, n, dtype):
    """Positive distance less negative distance, by how much it may be off, and the size of what is added up."""
    of_positive, of_negative = errors_of_values(question, pairs, i)
    far, near = pairs.value[i, p], pairs.value[i, n]
    size = abs(far) + abs(near) + (0 if question.soft_margin else question.margin)
    return far - near, of_positive.value[i, p] + of_negative.value[i, n] + 4 * np.finfo(dtype).eps * size, size


def sums_between(question, pairs, dtype, chosen=None):
    """Bounds of each query's sum; `chosen` lists the choices in place of all that there may be."""
    n, m, eps = len(question.labels), len(question.key_labels), np.finfo(dtype).eps
    low, high, triplets, least, most = np.zeros((5, n))
    for i in range(n):
        for options in choices(question, pairs, i) if chosen is None else chosen[i]:
            gaps = [gap_of(question, pairs, i, *option, dtype) for option in options]
            found = [loss_between(question, gap, error, dtype) for gap, error, _ in gaps]
            rounding = eps * (m + 8) * max(size for *_, size in gaps) if "all" in (question.positive, question.negative) else 0
            low[i] += min(x[0] for x in found) - rounding
            high[i] += max(x[1] for x in found) + rounding
            least[i] += all(x[2] for x in found)
            most[i] += any(x[3] for x in found)
            triplets[i] += 1
    return Bounds(low, high, triplets, least, most)


def factors_between(bounds, average):
    """By what each query's sum is multiplied: (n,) least and largest."""
    if average == "anchors":
        factor = 1 / np.maximum(bounds.triplets, 1)
        return factor, factor
    valid = float((bounds.triplets > 0).sum())
    if average == "triplets":
        factor = np.full(len(bounds.triplets), valid / max(bounds.triplets.sum(), 1))
        return factor, factor
    counts = max(bounds.most_active.sum(), 1), max(bounds.least_active.sum(), 1)
    return tuple(np.full(len(bounds.triplets), valid / count) for count in counts)


def product(low, high, least, largest):
    """Least and largest product of a number from low to high and one from least to largest."""
    with np.errstate(invalid="ignore"):
        products = [low * least, low * largest, high * least, high * largest]
    products = [np.where(np.isnan(x), 0.0, x) for x in products]  # nothing of what may be infinite is nothing
    return np.minimum.reduce(products), np.maximum.reduce(products)


def losses_between(question, pairs, average, dtype, chosen=None):
    """Least and largest (n,) of what each query gets."""
    bounds = sums_between(question, pairs, dtype, chosen)
    low, high = product(bounds.low, bounds.high, *factors_between(bounds, average))
    slack = 16 * np.finfo(dtype).eps * np.maximum(abs(low), abs(high))
    return low - slack, high + slack


def slope_between(question, gap, error, dtype):
    """Least and largest derivative of a triplet's loss by the gap."""
    if question.soft_margin:
        rounding = 8 * np.finfo(dtype).eps + cut_off(gap)
        low, high = (0.5 * (1 + math.tanh(x / 2)) for x in (gap - error, gap + error))
        return max(0.0, low - rounding), min(1.0, high + rounding)
    return float(gap + question.margin - error > 0), float(gap + question.margin + error > 0)


MANY = 12  # choices of one triplet beyond which its gradient is not looked at


def gradient_between(question, pairs, average, weights, dtype, chosen=None):
    """Least and largest gradient by (queries (n, d), keys (m, d)) of the weighted sum of losses; None if all is open."""
    (n, m, d), eps = pairs.by_query.shape, np.finfo(dtype).eps
    least, most = factors_between(sums_between(question, pairs, dtype, chosen), average)
    low, high = np.zeros((2, n + m, d))
    for i in range(n):
        of_query = np.zeros((2, n + m, d))
        for options in choices(question, pairs, i) if chosen is None else chosen[i]:
            if len(options) > MANY:
                return None
            between = [weights_between(question, pairs, i, *option, dtype) for option in options]
            rows = sorted({row for one in between for row in one})
            nothing = np.zeros((2, d))
            for row in rows:
                of_query[0, row] += np.min([one.get(row, nothing)[0] for one in between], axis=0)
                of_query[1, row] += np.max([one.get(row, nothing)[1] for one in between], axis=0)
        more = product(*of_query, weights[i] * least[i], weights[i] * most[i])
        slack = eps * (n + m + 16) * np.maximum(abs(more[0]), abs(more[1]))
        low, high = low + more[0] - slack, high + more[1] + slack
    return low, high


def weights_between(question, pairs, i, p, n, dtype):
    """Of one triplet: for each of its rows (the keys follow the queries), the least and largest gradient (2, d)."""
    queries = len(pairs.value)
    slope = slope_between(question, *gap_of(question, pairs, i, p, n, dtype)[:2], dtype)
    of_positive, of_negative = errors_of_values(question, pairs, i)
    gradients = [
        (i, (pairs.by_query[i, p] - pairs.by_query[i, n], of_positive.by_query[i, p] + of_negative.by_query[i, n])),
        (queries + p, (pairs.by_key[i, p], of_positive.by_key[i, p])),
        (queries + n, (-pairs.by_key[i, n], of_negative.by_key[i, n])),
    ]
    between = {}
    for row, (gradient, error) in gradients:
        more = np.array(product(gradient - error, gradient + error, *slope))
        between[row] = more
    return between
