"""A run that is killed in every phase ends in the numbers of one that is not."""

import json
import signal
import time

PHASES = ("vae", "actor_critic", "classifier", "judge")
# Longer than smoke, so that there is time to kill every phase between two checkpoints.
LONGER = [
  "--config=configs/mnist5k.py:smoke",
  "--config.vae.epochs=50",
  "--config.actor_critic.epochs=50",
  "--config.classifier.epochs=50",
  "--config.evaluate.judge.epochs=50",
  "--config.evaluate.sets=test,generated_cifar10_c/contrast",
  "--config.train.checkpoint_steps=30",
]


def records(workdir, phase):
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  found = [json.loads(line) for line in lines if line.endswith("\n")]
  return [record for record in found if record["phase"].partition("-")[0] == phase]  # classifier-<digest of the arms>


def kill_in(phase, start, workdir):
  """Starts the run, kills it once it has gone on in this phase, and returns the step it had reported."""
  known = len(records(workdir, phase))
  process = start(*LONGER, f"--workdir={workdir}")
  deadline = time.monotonic() + 120
  while len(records(workdir, phase)) < known + 12:
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  return records(workdir, phase)[-1]["step"]


def test_killed_in_every_phase(start, run, tmp_path, read_results):
  undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
  code, _, stderr = run(*LONGER, f"--workdir={undisturbed}")
  assert code == 0, stderr
  for phase in PHASES:
    step = kill_in(phase, start, killed)
    assert step < records(undisturbed, phase)[-1]["step"], f"{phase} was over when the process was killed"
    assert not (killed / "results.json").exists()
  code, _, stderr = run(*LONGER, f"--workdir={killed}")
  assert code == 0, stderr
  assert read_results(killed) == read_results(undisturbed)
  for phase in PHASES:
    assert records(killed, phase) == records(undisturbed, phase)
