"""benchmarks/side_by_side.py: panels of the same clips, one per run, each with its model's name."""

import imageio.v3 as iio
import numpy as np

from benchmarks import side_by_side
from pictures.sheets import Sheet


def test_each_run_has_a_panel_of_the_same_clips(trained, monkeypatch, capsys):
    made, target = [], trained.parent / "film.gif"

    def kept(*given, **more):
        made.append(Sheet(*given, **more))
        return made[-1]

    monkeypatch.setattr(side_by_side, "Sheet", kept)
    flags = ["--runs_dir", str(trained.parent), "--to", str(target), "--clips", "3"]
    assert side_by_side.main(["demo", "demo", *flags]) == 0
    assert str(target) in capsys.readouterr().out
    one, other = made
    assert one.labels == other.labels and one.labels.title.startswith("VDSM: motion of the row")
    assert len(one.xs) == len(one.ys) == 4 and len(set(one.labels.columns)) == 4
    frames = np.stack(list(iio.imread(target, index=None)))
    assert frames.shape[1:] == (one.height, 2 * one.width + side_by_side.GAP, 3)
    # Both panels show one model.
    assert np.array_equal(frames[:, :, : one.width], frames[:, :, -one.width :])


def test_mistakes_are_one_line(trained, capsys):
    flags = ["--runs_dir", str(trained.parent), "--to", str(trained.parent / "none" / "film.gif")]
    for argv, words in (
        (
            ["demo", "other", *flags[:3], str(trained.parent / "film.gif")],
            "other: give the folder of a run",
        ),
        (["demo", *flags], "cannot write"),
        (["demo", *flags[:3], str(trained / "metrics.json")], "a name that ends in .gif"),
    ):
        assert side_by_side.main(argv) == 2
        line = capsys.readouterr().err
        assert words in line and line.count("\n") == 1, line
