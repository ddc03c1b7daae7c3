"""Joins the processes of a cluster, and recognises the errors of a lost process."""

import os
import re
import socket
import sys
import threading

import jax
from jax.sharding import Mesh

from lcgen.runtime import errors

_LATER = 30  # seconds by which JAX's own timeout is longer than ours: JAX aborts without saying who was missing


def initialize(
  multihost: bool,
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  timeout: int = 300,
) -> None:
  """Joins a cluster, if asked to; must be called before any computation.

  Args:
    multihost: join the cluster that JAX detects: SLURM, a TPU pod or Open MPI.
    coordinator: address and port of process 0, if JAX detects no cluster.
    processes: number of processes.
    process: index of this process.
    timeout: seconds to wait for the other processes. Then this one says who waited for whom, with exit code 2.

  Raises:
    InputError: if there is no cluster, or this process cannot join it.
  """
  if not multihost and coordinator is None:
    return
  # Overlapping programs of several processes on CPUs can deadlock.
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  patience = threading.Timer(timeout, _give_up, (coordinator, processes, process, timeout))
  patience.start()
  try:
    jax.distributed.initialize(coordinator, processes, process, initialization_timeout=timeout + _LATER)
  except (RuntimeError, ValueError) as error:
    raise errors.InputError(
      f"--multihost: {str(error).strip().splitlines()[0]} Where JAX detects no cluster give --coordinator, "
      "--num_processes and --process_id"
    ) from error
  finally:
    patience.cancel()


def leave(patience: float | None = None, code: int = 0) -> None:
  """Leaves the cluster together with the other processes; does nothing without one.

  Args:
    patience: seconds to wait for the others. Then the process ends. None waits as long as JAX does.
    code: exit code of that end.
  """
  if not jax.distributed.is_initialized():
    return
  limit = threading.Timer(patience or 0, os._exit, (code,))
  limit.daemon = True
  if patience is not None:
    limit.start()
  jax.distributed.shutdown()
  limit.cancel()


def _give_up(coordinator: str | None, processes: int | None, process: int | None, timeout: int) -> None:
  """Ends the process and says who waited for whom, which JAX's own abort does not."""
  environment = os.environ
  who, count = process or environment.get("SLURM_PROCID", 0), processes or environment.get("SLURM_NTASKS", "several")
  where = coordinator or environment.get("JAX_COORDINATOR_ADDRESS") or environment.get("SLURM_STEP_NODELIST", "others")
  print(
    f"run.py: --multihost: process {who} of {count}, on {socket.gethostname()}, has waited {timeout} s for the others "
    f"at {where}; start all of them within --initialization_timeout",
    file=sys.stderr,
    flush=True,
  )
  os._exit(2)


def described(mesh: Mesh) -> str:
  """Describes process, devices and mesh in one line."""
  shape = " x ".join(f"{size} {name}" for name, size in mesh.shape.items())
  return (
    f"process {jax.process_index()} of {jax.process_count()}, {jax.local_device_count()} of {jax.device_count()} "
    f"devices ({jax.devices()[0].device_kind}), mesh {shape}"
  )


def is_of_lost(error: BaseException) -> bool:
  """Tells whether an error may come from a lost process.

  Such errors are XLA's own. Their messages begin with a status, as in `UNKNOWN: `.
  """
  own = isinstance(error, jax.errors.JaxRuntimeError | ValueError) and re.match(r"[A-Z_]+: ", str(error))
  return bool(own) and jax.process_count() > 1
