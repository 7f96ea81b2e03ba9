"""What is drawn, taken back out of the axes and compared with numbers made elsewhere; and what is refused."""

import functools
import itertools
import math
import sys

import keras
import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="plots need matplotlib: pip install 'tripletloss[plots]'")
pytest.importorskip("sklearn", reason="plots need scikit-learn: pip install 'tripletloss[plots]'")
matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import same_color, to_rgb  # noqa: E402
from reference import AVERAGES, STRATEGIES, mean_loss, pairwise, triplets_of  # noqa: E402

import tripletloss as tl  # noqa: E402
from tripletloss import plots  # noqa: E402
from tripletloss.metrics import MOST_PAIRS, pairs_of  # noqa: E402

GENERATOR = np.random.default_rng(0)
LABELS = np.repeat([7, 3, 900, 5], [4, 5, 6, 3])
ROWS = (GENERATOR.normal(size=(4, 5))[np.repeat(range(4), [4, 5, 6, 3])] + 0.6 * GENERATOR.normal(size=(18, 5))).astype("float32")
IMAGES = GENERATOR.random((18, 4, 6)).astype("float32")
for given in (LABELS, ROWS, IMAGES):
    given.flags.writeable = False  # a plot changes nothing that it is given
HISTORY = {"loss": [0.5, 0.4, 0.2], "val_loss": [0.6, 0.5, 0.4], "val_recall_at_1": [0.1, 0.3, 0.2]}


def neighbours(embeddings=ROWS, labels=LABELS, images=None, neighbours=2, **arguments):
    """`plot_neighbours` with as many images as there are labels, unless it is given some."""
    images = np.resize(IMAGES, (len(labels), 4, 6)) if images is None else images
    return plots.plot_neighbours(images, labels, embeddings, neighbours=neighbours, **arguments)


# Each plot, of `ROWS` and `LABELS` unless other arguments are given by name.
OF_EMBEDDINGS = {
    "embeddings": functools.partial(plots.plot_embeddings, embeddings=ROWS, labels=LABELS),
    "triplets": functools.partial(plots.plot_triplets, embeddings=ROWS, labels=LABELS),
    "distances": functools.partial(plots.plot_distances, embeddings=ROWS, labels=LABELS),
    "roc": functools.partial(plots.plot_roc, embeddings=ROWS, labels=LABELS),
    "neighbours": neighbours,
}
PLOTS = OF_EMBEDDINGS | {"history": functools.partial(plots.plot_history, history=HISTORY)}
each_of_embeddings = pytest.mark.parametrize("name", OF_EMBEDDINGS)
each_plot = pytest.mark.parametrize("name", PLOTS)


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


def plain():
    """Axes without a layout, which takes most of the time and is of no matter to most tests."""
    return plt.figure(figsize=(4, 3)).add_subplot()


def title(ax):
    return ax.get_title().replace("\n", " ")


def drawn(ax):
    """The axes, once everything has gone through matplotlib."""
    ax.figure.canvas.draw()
    return ax


def names_in(ax):
    return [text for text in ax.texts if text.get_text()]


def spots_in(ax):
    return ax.collections[0].get_offsets()


# All of them alike.


@each_plot
def test_draws_on_the_axes_that_are_given(name):
    _, (left, right) = plt.subplots(1, 2, sharex=True, sharey=True)
    assert PLOTS[name](ax=right) is right
    assert len(plt.get_fignums()) == 1
    assert title(right)
    assert not title(left) and not left.has_data()
    PLOTS[name](ax=left)  # axes that share both limits
    drawn(right)


@each_plot
def test_title_is_the_one_that_is_given(name):
    """And then none is computed, which may take long: of the package's functions that make up titles none is called."""

    def functions_called(**arguments):
        names = set()
        sys.setprofile(lambda frame, *_: names.add(frame.f_code.co_name))
        try:
            ax = PLOTS[name](ax=plain(), **arguments)
        finally:
            sys.setprofile(None)
        return title(ax), f"finding_of_{name}" in names

    assert functions_called(title="mine") == ("mine", False)
    assert functions_called(title="") == ("", False)
    assert functions_called()[1]


@pytest.mark.parametrize("style", ["default", "dark_background"])
@each_plot
def test_in_a_figure_of_its_own_nothing_is_cut_off_or_invisible(name, style):
    with plt.style.context(style):
        ax = drawn(PLOTS[name]())
    assert plt.get_fignums() == [ax.figure.number]
    assert ax.get_xlabel() and ax.get_ylabel()
    legend = [ax.get_legend()] if ax.get_legend() else []
    frame = ax.figure.bbox
    for written in [ax.title, ax.xaxis.label, ax.yaxis.label, *names_in(ax), *legend]:
        box = written.get_window_extent()
        assert min(box.x0, box.y0) >= -1, written
        assert box.x1 <= frame.x1 + 1 and box.y1 <= frame.y1 + 1, written

    def lightness(color):
        return np.mean(to_rgb(color))

    for text in [ax.title, *([ax.xaxis.label, ax.yaxis.label, *legend[0].texts] if legend else [])]:
        assert abs(lightness(text.get_color()) - lightness(ax.figure.get_facecolor())) > 0.5, text
    for text in names_in(ax):
        assert abs(lightness(text.get_color()) - lightness(text.get_bbox_patch().get_facecolor()[:3])) > 0.5, text


def in_keras(dtype):
    return lambda: (keras.ops.cast(keras.ops.convert_to_tensor(ROWS), dtype), LABELS)


def in_torch():
    torch = pytest.importorskip("torch", reason="tensors of PyTorch, which is not installed")
    return torch.tensor(ROWS), torch.tensor(LABELS[:, None])


def in_jax():
    jnp = pytest.importorskip("jax.numpy", reason="arrays of JAX, which is not installed")
    return jnp.asarray(ROWS), jnp.asarray(LABELS[:, None].astype("int32"))


ACCEPTED = {
    "lists": lambda: (ROWS.tolist(), LABELS.tolist()),
    "torch": in_torch,
    "jax": in_jax,
    "tensors of Keras": lambda: (keras.ops.convert_to_tensor(ROWS), keras.ops.convert_to_tensor(LABELS[:, None].astype("int32"))),
    "labels of 64 bits": lambda: (ROWS, LABELS.astype("int64") + 2**53),
    "negative labels": lambda: (ROWS, -LABELS.astype("int64") - 2**53),
    **{dtype: in_keras(dtype) for dtype in ("float16", "bfloat16", "float64")},
}


@functools.cache
def expected_titles():
    return {name: title(plot(ax=plain())) for name, plot in OF_EMBEDDINGS.items()}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_takes_tensors_of_any_kind(kind):
    rows, labels = ACCEPTED[kind]()
    found = {name: title(plot(embeddings=rows, labels=labels, ax=plain())) for name, plot in OF_EMBEDDINGS.items()}
    if kind not in ("float16", "bfloat16"):  # whose titles are of numbers with fewer digits
        assert found == expected_titles()


@pytest.mark.parametrize("width", [1, 40])
@pytest.mark.parametrize("name, finding", [
    ("embeddings", "All 12 embeddings are of one class"),
    ("triplets", "hard/semi-hard: no anchor has a positive and a negative"),
    ("distances", "There is one class; its pairs are "),
    ("neighbours", "12 of 12 queries find their own class first"),
])  # fmt: skip
def test_one_class(name, finding, width):
    rows = np.resize(ROWS, (12, width)) + np.arange(12, dtype="float32")[:, None]
    ax = drawn(OF_EMBEDDINGS[name](embeddings=rows, labels=np.full(12, 3), ax=plain()))
    assert title(ax).startswith(finding)


@pytest.mark.parametrize("width", [1, 2, 40])
@pytest.mark.parametrize("name", ["embeddings", "triplets"])
def test_one_point(name, width):
    ax = drawn(OF_EMBEDDINGS[name](embeddings=np.resize(ROWS, (1, width)), labels=[3], ax=plain()))
    assert spots_in(ax).shape == (1, 2)
    assert [text.get_text() for text in names_in(ax)] == ["3"]


@each_of_embeddings
@pytest.mark.parametrize("width", [2, 40])
def test_all_points_at_one_spot(name, width):
    drawn(OF_EMBEDDINGS[name](embeddings=np.ones((18, width), "float32"), ax=plain()))


@pytest.mark.parametrize("name", [name for name in OF_EMBEDDINGS if name != "roc"])  # which needs pairs of one class
@pytest.mark.parametrize("examples, width", [(1, 8), (3, 1)])
def test_a_thousand_classes(name, examples, width):
    labels = np.repeat(np.arange(1000), examples)
    middles = np.random.default_rng(1).normal(size=(1000, width))
    rows = middles[labels] + 1e-4 * np.random.default_rng(2).normal(size=(len(labels), width))
    ax = drawn(OF_EMBEDDINGS[name](embeddings=rows, labels=labels, ax=plt.figure().add_subplot()))
    if examples == 1:
        assert "No class" in title(ax) or "No query" in title(ax) or "no anchor" in title(ax)
    if name in ("embeddings", "triplets"):
        assert 5 <= len(names_in(ax)) <= 20
        assert disjoint(names_in(ax))


def disjoint(texts):
    """Whether the boxes of these texts keep clear of each other."""
    boxes = [text.get_bbox_patch().get_window_extent() for text in texts]
    return not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# What is refused, before there is a figure.

KEYS = {"key_images": IMAGES, "key_labels": LABELS, "key_embeddings": ROWS}
ANCHORS = "anchors must be one or more row numbers from 0 to 17"
LOSS = "loss must be a TripletLoss; received "
REFUSED = {
    tuple(OF_EMBEDDINGS): [
        ({"embeddings": np.where(np.arange(18)[:, None] == 4, np.nan, ROWS)}, r"embeddings must be finite; received NaN or infinity in 1 of 18 rows, the first of them row 4"),
        ({"embeddings": np.where(np.arange(18)[:, None] < 2, np.inf, ROWS)}, r"embeddings must be finite; .* 2 of 18"),
        ({"embeddings": (9 * ROWS).astype("int32")}, r"embeddings must be floats of shape \(n, d\); received shape \(18, 5\) and dtype int32"),
        ({"embeddings": ROWS[1:]}, r"embeddings and labels .* length n; received 17 and 18"),
        ({"embeddings": ROWS[:, 0]}, r"embeddings must be floats of shape \(n, d\); received shape \(18,\)"),
        ({"embeddings": ROWS[None]}, r"embeddings must be floats of shape \(n, d\); received shape \(1, 18, 5\)"),
        ({"embeddings": ROWS[:, :0]}, r"embeddings must be floats of shape \(n, d\); received shape \(18, 0\)"),
        ({"embeddings": ROWS[:0], "labels": LABELS[:0]}, r"embeddings must have at least one row; received shape \(0, 5\)"),
        ({"labels": LABELS / 2}, r"labels must be integer labels; received dtype float64"),
        ({"labels": np.eye(18, dtype=int)}, r"labels must be integer labels of shape \(n,\) or \(n, 1\); received shape \(18, 18\)"),
        ({"labels": [f"class {label}" for label in LABELS]}, r"labels must be integer labels; received dtype <U"),
    ],
    ("distances", "neighbours"): [
        ({"embeddings": ROWS[:1], "labels": [3]}, "embeddings must have at least 2 rows"),
    ],
    ("distances", "neighbours", "roc"): [
        ({"distance": "cosin"}, "Did you mean 'cosine'"),
    ],
    ("triplets",): [
        *(({"anchors": anchors}, ANCHORS) for anchors in ([18], [-1], [], 3, [[1]], [0.5], ["a"], [True])),
        *(({"loss": loss}, LOSS) for loss in ("hard", tl.TripletLoss, tl.MetricLoss(tl.triplet_loss), 1.0)),
        ({"loss": tl.TripletLoss(relation="any")}, "loss must have the relation 'equal'"),
    ],
    ("distances",): [
        ({"margin": -1}, "margin must be a finite number >= 0; received -1"),
        ({"margin": math.nan}, "margin must be a finite number >= 0"),
        ({"margin": "wide"}, "margin must be a finite number >= 0; received 'wide'"),
        *(({"threshold": wrong}, "threshold must be a finite number; received ") for wrong in (math.nan, -math.inf, "wide", [0.5, 1])),
    ],
    ("roc",): [
        ({"labels": np.full(18, 3)}, "labels must have two classes, and two rows of one; received 1 classes in 18 rows"),
        ({"labels": np.arange(18)}, "received 18 classes in 18 rows"),
        ({"false_accept_rate": 1.5}, "false_accept_rate must be a number from 0 to 1; received 1.5"),
        ({"false_accept_rate": "low"}, "false_accept_rate must be a number from 0 to 1; received 'low'"),
    ],
    ("distances", "roc"): [
        ({"embeddings": (ROWS * 1e30).astype("float32"), "distance": "squared_euclidean"}, "embeddings must have finite distances"),
    ],
    ("history",): [
        ({"history": {}}, r"history must be .* with a 'loss' of at least one epoch; received keys \[\]"),
        ({"history": keras.callbacks.History()}, "history must be what fit returns"),  # of no epoch
        ({"history": {"loss": []}}, r"received keys \['loss'\]"),
        ({"history": {"val_loss": [1.0]}}, r"received keys \['val_loss'\]"),
        ({"history": [1.0, 0.5]}, "received list"),
        ({"history": None}, "received NoneType"),
        ({"history": {"loss": [1.0], "recall": [1.0, 2.0]}}, r"history\['recall'\] must be a list of up to 1 numbers"),
        ({"history": {"loss": ["a"]}}, r"history\['loss'\] must be a list"),
        ({"history": {"loss": [[1.0]]}}, r"history\['loss'\] must be a list"),
    ],
    ("neighbours",): [
        ({"images": IMAGES[0]}, r"images must have shape .* received \(4, 6\)"),
        ({"images": np.zeros((18, 4, 6, 4))}, r"received \(18, 4, 6, 4\)"),
        ({"images": np.zeros((18, 0, 6))}, r"received \(18, 0, 6\)"),
        ({"images": np.zeros((18, 4, 6), "int32")}, "images must be uint8 or floats; received dtype int32"),
        ({"images": IMAGES[1:]}, "images must have 18 rows, one for each label"),
        ({"images": np.full((18, 4, 6), np.nan)}, "images must be finite"),
        ({"images": "digits"}, "images must have shape"),
        ({"neighbours": 0}, "neighbours must be an integer of at least 1; received 0"),
        ({"neighbours": 2.0}, r"neighbours must be an integer of at least 1; received 2\.0"),
        ({"queries": [18]}, "queries must be one or more row numbers from 0 to 17"),
        ({"queries": []}, "queries must be one or more row numbers"),
        ({"key_labels": LABELS}, "key_images must be given together with key_labels; received key_images=None"),
        (KEYS | {"key_embeddings": ROWS[:, :2]}, "embeddings and key_embeddings must have the same width d"),
        (KEYS | {"key_labels": LABELS[1:]}, "key_embeddings and key_labels must have the same length"),
        (KEYS | {"key_images": IMAGES[1:]}, "key_images must have 18 rows"),
        ({key: value[:0] for key, value in KEYS.items()}, "key_embeddings must have at least one row"),
    ],
}  # fmt: skip
CASES = [(name, *case) for names, cases in REFUSED.items() for case in cases for name in names]


@pytest.mark.parametrize("name, arguments, message", CASES, ids=[f"{name}: {message}" for name, _, message in CASES])
def test_says_what_is_wrong(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        PLOTS[name](**arguments)
    assert not plt.get_fignums()


# plot_embeddings


@pytest.mark.parametrize("classes", [1, 2, 10, 11, 30])
def test_colours_tell_classes(classes):
    labels = np.resize(np.arange(classes) * 3 - 5, 90)
    ax = plots.plot_embeddings(np.random.default_rng(0).normal(size=(90, 2)), labels, ax=plain())
    colors = ax.collections[0].get_facecolors()
    assert len({tuple(color) for color in colors}) == classes
    for label in np.unique(labels):
        assert len({tuple(color) for color in colors[labels == label]}) == 1
    for text in names_in(ax):
        of_class = colors[labels == int(text.get_text())]
        assert same_color(text.get_bbox_patch().get_edgecolor()[:3], of_class[0][:3])


def test_ten_colours_are_told_apart_without_red_or_green():
    """Distances in the lightness and colour of CIELAB, as seen with each deficiency (matrices of Machado 2009)."""
    deficiencies = {
        "none": np.eye(3),
        "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    }
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    colors = plots.class_colors(10)[:, :3]
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    for name, matrix in deficiencies.items():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) @ to_xyz.T / to_xyz.sum(axis=1)
        x, y, z = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116).T
        lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 5, name  # 2.3 is just noticeable


def test_names_stand_at_their_classes_and_clear_of_each_other():
    labels = np.repeat(np.arange(12) + 10**9, 40)
    rows = np.random.default_rng(0).normal(size=(12, 6))[labels - 10**9] * 2 + np.random.default_rng(1).normal(size=(480, 6))
    ax = drawn(plots.plot_embeddings(rows, labels))
    assert len(names_in(ax)) >= 6
    for text in names_in(ax):
        assert text.xy in spots_in(ax)[labels == int(text.get_text())]
    assert disjoint(names_in(ax))


def test_where_points_stand():
    one = spots_in(plots.plot_embeddings(ROWS[:, :1], LABELS, ax=plain()))
    np.testing.assert_allclose(one[:, 0], ROWS[:, 0])
    np.testing.assert_array_equal(one[:, 1], np.searchsorted([3, 5, 7, 900], LABELS))
    two = spots_in(plots.plot_embeddings(ROWS[:, :2], LABELS, ax=plain()))
    np.testing.assert_allclose(two, ROWS[:, :2])
    ax = plots.plot_embeddings(ROWS, LABELS, ax=plain())
    left, spread, _ = np.linalg.svd(ROWS - ROWS.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(spots_in(ax)), np.abs(left * spread)[:, :2], atol=1e-4)
    assert f"show {(spread[:2] ** 2).sum() / (spread**2).sum():.0%} of the spread" in title(ax)
    assert ax.get_aspect() == 1


def nearest(table):
    table = table.copy()
    np.fill_diagonal(table, np.inf)
    return table.argmin(axis=1)


def test_recall_in_the_title_leaves_out_who_has_no_match():
    labels = LABELS.copy()
    labels[0] = 1000
    right = (labels[nearest(pairwise("euclidean", ROWS, ROWS))] == labels)[1:]
    assert title(plots.plot_embeddings(ROWS, labels, ax=plain())).startswith(f"Recall@1 is {right.mean():.3f};")


# plot_triplets


def arrows_in(ax, style):
    """(x, y) of both ends of each arrow of this colour and line, and how faint it is."""
    arrows = [text for text in ax.texts if not text.get_text()]
    chosen = [arrow for arrow in arrows if same_color(arrow.arrow_patch.get_edgecolor()[:3], style["color"])]
    lines = (style["linestyle"], {"-": "solid", "--": "dashed"}[style["linestyle"]])
    assert all(arrow.arrow_patch.get_linestyle() in lines for arrow in chosen)
    return {(*map(float, arrow.xyann), *map(float, arrow.xy)): arrow.arrow_patch.get_alpha() for arrow in chosen}


@pytest.mark.parametrize("positive, negative", STRATEGIES)
def test_arrows_are_the_triplets(positive, negative):
    rows, labels, margin = ROWS[::2, :2], LABELS[::2], 0.4
    loss = tl.TripletLoss("euclidean", positive, negative, margin=margin)
    ax = plots.plot_triplets(rows, labels, loss, ax=plain())
    table = pairwise("euclidean", rows, rows)
    expected = {0: {}, 1: {}}
    for i, pairs in enumerate(triplets_of(labels, table, positive=positive, negative=negative)):
        for pair in pairs:
            active = table[i, pair[0]] - table[i, pair[1]] + margin > 0
            for which, partner in enumerate(pair):
                ends = (*map(float, rows[i]), *map(float, rows[partner]))
                expected[which][ends] = expected[which].get(ends, False) or active
    for which, style in enumerate((plots.SAME, plots.OTHER)):
        alphas = arrows_in(ax, style)
        assert alphas.keys() == expected[which].keys()
        assert {ends: alpha == 1 for ends, alpha in alphas.items()} == expected[which]


@pytest.mark.parametrize("soft_margin", [False, True])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("positive, negative", [("hard", "semi-hard"), ("all", "all")])
def test_mean_in_the_title_is_the_loss(positive, negative, average, soft_margin):
    rows, labels = ROWS[:7], LABELS[:7]
    margin = 1.0 if soft_margin else 0.3
    loss = tl.TripletLoss("cosine", positive, negative, soft_margin, margin, average=average)
    expected = mean_loss(labels, rows, soft_margin=soft_margin, margin=margin, positive=positive, negative=negative, average=average)
    found = title(plots.plot_triplets(rows, labels, loss, ax=plain()))
    assert found.startswith(f"{positive}/{negative}: ")
    assert found.endswith(f"mean loss {expected:.3g}")
    counts = [int(number) for number in found.split(": ")[1].split() if number.isdigit()]
    triplets = triplets_of(labels, pairwise("cosine", rows, rows), positive=positive, negative=negative)
    assert counts[1] == sum(len(pairs) for pairs in triplets)
    assert counts[0] == counts[1] or not soft_margin


def test_default_loss_is_euclidean():
    table = pairwise("euclidean", ROWS, ROWS)
    losses = [table[i, p] - table[i, n] + 1 for i, pairs in enumerate(triplets_of(LABELS, table)) for p, n in pairs]
    chosen = np.linspace(0, 17, 12).astype(int)
    expected = np.maximum(np.array(losses)[chosen], 0).mean()
    assert title(plots.plot_triplets(ROWS, LABELS, ax=plain())).endswith(f"mean loss {expected:.3g}")


@pytest.mark.parametrize("distance", ["manhattan", "snr", "inner_product"])
def test_loss_with_another_distance(distance):
    found = title(plots.plot_triplets(ROWS[:12], LABELS[:12], tl.TripletLoss(distance), ax=plain()))
    assert found.endswith(f"mean loss {mean_loss(LABELS[:12], ROWS[:12], name=distance):.3g}")


def test_a_legend_does_not_squeeze_its_panel():
    """In a layout, a legend in one line was wider than a third of the figure, and the axes shrank to half an inch."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.5), layout="constrained")
    for ax in panels:
        plots.plot_triplets(ROWS[:6, :2], LABELS[:6], ax=ax)
    figure.canvas.draw()
    assert min(ax.get_window_extent().width / figure.dpi for ax in panels) > 2.5


def test_part_of_a_subfigure():
    left, right = plt.figure(figsize=(9, 4), layout="constrained").subfigures(1, 2)
    plots.plot_triplets(ROWS[:6], LABELS[:6], ax=left.subplots())
    plots.plot_distances(ROWS, LABELS, ax=right.subplots())


@pytest.mark.parametrize("n, expected", [(1, 1), (5, 5), (12, 12), (13, 12), (18, 12)])
def test_anchors_without_being_asked(n, expected):
    ax = plots.plot_triplets(ROWS[:n], LABELS[:n], ax=plain())
    (rings,) = ax.lines
    rows = plots.as_points(ROWS[:n], LABELS[:n]).spots
    assert len(rings.get_xdata()) == expected
    assert {tuple(spot) for spot in np.transpose(rings.get_data())} <= {tuple(row) for row in rows}
    assert (f"12 of {n} anchors" in title(ax)) == (n > 12)


@pytest.mark.parametrize("anchors", [[5], [0, 17], np.array([3, 3, 4]), (2,)])
def test_anchors_that_are_chosen(anchors):
    ax = plots.plot_triplets(ROWS[:, :2], LABELS, anchors=anchors, ax=plain())
    assert f"{len(set(anchors))} of 18 anchors" in title(ax)
    starts = {ends[:2] for style in (plots.SAME, plots.OTHER) for ends in arrows_in(ax, style)}
    assert starts == {tuple(map(float, ROWS[row, :2])) for row in anchors}


def test_duplicates_have_arrows_of_no_length():
    drawn(plots.plot_triplets(np.repeat(ROWS[:3], 2, axis=0), [0, 0, 1, 1, 2, 2], ax=plain()))


# plot_distances


def distances_of_pairs(table, labels, same):
    pairs = itertools.permutations(range(len(labels)), 2)
    return np.array([table[i, j] for i, j in pairs if (labels[i] == labels[j]) == same])


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "squared_euclidean", "manhattan", "inner_product", "snr"])
def test_histograms(distance):
    table = pairwise(distance, ROWS, ROWS)
    same, other = (distances_of_pairs(table, LABELS, kind) for kind in (True, False))
    margin = 0.25
    ax = plots.plot_distances(ROWS, LABELS, distance, margin, ax=plain())
    expected = f"Pairs of one class are {same.mean():.3g} apart, others {other.mean():.3g}; "
    within = np.mean(other < np.quantile(same, 0.95) + margin)
    assert title(ax) == f"{expected}{within:.1%} of these within the margin"
    start, end = sorted(line.get_xdata()[0] for line in ax.lines)
    np.testing.assert_allclose([start, end], [np.quantile(same, 0.95), np.quantile(same, 0.95) + margin], rtol=1e-4)
    assert distance.replace("_", " ") in ax.get_xlabel()
    outlines = [patch.get_xy() for patch in ax.patches if hasattr(patch, "get_xy") and len(np.shape(patch.get_xy())) == 2]
    outlines = [outline for outline in outlines if len(outline) > 60]
    for outline, values in zip(sorted(outlines, key=len), (same, other), strict=True):
        x, y = outline.T
        area = abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1)) / 2)
        assert math.isclose(area, 1, rel_tol=1e-6)
        assert x.min() <= values.min() + 1e-6


@pytest.mark.parametrize("distance, threshold", [("cosine", 0.5), ("inner_product", -1.0)])
def test_threshold_of_distances(distance, threshold):
    same, other = (distances_of_pairs(pairwise(distance, ROWS, ROWS), LABELS, kind) for kind in (True, False))
    ax = plots.plot_distances(ROWS, LABELS, distance, threshold=threshold, ax=plain())
    assert title(ax).endswith(f"; the threshold accepts {np.mean(same <= threshold):.1%} and {np.mean(other <= threshold):.1%}")
    assert [line.get_xdata()[0] for line in ax.lines] == [threshold]
    assert f"threshold {threshold:g}" in [text.get_text() for text in ax.get_legend().texts]


# plot_roc


@pytest.mark.parametrize("distance", ["cosine", "squared_euclidean", "inner_product", "snr"])
def test_roc_is_that_of_scikit_learn(distance):
    from sklearn.metrics import roc_auc_score, roc_curve

    rows = ROWS.astype("float64")
    table = pairwise(distance, rows, rows)
    table = table if distance == "snr" else (table + table.T) / 2
    same, other = (distances_of_pairs(table, LABELS, kind) for kind in (True, False))
    answers, scores = [1] * len(same) + [0] * len(other), -np.concatenate([same, other])
    far, tar, _ = roc_curve(answers, scores, drop_intermediate=False)
    ax = plots.plot_roc(rows, LABELS, distance, 0.2, ax=plain())
    curve, _, asked, error = ax.lines
    np.testing.assert_allclose(curve.get_xdata(), np.maximum(far, 1 / len(other) if distance == "snr" else 2 / len(other)), atol=1e-9)
    np.testing.assert_allclose(curve.get_ydata(), tar, atol=1e-9)
    accepted = tar[np.flatnonzero(far <= 0.2)[-1]]
    np.testing.assert_allclose([asked.get_xdata()[0], asked.get_ydata()[0]], [0.2, accepted], atol=1e-9)
    equal = np.interp(0, far + tar - 1, far)
    np.testing.assert_allclose([error.get_xdata()[0], error.get_ydata()[0]], [equal, 1 - equal], atol=1e-9)
    assert title(ax) == f"{accepted:.1%} of pairs of one class are accepted where 0.2 of the others are; ROC AUC {roc_auc_score(answers, scores):.3f}"


def test_a_perfect_roc():
    """Classes far apart: no false accept up to the last of one class; drawn where the axis begins."""
    rows = (LABELS[:, None] + 0.01 * ROWS).astype("float32")
    ax = drawn(plots.plot_roc(rows, LABELS, "euclidean", 0.0))
    assert title(ax) == "100.0% of pairs of one class are accepted where 0 of the others are; ROC AUC 1.000"
    assert ax.get_xlim()[0] == min(ax.lines[0].get_xdata()) > 0


def test_a_long_roc_is_drawn_at_some_of_its_points():
    rows, labels = np.random.default_rng(0).normal(size=(300, 3)), np.arange(300) % 7
    ax = plots.plot_roc(rows, labels, "euclidean", ax=plain())
    x, y = ax.lines[0].get_data()
    table = pairwise("euclidean", rows, rows)
    same, other = (np.sort(distances_of_pairs(table, labels, kind)) for kind in (True, False))
    assert 300 < len(x) <= 1000 and (np.diff(x) > 0).all() and x[-1] == y[-1] == 1
    for far, tar in zip(x[1::50], y[1::50], strict=True):
        below, above = (np.mean(same <= other[round(far * len(other)) - 1 + step] + 1e-9) for step in (0, min(2, len(other) - round(far * len(other)))))
        assert below - 1e-9 <= tar <= above + 1e-9


def test_the_two_kinds_differ_in_more_than_colour():
    same, other = plots.plot_distances(ROWS, LABELS, ax=plain()).patches
    assert same.get_linestyle() != other.get_linestyle()
    assert same.get_edgecolor() != other.get_edgecolor()


def test_many_rows_are_sampled():
    """Alike each time."""
    labels = np.arange(1500) % 3
    rows = (labels[:, None] + np.random.default_rng(0).normal(size=(1500, 2)) * 0.1 + [0, 5]).astype("float32")
    assert len(pairs_of(labels, same=True)) == len(pairs_of(labels, same=False)) == MOST_PAIRS
    table = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    kinds = labels[:, None] == labels[None]
    exact = [table[kinds & ~np.eye(1500, dtype=bool)].mean(), table[~kinds].mean()]
    first, second = (title(plots.plot_distances(rows, labels, "euclidean", ax=plain())) for _ in range(2))
    words = first.replace(",", "").split()
    np.testing.assert_allclose([float(words[5]), float(words[8])], exact, rtol=0.01)
    assert first == second


@pytest.mark.parametrize("same", [True, False])
def test_pairs_of_a_large_set_take_little(same):
    labels = np.arange(300_000) % 70_000
    found = pairs_of(labels, same, most=1000)
    assert found.shape == (1000, 2)
    assert (found[:, 0] != found[:, 1]).all()
    assert ((labels[found[:, 0]] == labels[found[:, 1]]) == same).all()


# plot_history


def lines_of(ax):
    """Every line in every axes, by its label without the interval."""
    return {line.get_label().split(",")[0]: line for axes in ax.figure.axes for line in axes.lines}


def test_lines_of_a_history():
    logs = {
        "loss": [4.0, 3, 2, 1, 0.5, 0.25],
        "val_loss": [5.0, 4, 3],
        "active_share": [1, 0.9, 0.8, 0.7, 0.6, 0.5],
        "val_active_share": [1, 0.5],
        "recall_at_10": [0.5] * 6,
        "embedding_spread": [0.9] * 6,
        "binary_accuracy": [0.1] * 6,
        "positive_distance": [7] * 6,
        "learning_rate": [0.1] * 6,
        "shared_loss": [9] * 6,
    }
    ax = plots.plot_history(logs, ax=plain())
    lines = lines_of(ax)
    assert lines.keys() == logs.keys() - {"positive_distance", "learning_rate", "shared_loss"}
    for name, line in lines.items():
        every = 6 // len(logs[name])
        assert line.get_xdata().tolist() == list(range(every, 7, every))
        assert line.get_ydata().tolist() == logs[name]
        assert line.get_linestyle() == ("--" if name.startswith("val_") else "-")
    assert {line.get_label() for line in ax.lines} == {"loss", "val_loss, every 2 epochs"}
    looks = [(line.get_color(), line.get_marker()) for name, line in lines.items() if not name.startswith("val_")]
    assert len(set(looks)) == len(looks)
    assert lines["val_active_share"].get_color() == lines["active_share"].get_color()
    assert sorted(text.get_text() for text in ax.get_legend().texts) == sorted(line.get_label() for line in lines.values())
    low, high = ax.figure.axes[1].get_ylim()
    assert low <= 0 and high >= 1
    assert title(ax) == "loss 4 → 0.25, recall_at_10 best 0.5 in epoch 1"


def test_history_of_a_training():
    model = keras.Sequential([keras.Input((5,)), tl.layers.L2Embedding(2)])
    model.compile("sgd", tl.TripletLoss(), run_eagerly=True)
    given = {"batch_size": 18, "verbose": 0, "validation_data": (ROWS, LABELS)}
    history = model.fit(ROWS, LABELS, epochs=10, initial_epoch=4, validation_freq=3, **given)
    for given, first in ((history, 5), (history.history, 1)):
        lines = lines_of(plots.plot_history(given, ax=plain()))
        assert lines["loss"].get_xdata().tolist() == list(range(first, first + 6))
        np.testing.assert_array_equal(lines["loss"].get_ydata(), history.history["loss"])
        assert lines["val_loss"].get_xdata().tolist() == [first + 2, first + 5]


@pytest.mark.parametrize("epochs", [1, 2, 1000])
def test_any_number_of_epochs(epochs):
    ax = drawn(plots.plot_history({"loss": np.geomspace(1, 0.1, epochs), "recall": np.linspace(0, 1, epochs)}, ax=plain()))
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    assert title(ax).startswith("loss 1 after one epoch" if epochs == 1 else "loss 1 → 0.1")


def test_without_a_quality_the_lowest_validation_loss_is_named():
    ax = plots.plot_history({"loss": [3.0, 2, 1], "val_loss": [3.0, 2.5, 2.75]}, ax=plain())
    assert title(ax) == "loss 3 → 1, val_loss lowest 2.5 in epoch 2"
    assert title(plots.plot_history({"loss": [3.0, 2, 1]}, ax=plain())) == "loss 3 → 1"


@pytest.mark.parametrize("losses, finding", [
    ([math.nan] * 3, "loss is not finite in 3 of 3 epochs, first in epoch 1"),
    ([1, math.nan, math.inf], "loss is not finite in 2 of 3 epochs, first in epoch 2"),
])  # fmt: skip
def test_a_loss_that_is_not_finite(losses, finding):
    ax = plots.plot_history({"loss": losses, "val_recall_at_1": [math.nan] * 3}, ax=plain())
    assert title(ax) == finding
    low, high = ax.get_xlim()
    assert low < 1 and high > 3


# plot_neighbours


def frames_of(ax):
    """Whether each framed image is a hit: by its colour and by its line."""
    hits = [same_color(patch.get_edgecolor(), plots.SAME["color"]) for patch in ax.patches]
    assert hits == [patch.get_linestyle() in ("-", "solid") for patch in ax.patches]
    assert hits == [not same_color(patch.get_edgecolor(), plots.OTHER["color"]) for patch in ax.patches]
    return hits


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "snr"])
def test_neighbours_are_the_nearest(distance):
    table = pairwise(distance, ROWS, ROWS)
    np.fill_diagonal(table, np.inf)
    found = np.argsort(table, axis=1)
    queries = [4, 0, 17]
    ax = plots.plot_neighbours(IMAGES, LABELS, ROWS, queries=queries, neighbours=3, distance=distance, ax=plain())
    expected = [row for query in queries for row in (query, *found[query, :3])]
    assert len(ax.images) == len(expected)
    for image, row in zip(ax.images, expected, strict=True):
        np.testing.assert_allclose(image.get_array(), IMAGES[row], rtol=1e-6)
    pairs = [(LABELS[query], LABELS[row]) for query in queries for row in found[query, :3]]
    assert frames_of(ax) == [label == other for label, other in pairs]
    assert [text.get_text() for text in ax.texts] == [str(other) for label, other in pairs if label != other]
    right = LABELS[found[:, 0]] == LABELS
    assert title(ax) == f"{right.sum()} of 18 queries find their own class first"
    assert [text.get_text() for text in ax.get_xticklabels()] == [f"{LABELS[query]}\n#{query}" for query in queries]


def test_images_do_not_overlap():
    ax = plots.plot_neighbours(IMAGES, LABELS, ROWS, ax=plain())
    boxes = [image.get_extent() for image in ax.images]
    for (l1, r1, b1, t1), (l2, r2, b2, t2) in itertools.combinations(boxes, 2):
        assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    assert all(left < box[0] < box[1] < right and bottom > box[2] > box[3] > top for box in boxes)
    assert all(math.isclose((box[1] - box[0]) / (box[2] - box[3]), 6 / 4) for box in boxes)


def test_queries_without_being_asked():
    """Eight at most, wrong ones first, up to two; and none that has nothing to find."""
    labels = LABELS.copy()
    labels[0] = 1000
    right = labels[nearest(pairwise("cosine", ROWS, ROWS))] == labels
    ax = plots.plot_neighbours(IMAGES, labels, ROWS, ax=plain())
    shown = [int(text.get_text().split("#")[1]) for text in ax.get_xticklabels()]
    assert len(shown) == len(set(shown)) == 8
    assert 0 not in shown
    wrong = [row for row in shown if not right[row]]
    assert shown[: len(wrong)] == wrong
    assert len(wrong) == min(2, (~right[1:]).sum())
    assert title(ax) == f"{right[1:].sum()} of 17 queries find their own class first"


def test_keys_of_their_own():
    images, labels, rows = (255 * GENERATOR.random((7, 3, 3, 3))).astype("uint8"), np.array([3, 3, 7, 7, 5, 5, 11]), ROWS[:7] + 0.01
    keys = {"key_images": images, "key_labels": labels, "key_embeddings": rows}
    ax = plots.plot_neighbours(IMAGES[..., None], LABELS, ROWS, neighbours=50, queries=[6], ax=plain(), **keys)
    table = pairwise("cosine", ROWS, rows)
    found = np.argsort(table[6])
    assert len(ax.images) == 1 + 7
    for image, key in zip(ax.images[1:], found, strict=True):
        np.testing.assert_allclose(image.get_array(), images[key] / 255)
    assert frames_of(ax) == (labels[found] == LABELS[6]).tolist()
    right = (labels[table.argmin(axis=1)] == LABELS).sum()
    assert title(ax) == f"{right} of {np.isin(LABELS, labels).sum()} queries find their own class first"


def test_keys_are_what_is_given_as_keys():
    """Copies or not: where keys are given, each image finds itself."""
    for again in (lambda x: x, np.copy):
        keys = {"key_images": again(IMAGES), "key_labels": again(LABELS), "key_embeddings": again(ROWS)}
        assert title(neighbours(ax=plain(), images=IMAGES, **keys)) == "18 of 18 queries find their own class first"
    found = sum(LABELS[nearest(pairwise("cosine", ROWS, ROWS))] == LABELS)
    assert title(neighbours(ax=plain(), images=IMAGES)) == f"{found} of 18 queries find their own class first"


def test_one_query_with_keys():
    keys = {"key_images": IMAGES[1:2], "key_labels": [1], "key_embeddings": ROWS[1:2]}
    ax = plots.plot_neighbours(IMAGES[:1], LABELS[:1], ROWS[:1], ax=plain(), **keys)
    assert len(drawn(ax).images) == 2
    assert title(ax) == "No query has another image of its class to find"


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype, low, high", [("uint8", 0, 255), ("float16", 0, 1), ("float32", -1, 1), ("float64", 0, 255)])
def test_kinds_of_images(shape, dtype, low, high):
    images = GENERATOR.random((18, 4, 6, *shape)) * (high - low) + low
    ax = plots.plot_neighbours(images.astype(dtype), LABELS, ROWS, queries=[0, 1], neighbours=2, ax=plain())
    for image in ax.images:
        pixels = np.asarray(image.get_array())
        assert pixels.shape == (4, 6, *(shape if shape == (3,) else ()))
        assert pixels.min() >= 0 and pixels.max() <= 1


def test_classes_have_names():
    """Two cats at 0 and 6, two dogs at 1 and 5: the nearest of each is of the other class."""
    line, labels, names = np.array([[0.0], [1.0], [5.0], [6.0]]), [0, 1, 1, 0], ["cat", "dog with a very long name"]
    ax = plots.plot_embeddings(line, labels, class_names=names, ax=plain())
    assert sorted(text.get_text() for text in ax.texts) == ["cat", "dog with a ve…"]
    ax = neighbours(line, labels, queries=[0], neighbours=1, distance="euclidean", class_names=names, ax=plain())
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["cat\n#0"]
    assert [text.get_text() for text in ax.texts] == ["dog with a ve…"]
    with pytest.raises(ValueError, match="received 1 names and the label 1"):
        plots.plot_embeddings(line, labels, class_names=["cat"])


# What TensorBoard's projector reads.
def test_a_projector_has_a_line_and_an_image_for_each_row(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3)).astype("uint8")
    names = ["", "two words", "a\ttab\nand a line", "a name that no picture has room for"]
    folder = plots.write_projector(tmp_path / "new" / "folder", ROWS[:5], [0, 1, 2, 3, 1], images, class_names=names)
    metadata = (folder / "metadata.tsv").read_text(encoding="utf-8").split("\n")
    assert metadata == ["0", "two words", "a tab and a line", "a name that no picture has room for", "two words", ""]
    written = np.loadtxt(folder / "vectors.tsv", delimiter="\t", dtype="float32")
    np.testing.assert_array_equal(written, ROWS[:5])  # nine digits are all that 32 bits hold
    sprite = np.round(plt.imread(folder / "sprite.png")[..., :3] * 255)
    assert sprite.shape == (3 * 4, 3 * 6, 3)
    for row, image in enumerate(images):
        down, right = divmod(row, 3)
        np.testing.assert_array_equal(sprite[4 * down : 4 * down + 4, 6 * right : 6 * right + 6], image)
    assert "single_image_dim: 6 single_image_dim: 4" in (folder / "projector_config.pbtxt").read_text()


def test_a_projector_without_images_names_none(tmp_path):
    folder = plots.write_projector(tmp_path, ROWS, LABELS)
    assert "sprite" not in (folder / "projector_config.pbtxt").read_text()
    assert not (folder / "sprite.png").exists()
    assert (folder / "metadata.tsv").read_text().split() == LABELS.astype(str).tolist()


def test_nothing_is_written_of_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="images must fit into one of 8192 x 8192 pixels together, which 1 of 5000 x 2 do; received 2"):
        plots.write_projector(tmp_path / "none", ROWS[:2], LABELS[:2], np.zeros((2, 5000, 2), "uint8"))
    with pytest.raises(ValueError, match="class_names must have a name for each label"):
        plots.write_projector(tmp_path / "none", ROWS, LABELS, class_names=["one"])
    assert not (tmp_path / "none").exists()
