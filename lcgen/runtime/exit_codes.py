"""Ends a run that cannot go on, with one sentence and an exit code."""

import os
import sys
from typing import NoReturn

import jax

from lcgen.runtime import cluster, ending, errors, interruption

_REFUSED, _FAILED = 2, 1


def of(error: BaseException, stopped: bool = False) -> tuple[int, str] | None:
  """Gives exit code and sentence for an error; None for an unforeseen one.

  Args:
    error: that ended the run.
    stopped: whether a signal came before it; compiled code turns the exception of a signal into others.
  """
  match error:
    case errors.InputError():
      return _REFUSED, str(error)
    case errors.Interrupted():
      return interruption.EXIT_CODE, str(error)
    case errors.NonFiniteError() | errors.MissedError():
      return _FAILED, str(error)
    case OSError():  # no space, no permission, too many open files: the machine's fault, not the input's
      return _FAILED, f"{error}; what was saved is kept, and the same command goes on from there"
    case MemoryError():
      return _FAILED, _too_small(error)
    case jax.errors.JaxRuntimeError() if "RESOURCE_EXHAUSTED" in str(error):
      return _FAILED, _too_small(error)
    case _ if cluster.is_of_lost(error):
      lost = f"process {jax.process_index()} has lost another one ({_first_line(error)})"
      return interruption.EXIT_CODE, f"{lost}; start all of them again, they go on from the last checkpoint"
    case _ if stopped:
      return interruption.EXIT_CODE, ending.STOPPED
  return None


def leave(error: BaseException, code: int, sentence: str, patience: float) -> NoReturn:
  """Prints the sentence and ends the process.

  Args:
    error: that ended the run.
    code: exit code.
    sentence: from `of`.
    patience: seconds that an interrupted process waits for the others of its cluster.
  """
  print(f"run.py: {sentence}", file=sys.stderr, flush=True)
  met_by_all = isinstance(error, errors.InputError | errors.Interrupted | errors.NonFiniteError | errors.MissedError)
  if jax.distributed.is_initialized() and not met_by_all:
    os._exit(code)  # to leave the cluster would deadlock: that waits for the others, and they wait for this one
  cluster.leave(patience if isinstance(error, errors.Interrupted) else None, code)
  sys.exit(code)


def _too_small(error: Exception) -> str:
  advice = "use a smaller --config.data.train_limit or fewer --config.seeds"
  return f"memory is too small: {_first_line(error)}; {advice}"


def _first_line(error: Exception) -> str:
  return str(error).partition("\n")[0]
