"""Checks what SIGTERM and SIGINT do in a process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lcgen.runtime import errors
from lcgen.runtime.interruption import EXIT_CODE, Interruption
from tests.conftest import ROOT


def test_where_nothing_is_to_be_saved_it_ends_at_once():
  stop = Interruption()

  def work():
    with stop.handled(grace=60):
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(60)

  with pytest.raises(errors.Interrupted):
    work()


def test_where_something_is_it_is_asked_for():
  stop, done = Interruption(), []

  def work():
    with stop.handled(grace=60):
      with stop.deferred():
        assert not stop.agreed()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.agreed()
        done.append("saved")
      done.append("went on")

  with pytest.raises(errors.Interrupted):
    work()
  assert done == ["saved"]


def test_other_handlers_are_put_back():
  before = signal.getsignal(signal.SIGTERM)
  with Interruption().handled(grace=60):
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


STUCK = """
import ctypes, sys
from lcgen.runtime.interruption import Interruption
stop = Interruption()
with stop.handled(grace=float(sys.argv[1])), stop.deferred():
  print("ready", flush=True)
  while True:
    ctypes.CDLL(None).sleep(1000)  # as compiled code that does not come back
"""


@pytest.mark.parametrize(("grace", "signals"), [(0.5, 1), (1000, 2)])
def test_what_does_not_end_is_cut_off_by_the_grace_time_or_a_second_signal(grace, signals):
  command = [sys.executable, "-c", STUCK, str(grace)]
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
  assert process.stdout.readline() == b"ready\n"
  started = time.monotonic()
  for _ in range(signals):
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
  assert process.wait(timeout=20) == EXIT_CODE
  assert time.monotonic() - started < 15
  process.stdout.close()
