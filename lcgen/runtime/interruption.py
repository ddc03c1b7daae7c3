"""SIGTERM and SIGINT end a run where nothing is lost, and within a grace time whatever happens."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

from lcgen.runtime import errors, parallel

EXIT_CODE = 75  # EX_TEMPFAIL: the same command goes on from there
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
  """Whether the run has been asked to end.

  Where nothing needs saving the request raises `errors.Interrupted` at once; `deferred` has the code inside ask for it
  and end by itself. All files are written whole or not at all, so that what takes longer than `grace` may be cut off.

  Attributes:
    requested: whether there was a signal.
  """

  def __init__(self):
    self.requested = False
    self._deferring = False

  @contextlib.contextmanager
  def handled(self, grace: float) -> Iterator[None]:
    """Handles the signals inside; `grace` is in seconds, after which, or after a second signal, the process ends."""
    before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
    here, there = socket.socketpair()
    there.setblocking(False)
    # The handler runs once the main thread is back from compiled code; these bytes come at once.
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
    """Has the code inside look at `requested` and end by itself."""
    self._deferring = True
    try:
      yield
    finally:
      self._deferring = False
    self._raise_if_requested()

  def agreed(self) -> bool:
    """Whether any process of the run has been asked to end; all get the same answer."""
    self.requested = parallel.anywhere(self.requested)
    return self.requested

  def _handle(self, number: int, frame: object) -> None:
    del number, frame
    self.requested = True
    if not self._deferring:
      self._raise_if_requested()

  def _raise_if_requested(self) -> None:
    if self.requested:
      raise errors.Interrupted("stopped by a signal; the same command goes on from here")


def _end_in_time(signals: socket.socket, grace: float) -> None:
  """Waits for a first signal, and then for a second one or the end of the grace time."""
  with signals:
    if not _signalled(signals):
      return
    signals.settimeout(grace)
    with contextlib.suppress(TimeoutError):
      if not _signalled(signals):
        return
    os._exit(EXIT_CODE)


def _signalled(signals: socket.socket) -> bool:
  """Waits for one of the signals; False where the other end has been closed."""
  while received := signals.recv(1):
    if received[0] in _SIGNALS:
      return True
  return False
