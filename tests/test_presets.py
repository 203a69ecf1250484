"""The presets: what they train, their flags, and the flags of ours that they leave alone."""

import pytest

import main
from tests.release import RELEASE
from tests.tiny import TINY
from utils.plan import parse
from utils.presets import described, preset_names

NEUTRAL = {
    "fresh": False, "override_lock": False, "dry_run": False, "convert": None, "to": None,
    "fidelity": "paper", "source": None, "data_seed": 0, "num_clips": 0, "lr_warmup": 0,
    "schedule_epochs": 0,
    "lr_final": 1.0, "clip_grad": 0.0, "save_every_steps": 0, "keep_checkpoints": 0,
    "evaluate": "none", "fid_weights": None, "judge": None, "split": "test", "export_codes": False,
    "report": False, "remeasure": False, "track": "none", "draw_from": "prior",
    "runs_dir": "./runs/", "quiet": False, "device": "auto", "threads": 0, "precision": "fp32",
    "cuda_graph": True,
    "shard_optimizer": False, "process_timeout": 600,
    "lr_identity": 1.0, "lr_identity_last": None, "start": "torch", "frames_per_clip": 0,
    "foresight": 0.0, "near_poses": 0.0, "with_first_frame": False,
    "transfer": None, "encode": None, "generate": None,
    "continue_to": None, "traverse": False, "out": None, "select": "last", "weights": None,
    "export_weights": None, "half": False, "push_to": None, "show": False,
    "encoder": "conv", "encoder_weights": "none", "encoder_frozen": False,
    "whiten_identity": False, "single_decoder": False, "schedule": "release",
    "enc_widths": (32, 32, 64, 64, 256),
    "dec_widths": (512, 256, 128, 64), "split_by": "clip", "video_step": 1, "test_share": None,
    "poses": "actions", "transfer_frames": None, "hold_out": "none",
    "pendulum_lengths": None, "pendulum_dampings": None,
}  # fmt: skip
NOT_NEUTRAL = {"nan_retries": 3, "kl": "analytic"}
# What the papers say of flags of ours, in the presets paper-*.
IN_PAPERS = {"schedule": "paper", "test_share": 0.15, "poses": "sheet"}


def test_list_presets_prints_a_line_each(capsys):
    for flags in (
        ["--list_presets"],
        ["--list_presets", "True"],
        ["--preset", "x", "--list_presets"],
    ):
        with pytest.raises(SystemExit) as stop:
            main.main(flags)
        assert stop.value.code == 0
        _, *lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == preset_names()
        demo = next(line for line in lines if line.startswith("demo "))
        assert "VDSM" in demo and "pendulum" in demo and "minutes" in demo and "GB" in demo


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_it_trains_and_takes(name):
    _, trains, dataset_name, time, memory = described(name)
    assert "not measured" not in (trains, dataset_name) and time and memory
    assert dataset_name == parse(["--preset", name]).first.dataset_name


@pytest.mark.parametrize("name", preset_names())
def test_presets_parse_and_train_every_stage(name):
    plan = parse(["--preset", name])
    assert plan.training == list(plan.stages)
    assert {settings.RUN for settings in plan.stages.values()} == {name}


@pytest.mark.parametrize("name", [n for n in preset_names() if n.startswith(("paper-", "readme-"))])
def test_flags_of_ours_do_nothing_in_the_presets_of_the_paper_and_of_the_release(name):
    own = IN_PAPERS if name.startswith("paper-") else {"fidelity": "release"}
    expected = NEUTRAL | NOT_NEUTRAL | own | {"evaluate": "default", "report": True}
    for settings in parse(["--preset", name]).stages.values():
        if settings.model == "vdsm":
            ours = set(vars(settings)) - {*RELEASE, "model"}
            assert ours <= expected.keys()
            for flag in ours:
                assert getattr(settings, flag) == expected[flag], flag
        else:  # the other models' papers have values of their own for the flags of their own
            for flag in vars(settings).keys() & NEUTRAL.keys() - {"frames_per_clip"}:
                assert getattr(settings, flag) == expected[flag], flag


@pytest.mark.slow
def test_a_preset_of_the_release_is_shortened_by_its_epochs(command, tmp_path):
    small = TINY[TINY.index("--z_dim") : TINY.index("--evaluate")]
    flags = [*small, "--bs", 2, "--bs_per_epoch", 2, "--device", "cpu", "--threads", 1]
    said = command("--preset", "readme-mug", "--dataset_name", "pendulum", "--epochs", 2, *flags)
    assert said.code == 0, said
    root = tmp_path / "runs" / "readme-mug"
    assert (root / "report.html").exists() and (root / "checkpoints" / "1_VDSM_seq.pth").exists()
    assert "seq_reconstruction_psnr" in (root / "metrics.json").read_text()


def test_flags_of_ours_are_neutral_by_default():
    for dataset_name in ("MUG-FED", "pendulum", "sprites-li", "video-folder"):
        for settings in parse(["--dataset_name", dataset_name]).stages.values():
            for flag in set(vars(settings)) - {*RELEASE, "model"}:
                assert getattr(settings, flag) == (NEUTRAL | NOT_NEUTRAL)[flag], flag


def test_the_presets_asked_for_are_there():
    assert {
        "demo",
        "sprites-cpu",
        "paper-mug",
        "paper-sprites",
        "readme-mug",
        "readme-sprites",
    } <= set(preset_names())


def test_flags_override_a_preset_wherever_they_stand():
    for flags in (["--preset", "demo", "--bs", "3"], ["--bs", "3", "--preset=demo"]):
        plan = parse(flags)
        assert [plan.stages[stage].bs for stage in plan.stages] == [3, 3]
        assert plan.stages["EncDec"].epochs != plan.stages["Seq"].epochs  # each stage its own list


def test_a_preset_with_another_seed_has_its_own_folder():
    def run(*flags):
        return {settings.RUN for settings in parse(["--preset", "demo", *flags]).stages.values()}

    assert run() == run("--seed", "0") == {"demo"}
    assert run("--seed", "1") == run("--seed=1") == {"demo-s1"}
    assert run("--seed", "1", "--RUN", "mine") == run("--seed", "1", "--RUN=mine") == {"mine"}


def test_a_preset_prints_commands_that_give_the_same_run(command):
    said = command(*TINY, "--dry_run", "True")
    lines = [line for line in said.out.splitlines() if line.startswith("preset demo, stage")]
    assert len(lines) == 2
    for line, settings in zip(lines, parse([*TINY, "--dry_run", "True"]).stages.values()):
        assert parse(line.split("main.py ")[1].split()).stages["EncDec"] == settings


# --- dry run, and other places ---
