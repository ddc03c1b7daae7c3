"""Kills the real run at random moments, again and again, and holds what it ends in against an undisturbed run.

    python -m tests.support.fault_injection KILLS [SEED]    # 500 kills: two hours

Kills are SIGKILL, a quarter of them SIGTERM or SIGINT, at moments drawn uniformly from the time that the undisturbed
run takes: between and inside chunks, while checkpoints are written, during compilation, evaluation and report. A run
that gets to its end is compared and begun anew. Prints what was survived as JSON; exits 1 where a result differs.
"""

import collections
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from lcgen.runtime.interruption import EXIT_CODE
from tests.conftest import ROOT

# All phases and stages of the default config, shortened, with checkpoints in short distances.
FLAGS = (
  "--config=configs/mnist5k.py:smoke",
  "--config.vae.epochs=20",
  "--config.actor_critic.epochs=30",
  "--config.energy.epochs=30",
  "--config.classifier.epochs=20",
  "--config.evaluate.judge.epochs=20",
  "--config.train.checkpoint_steps=30",
  "--config.train.chunk_steps=6",
)
_TIMES = ("timing", "ms_per_sample")  # what differs from run to run


def start(workdir: pathlib.Path) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "run.py", *FLAGS, f"--workdir={workdir}"],
    cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip


def finished(workdir: pathlib.Path) -> dict[str, object]:
  """All numbers that a run ended in, without times, and which files there are."""
  records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  phase = lambda record: record["phase"].partition("-")[0]
  return {
    "results": _without_times(json.loads((workdir / "results.json").read_text())),
    "metrics": sorted(records, key=lambda record: (phase(record), record["step"])),
    "samples": (workdir / "samples.npz").read_bytes(),
    "files": sorted(str(path.relative_to(workdir)) for path in (*workdir.glob("*"), *workdir.glob("figures/*"))),
  }


def _without_times(tree: object) -> object:
  if isinstance(tree, dict):
    return {key: _without_times(value) for key, value in tree.items() if key not in _TIMES}
  return tree


def steps_done(workdir: pathlib.Path) -> int:
  """Lines of metrics, those of a killed run included."""
  path = workdir / "metrics.jsonl"
  return path.read_text().count("\n") if path.exists() else 0


def disturb(workdir: pathlib.Path, number: signal.Signals, after: float) -> tuple[bool, float | None, str]:
  """Starts the run and signals it after some seconds.

  Returns whether it came to its end before, the seconds until it went on (None if it did not get there), and what it
  said where it ended in any other way.
  """
  began, known, resumed = time.monotonic(), steps_done(workdir), None
  process = start(workdir)
  while process.poll() is None and time.monotonic() - began < after:
    if resumed is None and steps_done(workdir) != known:
      resumed = time.monotonic() - began
    time.sleep(0.02)
  if process.poll() is None:
    process.send_signal(number)
  _, stderr = process.communicate(timeout=600)
  expected = {0, -number} | ({EXIT_CODE} if number != signal.SIGKILL else set())
  return process.returncode == 0, resumed, "" if process.returncode in expected else stderr


def inject(kills: int, seed: int) -> dict[str, object]:
  """Disturbs runs until they have been killed `kills` times."""
  draw, counts, recoveries, complaints = random.Random(seed), collections.Counter(), [], []
  with tempfile.TemporaryDirectory() as folder:
    undisturbed, workdir = pathlib.Path(folder) / "undisturbed", pathlib.Path(folder) / "disturbed"
    start(undisturbed).communicate()  # compiles
    shutil.rmtree(undisturbed)
    began = time.monotonic()
    start(undisturbed).communicate()
    took, expected = time.monotonic() - began, finished(undisturbed)
    done, signals = False, []
    while counts["kills"] < kills or not done:
      number = draw.choice([signal.SIGKILL] * 6 + [signal.SIGTERM, signal.SIGINT])
      after = draw.uniform(0, took) if counts["kills"] < kills else float("inf")
      done, resumed, complaint = disturb(workdir, number, after)
      complaints += [complaint] if complaint else []
      counts["unexpected_ends"] += bool(complaint)
      recoveries += [resumed] if resumed is not None else []
      if done:
        counts["runs"] += 1
        found = finished(workdir)
        complaints += [f"{what} differ after {signals}" for what in expected if found[what] != expected[what]]
        counts["differing"] += found != expected
        shutil.rmtree(workdir)
        signals = []
      else:
        counts["kills"] += 1
        counts[number.name] += 1
        signals.append(f"{number.name} at {after:.2f} s")
      known = {**counts, "undisturbed_s": round(took, 1), "longest_recovery_s": round(max(recoveries, default=0.0), 1)}
      print(json.dumps(known), end="\r", file=sys.stderr)
  return known | {"complaints": complaints}


def main() -> None:
  found = inject(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
  print(json.dumps(found, indent=1))
  sys.exit(1 if found["differing"] or found["unexpected_ends"] else 0)


if __name__ == "__main__":
  main()
