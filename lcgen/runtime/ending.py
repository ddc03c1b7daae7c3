"""Runs a command and ends its process with the exit code that was decided, whatever happens afterwards.

An interpreter that shuts down can still crash in JAX's threads, wait for another process, or be killed by a signal.
So a command flushes its output and ends by `os._exit`. This module does not import JAX.
"""

import codecs
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED = 75  # EX_TEMPFAIL: the same command goes on from the last checkpoint
STOPPED = "stopped by a signal; the same command goes on from here"
SIGNALS = (signal.SIGTERM, signal.SIGINT)

_PLAIN = {"±": "+-", "×": "x", "–": "-", "—": "-", "−": "-", "…": "..."}  # for terminals that lack them
_ENCODING_ERRORS = "lcgen.plain"


class Ending:
  """The end of a command.

  Attributes:
    code: the exit code that a signal ends the process with; the one that was decided once there is one.
  """

  def __init__(self):
    self.code = INTERRUPTED

  def run(self, program: Callable[[], object], resumable: bool = False) -> NoReturn:
    """Runs a program, then ends the process with the code of its `sys.exit`, 0 without one, or 1 after a traceback.

    Args:
      program: the command. Its output is written as far as the encoding goes, and dropped once its reader has left.
      resumable: whether SIGTERM and SIGINT end it with `INTERRUPTED`, until it handles them itself.
    """
    sys.stdout, sys.stderr = _lenient(sys.stdout), _lenient(sys.stderr)
    if resumable:
      for number in SIGNALS:
        signal.signal(number, self._signalled)
    try:
      program()
      self.code = 0
    except SystemExit as ended:
      self.code = _number(ended.code)
    except BaseException as error:  # nothing may get past: the interpreter must not shut down
      traceback.print_exc()
      self.code = 130 if isinstance(error, KeyboardInterrupt) else 1
    self._end()

  def _signalled(self, number: int, frame: object) -> NoReturn:
    del number, frame
    if self.code == INTERRUPTED:
      os.write(2, f"run.py: {STOPPED}\n".encode())  # `print` may be what the signal has interrupted
    self._end()

  def _end(self) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
      try:
        stream.flush()
      except OSError as error:
        self.code = self.code or 1
        os.write(2, f"the output cannot be written: {error}\n".encode())
      except (AttributeError, RuntimeError, ValueError):
        pass  # there is no such stream, or a signal came while it was being flushed
    os._exit(self.code)


class _Lenient(io.FileIO):
  """A file whose reader may leave, as that of `| head -1` does: the rest is dropped, and the command goes on."""

  def write(self, content) -> int:
    try:
      return super().write(content)
    except BrokenPipeError:
      return len(content)


def _lenient(stream: io.TextIOWrapper | None) -> io.TextIOWrapper | None:
  """Gives a standard stream in its own encoding that writes characters which it lacks in another way."""
  if stream is None:  # the command was started with a closed stream
    return None
  codecs.register_error(_ENCODING_ERRORS, _plain)
  raw = _Lenient(stream.fileno(), "w", closefd=False)
  lines = stream.line_buffering or stream.write_through  # the latter under PYTHONUNBUFFERED
  return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, _ENCODING_ERRORS, line_buffering=lines)


def _plain(error: UnicodeError) -> tuple[str, int]:
  """Replaces characters that an encoding lacks."""
  if not isinstance(error, UnicodeEncodeError):
    raise error
  missing = error.object[error.start : error.end]
  return "".join(_PLAIN.get(character, "?") for character in missing), error.end


def _number(code: object) -> int:
  """Gives the exit code of `sys.exit(code)`, which prints a text."""
  if code is None or isinstance(code, int):
    return code or 0
  print(code, file=sys.stderr)
  return 1
