"""Write README.md from nbs/index.ipynb: what the page shows, as plain markdown."""

import re
from pathlib import Path

from nbdev.process import NBProcessor

root = Path(__file__).parent.parent


def fenced(text: str, language: str = "") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def shown_text(output: dict) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain") or ""
    return "".join(text)


def cell_blocks(cell: dict) -> list[str]:
    """A cell's markdown blocks; none where a directive hides it."""
    if cell.cell_type == "markdown":
        return [cell.source]
    if cell.cell_type != "code" or "hide" in cell.directives_:
        return []
    outputs = [shown_text(output) for output in cell.get("outputs", [])]
    return [fenced(cell.source, "python"), *(fenced(text) for text in outputs if text.strip())]


def readme(notebook: Path) -> str:
    cells = NBProcessor(notebook, process=True).nb.cells  # takes the directives out of the sources
    text = "\n\n".join(block.strip() for cell in cells for block in cell_blocks(cell) if block.strip())
    # Links in the notebook start at nbs/, links in the readme at the root.
    text = re.sub(r"\]\((?=images/|engine/|tutorials/|\d\d_\w+\.ipynb)", "](nbs/", text)
    return f"<!-- Generated from nbs/index.ipynb by `make readme`. -->\n\n{text}\n"


if __name__ == "__main__":
    (root / "README.md").write_text(readme(root / "nbs" / "index.ipynb"), encoding="utf-8")
