"""Stops stages of the real run by SIGTERM at random moments, two processes at a time, and counts their exit codes.

    python -m tests.support.random_stops TRIES [STAGE ...]    # TRIES for each stage, by default for all

Moments are drawn uniformly from the first moment at which the process handles SIGTERM to the end of an undisturbed one.
A process that is signalled must end with 75, or with 0 where it had finished; one that was done before, with 0.
Prints the counts as JSON, and exits 1 where there is another code.
"""

import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent import futures

from lcgen.cli.flags import STAGES
from lcgen.runtime.interruption import EXIT_CODE
from tests.conftest import ROOT

FLAGS = (
  "--config=configs/mnist5k.py:smoke",
  "--config.evaluate.sets=test,diagnostic",
  "--config.learning_curve.shares=0.5",
  "--config.benchmark.chunks=2",
  "--config.benchmark.curve=1",
  "--config.expected=('judge test accuracy > 0.0',)",
)
_LATEST = 120.0  # seconds that a process may take to end
_AT_ONCE = 2


def start(stage: str, workdir: pathlib.Path) -> subprocess.Popen:
  command = [sys.executable, "run.py", *FLAGS, f"--stage={stage}", f"--workdir={workdir}"]
  environment = {
    "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(tempfile.gettempdir()) / "lcgen-random-stops"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
  }
  return subprocess.Popen(
    command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


def handles(process: subprocess.Popen) -> bool:
  """Tells whether a process handles SIGTERM yet, which takes Python some tenths of a second."""
  try:
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
  except FileNotFoundError:
    return True
  (caught,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")]
  return bool(caught >> (signal.SIGTERM - 1) & 1)


def stop(stage: str, prepared: pathlib.Path, folder: pathlib.Path, after: float) -> tuple[int, bool, str]:
  """Starts a stage on a copy of a workdir and stops it; returns exit code, whether it was signalled, and its words."""
  workdir = folder / "run"
  if prepared.exists():
    shutil.copytree(prepared, workdir)
  process = start(stage, workdir)
  while not handles(process) and process.poll() is None:
    time.sleep(0.002)
  began = time.monotonic()
  while process.poll() is None and time.monotonic() - began < after:
    time.sleep(0.005)
  signalled = process.poll() is None
  if signalled:
    process.send_signal(signal.SIGTERM)
  try:
    _, stderr = process.communicate(timeout=_LATEST)
  except subprocess.TimeoutExpired:
    process.kill()
    _, stderr = process.communicate()
  shutil.rmtree(workdir, ignore_errors=True)
  return process.returncode, signalled, stderr


def prepare(stage: str, folder: pathlib.Path) -> tuple[pathlib.Path, float]:
  """Makes the workdir that a stage starts from; returns it and the seconds that the stage takes on it."""
  before = {
    "actor_critic": ("vae",),
    "classifier": ("vae", "actor_critic"),
    "evaluate": ("vae", "actor_critic", "classifier"),
    **dict.fromkeys(("all", "vae", "generator", "data", "inspect", "benchmark"), ()),
  }.get(stage, ("all",))
  workdir, done = folder / "-".join(("from", *before)), folder / "undisturbed"
  if before and not workdir.exists():
    for earlier in before:
      process = start(earlier, workdir)
      _, stderr = process.communicate()
      if process.returncode:
        raise RuntimeError(f"--stage={earlier} ended with {process.returncode}: {stderr}")
  took = 0.0
  for _ in range(2):  # the first one compiles
    if workdir.exists():
      shutil.copytree(workdir, done)
    began = time.monotonic()
    start(stage, done).communicate()
    took = time.monotonic() - began
    shutil.rmtree(done, ignore_errors=True)
  return workdir, took


def count(tries: int, stages: tuple[str, ...], seed: int = 0) -> dict[str, dict[str, object]]:
  """Stops each stage `tries` times; returns the seconds it takes, the counts of exit codes, and unexpected words."""
  draw, found = random.Random(seed), {}
  with tempfile.TemporaryDirectory() as place, futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    for stage in stages:
      prepared, took = prepare(stage, pathlib.Path(place))
      moments = [draw.uniform(0, took) for _ in range(tries)]
      folders = [pathlib.Path(place) / f"try-{number}" for number in range(tries)]
      ends = list(pool.map(lambda *one, own=(stage, prepared): stop(*own, *one), folders, moments))
      codes = collections.Counter(("signalled" if told else "done before") + f": {code}" for code, told, _ in ends)
      wrong = [stderr[-2000:] for code, told, stderr in ends if code not in ((EXIT_CODE, 0) if told else (0,))]
      found[stage] = {"seconds": round(took, 1), **codes, "wrong": wrong}
      print(stage, json.dumps(found[stage]), file=sys.stderr, flush=True)
  return found


def main() -> None:
  found = count(int(sys.argv[1]), tuple(sys.argv[2:]) or STAGES)
  print(json.dumps(found, indent=1))
  sys.exit(1 if any(one["wrong"] for one in found.values()) else 0)


if __name__ == "__main__":
  main()
