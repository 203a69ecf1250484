"""python -m metrics.compare: columns of seeds, the three formats, and what is refused."""

import csv
import dataclasses
import io
import json
import shutil

import pytest

from metrics.compare import as_csv, as_latex, as_markdown, best, main
from models.vdsm.settings import VDSMSettings
from tests.made import WRONG_KINDS


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one run, and another kind of run."""
    for name, seed, size, psnr in (
        ("demo", 0, 30, 34.0),
        ("demo-s1", 1, 30, 36.0),
        ("small", 0, 8, 20.0),
    ):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        settings = dataclasses.asdict(
            VDSMSettings(RUN=name, seed=seed, z_dim=size, dataset_name="sprites")
        )
        (folder / "config.json").write_text(json.dumps({"Seq": settings}))
        figures = {"seq_reconstruction_psnr": psnr, "consistency_accuracy": psnr / 100}
        notes = {
            "data": "sprites",
            "model": "vdsm",
            "split": "test",
            "seed": seed,
            "spread": {"consistency_accuracy": 0.01},
            "protocols": {"consistency": {"figures": list(figures), "seed spread": {}}},
        }
        (folder / "metrics.json").write_text(json.dumps(figures | {"details": {"Seq": notes}}))
    return tmp_path / "runs"


def compared(capsys, runs, *flags):
    assert main([*flags, "--runs_dir", str(runs)]) == 0
    return capsys.readouterr().out


def test_seeds_share_a_column(runs, capsys):
    lines = compared(capsys, runs, "demo", "demo-s1", "small").splitlines()
    titles = ["demo (vdsm, sprites, test), 2 seeds", "small (vdsm, sprites, test)"]
    assert lines[0] == f"| figure | {titles[0]} | {titles[1]} | reported |"
    assert "| `seq_reconstruction_psnr` | **35** ± 1.4 | 20 |  |" in lines
    assert "| `consistency_accuracy` | **0.35** ± 0.014 | 0.2 ± 0.01 | VDSM 0.9953 |" in lines
    alone = compared(capsys, runs, "demo", str(runs / "small"))
    # A run can also be given by its folder.
    assert "**0.34** ± 0.01 | 0.2 ± 0.01" in alone


def test_a_run_that_is_given_twice_counts_once(runs, capsys):
    assert main(["demo", str(runs / "demo"), "small", "--runs_dir", str(runs)]) == 0
    said = capsys.readouterr()
    assert "| demo (vdsm, sprites, test) |" in said.out and "seeds" not in said.out
    assert said.err == f"{runs / 'demo'} is given twice: counted once\n"


def test_csv_and_latex(runs, capsys):
    table = list(
        csv.reader(io.StringIO(compared(capsys, runs, "demo", "demo-s1", "--format", "csv")))
    )
    assert table[0] == ["figure", "demo (vdsm, sprites, test), 2 seeds", "spread", "reported"]
    assert table[2][0] == "consistency_accuracy" and float(table[2][1]) == pytest.approx(0.35)
    tex = compared(capsys, runs, "demo", "small", "--format", "latex")
    assert r"seq\_reconstruction\_psnr & $\mathbf{34}$ & $20$ &  \\" in tex
    assert r"consistency\_accuracy & $\mathbf{0.34} \pm 0.01$" in tex and tex.count("\n") == 9
    rules = [tex.index(rf"\{name}") for name in ("toprule", "midrule", "bottomrule")]
    assert rules == sorted(rules) and r"\usepackage{booktabs}" in tex.splitlines()[0]


def test_the_figures_that_are_chosen(runs, capsys):
    given = "demo", "small", "--figures"
    rows = compared(capsys, runs, *given, "consistency_*,seq_reconstruction_psnr").splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [
        "consistency_accuracy", "seq_reconstruction_psnr"
    ]  # fmt: skip
    assert len(compared(capsys, runs, *given, "*_psnr").splitlines()) == 3
    assert main([*given, "consistency_acuracy", "--runs_dir", str(runs)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "did you mean consistency_accuracy?" in said.err


@pytest.mark.parametrize(
    "figure, values, expected",
    [
        ("transfer_action_accuracy", (0.9, 0.8), [True, False]),
        ("transfer_pose_error_deg", (2.0, 1.0), [False, True]),
        ("transfer_action_leak", (0.1, None), [False, False]),
        ("fid", (17.64, 17.640001, 30), [True, True, False]),
        ("dci_disentanglement", (0.5, 0.5), [False, False]),
        ("consistency_identity_code_action", (0.9, 0.1), [False, False]),
    ],
)
def test_the_best_value(figure, values, expected):
    assert best(figure, [(value, None) for value in values]) == expected


def test_small_numbers_in_latex():
    assert r"$2 \cdot 10^{-5} \pm 3 \cdot 10^{-6}$" in as_latex(["a"], [("x", [(2e-5, 3e-6)], {})])


def test_names_that_a_format_would_read_as_its_own():
    header, rows = ["=a|b_*c (vdsm)"], [("-swap_$x#\\^`|", [(0.5, None)], {})]
    assert as_markdown(header, rows).splitlines()[0] == (
        r"| figure | =a\|b\_\*c (vdsm) | reported |"
    )
    assert r"| `-swap_$x#\^'\|` |" in as_markdown(header, rows)
    tex = as_latex(header, rows)
    assert r"-swap\_\$x\#\textbackslash{}\textasciicircum{}`| & $0.5$" in tex
    table = list(csv.reader(io.StringIO(as_csv(header, rows))))
    assert table[0][1] == "'=a|b_*c (vdsm)" and table[1][0].startswith("'-swap")
    assert table[1][1] == "0.5"


@pytest.mark.parametrize("content", WRONG_KINDS)
@pytest.mark.parametrize("name", ["metrics.json", "config.json"])
def test_files_of_another_kind(runs, capsys, name, content):
    shutil.copytree(runs / "demo", runs / "wrong", dirs_exist_ok=True)
    (runs / "wrong" / name).write_text(content)
    assert main(["wrong", "--runs_dir", str(runs)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and name in said


def test_a_wrong_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--format", "word"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and "'word'" in said


def test_what_it_refuses(runs, capsys):
    (runs / "untrained").mkdir()
    (runs / "odd").mkdir()
    (runs / "odd" / "metrics.json").write_text('{"details": {}}')
    for name, words in (
        ("nowhere", "found no run nowhere"),
        ("untrained", "measure the run first"),
        ("odd", "not a file of figures"),
    ):
        assert main(["demo", name, "--runs_dir", str(runs)]) == 2
        printed = capsys.readouterr()
        assert words in printed.err and printed.err.count("\n") == 1 and printed.out == ""
