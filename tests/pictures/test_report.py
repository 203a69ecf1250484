"""The report of a run: whole, on one page that asks for nothing else, and honest about what is not there."""

import base64
import json
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import imageio.v3 as iio
import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from data import pendulum
from pictures.drawing import expert_use
from pictures.report import experts, figures, pictures, read_events, write_report
from tests.conftest import few
from tests.tiny import TEST, TINY
from utils.plan import parse

LOOK = """<script>addEventListener("load", () => Object.assign(document.body.dataset, {
    pictures: document.images.length, missing: [...document.images].filter(i => !i.naturalWidth).length,
    wide: document.documentElement.scrollWidth > innerWidth}))</script></body>"""


class Page(HTMLParser):
    """A page's pictures [(alt, kind, bytes)], links, headings and text; every element that is opened is closed."""

    VOID = ("meta", "link", "img", "wbr")

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.open, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            kind, data = attributes["src"].removeprefix("data:").split(";base64,")
            self.images.append((attributes["alt"], kind, base64.b64decode(data)))
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """runs/demo after both stages, with everything that a report can show."""
    import main

    folder = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(pendulum, "make", few)
        flags = ["--epochs", "2", "--tboard_log", "True", "--evaluate", "swap", "--report", "True"]
        assert main.main([*TINY, *flags]) == 0
    return folder / "runs" / "demo"


def test_the_page_holds_everything_and_asks_for_nothing(run):
    page = Page((run / "report.html").read_text())
    assert all(link.startswith(("data:", "#")) for link in page.links)
    for alt, kind, data in page.images:
        if kind == "image/svg+xml":
            assert ElementTree.fromstring(data).tag.endswith("svg")
        else:
            assert iio.imread(data, extension=f".{kind.removeprefix('image/')}").size, alt
    shown = {alt for alt, _, _ in page.images}
    assert {
        path.name
        for path in (run / "images").iterdir()
        if path.suffix in (".png", ".gif") and "_0" not in path.name
    } <= shown
    assert {
        "curves of Stage 1",
        "curves of Stage 2",
        "seq_traverse_d_1.gif",
        "traverse_z_1.png",
    } <= shown
    assert "seq_0_rec.png" not in shown  # the newest of each
    figure = json.loads((run / "metrics.json").read_text())["seq_reconstruction_psnr"]
    for words in (
        "seq_reconstruction_psnr",
        f"{figure:.4g}",
        "--RUN demo",
        "commit",
        "cpu",
        "colour red",
        "min",
    ):
        assert words in page.text


def test_a_browser_sees_it(run, tmp_path):
    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        pytest.skip("no chromium on PATH: nobody looked at the report")
    (tmp_path / "look.html").write_text((run / "report.html").read_text().replace("</body>", LOOK))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--window-size=500,900",
    ]
    command = [
        chromium,
        *flags,
        f"--user-data-dir={tmp_path}/profile",
        "--dump-dom",
        (tmp_path / "look.html").as_uri(),
    ]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60)
    count = len(Page((run / "report.html").read_text()).images)
    for fact in (f'data-pictures="{count}"', 'data-missing="0"', 'data-wide="false"'):
        assert fact in seen.stdout
    assert "CONSOLE" not in seen.stderr


def test_every_picture_and_table_of_a_run_has_its_caption(run):
    shots, tables = pictures(run / "images")
    assert all(
        " (after epoch 1)" in caption and "{" not in caption for caption, *_ in [*shots, *tables]
    )
    assert len(tables) == 2
    assert any("continued to 60 frames" in caption for caption, *_ in shots)


def test_events_of_two_sittings(run, tmp_path):
    log = read_events(run / "tensorboard" / "Seq")
    assert sorted(log["scalars"]["total loss"]) == [0, 1] and sorted(log["scalars"]["loss/d"]) == [
        0,
        1,
    ]
    assert log["seconds"] > 0 and "cpu" in log["origins"][0] and len(log["origins"]) == 1
    assert read_events(tmp_path) == {"scalars": {}, "seconds": 0.0, "origins": []}
    for begin, values in (
        (0, (5.0, 4.0, 9.0)),
        (1, (3.0,)),
    ):  # killed in the third epoch, resumed in the second
        with SummaryWriter(str(tmp_path), purge_step=begin, filename_suffix=str(begin)) as writer:
            for epoch, value in enumerate(values, begin):
                writer.add_scalar("total loss", value, epoch)
    assert read_events(tmp_path)["scalars"] == {"total loss": {0: 5.0, 1: 3.0}}


def test_a_run_that_left_little_says_what_is_missing(tmp_path):
    folder = tmp_path / "runs" / "<b>"  # a name is text, not markup
    settings = parse(TINY).stages["EncDec"]
    settings.runs_dir, settings.RUN = str(tmp_path / "runs"), "<b>"
    (folder / "images").mkdir(parents=True)
    (folder / "log.txt").write_text("stage 1: one expert takes all\n")
    iio.imwrite(folder / "images" / "plane_3.png", np.zeros((4, 4, 3), np.uint8))
    page = Page(write_report(settings).read_text())
    assert [alt for alt, _, _ in page.images] == ["plane_3.png"]
    for words in (
        "<b>",
        "no config.json",
        "--tboard_log True",
        "no experts",
        "Nothing was measured",
        "one expert takes all",
    ):
        assert words in page.text


def test_the_use_of_experts():
    weights = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]])
    text = expert_use(weights, {"colour": (np.array([0, 1, 1]), ("red", "green", "blue"))})
    assert text.splitlines()[1].startswith(f"all,,3,{np.log(2) / 3:.4g},0.5,0.5,0")
    lines, _, rows = experts(text)
    assert rows[0] == ("colour red", "1", 1, "1", "0")
    assert rows[1][:4] == ("colour green", "2", 2, "0.75") and len(rows) == 2  # no clip is blue
    assert f"mean over clips {np.log(2):.3g}" in lines[0]


def test_figures_stand_beside_published_ones(tmp_path):
    found = {
        "is": "agreement",
        "figures": ["accuracy"],
        "seed spread": {"accuracy": 0.01},
        "reported": {"accuracy": {"VDSM": 0.9953}},
    }
    details = {
        "Seq": {
            "n": 8,
            "spread": {"accuracy": 0.002},
            "protocols": {"consistency": {**found, "warnings": ["weak"]}},
        }
    }
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"accuracy": 0.98765, "details": details}))
    (table,) = figures(path)
    assert (
        table["title"] == "Stage 2, consistency"
        and table["warnings"] == ["weak"]
        and table["notes"] == "n: 8"
    )
    assert table["rows"] == [("accuracy", "0.9877", "0.002", "0.01", "VDSM 0.9953")]


def test_a_broken_file_of_figures(refused, trained):
    (trained / "metrics.json").write_text("{")
    assert "metrics.json is not a file of figures" in refused(*TINY, *TEST, "--report", "True")
