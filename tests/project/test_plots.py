"""What is drawn, taken back out of the axes and compared with numbers made elsewhere; and what is refused."""

import itertools
import math

import keras
import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="pip install 'tripletloss[plots]'")
pytest.importorskip("sklearn", reason="pip install 'tripletloss[plots]'")
matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import same_color, to_rgb  # noqa: E402
from reference import AVERAGES, STRATEGIES, mean_loss, pairwise, triplets_of  # noqa: E402

import tripletloss as tl  # noqa: E402
from tripletloss import plots  # noqa: E402

GENERATOR = np.random.default_rng(0)
LABELS = np.repeat([7, 3, 900, 5], [4, 5, 6, 3])
ROWS = (GENERATOR.normal(size=(4, 5))[np.repeat(range(4), [4, 5, 6, 3])] + 0.6 * GENERATOR.normal(size=(18, 5))).astype("float32")
IMAGES = GENERATOR.random((18, 4, 6)).astype("float32")


def neighbours(embeddings, labels, **arguments):
    """`plot_neighbours` with as many images as there are labels."""
    return plots.plot_neighbours(np.resize(IMAGES, (len(labels), 4, 6)), labels, embeddings, **{"neighbours": 2, **arguments})


OF_EMBEDDINGS = {
    "embeddings": plots.plot_embeddings,
    "triplets": plots.plot_triplets,
    "distances": plots.plot_distances,
    "neighbours": neighbours,
}
HISTORY = {"loss": [0.5, 0.4, 0.2], "val_loss": [0.6, 0.5, 0.4], "val_recall_at_1": [0.1, 0.3, 0.2]}
EVERY = {
    **{name: lambda plot=plot, **arguments: plot(ROWS, LABELS, **arguments) for name, plot in OF_EMBEDDINGS.items()},
    "history": lambda **arguments: plots.plot_history(HISTORY, **arguments),
}
each = pytest.mark.parametrize("plot", OF_EMBEDDINGS.values(), ids=OF_EMBEDDINGS)


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


def arrows_in(ax, style):
    """(x, y) of both ends of each arrow of this colour and line, and how faint it is."""
    arrows = [text for text in ax.texts if not text.get_text()]
    chosen = [a for a in arrows if same_color(a.arrow_patch.get_edgecolor()[:3], style["color"])]
    assert all(a.arrow_patch.get_linestyle() in (style["linestyle"], {"-": "solid", "--": "dashed"}[style["linestyle"]]) for a in chosen)
    return {(*map(float, a.xyann), *map(float, a.xy)): a.arrow_patch.get_alpha() for a in chosen}


# All of them alike.


@pytest.mark.parametrize("plot", EVERY.values(), ids=EVERY)
def test_draws_on_the_axes_that_are_given(plot):
    _, (left, right) = plt.subplots(1, 2)
    assert plot(ax=right) is right
    assert len(plt.get_fignums()) == 1
    assert title(right)
    assert not title(left)
    assert not left.has_data()
    drawn(right)


@pytest.mark.parametrize("plot", EVERY.values(), ids=EVERY)
def test_makes_a_figure_and_leaves_it_to_the_caller(plot):
    ax = plot()
    assert plt.get_fignums() == [ax.figure.number]
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert [title(plot(title=text, ax=plain())) for text in ("mine", "")] == ["mine", ""]


def boxes_inside(ax):
    """Extents of what is written in and around the axes."""
    legend = ax.get_legend()
    written = [ax.title, ax.xaxis.label, ax.yaxis.label, *names_in(ax), *([legend] if legend else [])]
    return [text.get_window_extent() for text in written]


@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("plot", EVERY.values(), ids=EVERY)
def test_nothing_is_cut_off_or_invisible(plot, style):
    with plt.style.context(style):
        ax = drawn(plot())
        frame = ax.figure.bbox
        for box in boxes_inside(ax):
            assert min(box.x0, box.y0) >= -1
            assert box.x1 <= frame.x1 + 1
            assert box.y1 <= frame.y1 + 1
        page = np.mean(to_rgb(ax.figure.get_facecolor()))
        for text in [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_legend().texts] if ax.get_legend() else [ax.title]:
            assert abs(np.mean(to_rgb(text.get_color())) - page) > 0.5
        for text in names_in(ax):
            box = text.get_bbox_patch().get_facecolor()
            assert abs(np.mean(to_rgb(text.get_color())) - np.mean(box[:3])) > 0.5


@each
def test_title_is_not_computed_where_one_is_given(plot, monkeypatch):
    def finding(*_):
        raise AssertionError("computed")

    for name in ("embeddings", "triplets", "distances", "neighbours"):
        monkeypatch.setattr(plots, f"finding_of_{name}", finding)
    assert title(plot(ROWS, LABELS, title="mine", ax=plain())) == "mine"
    with pytest.raises(AssertionError, match="computed"):
        plot(ROWS, LABELS)


@each
@pytest.mark.parametrize("library", ["tensorflow", "jax", "torch", "lists"])
def test_takes_tensors_of_any_library(plot, library):
    expected = title(plot(ROWS, LABELS, ax=plain()))
    if library == "lists":
        convert = np.ndarray.tolist
    elif library == "jax":
        convert = pytest.importorskip("jax.numpy").asarray
    else:
        convert = getattr(pytest.importorskip(library), {"tensorflow": "convert_to_tensor", "torch": "tensor"}[library])
    assert title(plot(convert(ROWS), convert(LABELS.astype("int32")[:, None]), ax=plain())) == expected


@each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_takes_floats_of_any_width(plot, dtype):
    plot(keras.ops.cast(keras.ops.convert_to_tensor(ROWS), dtype), LABELS, ax=plain())


@each
def test_labels_may_be_any_integers(plot):
    wide = LABELS.astype("int64") + 2**53
    expected = title(plot(ROWS, LABELS, ax=plain()))
    assert title(plot(ROWS, wide, ax=plain())) == title(plot(ROWS, -wide, ax=plain())) == expected


@each
def test_changes_nothing(plot):
    rows, labels = ROWS.copy(), LABELS.copy()
    plot(rows, labels, ax=plain())
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_array_equal(labels, LABELS)


REFUSED = {
    "NaN": (np.where(np.arange(18)[:, None] == 4, np.nan, ROWS), LABELS, r"embeddings must be finite; received NaN or infinity in 1 of 18 rows, the first of them row 4"),
    "infinity": (np.where(np.arange(18)[:, None] < 2, np.inf, ROWS), LABELS, r"embeddings must be finite; .* 2 of 18"),
    "integers": ((9 * ROWS).astype("int32"), LABELS, r"embeddings must be floats of shape \(n, d\); received shape \(18, 5\) and dtype int32"),
    "one row too few": (ROWS[1:], LABELS, r"embeddings and labels .* length n; received 17 and 18"),
    "one dimension": (ROWS[:, 0], LABELS, r"embeddings must be floats of shape \(n, d\); received shape \(18,\)"),
    "three dimensions": (ROWS[None], LABELS, r"embeddings must be floats of shape \(n, d\); received shape \(1, 18, 5\)"),
    "float labels": (ROWS, LABELS / 2, r"labels must be integer labels; received dtype float64"),
    "one-hot labels": (ROWS, np.eye(18, dtype=int), r"labels must be integer labels of shape \(n,\) or \(n, 1\); received shape \(18, 18\)"),
    "names": (ROWS, [f"class {label}" for label in LABELS], r"labels must be integer labels; received dtype <U"),
    "no rows": (ROWS[:0], LABELS[:0], r"embeddings must have at least one row; received shape \(0, 5\)"),
    "no columns": (ROWS[:, :0], LABELS, r"embeddings must be floats of shape \(n, d\); received shape \(18, 0\)"),
}


@each
@pytest.mark.parametrize("case", REFUSED)
def test_says_what_is_wrong(plot, case):
    rows, labels, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        plot(rows, labels)
    assert not plt.get_fignums()


@each
@pytest.mark.parametrize("width", [1, 40])
def test_one_class(plot, width):
    ax = drawn(plot(np.resize(ROWS, (12, width)) + np.arange(12, dtype="float32")[:, None], np.full(12, 3), ax=plain()))
    findings = {
        plots.plot_embeddings: "All 12 embeddings are of one class",
        plots.plot_triplets: "hard/semi-hard: no anchor has a positive and a negative",
        plots.plot_distances: "There is one class; its pairs are ",
        neighbours: "12 of 12 queries find their own class first",
    }
    assert title(ax).startswith(findings[plot])


@each
@pytest.mark.parametrize("width", [1, 2, 40])
def test_one_point(plot, width):
    row = np.resize(ROWS, (1, width))
    if plot in (plots.plot_distances, neighbours):
        with pytest.raises(ValueError, match="embeddings must have at least 2 rows"):
            plot(row, [3])
        assert not plt.get_fignums()
        return
    ax = drawn(plot(row, [3]))
    assert ax.collections[0].get_offsets().shape == (1, 2)
    assert [text.get_text() for text in names_in(ax)] == ["3"]


@each
@pytest.mark.parametrize("width", [2, 40])
def test_all_points_at_one_spot(plot, width):
    drawn(plot(np.ones((18, width), "float32"), LABELS, ax=plain()))


@each
@pytest.mark.parametrize("examples, width", [(1, 8), (3, 1)])
def test_a_thousand_classes(plot, examples, width):
    labels = np.repeat(np.arange(1000), examples)
    middles = np.random.default_rng(1).normal(size=(1000, width))
    rows = middles[labels] + 1e-4 * np.random.default_rng(2).normal(size=(len(labels), width))
    ax = drawn(plot(rows, labels))
    if examples == 1:
        assert "No class" in title(ax) or "No query" in title(ax) or "no anchor" in title(ax)
    if plot in (plots.plot_embeddings, plots.plot_triplets):
        names = names_in(ax)
        assert 5 <= len(names) <= 20
        assert disjoint(names)


def disjoint(texts):
    """Whether the boxes of these texts keep clear of each other."""
    boxes = [text.get_bbox_patch().get_window_extent() for text in texts]
    return not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


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
    for matrix in deficiencies.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) @ to_xyz.T / to_xyz.sum(axis=1)
        x, y, z = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116).T
        lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
        gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
        assert min(gaps) > 5  # 2.3 is just noticeable


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_names_stand_at_their_classes_and_clear_of_each_other(style):
    labels = np.repeat(np.arange(12) + 10**9, 40)
    rows = np.random.default_rng(0).normal(size=(12, 6))[labels - 10**9] * 2 + np.random.default_rng(1).normal(size=(480, 6))
    with plt.style.context(style):
        ax = drawn(plots.plot_embeddings(rows, labels))
        spots = ax.collections[0].get_offsets()
        assert len(names_in(ax)) >= 6
        for text in names_in(ax):
            assert text.xy in spots[labels == int(text.get_text())]
        assert disjoint(names_in(ax))


def test_where_points_stand():
    one = plots.plot_embeddings(ROWS[:, :1], LABELS).collections[0].get_offsets()
    np.testing.assert_allclose(one[:, 0], ROWS[:, 0])
    np.testing.assert_array_equal(one[:, 1], np.searchsorted([3, 5, 7, 900], LABELS))
    two = plots.plot_embeddings(ROWS[:, :2], LABELS).collections[0].get_offsets()
    np.testing.assert_allclose(two, ROWS[:, :2])
    ax = plots.plot_embeddings(ROWS, LABELS)
    left, spread, _ = np.linalg.svd(ROWS - ROWS.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(ax.collections[0].get_offsets()), np.abs(left * spread)[:, :2], atol=1e-4)
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
    assert title(plots.plot_embeddings(ROWS, labels)).startswith(f"Recall@1 is {right.mean():.3f};")


def test_axes_that_share_both_limits():
    _, panels = plt.subplots(1, 2, sharex=True, sharey=True)
    for ax in panels:
        plots.plot_embeddings(ROWS, LABELS, ax=ax)
    drawn(ax)


def test_part_of_a_subfigure():
    left, right = plt.figure(figsize=(9, 4), layout="constrained").subfigures(1, 2)
    plots.plot_triplets(ROWS, LABELS, ax=left.subplots())
    plots.plot_distances(ROWS, LABELS, ax=right.subplots())


# plot_triplets


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
    triplets = [(i, *pair) for i, pairs in enumerate(triplets_of(labels, pairwise("cosine", rows, rows), positive=positive, negative=negative)) for pair in pairs]
    assert counts[1] == len(triplets)
    assert counts[0] == len(triplets) or not soft_margin


def test_default_loss_and_distances_other_than_euclidean():
    table = pairwise("euclidean", ROWS, ROWS)
    losses = [table[i, p] - table[i, n] + 1 for i, pairs in enumerate(triplets_of(LABELS, table)) for p, n in pairs]
    chosen = np.linspace(0, 17, 12).astype(int)
    assert title(plots.plot_triplets(ROWS, LABELS)).endswith(f"mean loss {np.maximum(np.array(losses)[chosen], 0).mean():.3g}")
    for distance in ("manhattan", "snr", "inner_product"):
        loss = tl.TripletLoss(distance)
        expected = mean_loss(LABELS[:12], ROWS[:12], name=distance)
        assert title(plots.plot_triplets(ROWS[:12], LABELS[:12], loss)).endswith(f"mean loss {expected:.3g}")


def test_a_legend_does_not_squeeze_its_panel():
    """In a layout, a legend in one line was wider than a third of the figure, and the axes shrank to half an inch."""
    figure, panels = plt.subplots(2, 3, figsize=(12, 9), layout="constrained")
    for ax in panels.flat:
        plots.plot_triplets(ROWS[:, :2], LABELS, ax=ax)
    figure.canvas.draw()
    assert min(ax.get_window_extent().width / figure.dpi for ax in panels.flat) > 2.5


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


@pytest.mark.parametrize("anchors", [[18], [-1], [], 3, [[1]], [0.5], ["a"], [True]])
def test_anchors_that_do_not_exist(anchors):
    with pytest.raises(ValueError, match="anchors must be one or more row numbers from 0 to 17"):
        plots.plot_triplets(ROWS, LABELS, anchors=anchors)


@pytest.mark.parametrize("loss", ["hard", tl.TripletLoss, tl.MetricLoss(tl.triplet_loss), 1.0])
def test_losses_that_are_none(loss):
    with pytest.raises(ValueError, match="loss must be a TripletLoss; received "):
        plots.plot_triplets(ROWS, LABELS, loss)


def test_duplicates_have_arrows_of_no_length():
    drawn(plots.plot_triplets(np.repeat(ROWS[:3], 2, axis=0), [0, 0, 1, 1, 2, 2]))


# plot_distances


def pairs(labels, same):
    return [(i, j) for i, j in itertools.permutations(range(len(labels)), 2) if (labels[i] == labels[j]) == same]


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "squared_euclidean", "manhattan", "inner_product", "snr"])
def test_histograms(distance):
    table = pairwise(distance, ROWS, ROWS)
    same, other = (np.array([table[pair] for pair in pairs(LABELS, kind)]) for kind in (True, False))
    margin = 0.25
    ax = plots.plot_distances(ROWS, LABELS, distance, margin)
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


def test_the_two_kinds_differ_in_more_than_colour():
    same, other = plots.plot_distances(ROWS, LABELS).patches
    assert same.get_linestyle() != other.get_linestyle()
    assert same.get_edgecolor() != other.get_edgecolor()


def test_many_rows_are_sampled():
    labels = np.arange(1500) % 3
    rows = (labels[:, None] + np.random.default_rng(0).normal(size=(1500, 2)) * 0.1 + [0, 5]).astype("float32")
    assert len(plots.pairs_of(labels, same=True)) == len(plots.pairs_of(labels, same=False)) == plots.MOST_PAIRS
    table = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    kinds = labels[:, None] == labels[None]
    exact = [table[kinds & ~np.eye(1500, dtype=bool)].mean(), table[~kinds].mean()]
    words = title(plots.plot_distances(rows, labels, "euclidean")).replace(",", "").split()
    np.testing.assert_allclose([float(words[5]), float(words[8])], exact, rtol=0.01)
    first, second = title(plots.plot_distances(rows, labels, "l2")), title(plots.plot_distances(rows, labels, "l2"))
    assert first == second


def test_pairs_of_a_large_set_take_little():
    labels = np.arange(300_000) % 70_000
    for same in (True, False):
        found = plots.pairs_of(labels, same, most=1000)
        assert found.shape == (1000, 2)
        assert (found[:, 0] != found[:, 1]).all()
        assert ((labels[found[:, 0]] == labels[found[:, 1]]) == same).all()


@pytest.mark.parametrize("arguments, message", [
    ({"distance": "cosin"}, "Did you mean 'cosine'"),
    ({"margin": -1}, "margin must be a finite number >= 0; received -1"),
    ({"margin": math.nan}, "margin must be a finite number >= 0"),
    ({"margin": "wide"}, "margin must be a finite number >= 0; received 'wide'"),
])  # fmt: skip
def test_distances_and_margins_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_distances(ROWS, LABELS, **arguments)


def test_distances_beyond_a_float():
    with pytest.raises(ValueError, match="embeddings must have finite distances"):
        plots.plot_distances((ROWS * 1e30).astype("float32"), LABELS, "squared_euclidean")


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
    ax = plots.plot_history(logs)
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
    twin = ax.figure.axes[1]
    assert twin.get_ylim()[0] <= 0
    assert twin.get_ylim()[1] >= 1
    assert title(ax) == "loss 4 → 0.25, recall_at_10 best 0.5 in epoch 1"


def trained(**arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), tl.layers.L2Embedding(2)])
    model.compile("sgd", tl.TripletLoss())
    return model.fit(ROWS, LABELS, batch_size=18, verbose=0, **arguments)


def test_history_of_a_training():
    history = trained(epochs=10, initial_epoch=4, validation_data=(ROWS, LABELS), validation_freq=3)
    for given in (history, history.history):
        lines = lines_of(plots.plot_history(given))
        first = 5 if given is history else 1
        assert lines["loss"].get_xdata().tolist() == list(range(first, first + 6))
        np.testing.assert_array_equal(lines["loss"].get_ydata(), history.history["loss"])
        assert lines["val_loss"].get_xdata().tolist() == [first + 2, first + 5]


@pytest.mark.parametrize("epochs", [1, 2, 1000])
def test_any_number_of_epochs(epochs):
    ax = drawn(plots.plot_history({"loss": np.geomspace(1, 0.1, epochs), "recall": np.linspace(0, 1, epochs)}))
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    assert title(ax).startswith("loss 1 after one epoch" if epochs == 1 else "loss 1 → 0.1")


@pytest.mark.parametrize("logs", [
    {"loss": [math.nan] * 3},
    {"loss": [1, math.nan, math.inf], "val_recall_at_1": [math.nan] * 3},
])  # fmt: skip
def test_a_loss_that_is_not_finite(logs):
    ax = plots.plot_history(logs, ax=plain())
    broken = [not math.isfinite(loss) for loss in logs["loss"]]
    assert title(ax) == f"loss is not finite in {sum(broken)} of 3 epochs, first in epoch {broken.index(True) + 1}"
    low, high = ax.get_xlim()
    assert low < 1
    assert high > 3


@pytest.mark.parametrize("history, message", [
    ({}, r"history must be .* with a 'loss' of at least one epoch; received keys \[\]"),
    ({"loss": []}, r"received keys \['loss'\]"),
    ({"val_loss": [1.0]}, r"received keys \['val_loss'\]"),
    ([1.0, 0.5], "received list"),
    (None, "received NoneType"),
    ({"loss": [1.0], "recall": [1.0, 2.0]}, r"history\['recall'\] must be a list of up to 1 numbers"),
    ({"loss": ["a"]}, r"history\['loss'\] must be a list"),
    ({"loss": [[1.0]]}, r"history\['loss'\] must be a list"),
])  # fmt: skip
def test_histories_that_are_none(history, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_history(history)
    assert not plt.get_fignums()


def test_history_of_no_training():
    with pytest.raises(ValueError, match="history must be what fit returns"):
        plots.plot_history(trained(epochs=0))


# plot_neighbours


def frames_of(ax):
    """Whether each framed image is a hit: by its colour and by its line."""
    hits = [same_color(patch.get_edgecolor(), plots.SAME["color"]) for patch in ax.patches]
    assert hits == [patch.get_linestyle() in ("-", "solid") for patch in ax.patches]
    assert all(same_color(patch.get_edgecolor(), plots.OTHER["color"]) for hit, patch in zip(hits, ax.patches, strict=True) if not hit)
    return hits


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "snr"])
def test_neighbours_are_the_nearest(distance):
    table = pairwise(distance, ROWS, ROWS)
    np.fill_diagonal(table, np.inf)
    found = np.argsort(table, axis=1)
    queries = [4, 0, 17]
    ax = plots.plot_neighbours(IMAGES, LABELS, ROWS, queries=queries, neighbours=3, distance=distance)
    expected = [row for query in queries for row in (query, *found[query, :3])]
    assert len(ax.images) == len(expected)
    for image, row in zip(ax.images, expected, strict=True):
        np.testing.assert_allclose(image.get_array(), IMAGES[row], rtol=1e-6)
    assert frames_of(ax) == [LABELS[row] == LABELS[query] for query in queries for row in found[query, :3]]
    assert [text.get_text() for text in ax.texts] == [str(LABELS[row]) for query in queries for row in found[query, :3] if LABELS[row] != LABELS[query]]
    right = LABELS[found[:, 0]] == LABELS
    assert title(ax) == f"{right.sum()} of 18 queries find their own class first"
    assert [text.get_text() for text in ax.get_xticklabels()] == [f"{LABELS[query]}\n#{query}" for query in queries]


def test_images_do_not_overlap():
    ax = plots.plot_neighbours(IMAGES, LABELS, ROWS)
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
    ax = plots.plot_neighbours(IMAGES, labels, ROWS)
    shown = [int(text.get_text().split("#")[1]) for text in ax.get_xticklabels()]
    assert len(shown) == len(set(shown)) == 8
    assert 0 not in shown
    wrong = [row for row in shown if not right[row]]
    assert shown[: len(wrong)] == wrong
    assert len(wrong) == min(2, (~right[1:]).sum())
    assert title(ax) == f"{right[1:].sum()} of 17 queries find their own class first"


def test_keys_of_their_own():
    keys = {"key_images": (255 * GENERATOR.random((7, 3, 3, 3))).astype("uint8"), "key_labels": [3, 3, 7, 7, 5, 5, 11], "key_embeddings": ROWS[:7] + 0.01}
    ax = plots.plot_neighbours(IMAGES[..., None], LABELS, ROWS, neighbours=50, queries=[6], **keys)
    found = np.argsort(pairwise("cosine", ROWS[6:7], ROWS[:7] + 0.01)[0])
    assert len(ax.images) == 1 + 7
    for image, key in zip(ax.images[1:], found, strict=True):
        np.testing.assert_allclose(image.get_array(), keys["key_images"][key] / 255)
    assert frames_of(ax) == [keys["key_labels"][key] == LABELS[6] for key in found]
    matched = np.isin(LABELS, keys["key_labels"])
    first = pairwise("cosine", ROWS, ROWS[:7] + 0.01).argmin(axis=1)
    right = np.array(keys["key_labels"])[first] == LABELS
    assert title(ax) == f"{right.sum()} of {matched.sum()} queries find their own class first"


def test_one_query_with_keys():
    ax = plots.plot_neighbours(IMAGES[:1], LABELS[:1], ROWS[:1], key_images=IMAGES[1:2], key_labels=[1], key_embeddings=ROWS[1:2])
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
        assert pixels.min() >= 0
        assert pixels.max() <= 1


@pytest.mark.parametrize("images, message", [
    (IMAGES[0], r"images must have shape .* received \(4, 6\)"),
    (np.zeros((18, 4, 6, 4)), r"received \(18, 4, 6, 4\)"),
    (np.zeros((18, 0, 6)), r"received \(18, 0, 6\)"),
    (np.zeros((18, 4, 6), "int32"), "images must be uint8 or floats; received dtype int32"),
    (IMAGES[1:], "images must have 18 rows, one for each label"),
    (np.full((18, 4, 6), np.nan), "images must be finite"),
    (None, "images must have shape"),
])  # fmt: skip
def test_images_that_are_none(images, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_neighbours(images, LABELS, ROWS)
    assert not plt.get_fignums()


@pytest.mark.parametrize("arguments, message", [
    ({"neighbours": 0}, "neighbours must be an integer of at least 1; received 0"),
    ({"neighbours": 2.0}, r"neighbours must be an integer of at least 1; received 2\.0"),
    ({"queries": [18]}, "queries must be one or more row numbers from 0 to 17"),
    ({"queries": []}, "queries must be one or more row numbers"),
    ({"distance": "cosin"}, "Did you mean 'cosine'"),
    ({"key_labels": LABELS}, "key_images must be given together with key_labels; received key_images=None"),
    ({"key_images": IMAGES, "key_labels": LABELS, "key_embeddings": ROWS[:, :2]}, "embeddings and key_embeddings must have the same width d"),
    ({"key_images": IMAGES, "key_labels": LABELS[1:], "key_embeddings": ROWS}, "key_embeddings and key_labels must have the same length"),
    ({"key_images": IMAGES[1:], "key_labels": LABELS, "key_embeddings": ROWS}, "key_images must have 18 rows"),
    ({"key_images": IMAGES[:0], "key_labels": LABELS[:0], "key_embeddings": ROWS[:0]}, "key_embeddings must have at least one row"),
])  # fmt: skip
def test_arguments_of_neighbours_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_neighbours(IMAGES, LABELS, ROWS, **arguments)
    assert not plt.get_fignums()
