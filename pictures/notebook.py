"""A notebook as a page: `python -m pictures.notebook NOTEBOOK PAGE` runs it and writes the page.

The page holds the cells, what they printed, their tables and their pictures. It loads nothing.
"""

import os
import sys
import time
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import markdown
import nbclient
import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from markupsafe import Markup
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from utils.errors import UserError, in_one_line
from utils.files import LONGEST_TEXT, regular, write_text
from utils.flags import OneLineParser

TEMPLATE = Path(__file__).with_name("notebook.html")
LONGEST = 1800  # seconds that a cell may take


def page(notebook: Any, seconds: float, processor: float, about: str) -> str:
    """The page of an executed notebook, which took `seconds`, and `processor` seconds of all cores.

    about: a line on how it was made.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    first = next((line for cell in notebook.cells for line in cell.source.splitlines()), "")
    return environment.from_string(TEMPLATE.read_text()).render(
        title=first.lstrip("# "),
        about=about,
        took=f"{seconds:.0f} s, and {processor:.0f} s of processor time",
        cells=[(Markup(as_html(cell)), outputs(cell)) for cell in notebook.cells],
    )


def as_html(cell: Any) -> str:
    """A cell without its outputs: its text, or its program."""
    if cell.cell_type == "markdown":
        return markdown.markdown(cell.source, extensions=["fenced_code"])
    return f"<pre><code>{escape(cell.source, quote=False)}</code></pre>"


def outputs(cell: Any) -> list[tuple[str, Any]]:
    """What a cell shows: ('text', words), ('table', HTML) or ('picture', base64 of a PNG)."""
    shown = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            shown.append(("picture", data["image/png"].replace("\n", "")))
        elif "text/html" in data:
            shown.append(("table", Markup(data["text/html"])))
        elif text := output.get("text", data.get("text/plain", "")):
            shown.append(("text", text.strip()))
    return shown


@in_one_line
def main(argv: list[str]) -> int:
    """Run a notebook and write its page; returns the exit code."""
    flags = OneLineParser(prog="python -m pictures.notebook", description=__doc__.split("\n\n")[1])
    flags.add_argument("notebook", metavar="NOTEBOOK", help="file of a notebook")
    flags.add_argument("page", metavar="PAGE", help="file of the page, HTML")
    flags.add_argument("--about", default="", help="a line on the run and the machine [none]")
    asked = flags.parse_args(argv)
    path, to = Path(asked.notebook), Path(asked.page)
    if path.resolve() == to.resolve() or to.is_dir() or not to.parent.is_dir():
        raise UserError(
            f"cannot write the page to {to}: give another name, in a folder that is there"
        )
    regular(path, LONGEST_TEXT)
    try:
        notebook = nbformat.read(path, 4)
    except OSError:
        raise
    except Exception:  # what is no notebook raises anything from the reader
        raise UserError(f"{path} is not a notebook: give a file .ipynb") from None
    started, spent = time.monotonic(), processor_time()
    place = {"metadata": {"path": path.resolve().parent}}
    try:
        nbclient.NotebookClient(notebook, timeout=LONGEST, resources=place).execute()
    except CellExecutionError as error:
        raise UserError(f"{path}: a cell failed: {error.ename}: {error.evalue}") from None
    except (NoSuchKernel, DeadKernelError, CellTimeoutError) as error:
        raise UserError(f"{path} cannot run ({error}): mend its kernel or its cells") from None
    took = time.monotonic() - started, processor_time() - spent
    write_text(to, page(notebook, *took, asked.about))
    print(f"ran {path} in {took[0]:.0f} s, wrote {asked.page}")
    return 0


def processor_time() -> float:
    """Seconds that this process and its children, which have ended, spent on all cores."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    sys.exit(main())
