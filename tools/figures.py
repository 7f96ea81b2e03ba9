"""What a page's figures weigh: of 256 colours each, a third of what a notebook stores, and no eye tells them apart.

settings.ini names `in_few_colors` in `procs`; nbdev calls it with each cell of a page that it prepares. Notebooks keep all colours.
"""

import base64
import io

from PIL import Image

COLORS = 256


def in_few_colors(cell: dict) -> None:
    """Reduce the cell's pictures in place."""
    for output in cell.get("outputs", []):
        if "image/png" in (data := output.get("data", {})):
            image = Image.open(io.BytesIO(base64.b64decode("".join(data["image/png"])))).convert("RGB")
            reduced = io.BytesIO()
            image.quantize(COLORS, Image.Quantize.MEDIANCUT).save(reduced, "PNG", optimize=True)
            data["image/png"] = base64.b64encode(reduced.getvalue()).decode()
