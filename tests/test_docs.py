"""README.md and docs/: what they link to, name and command exists, and their data set trains."""

import ast
import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

import pictures.look
from utils import flags_page
from utils.plan import parse, parser_of, preset_names
from utils.settings import DATASETS, MODELS, settings_class

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = (  # modules with flags of their own
    "benchmarks.baselines", "benchmarks.data", "benchmarks.diff", "benchmarks.generate",
    "benchmarks.guards", "benchmarks.processes", "benchmarks.run", "benchmarks.step",
    "benchmarks.sweep", "data.sprites.create_lpc_dataset", "metrics.compare", "metrics.plots",
    "pictures.notebook", "tests.torture.__main__",
)  # fmt: skip
# of uv, pip, TensorBoard, trackio and torchrun; the prefix of a flag for one stage
FOREIGN = {
    "--python", "--torch-backend", "--no-deps", "--logdir", "--project", "--stage1", "--stage2",
    "--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint",
}  # fmt: skip
FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
TINY = (
    "--epochs 1 --bs_per_epoch 2 --bs 2 --num_test_ids 2 --evaluate none --num_clips 40 --rnn_dim 8"
    " --enc_widths 4,4,4,4,8 --dec_widths 8,8,4,4 --device cpu --threads 1 --tboard_log False"
).split()


def commands(text):
    """The lines of the code blocks, continued lines joined."""
    blocks = "\n".join(FENCE.findall(text)).replace("\\\n", " ")
    return [line.strip() for line in blocks.splitlines()]


def python_blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def own_names(text):
    """Names of the models or data sets that the page itself adds to a registry."""
    return {name for block in python_blocks(text) for name in re.findall(r'^"(\w+)": ', block)}


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.fixture(scope="module")
def flags():
    """Every flag of every model with every data set, and of the small commands."""
    known = {*FOREIGN, "--verify"}  # the latter of data.info alone
    for model in MODELS:
        for dataset in DATASETS:
            for action in parser_of(settings_class(model, dataset))._actions:
                known.update(action.option_strings)
    for name in SCRIPTS:
        with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
            importlib.import_module(name).main(["--help"])
        known.update(re.findall(r"--\w+", text.getvalue()))
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        place = page.parent / name if name else page
        assert place.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(place.read_text()), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_is_one(page, flags):
    text = page.read_text()
    declared = {
        f"--{name}"
        for block in python_blocks(text)
        for name in re.findall(r"^    (\w+): .* = flag\(", block, re.MULTILINE)
    }
    named = set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*\w(?!\w*\*)", text))
    assert named <= flags | declared, named - flags - declared


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_accepted(page):
    text = page.read_text()
    for line in commands(text):
        if not line.startswith("python "):
            continue
        _, script, *words = shlex.split(line.split(" #")[0])
        if script == "-m":
            assert importlib.util.find_spec(words[0]), line
        elif script == "main.py" and not own_names(text) & set(words):
            parse(words)
        elif script != "-":
            assert (ROOT / script).exists(), line


def test_every_preset_is_described_and_every_described_one_exists():
    table = (ROOT / "docs" / "PRESETS.md").read_text().split("## Presets")[1].split("\n## ")[0]
    described = set()
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        described.update(re.findall(r"`([\w-]+)`", row))
    assert described == set(preset_names())
    for page in PAGES:
        assert set(re.findall(r"--preset ([\w-]+)", page.read_text())) <= described | {"NAME"}, (
            page.name
        )


def test_fidelity_names_tests_that_exist():
    text = (ROOT / "docs" / "FIDELITY.md").read_text()
    names = set(re.findall(r"\b(?:\w+/)?test_\w+(?= *[,|;)])", text))
    assert len(names) > 10
    missing = [name for name in names if not (ROOT / "tests" / f"{name}.py").exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words_lead_to_the_glossary(page):
    special = r"\b(ELBO|KLs?|nats|DCI|FID|IS|msd|judge|leak excess|PSNR|LPIPS|experts|prior)\b"
    if page.name not in ("GLOSSARY.md", "SPEED.md") and re.search(special, page.read_text()):
        assert "GLOSSARY.md" in page.read_text()


@pytest.mark.parametrize("name", ["RESULTS.md", "COMPARISON.md"])
def test_each_result_has_question_command_table_and_picture(name):
    sections = re.split(r"^## ", (ROOT / "docs" / name).read_text(), flags=re.MULTILINE)[1:]
    results = [part for part in sections if not part.startswith(("Not measured", "Commands"))]
    assert len(results) > 1
    for part in results:
        picture = r"\.(png|gif)\)|judge and pictures as in the\s+section above"
        for wanted in (r"\*\*Question:\*\*", r"\*\*Command:\*\*", r"^\| --- ", picture):
            assert re.search(wanted, part, re.MULTILINE), (part.splitlines()[0], wanted)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 125


def test_one_version():
    changelog = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1)
    citation = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert changelog == citation.group(1) == project["version"]


def test_the_example_data_set_trains(command, tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "ADDING_A_DATA_SET.md").read_text()
    code, line = python_blocks(text)
    path = tmp_path / "squares.py"
    path.write_text(code)  # a file, because help texts are read from the source
    spec = importlib.util.spec_from_file_location("data.squares", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "data.squares", module)
    spec.loader.exec_module(module)
    for name, place in ast.literal_eval("{" + line + "}").items():
        monkeypatch.setitem(DATASETS, name, place)
    look, train = (line.split() for line in commands(text) if "--square_size" in line)
    assert pictures.look.main([*look[3:], "--runs_dir", str(tmp_path)]) == 0
    assert (tmp_path / "look" / "squares.gif").exists()
    said = command(*train[2:], *TINY)
    assert said.code == 0, said.err
    assert (tmp_path / "runs" / "squares" / "checkpoints" / "0_VDSM_seq.pth").exists()
    assert "--square_size" in parser_of(settings_class("vdsm", "squares")).format_help()
    assert command("--dataset_name", "pendulum", "--square_size", 24).code == 2


def test_the_page_of_flags_is_that_of_the_settings():
    assert flags_page.PAGE.read_text() == flags_page.page(), "run python -m utils.flags_page"
    presets = flags_page.PRESETS_PAGE.read_text()
    assert presets == flags_page.presets_page(presets), "run python -m utils.flags_page"
