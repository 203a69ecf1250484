"""pictures/report.py: a run on one page that loads nothing else and says what is missing."""

import base64
import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from types import ModuleType
from xml.etree import ElementTree

import imageio.v3 as iio
import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from data import pendulum
from pictures.codes import expert_use
from pictures.plots import last_losses
from pictures.report import (
    Parts,
    Shot,
    convincing,
    experts,
    figures,
    label,
    pictures,
    read_events,
    write_report,
)
from tests.conftest import few
from tests.made import WRONG_KINDS
from tests.tiny import TEST, TINY
from utils.errors import UserError
from utils.plan import parse
from utils.progress import log_figures, tensorboard
from utils.settings import MODELS, StageInfo

# Writes into the page around it what a browser shows of a page, with every part open.
LOOK = """<script>addEventListener("load", () => {
    document.querySelectorAll("details").forEach(part => part.open = true);
    const tables = [...document.querySelectorAll("table")];
    const {clientWidth, scrollWidth} = document.documentElement;
    const right = table => table.getBoundingClientRect().right;
    parent.document.body.dataset["at" + innerWidth] = [
        document.images.length, [...document.images].filter(i => !i.naturalWidth).length,
        tables.length, tables.filter(table => right(table) > clientWidth + 1).length,
        Math.max(0, scrollWidth - clientWidth)]})</script></body>"""


class Page(HTMLParser):
    """The pictures [(alt, type, bytes)], links and text of a page whose elements are closed."""

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


def test_the_page_holds_everything_and_loads_nothing(run):
    page = Page((run / "report.html").read_text())
    assert all(link.startswith(("data:", "#")) for link in page.links)
    for alt, kind, data in page.images:
        if kind == "image/svg+xml":
            assert ElementTree.fromstring(data).tag.endswith("svg")
        else:
            assert iio.imread(data, extension=f".{kind.removeprefix('image/')}").size, alt
    shown = {alt for alt, _, _ in page.images}
    drawn = (run / "images").glob("*_1*")
    newest = {path.name for path in drawn if path.suffix in (".png", ".gif")}
    assert newest and newest <= shown
    assert {"seq_traverse_d_1.gif", "traverse_z_1.png"} <= newest
    assert {"curves of Stage 1", "curves of Stage 2"} <= shown
    # An older picture of the same kind.
    assert "seq_0_rec.png" not in shown
    figure = json.loads((run / "metrics.json").read_text())["seq_reconstruction_psnr"]
    words = ["seq_reconstruction_psnr", f"{figure:.4g}", "--RUN demo", "colour red"]
    words += ["figures reach their bar", "per frame", "per pixel", "at least 25 dB", "ELBO"]
    assert [word for word in words if word not in page.text] == []
    assert len(re.findall(r"Trained in \d+ min \d+ s, .*commit \w+.*, machine cpu", page.text)) == 2


def test_a_browser_sees_it(run, tmp_path):
    """No picture is missing, no table or page is too wide, and nothing is wrong on the console."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("no Chromium or Chrome on PATH")
    text = (run / "report.html").read_text()
    # In frames, because a window is never narrower than 500 pixels.
    inside = html.escape(text.replace("</body>", LOOK))
    frames = [f'<iframe srcdoc="{inside}" width="{w}" height="900"></iframe>' for w in (390, 1200)]
    (tmp_path / "look.html").write_text(f"<!doctype html><body>{''.join(frames)}</body>")
    flags = "--headless --no-sandbox --disable-gpu --enable-logging=stderr"
    profile, page = f"--user-data-dir={tmp_path}/profile", (tmp_path / "look.html").as_uri()
    command = [chromium, *flags.split(), profile, "--dump-dom", page]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60)
    # Pictures, missing ones, tables, those that are too wide, pixels by which the page is too wide.
    expected = f"{len(Page(text).images)},0,{text.count('<table')},0,0"
    body = re.search(r"<body[^>]*>", seen.stdout)[0]
    assert f'data-at390="{expected}"' in body and f'data-at1200="{expected}"' in body, body
    assert "CONSOLE" not in seen.stderr


def test_every_picture_and_table_of_a_run_has_its_caption(run):
    shots, tables = pictures(run / "images", Parts())
    captions = [caption for caption, *_ in (*shots, *tables)]
    assert all(caption.endswith(" (after epoch 1)") and "{" not in caption for caption in captions)
    assert len(tables) == 2
    assert any("continued to 60 frames" in caption for caption in captions)
    assert "Traversal of the code d (after epoch 1)" in captions


def test_curves_have_plain_names_and_one_unit(run):
    page = Page((run / "report.html").read_text())
    plots = {alt: data.decode() for alt, _, data in page.images if alt.startswith("curves of")}
    one, two = (plots[f"curves of Stage {n}"] for n in (1, 2))
    for words in ("nats per frame", "nats per pixel", "KL weight of s", "temperature tau", "epoch"):
        assert f"<!-- {words} -->" in one and f"<!-- {words} -->" in two, words
    # Stage 1 has no d, although its schedules hold a weight for it.
    assert "KL weight of d" not in one and "KL weight of d" in two
    assert not re.search("anneal|id temp|loss/", one + two)
    # --frames_per_clip 6 of 16 frames in stage 1; stage 2 counts its two for the whole clip.
    assert "Stage 1, sequences of 3 frames" in page.text
    assert "Stage 2, sequences of 16 frames" in page.text


def test_losses_in_three_units():
    scalars = {"total loss": {0: 9e9, 2: 8192.0}, "held out/s": {2: 4096.0}, "loss/s": {2: 1.0}}
    names = {"loss/s": "KL of identity s"}
    rows = [("training loss, with KL weights", "8192", "4096", "1"),
            ("validation, KL of identity s", "4096", "2048", "0.5")]  # fmt: skip
    assert last_losses(scalars, names, 2) == rows
    # A run of an earlier version did not record the frames of a sequence.
    assert last_losses(scalars, names, None) == [(*row[:2], "", "") for row in rows]


def test_two_convincing_pictures():
    names = "seq_1_gt.png vid_1_gen.gif vid_swap_1_gen.gif continue_1_40.png continue_1_40.gif"
    shots = [Shot("", name, "", 1) for name in (*names.split(), "swap_ep_1_rec.png")]
    assert [shot.name for shot in convincing(shots)] == ["vid_swap_1_gen.gif", "continue_1_40.gif"]
    still = [shot for shot in shots if shot.name.endswith(".png")]
    assert [shot.name for shot in convincing(still)] == ["swap_ep_1_rec.png", "continue_1_40.png"]
    assert convincing([]) == []


@pytest.mark.parametrize(
    "stage_name, model, expected",
    [
        ("EncDec", "vdsm", "Stage 1"),
        ("Seq", "vdsm", "Stage 2"),
        ("DSA", "dsa", "DSA"),
        ("Second", "toy", "Stage 2"),
    ],
)
def test_stages_are_numbered_if_there_are_several(monkeypatch, stage_name, model, expected):
    class Toy:
        STAGES = tuple(StageInfo(name, "", "", ()) for name in ("First", "Second"))

    module = ModuleType("models.toy")
    module.Toy = Toy
    monkeypatch.setitem(sys.modules, "models.toy", module)
    monkeypatch.setitem(MODELS, "toy", ("models.toy", "Toy"))
    assert label(stage_name, model) == expected


def test_events_of_a_resumed_run(run, tmp_path):
    log = read_events(run / "tensorboard" / "Seq")
    assert sorted(log["scalars"]["total loss"]) == sorted(log["scalars"]["loss/d"]) == [0, 1]
    assert log["seconds"] > 0 and "cpu" in log["origins"][0] and len(log["origins"]) == 1
    assert read_events(tmp_path) == {"scalars": {}, "seconds": 0.0, "origins": []}
    # The run was killed in the third epoch and resumed in the second.
    for begin, values in ((0, (5.0, 4.0, 9.0)), (1, (3.0,))):
        with SummaryWriter(str(tmp_path), purge_step=begin, filename_suffix=str(begin)) as writer:
            for epoch, value in enumerate(values, begin):
                writer.add_scalar("total loss", value, epoch)
    assert read_events(tmp_path)["scalars"] == {"total loss": {0: 5.0, 1: 3.0}}


def test_figures_of_an_earlier_epoch_leave_the_curves_whole(tmp_path):
    """As --select best measures: it cut the curves behind the best epoch."""
    line = {epoch: 9.0 - epoch for epoch in range(6)}
    with tensorboard(tmp_path, True, 0, {"commit": "c"}) as log:
        for epoch, value in line.items():
            log("total loss", value, epoch)
    with tensorboard(tmp_path, True, None, {}) as log:
        log_figures(log, 2, {"swap": 0.5}, {"bs": 3})
    expected = {"total loss": line, "figures/swap": {2: 0.5}}
    assert read_events(tmp_path)["scalars"] == expected


@pytest.mark.parametrize("earlier_version", [False, True])
def test_curves_of_a_run_whose_clock_was_set_back(tmp_path, monkeypatch, earlier_version):
    attempts = (0, (9.0, 8.0, 7.0)), (2, (6.0, 5.0, 1.0)), (3, (4.0,))
    for hours, (begin, values) in enumerate(attempts):
        monkeypatch.setattr("time.time", lambda hours=hours: 3600.0 * (9 - hours))
        if earlier_version:
            with SummaryWriter(str(tmp_path), purge_step=begin) as writer:
                for epoch, value in enumerate(values, begin):
                    writer.add_scalar("total loss", value, epoch)
        else:
            with tensorboard(tmp_path, True, begin, {"commit": "c"}) as log:
                for epoch, value in enumerate(values, begin):
                    log("total loss", value, epoch)
    log = read_events(tmp_path)
    assert log["scalars"] == {"total loss": {0: 9.0, 1: 8.0, 2: 6.0, 3: 4.0}}
    assert log["seconds"] >= 0


def test_a_run_that_left_little_says_what_is_missing(tmp_path):
    # The name must be shown as text, not read as markup.
    folder = tmp_path / "runs" / "<b>"
    settings = parse(TINY).stages["EncDec"]
    settings.runs_dir, settings.RUN = str(tmp_path / "runs"), "<b>"
    (folder / "images").mkdir(parents=True)
    (folder / "log.txt").write_text("stage 1: one expert takes all\n")
    iio.imwrite(folder / "images" / "plane_3.png", np.zeros((4, 4, 3), np.uint8))
    page = Page(write_report(settings)[0].read_text())
    assert [alt for alt, _, _ in page.images] == ["plane_3.png"]
    missing = ["no config.json", "No curves", "--tboard_log True", "no traversals", "no experts"]
    words = ["<b>", "one expert takes all", "Nothing was measured", *missing]
    assert [word for word in words if word not in page.text] == []


def test_the_command_has_the_flags_of_the_data_set_and_those_of_today(tmp_path):
    flags = ["--runs_dir", str(tmp_path / "runs"), "--pendulum_lengths", "0.5,1"]
    settings = parse([*TINY, *flags]).stages["EncDec"]
    # `n_decoders` is the older name.
    saved = dataclasses.asdict(settings) | {"n_decoders": 1}
    del saved["single_decoder"]
    settings_file = tmp_path / "runs" / "demo" / "config.json"
    settings_file.parent.mkdir(parents=True)
    settings_file.write_text(json.dumps({"EncDec": saved}))
    text = Page(write_report(settings)[0].read_text()).text
    assert "--pendulum_lengths 0.5,1" in text and "--single_decoder True" in text


def test_the_use_of_experts():
    weights = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]])
    text = expert_use(weights, {"colour": (np.array([0, 1, 1]), ("red", "green"))})
    (entropies, largest), heat_map, rows = experts(text)
    assert f"{np.log(2) / 3:.3g} nats on average over 3 test clips" in entropies
    assert f"mean over clips is {np.log(2):.3g} nats" in entropies
    assert "Expert 1 has the largest mean weight (0.5), expert 3 the smallest (0)" in largest
    assert heat_map.startswith("data:image/svg+xml")
    assert rows[0] == ("colour red", "1", 1, "1", "0")
    assert rows[1][:4] == ("colour green", "2", 2, "0.75") and len(rows) == 2


def test_figures_are_beside_published_ones(tmp_path):
    measured = {
        "is": "agreement",
        "figures": ["accuracy", "absent", "swap_fitted_variety", "swap_prior_variety"],
        "seed spread": {"accuracy": 0.01, "swap_prior_variety": 1.1e-16},
        "reported": {"accuracy": {"VDSM": 0.9953}},
        "warnings": ["weak"],
    }
    details = {
        "model": "vdsm",
        "n": 8,
        "spread": {"accuracy": 0.002},
        "protocols": {"consistency": measured},
    }
    path = tmp_path / "metrics.json"
    numbers = {"accuracy": 0.98765, "swap_prior_variety": 0.5, "swap_fitted_variety": 0.9}
    path.write_text(json.dumps({**numbers, "details": {"Seq": details}}))
    (table,) = figures(path)
    assert table["title"] == "Stage 2, consistency" and table["warnings"] == ["weak"]
    assert table["notes"] == "model: vdsm; n: 8" and table["is"] == "agreement"
    accuracy, absent, variety = table["rows"]
    assert accuracy[:6] == ("accuracy", "0.9877", "0.002", "0.01", "VDSM 0.9953", "")
    assert absent[:3] == ("absent", "none: no clip counts for it", "")
    # What is drawn from the fitted density stands beside what is drawn from the prior.
    assert variety[:6] == ("swap_prior_variety", "0.5", "", "0", "", "0.9") and table["fitted"]
    assert variety[6:] == ("variety of identities from the prior", "1")


@pytest.mark.parametrize("content", ["{", *WRONG_KINDS])
def test_a_broken_file_of_figures(trained, content):
    (trained / "metrics.json").write_text(content)
    with pytest.raises(UserError, match="metrics.json is not a file of figures"):
        figures(trained / "metrics.json")


def test_what_cannot_be_read_is_left_out(command, trained):
    """A page is written all the same, says what it lacks, and the command succeeds."""
    images = trained / "images"
    table = expert_use(np.ones((2, 3)) / 3, {"colour": (np.array([0, 1]), (r"$\frac{$", "a$b"))})
    (images / "experts_9.csv").write_text(table)
    (images / "seq_experts_9.csv").write_text("entropy,clips\nhigh,many\n")
    (images / "traverse_z_9.png").write_bytes(b"")
    os.mkfifo(images / "traverse_s_9.png")
    (trained / "log.txt").write_bytes(b"caf\xe9\n")
    (trained / "metrics.json").write_text("[]")
    (trained / "config.json").write_text("{}")
    said = command(*TINY, *TEST, "--report", "True")
    assert said.code == 0, said
    page = Page((trained / "report.html").read_text())
    for name in ("traverse_z_9.png", "traverse_s_9.png is a pipe", "the figures", "caf\ufffd"):
        assert name in page.text, name
    gif, parts = next(images.glob("*.gif")), Parts()
    gif.write_bytes(gif.read_bytes()[:-20])
    pictures(images, parts)
    assert any(gif.name in line and "cut" in line for line in parts)
    left_out = [line for line in said.err.splitlines() if "left out" in line]
    assert len(left_out) >= 3 and all(line in page.text for line in (r"$\frac{$", "a$b"))
