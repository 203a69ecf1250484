"""What a command answers, and starts, without slow imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import STAGE_1, STAGE_2, TEST, TINY
from utils.lock import only_run
from utils.precision import no_gpu_driver

ROOT = Path(__file__).resolve().parent.parent
# torch, and what it would bring with it, cannot be imported
WITHOUT_TORCH = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.modules['torch'] = None\n"
    "import main; sys.exit(main.main(sys.argv[1:]))"
)
TRAIN = ["--train_VDSMEncDec", "True"]


def told(folder, *flags):
    """The line on stderr of a command that may not import torch."""
    given = [sys.executable, "-c", WITHOUT_TORCH, ROOT, *map(str, flags)]
    done = subprocess.run(given, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("main.py: "), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--preset", "demp"], "unknown preset 'demp'"),
        (["--config", "none.json"], "--config none.json: No such file"),
        ([*TRAIN, "--dataset_name", "pendula"], "unknown data set 'pendula'"),
        (TRAIN, "found no data/MUG-FED/MUG_0-255_OF_112x112_color.npz"),
        ([*TRAIN, "--dataset_name", "sprites", "--data_dir", "nowhere"], "nowhere"),
        ([*TRAIN, "--dataset_name", "sprites", "--source", "clone"], "no folder clone"),
        ([*TRAIN, "--dataset_name", "sprites-li", "--source", "clone"], "no folder clone"),
        ([*TRAIN, "--dataset_name", "moving-mnist", "--source", "digits"], "in digits"),
        ([*TRAIN, "--dataset_name", "video-folder", "--source", "films"], "no folder films"),
        ([*TINY, *STAGE_2], "stage 2 needs a stage-1 checkpoint"),
        ([*TINY, *STAGE_2, "--pretrained_model_VDSMEncDec", 7], "7_VDSM_EncDec.pth is not there"),
        ([*TINY, "--pretrained_model_VDSMEncDec", 9], "leaves 3"),
        ([*TINY, *TEST], "nothing to test"),
        ([*TINY, *TEST, "--pretrained_model_VDSMSeq", 3], "3_VDSM_seq.pth is not there"),
        ([*TINY, *STAGE_1, "--export_codes", "True"], "--export_codes writes the codes"),
        (["--convert", "none.pth", "--to", "ours"], "cannot read none.pth"),
        (["--convert", "none.pth"], "give both"),
    ],
)
def test_mistakes_are_told_without_torch(tmp_path, flags, words):
    if "--pretrained_model_VDSMSeq" in flags:
        place = tmp_path / "runs" / "demo" / "checkpoints"
        place.mkdir(parents=True)
        (place / "3_VDSM_EncDec.pth").touch()
    assert words in told(tmp_path, *flags)


@pytest.mark.skipif(not no_gpu_driver(), reason="this machine has a driver for GPUs")
def test_an_absent_gpu_is_told_without_torch(tmp_path):
    assert "found no CUDA GPU" in told(tmp_path, *TINY, "--device", "cuda")


def test_a_folder_in_use_is_told_without_torch(tmp_path):
    with only_run([tmp_path / "runs" / "demo"]):
        assert "runs/demo is in use by process" in told(tmp_path, *TINY)


def test_a_folder_that_another_run_writes_to_is_told(tmp_path):
    # the folders of two runs differ, that of their checkpoints is the same
    shared = ["--model_save_path", "shared"]
    with only_run([tmp_path / "shared" / "demo"]):
        line = told(tmp_path, *TINY, *shared, "--runs_dir", "elsewhere")
        assert "shared/demo is in use by process" in line
    flags = [*TINY, *STAGE_2, *shared, "--runs_dir", "elsewhere"]
    assert "stage 2 needs" in told(tmp_path, *flags)


def test_ctrl_c_during_the_first_imports_ends_in_a_line(tmp_path):
    # a module that main.py imports, and that receives a signal while it is imported
    (tmp_path / "shlex.py").write_text("import os; os.kill(os.getpid(), 2)")
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *TINY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (130, "\nmain.py: stopped before it began\n")


def test_the_first_step_waits_for_no_slow_import(tmp_path):
    # scikit-learn, torchvision and torch's compiler take about a second each
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import main, utils.step\n"
        "slow = 'torchmetrics', 'torchvision', 'sklearn', 'scipy', 'matplotlib', 'tensorboard'\n"
        "call = utils.step.Stepper.update\n"
        "def step(*args):\n"
        "    call(*args)\n"
        "    raise ValueError([name for name in (*slow, 'torch._dynamo') if name in sys.modules])\n"
        "utils.step.Stepper.update = step\n"
        "try: main.main(sys.argv[1:])\n"
        "except ValueError as error: assert not error.args[0], error.args[0]\n"
        "else: assert False, 'no step was taken'"
    )
    flags = [*TINY, "--num_clips", "30", "--tboard_log", "True", "--evaluate", "default"]
    flags += ["--whiten_identity", "True"]
    given = [sys.executable, "-c", code, ROOT, *flags]
    done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
