"""Starts runs as on clusters, as far as one machine can: stubs of SLURM's commands, no Kubernetes."""

import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

from lcgen.runtime import interruption
from tests.conftest import ROOT
from tests.support.helpers import config_of
from tests.support.runs import SMOKE

SLURM, JOBSET = ROOT / "jobs" / "slurm.sh", ROOT / "jobs" / "jobset.yaml"
ANSWER = """#!/bin/bash
printf '%s\\n' "$@"
exit $SRUN_CODE
"""
# As SLURM does: every task with its place in the job, the highest exit code of them all.
TASKS = """#!/bin/bash
export SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1 SLURM_NTASKS=2
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & echo $! >> $TASK_IDS; done
code=0
for id in $(cat $TASK_IDS); do wait $id; ended=$?; (( ended > code )) && code=$ended; done
exit $code
"""
REQUEUE = """#!/bin/bash
echo "$@" >> $REQUEUED
"""


@pytest.fixture
def cluster(tmp_path):
  """The environment of a job, and files for what its commands do: `cluster(srun) -> (environment, folder)`."""

  def _cluster(srun):
    for name, text in (("srun", srun), ("scontrol", REQUEUE)):
      (tmp_path / name).write_text(text)
      (tmp_path / name).chmod(0o755)
    path = os.pathsep.join((str(tmp_path), os.path.dirname(sys.executable), os.environ["PATH"]))
    files = {"REQUEUED": str(tmp_path / "requeued"), "TASK_IDS": str(tmp_path / "tasks")}
    return os.environ | files | {"PATH": path, "SLURM_JOB_ID": str(free_job())}, tmp_path

  return _cluster


def free_job():
  """A number of a job whose coordinator's port, which JAX takes from it, is free."""
  while True:
    job = random.randrange(4096)
    with socket.socket() as probe:
      if probe.connect_ex(("localhost", 65535 - 4095 + job)):
        return job


def grace():
  return config_of().train.grace_s


def test_the_script_is_bash_and_its_signal_leaves_time_to_save():
  subprocess.run(["bash", "-n", SLURM], check=True)
  options = re.findall(r"^#SBATCH (.*)$", SLURM.read_text(), re.MULTILINE)
  assert "--requeue" in options
  (seconds,) = [option.removeprefix("--signal=TERM@") for option in options if "signal" in option]
  assert int(seconds) > grace()


@pytest.mark.parametrize(("code", "again"), [(0, False), (2, False), (interruption.EXIT_CODE, True), (137, False)])
def test_only_a_run_that_was_stopped_is_queued_again(cluster, code, again):
  environment, folder = cluster(ANSWER)
  environment |= {"SRUN_CODE": str(code)}
  done = subprocess.run(["bash", SLURM, "--stage=data"], env=environment, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stderr) == (code, "")
  assert done.stdout.split() == ["python", "run.py", "--multihost", "--stage=data"]
  assert (folder / "requeued").exists() == again
  if again:
    assert (folder / "requeued").read_text().split() == ["requeue", environment["SLURM_JOB_ID"]]


def test_an_array_runs_a_sweep(cluster):
  environment, _ = cluster(ANSWER)
  environment |= {"SRUN_CODE": "0", "SLURM_ARRAY_TASK_ID": "3"}
  arguments = ("--config=a b.py", "--config.expected=")
  done = subprocess.run(["bash", SLURM, *arguments], env=environment, capture_output=True, text=True, check=True)
  assert done.stdout.splitlines() == ["python", "run.py", "--multihost", "--sweep_index=3", *arguments]


@pytest.fixture
def submit(cluster, compilations):
  """Runs the script with two tasks: `submit(*flags) -> (job, log, environment)`."""
  environment, folder = cluster(TASKS)

  def _submit(*flags):
    log = folder / "log"
    (folder / "tasks").unlink(missing_ok=True)
    with log.open("w") as file:
      job = subprocess.Popen(
        ["bash", SLURM, *flags, "--initialization_timeout=120"],
        cwd=ROOT,
        env=environment | compilations | {"JAX_PLATFORMS": "cpu"},
        stdout=file,
        stderr=file,
      )
    return job, log, environment

  return _submit


def test_tasks_of_a_job_join_and_are_queued_again_by_its_signal(submit, tmp_path):
  workdir = tmp_path / "run"
  flags = (SMOKE, f"--workdir={workdir}", "--stage=vae", "--config.vae.epochs=8")
  job, log, environment = submit(*flags)
  until = time.monotonic() + 120
  while not (workdir / "metrics.jsonl").exists() and time.monotonic() < until and job.poll() is None:
    time.sleep(0.05)
  tasks = [int(line) for line in (tmp_path / "tasks").read_text().split()]
  try:
    for task in tasks:
      os.kill(task, signal.SIGTERM)
    assert job.wait(timeout=60) == interruption.EXIT_CODE, log.read_text()
  finally:
    for task in tasks if job.poll() is None else ():
      os.kill(task, signal.SIGKILL)
  for task in range(2):
    assert f"process {task} of 2, 1 of 2 devices" in log.read_text()
  assert (tmp_path / "requeued").read_text().split() == ["requeue", environment["SLURM_JOB_ID"]]


def test_the_jobset_starts_the_processes_that_it_announces():
  yaml = pytest.importorskip("yaml")
  jobset = yaml.safe_load(JOBSET.read_text())
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  (workers,) = jobset["spec"]["replicatedJobs"]
  job, name = workers["template"]["spec"], jobset["metadata"]["name"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  (command,) = container["args"]
  arguments = shlex.split(command)
  assert arguments[:3] == ["exec", "python", "run.py"]
  given = dict(argument.split("=", 1) for argument in arguments[3:])
  assert given["--coordinator"].partition(":")[0] == f"{name}-{workers['name']}-0-0.{name}"
  assert int(given["--num_processes"]) == job["completions"] == job["parallelism"]
  stopped, moved = job["podFailurePolicy"]["rules"]
  assert stopped["onExitCodes"] == {
    "containerName": container["name"],
    "operator": "In",
    "values": [interruption.EXIT_CODE],
  }
  assert moved["onPodConditions"][0]["type"] == "DisruptionTarget"
  assert pod["restartPolicy"] == "Never"  # without which a Job may have no such rules
  assert pod["terminationGracePeriodSeconds"] > grace()
  assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
