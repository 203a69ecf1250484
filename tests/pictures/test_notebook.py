"""pictures/notebook.py: a notebook as a page."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, output_from_msg

from pictures.notebook import main, page


def write(path, *sources):
    cells = [new_markdown_cell("# Title\n\nText & *more*."), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)


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
