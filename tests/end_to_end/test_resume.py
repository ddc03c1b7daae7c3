"""A run that is killed or stopped in every phase ends in the numbers of one that is not."""

import json
import signal
import time

import pytest

from lcgen.runtime.interruption import EXIT_CODE
from tests.support import fault_injection

SIGNALS = {  # those of all other moments are up to the fault injection
  "actor_critic": signal.SIGTERM,
  "classifier": signal.SIGKILL,
}
# Longer than smoke, so that there is time to kill every phase between two checkpoints.
LONGER = [
  "--config=configs/mnist5k.py:smoke",
  "--config.actor_critic.epochs=40",
  "--config.classifier.epochs=30",
  "--config.classifier.arms=none",
  "--config.evaluate.sets=test",
  "--config.train.checkpoint_steps=30",
]


def records(workdir, phase):
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  found = [json.loads(line) for line in lines if line.endswith("\n")]
  return [record for record in found if record["phase"].partition("-")[0] == phase]  # classifier-<digest of the arms>


def disturb(phase, number, start, workdir):
  """Starts the run, sends it a signal once it has gone on in this phase, and returns exit code and messages."""
  known, deadline = len(records(workdir, phase)), time.monotonic() + 120
  process = start(*LONGER, f"--workdir={workdir}")
  while len(records(workdir, phase)) < known + 12:
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.send_signal(number)
  _, stderr = process.communicate(timeout=60)
  return process.returncode, stderr


def newest_step(workdir, phase):
  """Finds the step of the phase's newest checkpoint."""
  folder = next(path for path in (workdir / "checkpoints").iterdir() if path.name.partition("-")[0] == phase)
  return max(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_disturbed_in_some_phases(start, run, tmp_path, read_results):
  undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
  code, _, stderr = run(*LONGER, f"--workdir={undisturbed}")
  assert code == 0, stderr
  for phase, number in SIGNALS.items():
    code, stderr = disturb(phase, number, start, disturbed)
    step = records(disturbed, phase)[-1]["step"]
    assert step < records(undisturbed, phase)[-1]["step"], f"{phase} was over when the process was disturbed"
    assert not (disturbed / "results.json").exists()
    if number == signal.SIGKILL:
      assert code == -signal.SIGKILL
    else:
      assert code == EXIT_CODE
      assert stderr.splitlines()[-1] == "run.py: stopped by a signal; the same command goes on from here"
      assert newest_step(disturbed, phase) == step
  code, _, stderr = run(*LONGER, f"--workdir={disturbed}")
  assert code == 0, stderr
  assert read_results(disturbed) == read_results(undisturbed)
  for phase in SIGNALS:
    assert records(disturbed, phase) == records(undisturbed, phase)


def test_a_second_run_in_a_workdir_is_refused(start, run, tmp_path):
  first = start("--config=configs/mnist5k.py:smoke", "--config.vae.epochs=100000", f"--workdir={tmp_path}")
  while not (tmp_path / "config.json").exists():
    assert first.poll() is None, first.communicate()[1]
    time.sleep(0.01)
  code, _, stderr = run("--config=configs/mnist5k.py:smoke", "--config.vae.epochs=100000", f"--workdir={tmp_path}")
  first.kill()
  first.communicate()
  assert code == 2
  assert f"--workdir={tmp_path}: another run is in it" in stderr


@pytest.mark.slow
def test_killed_fifty_times_at_random():
  found = fault_injection.inject(kills=50, seed=0)
  assert found["kills"] == 50
  assert found["runs"] >= 5
  assert found["differing"] == found["unexpected_ends"] == 0, found
