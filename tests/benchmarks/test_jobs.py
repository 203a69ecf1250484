"""Jobs on a cluster: how they end, and what is refused."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.jobs import Job, on_cluster
from tests.runs import wait_for
from utils.errors import UserError


def ends(tmp_path, jobs, **options):
    codes = {}
    given = {"cluster": "local", **options}
    on_cluster(jobs, tmp_path / "submitit", given, lambda job, end: codes.update({job.run: end[0]}))
    return codes


def test_jobs_of_submitit(tmp_path, program):
    pytest.importorskip("submitit")
    flags = ["--runs_dir", str(tmp_path), "--RUN"]
    jobs = [Job(run, [*flags, run], tmp_path / run, program) for run in ("good", "bad")]
    assert ends(tmp_path, jobs) == {"good": 0, "bad": 1}
    assert "found nothing" in (tmp_path / "bad").read_text()


@pytest.mark.slow
def test_a_job_saves_before_its_time_is_over_and_a_new_job_resumes(tmp_path, program):
    pytest.importorskip("submitit")

    def warn_and_release():
        wait_for("long.began", folder=tmp_path)
        os.kill(int((tmp_path / "long.began").read_text().split()[1]), signal.SIGUSR2)
        wait_for("long.saved", folder=tmp_path)
        (tmp_path / "end").touch()

    flags = ["--runs_dir", str(tmp_path), "--RUN", "long"]
    with ThreadPoolExecutor() as threads:
        warned = threads.submit(warn_and_release)
        assert ends(tmp_path, [Job("long", flags, tmp_path / "log", program)]) == {"long": 0}
        warned.result()
    assert (tmp_path / "long.times").exists()


def test_a_wrong_cluster_is_told(tmp_path):
    pytest.importorskip("submitit")
    for options in ({"cluster": "nowhere"}, {"gpus": 3}, {"cluster": "slurm"}):
        with pytest.raises(UserError, match="--slurm: "):
            ends(tmp_path, [], **options)


def test_without_submitit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="found no submitit, which --slurm needs"):
        ends(tmp_path, [])
