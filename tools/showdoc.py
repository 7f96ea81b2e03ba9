"""How a page shows a name: nbdev's `show_doc`, with the sections of a docstring that nbdev leaves out.

settings.ini names it as `renderer`. A docstring without sections is shown as nbdev does, with its docments.
"""

import inspect
import re
import textwrap
import warnings
from collections.abc import Callable

from nbdev.showdoc import BasicMarkdownRenderer

# fastcore takes the title of this section for two words, and says so on each page.
warnings.filterwarnings("ignore", "Unknown section See Also", module="fastcore")
HEADING = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", re.M)
ENTRY = re.compile(r"^(\S.*(?:\n(?: .*|$))*)", re.M)


def signature(symbol: Callable) -> str:
    """Names and defaults; what the parameters are is told below."""
    whole = inspect.signature(symbol)
    bare = [one.replace(annotation=one.empty) for one in whole.parameters.values() if one.name != "self"]
    text = f"{symbol.__qualname__}{whole.replace(parameters=bare, return_annotation=whole.empty)}"
    return textwrap.fill(text, 100, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def without_emphasis(text: str) -> str:
    """The text with its asterisks, which multiply; code between backticks stays as it is."""
    return re.sub(r"(`[^`]*`)|\*", lambda found: found[1] or r"\*", text)


def item(entry: str, named: bool) -> str:
    """What an entry says, as an item of a list: of something named here, or of a type, an error or a neighbour, which may be a link."""
    head, _, text = entry.strip().partition("\n")
    name, _, kind = (without_emphasis(part) for part in head.partition(" : "))
    details = [f" ({kind})" if named else f": {kind}"] * bool(kind) + [f": {without_emphasis(textwrap.dedent(text))}"] * bool(text)
    return "- " + textwrap.indent((f"**{name}**" if named else f"`{name}`") + "".join(details), "  ")[2:]


class Renderer(BasicMarkdownRenderer):
    """Signature, summary, and each section as a list; examples as code. Behind a class, its methods that have sections."""

    def _repr_markdown_(self) -> str:
        summary, *parts = HEADING.split(inspect.getdoc(self.sym) or "")
        if not parts:
            return super()._repr_markdown_()
        link_and_heading = super()._repr_markdown_().partition("```python")[0]
        first, _, more = without_emphasis(summary).partition("\n")
        blocks = [f"```python\n{signature(self.sym)}\n```", f"*{first}*", more]
        for heading, section in zip(parts[::2], parts[1::2], strict=True):
            if heading == "Examples":
                text = f"```python\n{section.strip()}\n```"
            else:
                named = heading in ("Parameters", "Attributes")
                text = "\n".join(item(entry, named) for entry in ENTRY.findall(section))
            blocks.append(f"**{heading}**\n\n{text}")
        methods = [getattr(self.sym, name) for name in vars(self.sym) if inspect.isclass(self.sym) and not name.startswith("_")]
        of_methods = [Renderer(one, title_level=self.title_level + 1) for one in methods if HEADING.search(inspect.getdoc(one) or "")]
        blocks += [one._repr_markdown_().removeprefix("---\n") for one in of_methods]
        return link_and_heading + "\n\n".join(block.strip() for block in blocks if block.strip())
