"""pictures/notebook.py, and the reader's page in docs/ that it wrote."""

import os
import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, output_from_msg

from pictures.notebook import as_html, main, page

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "classifier_sprites.html"
LARGEST = 1.5e6  # bytes


def write(path, *sources):
    cells = [new_markdown_cell("# Title\n\nText & *more*."), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)


def test_the_readers_page_has_the_cells_of_the_notebook():
    text, at = PAGE.read_text(), 0
    for cell in nbformat.read(ROOT / "classifier_sprites.ipynb", 4).cells:
        at = text.find(as_html(cell), at)
        assert at >= 0, f"run python -m pictures.notebook again: {cell.source[:60]}"
    cells = [cell for cell in nbformat.read(ROOT / "classifier_sprites.ipynb", 4).cells]
    assert text.count("<pre><code>") == sum(cell.cell_type == "code" for cell in cells) + 1
    assert "Identity and motion are" in text and text.count("data:image/png;base64,") == 7


def test_the_readers_page_loads_nothing_and_names_no_folder_of_ours():
    text = PAGE.read_text()
    assert len(text.encode()) < LARGEST
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', text))
    shown = re.sub(r"base64,[^\"]*", "", text)
    a_path = r"(?<![\w./<:-])/[A-Za-z]\w*/[\w./-]+"
    assert re.search(a_path, "File '/home/somebody/x.py'")
    assert not re.search(rf"{a_path}|Traceback|NaN", shown)


def test_outputs_are_shown_and_escaped():
    def output(kind, **content):
        return output_from_msg({"header": {"msg_type": kind}, "content": content})

    cell = new_code_cell("1 < 2")
    cell.outputs = [
        output("stream", name="stdout", text="<b>\n"),
        output("display_data", data={"image/png": "aGk=\n", "text/plain": "x"}, metadata={}),
        output("display_data", data={"text/html": "<table></table>"}, metadata={}),
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# A <title>"), cell])
    text = page(notebook, 61, 20, "two cores")
    assert (
        "<title>A &lt;title&gt;</title>" in text
        and "61 s, and 20 s of processor time. two cores" in text
    )
    assert "<pre><code>1 &lt; 2</code></pre>" in text and "&lt;b&gt;</pre>" in text
    assert "base64,aGk=" in text and '<div class="table"><table></table></div>' in text


def test_the_command_runs_the_cells(tmp_path, capsys):
    write(tmp_path / "a.ipynb", "print(6 * 7)")
    assert main([str(tmp_path / "a.ipynb"), str(tmp_path / "a.html")]) == 0
    text = (tmp_path / "a.html").read_text()
    assert "<h1>Title</h1>" in text and "Text &amp; <em>more</em>." in text and ">42</pre>" in text


def test_what_the_command_refuses(tmp_path, capsys):
    write(tmp_path / "bad.ipynb", "1 / 0")
    (tmp_path / "text.ipynb").write_text("no notebook")
    for name, words in (
        ("bad", "a cell failed: ZeroDivisionError: division by zero"),
        ("text", "is not a notebook"),
        ("none", "No such file"),
    ):
        assert main([str(tmp_path / f"{name}.ipynb"), str(tmp_path / "a.html")]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and words in said
    assert not (tmp_path / "a.html").exists()


def test_what_is_refused_before_a_cell_runs(tmp_path, capsys):
    write(tmp_path / "a.ipynb", "print(1)")
    before = (tmp_path / "a.ipynb").read_bytes()
    for name, text in (("empty", "{}"), ("list", "[]"), ("number", '{"nbformat": 4, "cells": 3}')):
        (tmp_path / f"{name}.ipynb").write_text(text)
    kernel = new_notebook(metadata={"kernelspec": {"name": "none", "display_name": "none"}})
    nbformat.write(kernel, tmp_path / "kernel.ipynb")
    os.mkfifo(tmp_path / "pipe.ipynb")
    for name, to, words in (
        ("empty", "a.html", "is not a notebook"),
        ("list", "a.html", "is not a notebook"),
        ("number", "a.html", "is not a notebook"),
        ("pipe", "a.html", "is a pipe"),
        ("kernel", "a.html", "No such kernel named none"),
        ("a", "a.ipynb", "give another name"),
        ("a", "none/a.html", "give another name"),
    ):
        assert main([str(tmp_path / f"{name}.ipynb"), str(tmp_path / to)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and words in said
    assert (tmp_path / "a.ipynb").read_bytes() == before


def test_a_page_of_no_cells_and_of_an_empty_one():
    assert "<title></title>" in page(new_notebook(), 1, 1, "")
    assert "<title></title>" in page(new_notebook(cells=[new_markdown_cell("")]), 1, 1, "")
