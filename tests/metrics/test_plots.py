"""metrics/plots.py: what is in each plot, and the files of python -m metrics.plots."""

import json

import numpy as np
import pytest

from data.pendulum import COLOURS
from metrics import plots, results
from metrics.confusion import as_notes, confusion, from_notes
from metrics.plots import accuracies, confusions, contents, main, projections
from metrics.summary import Outcome
from tests.made import WRONG_KINDS
from utils.style import ABSENT, MARKERS, PALETTE, Plot

SWINGS = ("small", "medium", "large")
PENDULA = {"colour": tuple(COLOURS), "amplitude": SWINGS, "start": ("left", "right")}
# MUG's identities are too many for names and colours.
FACES = {"identity": tuple(f"{i:03}" for i in range(52)), "action": ("anger", "fear", "sad$ness")}


def clips(classes, n=300, absent=()):
    """Labels and verdicts, of which about 10 % are wrong; absent: values that no clip has."""
    rng, true, judged = np.random.default_rng(0), {}, {}
    for factor, names in classes.items():
        known = [value for value, name in enumerate(names) if name not in absent]
        true[factor] = rng.choice(known, n)
        wrong = rng.random(n) < 0.1
        judged[factor] = np.where(wrong, rng.choice(known, n), true[factor])
    return true, judged


def legend_of(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_a_confusion_matrix_counts():
    counts = confusion({"a": [0, 0, 1, 2]}, {"a": np.array([0, 1, 1, 2])}, {"a": "xyz"})
    assert counts["a"].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    notes = json.loads(json.dumps(as_notes(counts, {"a": "xyz"})))
    read, classes = from_notes(notes)
    assert np.array_equal(read["a"], counts["a"]) and classes == {"a": ["x", "y", "z"]}
    notes["a"]["values"].append("more")
    with pytest.raises(ValueError, match="the matrix of a"):
        from_notes(notes)


def test_cells_hold_values_and_absent_values_are_grey():
    counts = confusion(*clips(PENDULA, absent=["yellow"]), PENDULA)
    plot = confusions(counts, PENDULA, "transfer: pendulum")
    axes = {axis.get_title().split("\n")[0]: axis for axis in plot.axes if axis.images}
    assert list(axes) == [*PENDULA]
    colour = axes["colour"]
    assert (colour.get_xlabel(), colour.get_ylabel()) == ("judged", "true")
    shares = colour.images[0].get_array()
    gone = [*COLOURS].index("yellow")
    assert [*np.flatnonzero(shares.mask.all(1))] == [gone] and shares[0].sum() == pytest.approx(100)
    names = colour.get_yticklabels()
    assert [text.get_text() for text in names] == [*COLOURS]
    assert [text.get_color() for text in names].count("#888888") == 1
    assert names[gone].get_color() == "#888888"
    grey = colour.images[0].cmap(np.ma.masked)
    assert grey == pytest.approx(tuple(int(ABSENT[i : i + 2], 16) / 255 for i in (1, 3, 5)) + (1,))
    cells = {text.get_position(): text.get_text() for text in colour.texts}
    assert cells[0, 0] == f"{shares[0, 0]:.0f}" and not any(y == gone for _, y in cells)
    assert any("%" in axis.get_xlabel() for axis in plot.axes)  # of the colour bar


def test_too_many_values_for_names():
    true, judged = clips(FACES)
    plot = confusions(confusion(true, judged, FACES), FACES, "faces")
    identity, action = [axis for axis in plot.axes if axis.images][:2]
    assert not identity.texts and identity.get_xlabel() == "judged, 52 values"
    assert action.texts and r"sad\$ness" in [text.get_text() for text in action.get_xticklabels()]
    codes = {"identity_code": np.eye(52)[true["identity"]] + 0.1}
    identity, action = projections(codes, true, FACES, "faces").axes
    assert len(legend_of(identity)) == plots.NAMED + 1
    assert legend_of(identity)[0] == f"{len(set(true['identity'])) - plots.NAMED} others"
    assert legend_of(action) == ["anger", "fear", r"sad\$ness"]


def test_every_scatter_has_a_legend_and_units():
    true, _ = clips(PENDULA, absent=["yellow"])
    rng = np.random.default_rng(1)
    codes = {"identity_code": rng.normal(size=(300, 4)), "dynamics_code": rng.normal(size=(300, 6))}
    plot = projections(codes, true, PENDULA, "pendula")
    upper, lower = np.reshape(plot.axes, (2, 3))
    for factor, axis in zip(PENDULA, lower):
        present = [name for name in PENDULA[factor] if name != "yellow"]
        assert legend_of(axis) == present and axis.get_title() == factor
        assert axis.get_xlabel().startswith("component 1 (") and "%" in axis.get_xlabel()
    assert [axis.get_ylabel().split("\n")[0] for axis in (upper[0], lower[0])] == [
        "identity code", "dynamics code"
    ]  # fmt: skip
    dots = [tuple(points.get_facecolor()[0][:3]) for points in lower[0].collections]
    assert len(set(dots)) == len(dots) == 7


def test_no_two_values_look_alike():
    looks = [(PALETTE[i % len(PALETTE)], MARKERS[i // len(PALETTE)]) for i in range(plots.NAMED)]
    assert len(set(looks)) == plots.NAMED <= len(PALETTE) * len(MARKERS)


def test_accuracies_stand_beside_chance():
    shares = {"colour": (1.0, None), "amplitude": (0.8, 0.02), "start": (0.5, 0.1)}
    plot = accuracies({"swaps": shares, "prior": shares}, PENDULA, "pendula")
    (axis,) = plot.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == [*PENDULA]
    assert {*plot.legends[0].get_texts()} and axis.get_xlim() == (0, 1)
    chance = next(line for line in axis.lines if line.get_label() == "chance")
    assert [*chance.get_xdata()] == pytest.approx([1 / 8, 1 / 3, 1 / 2])


def test_contents_show_shares_and_chance():
    line = {"colour": (0.98, 0.13), "start": (0.49, 0.5)}
    plot = contents({"identity code": line, "dynamics code": line}, "pendula")
    assert [text.get_text() for text in plot.axes[0].texts] == ["98 (13)", "49 (50)"] * 2


@pytest.fixture
def measured(tmp_path):
    """runs/demo/metrics.json with a swap of stage 1, and the consistency of stage 2."""
    path = tmp_path / "runs" / "demo" / "metrics.json"
    path.parent.mkdir(parents=True)
    notes = {"warnings": [], "confusion": as_notes(confusion(*clips(PENDULA), PENDULA), PENDULA)}
    about = {"data": "pendulum", "model": "vdsm", "split": "test", "n": 300}
    swap = {f"swap_{factor}_accuracy": 0.9 for factor in PENDULA} | {"swap_start_leak": np.nan}
    spread = {"swap_colour_accuracy": 0.01}
    results.add(path, "EncDec", about, {}, {"swap": Outcome(swap, spread, {}, notes)})
    names = [f"{code}_{factor}" for code in plots.CODES for factor in PENDULA]
    codes = {f"consistency_{name}{end}": 0.7 for name in names for end in ("", "_shuffled")}
    results.add(path, "Seq", about, {}, {"consistency": Outcome(codes, {}, {}, notes)})
    return path


def test_the_command_writes_every_plot(measured, capsys, monkeypatch):
    monkeypatch.setattr(Plot, "content", lambda self, form: form.encode())  # takes seconds
    runs = measured.parent.parent
    assert main(["demo", "--runs_dir", str(runs), "--format", "svg"]) == 0
    names = ["confusions_swap", "accuracies_swap", "confusions_clips", "codes_clips"]
    paths = [runs / "demo" / "plots" / f"{name}.svg" for name in names]
    assert capsys.readouterr().out.splitlines() == [*map(str, paths)]
    assert all(path.read_bytes() == b"svg" for path in paths)
    assert main(["demo", "--runs_dir", str(runs), "--into", str(runs / "new" / "figures")]) == 0
    assert len([*(runs / "new" / "figures").glob("*.pdf")]) == 4


@pytest.mark.parametrize("form, begin", [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_equal_plots_give_equal_files(tmp_path, form, begin):
    shares = {"identity code": {"colour": (0.98, 0.13)}}
    for name in ("first", "second"):
        contents(shares, "pendula").save(tmp_path / f"{name}.{form}")
    first, second = ((tmp_path / f"{name}.{form}").read_bytes() for name in ("first", "second"))
    assert first == second and first.startswith(begin)


def test_what_the_command_refuses(measured, tmp_path, capsys):
    for place, content in (("empty", None), ("old", '{"details": {}}')):
        (tmp_path / place).mkdir()
        if content:
            (tmp_path / place / "metrics.json").write_text(content)
    notes = json.loads(measured.read_text())
    for details in notes["details"].values():
        for protocol in details["protocols"].values():
            del protocol["confusion"]
    measured.write_text(json.dumps(notes))
    for run, words in (
        ("nowhere", "found no run nowhere"),
        (tmp_path / "empty", "measure the run (--evaluate default"),
        (tmp_path / "old", "found no confusion matrix"),
        (measured.parent, "found no confusion matrix"),
    ):
        assert main([str(run)]) == 2
        printed = capsys.readouterr()
        assert words in printed.err and printed.err.count("\n") == 1 and not printed.out


@pytest.mark.parametrize("content", WRONG_KINDS)
def test_confusions_of_another_kind(measured, capsys, content):
    notes = json.loads(measured.read_text())
    notes["details"]["EncDec"]["protocols"]["swap"]["confusion"] = {"colour": content}
    measured.write_text(json.dumps(notes))
    assert main([str(measured.parent)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "not a file of figures" in said
