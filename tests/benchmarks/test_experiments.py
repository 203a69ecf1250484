"""benchmarks/experiments: every command is accepted, and the pages name what there is."""

import re

import pytest

from benchmarks.sweep import EXPERIMENTS, expanded, listed, read
from tests.test_docs import ROOT, anchors
from utils.plan import differences, parse
from utils.settings import PROTOCOLS

NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))
RUNS = {
    "demo": 3, "demo-seeds": 20, "full-size": 3, "moving-mnist": 1, "pendulum-long": 9,
    "published-settings": 2, "recipe-parts": 18, "recipe-parts-motion": 12, "single-decoder": 9,
    "sprites-cpu": 3, "sprites-li-equal-time": 12, "sprites-li-hour": 3, "sprites-rate": 3,
    "unseen-pairs": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def sweeps():
    """{name: its runs}, all of whose commands `expanded` has given to the command line's parser."""
    return {name: expanded(read(name)[1], name) for name in NAMES}


def test_every_command_trains_and_is_measured(sweeps):
    assert {name: len(runs) for name, runs in sweeps.items()} == RUNS
    for runs in sweeps.values():
        for run in runs:
            plan = run.plan
            last = plan.stages[plan.training[-1]]
            assert last.measured == ("default",) or set(last.measured) <= set(PROTOCOLS)
            assert last.measured, run.words
            # The commands that are printed for other programs mean the same.
            assert parse([*run.words, "--quiet", "True"]).first.RUN == run.name


@pytest.mark.parametrize("name", NAMES)
def test_every_file_says_what_it_asks_and_what_it_measures(name):
    content = read(name)[1]
    assert content["question"].strip().endswith("?") and content["measured"].strip()
    text = (EXPERIMENTS / f"{name}.toml").read_text()
    assert text.startswith("# ") and max(map(len, text.splitlines())) <= 120


def test_runs_of_one_folder_are_the_same_run(sweeps):
    seen = {}
    for runs in sweeps.values():
        for run in runs:
            for stage, settings in run.plan.stages.items():
                other = seen.setdefault((run.name, stage), settings)
                assert differences(vars(other), settings, stage) == [], run.name


def test_the_seeds_of_the_reliability_are_fresh(sweeps):
    seeds = {run.plan.first.seed for run in sweeps["demo-seeds"]}
    assert len(seeds) == 20 and not seeds & {0, 1, 2, 7, 10, 11, 12}


def test_equal_time_is_as_many_times_the_steps(sweeps):
    def steps(plan):
        return sum(c.epochs * c.bs_per_epoch for c in plan.stages.values())

    for name, times in (("sprites-li-equal-time", 3), ("sprites-li-hour", 6)):
        for run in sweeps[name]:
            if run.name.startswith(
                ("sprites-li-vdsm-", "sprites-li-dsa-", "sprites-li-unordered-")
            ):
                preset = parse(["--preset", str(run.plan.preset)])
                longer = re.search(r"-(30|60)", run.name)
                assert steps(run.plan) == (times if longer else 1) * steps(preset)


def test_the_list_names_every_file():
    text = listed()
    assert [line.split(":")[0] for line in text.splitlines()[::2]] == NAMES


def test_every_section_of_the_results_has_a_row():
    page, results = ((ROOT / "docs" / name).read_text() for name in ("SWEEPS.md", "RESULTS.md"))
    table = page.split("## Rows of the results")[1]
    assert set(re.findall(r"`([a-z-]+)`", table)) >= set(NAMES)
    named = set(re.findall(r"RESULTS\.md#([\w-]+)", table))
    sections = anchors("\n".join(re.findall(r"^## .*$", results, re.MULTILINE)))
    assert sections - {"not-measured"} <= named
