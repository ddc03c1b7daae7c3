"""Ends a run on SIGTERM or SIGINT at a point where nothing is lost, at the latest after a grace time."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

from lcgen.runtime import ending, errors, parallel

AT_ONCE = 0.1  # a grace time where there is nothing to save
EXIT_CODE = ending.INTERRUPTED


class Interruption:
  """A request to end the run, made by a signal.

  A request raises `errors.Interrupted` at once. Inside `deferred` it does not: the code there checks `requested` and
  ends by itself. All files are written whole or not at all, so the process may be cut off after the grace time.

  Attributes:
    requested: whether there was a signal, in this process or, after `agreed`, in any.
  """

  def __init__(self):
    self.requested = False
    self._deferring = False

  @contextlib.contextmanager
  def handled(self, grace: float) -> Iterator[None]:
    """Handles the signals inside. A second signal, or `grace` seconds after the first, ends the process."""
    before = {number: signal.signal(number, self._handle) for number in ending.SIGNALS}
    here, there = socket.socketpair()
    there.setblocking(False)
    # The handler has to wait until the main thread is back from compiled code; these bytes come at once.
    signal.set_wakeup_fd(there.fileno())
    threading.Thread(target=_end_in_time, args=(here, grace), daemon=True).start()
    try:
      yield
    finally:
      signal.set_wakeup_fd(-1)
      there.close()
      for number, handler in before.items():
        signal.signal(number, handler)

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """Lets the code inside check `requested` and end by itself; raises `errors.Interrupted` after it."""
    self._deferring = True
    try:
      yield
    finally:
      self._deferring = False
    self._raise_if_requested()

  def agreed(self) -> bool:
    """Tells whether any process has been asked to end. Collective: all processes get the same answer."""
    self.requested = parallel.anywhere(self.requested)
    return self.requested

  def _handle(self, number: int, frame: object) -> None:
    del number, frame
    self.requested = True
    if not self._deferring:
      self._raise_if_requested()

  def _raise_if_requested(self) -> None:
    if self.requested:
      raise errors.Interrupted(ending.STOPPED)


def _end_in_time(signals: socket.socket, grace: float) -> None:
  """Waits for a first signal, then for a second one or the end of the grace time, and ends the process."""
  with signals:
    if not _signalled(signals):
      return
    signals.settimeout(grace)
    with contextlib.suppress(TimeoutError):
      if not _signalled(signals):
        return
    os._exit(EXIT_CODE)


def _signalled(signals: socket.socket) -> bool:
  """Waits for one of the signals; returns False if the other end is closed."""
  while received := signals.recv(1):
    if received[0] in ending.SIGNALS:
      return True
  return False
