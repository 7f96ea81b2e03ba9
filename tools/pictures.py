"""Draw the site's pictures into nbs/images.

Favicon and social card show an anchor, its positive inside the margin's ring and a negative outside; the home page's
picture shows the distances that its own example brings about.
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from tripletloss.plots import plot_distances

NOTEBOOKS = Path(__file__).parent.parent / "nbs"
IMAGES = NOTEBOOKS / "images"
GROUND, INK, SAME, OTHER = "#1b5e9e", "white", "#9ad1ff", "#ffb454"
DPI = 100


def draw_triplet(axes: Axes, scale: float) -> None:
    """The triplet in the square from -1 to 1; `scale` is its side in inches."""
    anchor, positive, negative = (-0.15, -0.1), (0.13, 0.22), (0.7, -0.66)
    width = 1.3 * scale
    axes.add_patch(Circle(anchor, 0.72, fill=False, edgecolor=INK, linestyle=(0, (4, 3)), linewidth=0.6 * width))
    axes.plot(*zip(anchor, positive, strict=True), color=SAME, linewidth=width)
    axes.plot(*zip(anchor, negative, strict=True), color=OTHER, linewidth=width)
    for place, color in ((anchor, INK), (positive, SAME), (negative, OTHER)):
        axes.add_patch(Circle(place, 0.17, facecolor=color, edgecolor=GROUND, linewidth=0.4 * width, zorder=3))
    axes.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    axes.axis("off")


def favicon() -> None:
    """A square of 64 pixels."""
    figure = plt.figure(figsize=(0.64, 0.64), dpi=DPI, facecolor=GROUND)
    draw_triplet(figure.add_axes((0, 0, 1, 1)), scale=1.4)
    figure.savefig(IMAGES / "favicon.png")


def card() -> None:
    """1200 x 630 pixels, as pages are shown where their links are shared."""
    figure = plt.figure(figsize=(12, 6.3), dpi=DPI, facecolor=GROUND)
    draw_triplet(figure.add_axes((0.52, 0.03, 0.47, 0.94)), scale=5)
    figure.text(0.06, 0.66, "tripletloss", color=INK, fontsize=64, fontweight="bold")
    lines = "The triplet loss for Keras 3,\nmined in the batch, exact,\nand derived in notebooks"
    figure.text(0.06, 0.32, lines, color=INK, fontsize=27, linespacing=1.4)
    figure.text(0.06, 0.14, "TensorFlow · JAX · PyTorch", color=SAME, fontsize=24)
    figure.savefig(IMAGES / "card.png")


def home() -> None:
    """Distances of the home page's held-out digits, as pixels and as embeddings, in letters that are read at half the size."""
    cells = json.loads((NOTEBOOKS / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    example: dict = {}
    exec("".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code")), example)
    x, y, rows = (example[name][1200:] for name in ("x", "y", "rows"))
    with plt.rc_context({"font.size": 14, "legend.fontsize": 14}):
        figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharex=True)
        for axes, title, points in zip(panels, ("Pixels", "Embeddings"), (x, rows), strict=True):
            plot_distances(points, y, ax=axes, title=title)
    figure.savefig(IMAGES / "home.png", dpi=2 * DPI)


if __name__ == "__main__":
    favicon()
    card()
    home()
