"""A command ends with the exit code that it decided, and its output may have no reader, or another encoding."""

import os
import subprocess
import sys

import pytest

from lcgen.runtime.ending import INTERRUPTED
from tests.conftest import ROOT

PROGRAM = """
import atexit, os, signal, sys, threading, time
from lcgen.runtime.ending import Ending
atexit.register(os.abort)  # as an interpreter that crashes while it shuts down
def program():
{body}
Ending().run(program, resumable=True)
"""


def end(body, after="", **environment):
  """Runs a program whose interpreter crashes at its shutdown; `after` follows it in the shell."""
  lines = "\n".join(f"  {line}" for line in body.splitlines())
  command = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {after}', sys.executable, PROGRAM.format(body=lines)]
  return subprocess.run(
    command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
  )


@pytest.mark.parametrize(
  ("body", "code", "stderr"),
  [
    ("print('done')", 0, ""),
    ("sys.exit(2)", 2, ""),
    ("sys.exit('a text')", 1, "a text"),
    ("1 / 0", 1, "division by zero"),
    ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", INTERRUPTED, "stopped by a signal"),
    ("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", INTERRUPTED, "stopped by a signal"),
    ("threading.Thread(target=time.sleep, args=(99,)).start()", 0, ""),
  ],
)
def test_the_code_stays_though_the_shutdown_would_crash_or_wait(body, code, stderr):
  done = end(body)
  assert done.returncode == code, done.stderr
  assert stderr in done.stderr
  assert done.stdout == ("done\n" if "print" in body else "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_without_a_reader_is_dropped_and_the_work_done(tmp_path, stream):
  body = f"""
for _ in range(9999):
  print('a line', file=sys.{stream}, flush=True)
open({str(tmp_path / "done")!r}, 'w').close()"""
  done = end(body, "| head -1" if stream == "stdout" else "2>&1 >/dev/null | head -1")
  assert (done.returncode, done.stdout, done.stderr) == (0, "a line\n", "")
  assert (tmp_path / "done").exists()


def test_output_that_cannot_be_written_is_an_error():
  done = end("print('a line')", "> /dev/full")
  assert done.returncode == 1
  assert "No space left on device" in done.stderr


def test_characters_that_the_output_lacks_are_written_in_others():
  done = end("print('96.9 ± 0.5 × 3 – 水')", PYTHONIOENCODING="ascii")
  assert (done.returncode, done.stdout) == (0, "96.9 +- 0.5 x 3 - ?\n")


@pytest.mark.parametrize("module", ["lcgen.compare", "lcgen.reporting.compare_runs", "lcgen.data.ambiguous"])
def test_every_command_ends_so(module):
  """Help is longer than `head` reads, and has no reader after its first line."""
  command = f"set -o pipefail; {sys.executable} -m {module} --help | head -1"
  done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stderr) == (0, "")
  source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
  assert "Ending().run(main)" in source
