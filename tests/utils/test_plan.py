"""utils/plan.py beyond what tests/test_cli.py says to it: settings that were saved."""

import json
from dataclasses import asdict

import pytest

from models.settings import DSASettings, UnorderedSettings
from models.vdsm.settings import VDSMSettings
from utils.errors import UserError
from utils.flags import without
from utils.plan import differences, of_today, opening_lines, parse
from utils.settings import DATASETS, MODELS, settings_class


@pytest.mark.parametrize("model", MODELS)
def test_settings_and_their_flags_say_the_same(model):
    cls = settings_class(model, "pendulum")
    changed = {"dataset_name": "pendulum", "pendulum_lengths": (0.5, 1.0), "lr_resume": 0.0008}
    settings = cls(bs=3, start="data", **changed)
    for parsed in parse(settings.as_flags()).stages.values():
        assert parsed == settings
    assert cls().as_flags() == ([] if model == "vdsm" else ["--model", model])


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_brings_its_own_flags(name):
    declared = {
        "MUG-FED": {"split_by", "test_share"},
        "pendulum": {"pendulum_lengths", "pendulum_dampings"},
        "shapes": {"shapes_per_combination"},
        "sprites": {"hold_out"},
        "sprites-li": {"poses", "hold_out"},
        "video-folder": {"split_by", "video_step"},
    }
    ours = settings_class("vdsm", name).__dataclass_fields__.keys()
    assert ours - VDSMSettings.__dataclass_fields__.keys() == declared.get(name, set())


def test_a_flag_for_one_stage():
    flags = ["--stage2.epochs", "30", "--epochs=20", "--stage1.evaluate=none", "--stage2.report"]
    first, second = parse([*flags, "--quiet", "--evaluate", "dci"]).stages.values()
    assert (first.epochs, first.evaluate, first.report, first.quiet) == (20, "none", False, True)
    assert (second.epochs, second.evaluate, second.report, second.quiet) == (30, "dci", True, True)
    assert [
        s.epochs for s in parse(["--preset", "demo", "--stage1.epochs", "3"]).stages.values()
    ] == [3, 26]
    assert without(flags, "--epochs") == ["--stage1.evaluate=none", "--stage2.report"]


@pytest.mark.parametrize(
    "flags, owner",
    [
        (["--shapes_per_combination", "3"], "--dataset_name shapes"),
        (["--hold_out=pairs"], "--dataset_name sprites or --dataset_name sprites-li"),
        (["--model", "dsa", "--n_e_w", "3"], "--model vdsm"),
    ],
)
def test_a_flag_of_another_data_set_or_model_names_its_owner(flags, owner):
    with pytest.raises(UserError, match=rf"{flags[-1]} \(a flag of {owner}\)"):
        parse(flags)


def test_unordered_says_that_it_cannot_continue_clips():
    flags = ["--transfer_frames", "40"]
    assert not parse(flags).idle
    (line,) = opening_lines(parse(["--model", "unordered", *flags]))
    assert "--transfer_frames is accepted and does nothing: Unordered knows no time" in line


@pytest.mark.parametrize("name", ["pendulum", "shapes"])
def test_a_data_set_that_reads_no_files_says_so_of_source(name):
    """So that nobody takes the pendula for the folder of videos that --source names."""
    plan = parse(["--dataset_name", name, "--source", "videos"])
    assert "--source is accepted and does nothing: this data set is drawn" in opening_lines(plan)[0]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--stage3.epochs", "3"], "--stage3.epochs: --model vdsm has 2 stages"),
        (["--model", "dsa", "--stage2.epochs=3"], "--stage2.epochs: --model dsa has 1 stage"),
        (["--stage2.seed", "3"], "--stage2.seed: this flag is of the whole run: give --seed"),
        (["--stage2.epochs", "3", "--stage2.dataset_name", "sprites"], "stage2.dataset_name: this"),
        (["--stage2.epoch", "3"], "--epoch 3 .did you mean --epochs"),
    ],
)
def test_a_wrong_flag_for_one_stage(flags, words):
    with pytest.raises(UserError, match=words):
        parse(flags)


def test_a_shortened_preset_of_the_release_stands_on_the_last_epoch():
    def named(*flags):
        return parse(["--preset", "readme-mug", *flags]).stages["Seq"].pretrained_model_VDSMEncDec

    alone = ["--train_VDSMEncDec", "False"]
    assert (named(), named("--epochs", "3"), named("--stage1.epochs", "9")) == (249, 2, 8)
    assert named("--stage2.epochs", "9") == named(*alone, "--epochs", "3") == 249
    assert named("--epochs", "3", "--pretrained_model_VDSMEncDec", "1") == 1


def test_a_flag_of_another_data_set_is_refused():
    with pytest.raises(UserError, match="--video_step"):
        parse(["--dataset_name", "pendulum", "--video_step", "2"])


def test_differences():
    def differ(stage, **changes):
        saved = json.loads(json.dumps(asdict(VDSMSettings())))
        return differences(saved, VDSMSettings(**changes), stage)

    assert differ("Seq") == []
    assert (
        differ("Seq", RUN="other", device="cpu", lr_resume=0.1, model_test_interval=9) == []
    )  # nothing learnt otherwise
    assert differ("Seq", bs=3, enc_widths=(1, 2, 3, 4, 5)) == ["bs", "enc_widths"]
    assert (
        differ("EncDec", lr_VDSMSeq=1.0, rnn_dim=3)
        == []
        != differ("Seq", lr_VDSMSeq=1.0, rnn_dim=3)
    )
    assert differ("Seq", lr_VDSMEncDec=1.0) == [] != differ("EncDec", lr_VDSMEncDec=1.0)
    assert (
        differences({}, VDSMSettings(bs=3), "Seq") == []
    )  # a setting that an older version did not have


def test_a_run_may_be_extended_where_its_schedules_stay():
    def differ(saved, **changes):
        return differences(saved, VDSMSettings(**changes), "EncDec")

    plain = {"epochs": 20}  # as an earlier version saved it
    assert differ(plain, epochs=40) == ["epochs"] == differ(plain, epochs=10)
    assert differ(plain, epochs=40, schedule_epochs=20) == []
    assert differ(plain, epochs=10, schedule_epochs=20) == ["epochs"]
    assert differ(plain, epochs=20, schedule_epochs=10) == ["schedule_epochs"]
    extended = {"epochs": 40, "schedule_epochs": 20}
    assert differ(extended, epochs=60, schedule_epochs=20) == []
    assert differ(extended, epochs=40) == ["schedule_epochs"]
    assert differ(extended, epochs=20) == ["epochs"]


# --- settings of earlier versions ---

OLD_VDSM = {
    "model": "vdsm", "dataset_name": "pendulum", "n_e_w": 16, "n_decoders": None,
    "encoder_init": "torch", "output_bias": "zero", "s_spread_start": 0.0625, "s_scale_start": 0.0,
    "d_scale_start": 0.0, "z_scale_start": 0.0, "frames_per_clip": 0, "pixel_frames": 0,
    "nan_lr_factor": 0.5, "pendulum_lengths": None, "video_step": 1, "split_by": "clip",
}  # fmt: skip
DATA_START = {"encoder_init": "data", "output_bias": "data", "s_scale_start": 0.0625}


@pytest.mark.parametrize(
    "stage, old, new",
    [
        ("EncDec", {}, {"start": "torch", "frames_per_clip": 0, "single_decoder": False}),
        ("EncDec", DATA_START | {"frames_per_clip": 6}, {"start": "data", "frames_per_clip": 6}),
        ("EncDec", {"d_scale_start": 0.03, "pixel_frames": 2}, {"start": "torch"}),
        ("Seq", {"d_scale_start": 0.03, "z_scale_start": 0.05}, {"start": "data"}),
        ("Seq", {"pixel_frames": 2, "frames_per_clip": 6}, {"frames_per_clip": 2}),
        ("Seq", DATA_START, {"start": "torch"}),
        ("Seq", {"n_decoders": 1}, {"single_decoder": True}),
        ("Seq", {"pendulum_lengths": [1.0, 1.2]}, {"pendulum_lengths": [1.0, 1.2]}),
    ],
)
def test_old_settings_of_vdsm_read_as_those_of_today(stage, old, new):
    values = of_today(OLD_VDSM | old, stage)
    assert values | new == values
    assert values.keys() <= settings_class("vdsm", "pendulum").__dataclass_fields__.keys()


@pytest.mark.parametrize(
    "cls, old, start",
    [
        (DSASettings, {"output_bias": "data"}, "data"),
        (
            UnorderedSettings,
            dict.fromkeys(("output_bias", "encoder_init", "decoder_init"), "data"),
            "data",
        ),
        (
            UnorderedSettings,
            {"output_bias": "zero", "encoder_init": "torch", "decoder_init": "torch"},
            "torch",
        ),
    ],
)
def test_old_settings_of_the_other_models(cls, old, start):
    values = {"model": cls.model, "dataset_name": "sprites-li", **old, "num_frames": 5}
    assert of_today(values, cls.STAGES[0].name)["start"] == start
    if cls is UnorderedSettings:
        assert of_today(values, "Unordered")["frames_per_clip"] == 5


@pytest.mark.parametrize(
    "stage, old",
    [
        ("EncDec", {"encoder_init": "data"}),
        ("EncDec", DATA_START | {"s_scale_start": 0.1}),
        ("Seq", {"d_scale_start": 0.1}),
        ("Seq", {"n_decoders": 3}),
        ("Seq", {"nan_lr_factor": 0.25}),
    ],
)
def test_old_settings_without_an_equal_are_refused_in_one_line(stage, old, tmp_path):
    (name, value), *_ = old.items()
    saved = OLD_VDSM | old
    assert name in of_today(saved, stage) or "s_scale_start" in of_today(saved, stage)
    settings = settings_class("vdsm", "pendulum")(dataset_name="pendulum", n_e_w=16)
    assert differences(of_today(saved, stage), settings, stage)
    (tmp_path / "config.json").write_text(json.dumps({stage: saved}))
    with pytest.raises(UserError, match="of another version and has no equal") as refused:
        parse(["--config", str(tmp_path / "config.json")])
    assert "\n" not in str(refused.value)


def test_an_old_configuration_repeats_its_run(tmp_path):
    first, second = OLD_VDSM | DATA_START, OLD_VDSM | {"pixel_frames": 2}
    (tmp_path / "config.json").write_text(json.dumps({"EncDec": first, "Seq": second}))
    stages = parse(["--config", str(tmp_path / "config.json")]).stages
    assert [s.start for s in stages.values()] == ["data", "torch"]
    assert [s.frames_per_clip for s in stages.values()] == [0, 2]
