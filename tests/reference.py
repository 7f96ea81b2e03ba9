"""The loss once more, as plain loops over Python floats, written from the definitions and never from the package.

Labels y; distances d(i, j) of query i to key j.

    P(i) = keys with query i's label, without key i where `remove_diagonal`
    N(i) = keys with another label
    A query is valid where both have a member.
"""

import math

import numpy as np

DISTANCES = {
    "cosine": (),
    "euclidean": ("l2", "pythagorean"),
    "squared_euclidean": ("sql2", "sqeuclidean"),
    "manhattan": ("l1", "taxicab"),
    "inner_product": ("ip",),
    "snr": ("signal-to-noise-ratio",),
}
POSITIVES = ("hard", "easy")
NEGATIVES = ("hard", "semi-hard", "easy")
STRATEGIES = [(p, n) for p in (*POSITIVES, "all") for n in (*NEGATIVES, "all")]
WITH_ALL = [pair for pair in STRATEGIES if "all" in pair]
AVERAGES = ("anchors", "triplets", "active")


def variance(row):
    mean = sum(row) / len(row)
    return sum((x - mean) ** 2 for x in row) / len(row)


def distance(name, query, key):
    """One distance of one query to one key, both sequences of numbers; in place of a name, a function of two lists."""
    query, key = [float(x) for x in query], [float(x) for x in key]
    if callable(name):
        return name(query, key)
    product = sum(a * b for a, b in zip(query, key, strict=True))
    differences = [a - b for a, b in zip(query, key, strict=True)]
    if name == "cosine":
        lengths = math.sqrt(sum(a * a for a in query)) * math.sqrt(sum(b * b for b in key))
        return 1 - product / lengths if lengths != 0 else 1.0  # a row of zeros is 1 from everything
    if name == "euclidean":
        return math.sqrt(sum(x * x for x in differences))
    if name == "squared_euclidean":
        return sum(x * x for x in differences)
    if name == "manhattan":
        return sum(abs(x) for x in differences)
    if name == "inner_product":
        return -product
    if name == "snr":
        signal = variance(query)
        return variance(differences) / signal if signal != 0 else 0.0  # a constant query is 0 from everything
    raise KeyError(name)


def pairwise(name, queries, keys):
    return np.array([[distance(name, q, k) for k in keys] for q in queries]).reshape(len(queries), len(keys))


def paired(name, queries, keys):
    return np.array([distance(name, q, k) for q, k in zip(queries, keys, strict=True)])


def farthest(distances, allowed):
    """The allowed index of the largest distance: the lowest on ties, those that are not finite last."""
    best = None
    for j in allowed:
        if not math.isfinite(distances[j]):
            continue
        if best is None or distances[j] > distances[best]:
            best = j
    return allowed[0] if best is None else best


def nearest(distances, allowed):
    return farthest([-d for d in distances], allowed)


def triplets_of(labels, table, key_labels=None, remove_diagonal=None, positive="hard", negative="semi-hard"):
    """For each query all its pairs of positive and negative, as key indices."""
    if remove_diagonal is None:
        remove_diagonal = key_labels is None
    if key_labels is None:
        key_labels = labels
    triplets = []
    for i in range(len(labels)):
        d = table[i]
        same = [j for j in range(len(key_labels)) if key_labels[j] == labels[i] and not (remove_diagonal and j == i)]
        other = [j for j in range(len(key_labels)) if key_labels[j] != labels[i]]
        pairs = []
        if same and other:
            positives = same if positive == "all" else [{"hard": farthest, "easy": nearest}[positive](d, same)]
            for p in positives:
                threshold = d[p] if positive == "all" else d[farthest(d, same)]
                beyond = [j for j in other if math.isfinite(d[j]) and d[j] > threshold]
                semi_hard = [nearest(d, beyond) if beyond else farthest(d, other)]
                mined = {"hard": [nearest(d, other)], "easy": [farthest(d, other)], "semi-hard": semi_hard, "all": other}
                pairs += [(p, n) for n in mined[negative]]
        triplets.append(pairs)
    return triplets


def mine(*arguments, **keywords):
    """For each query its positive and its negative, two key indices, or None where the query is not valid."""
    return [pairs[0] if pairs else None for pairs in triplets_of(*arguments, **keywords)]


def loss_of_triplet(d_positive, d_negative, soft_margin=False, margin=1.0):
    x = d_positive - d_negative
    if math.isnan(x):
        return math.nan
    if soft_margin:
        return max(x, 0) + math.log1p(math.exp(-abs(x)))
    return max(0.0, x + margin)


def slope_of_triplet(d_positive, d_negative, soft_margin=False, margin=1.0):
    """The derivative of a triplet's loss by its positive distance; by its negative distance it is the same with a minus."""
    x = d_positive - d_negative
    return (1 + math.tanh(x / 2)) / 2 if soft_margin else float(x + margin > 0)


def factors(losses, average):
    """By what the sum of each query's losses is multiplied, so that the mean over the valid queries is the average."""
    if average == "anchors":
        return np.array([1 / max(len(of_query), 1) for of_query in losses])
    counted = sum(average == "triplets" or loss > 0 for of_query in losses for loss in of_query)
    return np.full(len(losses), sum(map(bool, losses)) / max(counted, 1))


def triplet_losses(
    labels, queries, key_labels=None, keys=None, name="cosine", soft_margin=False, margin=1.0, average="anchors", **mining
):
    """One number for each query, whose mean over the valid ones is the average; and which are valid."""
    table = pairwise(name, queries, queries if keys is None else keys)
    losses = [
        [loss_of_triplet(table[i][p], table[i][n], soft_margin, margin) for p, n in pairs]
        for i, pairs in enumerate(triplets_of(labels, table, key_labels, **mining))
    ]
    sums = np.array([sum(of_query) for of_query in losses], dtype=float)
    return sums * factors(losses, average), np.array([bool(of_query) for of_query in losses], dtype=bool)


def dataset_triplets(
    labels, table, count, name=None, range_min=0, range_max=100, absolute_margin=None, relative_margin=None,
    positive_mining_strategy="hard", among=None,
):  # fmt: skip
    """Triplets (anchor, positive, negative) of a whole data set: the nearest of the negatives that ranks and margins leave.

    Distances are those of the table, of which `name` tells whether it has a similarity; `among` says which keys an anchor may have.
    """
    triplets = []
    for i, label in enumerate(labels):
        row = [float(x) for x in table[i]]
        positives = [j for j, other in enumerate(labels) if other == label and j != i]
        negatives = [j for j, other in enumerate(labels) if other != label and (among is None or among[i][j])]
        if not positives:
            continue
        p = (max if positive_mining_strategy == "hard" else min)(positives, key=lambda j: row[j])
        least = -math.inf if absolute_margin is None else row[p] + absolute_margin
        if relative_margin is not None:
            similarity = 1 - row[p] if name == "cosine" else row[p]
            least = max(least, row[p] + relative_margin * abs(similarity))
        ranked = sorted(negatives, key=lambda j: row[j])[range_min:range_max]
        triplets += [(i, p, n) for n in [j for j in ranked if row[j] >= least][:count]]
    return triplets


def mean_loss(*arguments, **keywords):
    """The mean over the valid queries, 0 where there is none."""
    losses, valid = triplet_losses(*arguments, **keywords)
    return losses[valid].sum() / max(valid.sum(), 1)


def distance_gradients(name, queries, keys):
    """The derivatives of every pair's distance, by the query and by the key, each (n, m, d)."""
    shape = (len(queries), len(keys), np.shape(queries)[1])
    by_query = [central_differences(lambda x, k=k: distance(name, x, k), q) for q in queries for k in keys]
    by_key = [central_differences(lambda x, q=q: distance(name, q, x), k) for q in queries for k in keys]
    return np.reshape(by_query, shape), np.reshape(by_key, shape)


def loss_gradients(
    labels, table, of_distances, key_labels=None, soft_margin=False, margin=1.0, average="anchors", weights=None, **mining
):
    """The derivatives of the weighted sum of `triplet_losses` by queries (n, d) and keys (m, d), triplet after triplet.

    `table` are the distances, `of_distances` their derivatives: they take most of the time, and serve many losses.
    """
    triplets = triplets_of(labels, table, key_labels, **mining)
    losses = [[loss_of_triplet(table[i][p], table[i][n], soft_margin, margin) for p, n in of_query] for i, of_query in enumerate(triplets)]
    slopes = np.zeros_like(table)  # the derivative by each distance
    for i, (of_query, factor) in enumerate(zip(triplets, factors(losses, average), strict=True)):
        for p, n in of_query:
            slope = factor * slope_of_triplet(table[i][p], table[i][n], soft_margin, margin)
            slopes[i, p] += slope
            slopes[i, n] -= slope
    slopes *= 1 if weights is None else np.reshape(weights, (-1, 1))
    by_query, by_key = of_distances
    return np.einsum("nm,nmd->nd", slopes, by_query), np.einsum("nm,nmd->md", slopes, by_key)


def central_differences(f, x, step=1e-6):
    """The gradient of f, a number, at the array x."""
    x = np.asarray(x)
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        up, down = x.astype("float64"), x.astype("float64")
        up[index] += step
        down[index] -= step
        gradient[index] = (f(up) - f(down)) / (2 * step)
    return gradient
