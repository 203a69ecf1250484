"""metrics/verdict.py: a few figures by plain names, and one sentence on the whole."""

import re
from pathlib import Path

import pytest

from metrics.published import FID_NETWORK
from metrics.verdict import KINDS, MOST, Verdict, verdict

GLOSSARY = Path(__file__).resolve().parent.parent.parent / "docs" / "GLOSSARY.md"


def measured(data="sprites-li", stage1=False, warnings=(), **numbers):
    """numbers and details as metrics.results.read gives them, of factors hair and action."""
    kind, stage = ("swap", "stage1_") if stage1 else ("transfer", "")
    usual = {
        f"{kind}_hair_accuracy": 1.0,
        f"{kind}_action_accuracy": 0.95,
        f"{kind}_hair_leak_excess": 1e-17,
        f"{kind}_action_leak_excess": 0.01,
        f"{stage}consistency_hair": 0.98,
        f"{stage}consistency_action": 1.0,
        f"{stage}consistency_accuracy_per_factor": 0.99,
        ("" if stage1 else "seq_") + "reconstruction_psnr": 26.5,
        f"{kind}_prior_variety": 0.4,
        f"{kind}_fitted_variety": 0.97,
        f"{kind}_prior_action_accuracy": 0.94,
        f"{stage}dci_disentanglement": 0.8,
    } | numbers
    swap = {
        "judge accuracy": {"hair": 1.0, "action": 1.0, "joint": 1.0},
        "inter_entropy at most": {"action": 2.2},
        "values": {"hair": 6, "action": 9},
        "warnings": list(warnings),
        "figures": list(usual),
    }
    notes = {"data": data, "figures": list(usual), "spread": {f"{kind}_hair_accuracy": 1e-16}}
    notes |= {"n": 84, "split": "test"}
    notes["protocols"] = {"swap": swap}
    return usual, {"EncDec" if stage1 else "Seq": notes}


@pytest.mark.parametrize("stage1", [False, True])
def test_the_lines_and_the_sentence(stage1):
    sentence, lines, stage_name, clips = verdict(*measured(stage1=stage1))
    assert (stage_name, clips) == ("EncDec" if stage1 else "Seq", "84 test clips")
    assert sentence == (
        "Identity and motion are kept apart: 7 of 8 figures reach their bar; not reached: "
        "variety of identities drawn from the prior (0.4, bar: at least 0.95)."
    )
    assert 6 <= len(lines) <= MOST and all(all(line[:3]) and line.chance for line in lines)
    identity, motion, leak, consistency, *_ = lines
    assert (identity.value, identity.parts, identity.chance) == ("1", "± 0", "0.167")
    assert motion.chance == "0.111" and motion.better == "higher" and motion.good
    assert (leak.value, leak.better, leak.bar) == ("0.01", "lower", "at most 0.05")
    assert leak.parts == "hair 0, action 0.01"
    assert consistency.value == "0.99"


def test_what_identities_are_drawn_from():
    *_, line, _, _ = verdict(*measured(), draws="fitted")[1]
    assert line.name == "variety of identities drawn from the fitted density" and line.good


def test_papers_stand_where_published_py_allows_it():
    papers = {line.name: line.papers for line in verdict(*measured())[1]}
    drawn = papers.pop("motion kept with identities drawn from the prior")
    assert "SPYL 1" in drawn and "DSA 0.9073" in drawn and not any(papers.values())
    papers = {line.name: line.papers for line in verdict(*measured("sprites"))[1]}
    assert papers.pop("consistency, each factor by itself") == "VDSM 0.9953"
    assert not any(papers.values())


@pytest.mark.parametrize("network, shown", [("R3D-18", False), (FID_NETWORK, True)])
def test_a_distance_of_another_network_has_no_bar(network, shown):
    numbers, details = measured("MUG-FED", fid_release_sampled=18.0)
    details["Seq"]["protocols"]["fid"] = {"network": network, "figures": ["fid_release_sampled"]}
    fid = [line for line in verdict(numbers, details)[1] if line.term == "FID"]
    assert bool(fid) == shown
    assert not shown or (fid[0].papers, fid[0].good) == ("VDSM 17.64", True)


def test_bad_runs_weak_judges_and_sets_without_labels():
    numbers, details = measured(transfer_hair_accuracy=0.2, seq_reconstruction_psnr=9.0)
    sentence = verdict(numbers, details)[0]
    assert sentence.startswith("Identity and motion are not fully kept apart: 5 of 8")
    assert sentence.endswith("quality of reconstructions (9 dB, bar: at least 25 dB), 1 more.")
    assert verdict(*measured(warnings=["weak"]))[0].startswith("The judge is weak")
    assert verdict({}, {}) == Verdict()
    plain = {"figures": ["seq_reconstruction_psnr"], "spread": {}, "protocols": {}, "data": "x"}
    sentence, lines, *_ = verdict({"seq_reconstruction_psnr": 30.0}, {"Seq": plain})
    assert sentence.startswith("Without labels") and [line.value for line in lines] == ["30 dB"]


def test_a_run_of_an_earlier_version_did_not_record_chance():
    numbers, details = measured()
    del details["Seq"]["protocols"]["swap"]["values"]
    assert verdict(numbers, details)[1][0].chance == "not recorded"


def test_every_line_has_its_word_in_the_glossary():
    terms = set(re.findall(r"^- \*\*(.+?)\*\*:", GLOSSARY.read_text(), re.MULTILINE))
    assert {kind.term for kind in KINDS.values()} <= terms
