"""Devices: the mesh `("seed", "data")`, the placement of arrays on it, and the map over seeds.

Seeds are spread over devices first. The batch of each seed is sharded over the devices left to it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lcgen.runtime import errors

SEED, DATA = "seed", "data"
_EXCHANGED_BYTES = 64 * 2**20  # on a device, while processes exchange the rows that they have read


def make_mesh(seeds: int, devices: Sequence[jax.Device] | None = None, seed_axis: int = 0) -> Mesh:
  """Makes the mesh of the devices that train.

  Args:
    seeds: number of seeds.
    devices: to use; None for all devices of all hosts.
    seed_axis: devices along the seed axis; 0 for the largest number that divides both seeds and devices.

  Raises:
    InputError: if `seed_axis` does not divide both seeds and devices.
  """
  devices = jax.devices() if devices is None else devices
  if seed_axis and (seeds % seed_axis or len(devices) % seed_axis):
    raise errors.InputError(
      f"config.train.seed_axis={seed_axis}: must divide the {seeds} seeds and the {len(devices)} devices; 0 does"
    )
  across = seed_axis or math.gcd(seeds, len(devices))
  shape, types = (across, len(devices) // across), (AxisType.Auto, AxisType.Auto)
  return jax.make_mesh(shape, (SEED, DATA), axis_types=types, devices=devices)


def put(tree: Any, sharding: jax.sharding.Sharding | jax.Device | None) -> Any:
  """Puts host arrays on devices, like `jax.device_put`; each of several processes fills its own devices."""
  if isinstance(sharding, jax.sharding.Sharding) and not sharding.is_fully_addressable:
    place = lambda array: jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    return jax.tree.map(place, jax.device_get(tree))
  return jax.device_put(tree, sharding)


def fetch(tree: Any) -> Any:
  """Gathers sharded arrays into full NumPy arrays on every process. Collective: every process must call it."""
  leaves, structure = jax.tree.flatten(tree)
  away = {
    place: leaf for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
  }
  if away:
    mesh = next(iter(away.values())).sharding.mesh
    for place, copy in _copies(away, replicated(mesh)).items():
      leaves[place] = copy.addressable_data(0)
  return jax.device_get(jax.tree.unflatten(structure, leaves))


@functools.partial(jax.jit, static_argnums=1)
def _copies(arrays: Any, sharding: NamedSharding) -> Any:
  return jax.lax.with_sharding_constraint(arrays, sharding)


def local_mesh(mesh: Mesh, seeds: int) -> Mesh:
  """Makes a mesh of this process's own devices; returns the same mesh if there is one process."""
  return mesh if jax.process_count() == 1 else make_mesh(seeds, jax.local_devices())


def local(tree: Any, mesh: Mesh) -> Any:
  """Moves arrays with a leading seed axis to a `local_mesh`; returns them as they are if there is one process."""
  return tree if jax.process_count() == 1 else jax.device_put(fetch(tree), per_seed(mesh))


def barrier() -> None:
  """Waits until all processes have made this call."""
  _from_all(np.array(0))


def anywhere(flag: bool) -> bool:
  """Tells whether the flag is set in any process. Collective."""
  return bool(_from_all(np.array(flag)).any())


def of_first(number: int) -> int:
  """Gives every process the number of the first one. Collective."""
  return int(_from_all(np.array(number, np.int32))[0])


def _from_all(array: np.ndarray) -> np.ndarray:
  """Stacks the arrays of all processes, `[...]` of one shape and type, in process order: `[P, ...]`."""
  if jax.process_count() == 1:
    return array[None]
  first = {device.process_index: device for device in reversed(jax.devices())}
  mesh = Mesh(np.array([first[process] for process in sorted(first)]), (DATA,))
  spread = NamedSharding(mesh, PartitionSpec(DATA))
  return fetch(jax.make_array_from_callback((len(first), *array.shape), spread, lambda _: array[None]))


def read_in_parts(count: int, read: Callable[[range], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Reads rows, a part in each process, and gives all rows to every process.

  Args:
    count: number of all rows.
    read: reads a range of rows, as arrays `[N, ...]` whose types and other dimensions are the same in all parts.

  Raises:
    InputError: in every process, if one cannot read its part.
  """
  processes, own, failure = jax.process_count(), jax.process_index(), None
  if processes == 1 or count < processes:
    return read(range(count))
  ends = [count * place // processes for place in range(processes + 1)]
  try:
    part = read(range(ends[own], ends[own + 1]))
  except errors.InputError as error:
    failure = error
  if anywhere(failure is not None):
    raise failure or errors.InputError("another process cannot read its part of the data; its log says why")
  return {name: _joined(array, np.diff(ends)) for name, array in part.items()}


def _joined(part: np.ndarray, counts: Sequence[int]) -> np.ndarray:
  """Joins the rows of all processes, which have `counts` of them, `[P]`."""
  content = np.ascontiguousarray(part).reshape(len(part), -1).view(np.uint8)  # JAX would narrow 64-bit types
  width = content.shape[1]
  content = np.pad(content, ((0, max(counts) - len(content)), (0, 0)))
  rows = max(1, _EXCHANGED_BYTES // (width * len(counts)))
  blocks = [_from_all(content[start : start + rows]) for start in range(0, len(content), rows)]
  each = np.concatenate(blocks, axis=1)  # [P, N, bytes]
  whole = np.concatenate([rows[:count] for rows, count in zip(each, counts, strict=True)])
  return whole.view(part.dtype).reshape(-1, *part.shape[1:])


def per_seed(mesh: Mesh) -> NamedSharding:
  """Gives the sharding of arrays with a leading seed axis."""
  return NamedSharding(mesh, PartitionSpec(SEED))


def over_rows(mesh: Mesh) -> NamedSharding:
  """Gives the sharding of rows over the devices that share a batch."""
  return NamedSharding(mesh, PartitionSpec(DATA))


def parts(sharding: NamedSharding) -> int:
  """Counts the parts into which a sharding cuts rows."""
  return math.prod(sharding.mesh.shape[axis] for axis in sharding.spec if axis)


def put_rows(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  """Puts rows `[N, ...]` on a mesh, padded with zeros to parts of equal size."""
  if missing := -len(array) % parts(sharding):
    array = np.concatenate([array, np.zeros_like(array, shape=(missing, *array.shape[1:]))])
  return put(array, sharding)


def replicated(mesh: Mesh) -> NamedSharding:
  """Gives the sharding of arrays that every device holds in full."""
  return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Any) -> Any:
  """Shards a batch's leading axis over the data axis, inside a function that `over_seeds` maps."""
  if jax.sharding.get_abstract_mesh().shape.get(DATA, 1) == 1:
    return batch
  return jax.lax.with_sharding_constraint(batch, PartitionSpec(DATA))


def on_cpu(mesh: Mesh | None = None) -> bool:
  """Tells whether the devices of a mesh, by default JAX's default devices, are CPUs.

  All code that differs between CPUs and accelerators calls this function.
  """
  return (jax.default_backend() if mesh is None else mesh.devices.flat[0].platform) == "cpu"


def over_arms(function: Callable[..., Any]) -> Callable[..., Any]:
  """Maps a function over the leading axis of all arguments, by `vmap` or, on a CPU, one after another."""
  if not on_cpu():
    return jax.vmap(function)
  return lambda *args: jax.lax.map(lambda parts: function(*parts), args)


def over_seeds(
  function: Callable[..., Any], mesh: Mesh, in_axes: Sequence[int | None], vectorize: bool | None = None
) -> Callable[..., Any]:
  """Maps a function of one seed over the leading seed axis of its arguments.

  Each group of devices maps over its own seeds. On accelerators it uses `vmap`, which fills them. On a CPU it takes
  one seed after another, because `vmap` was measured to be 1.1 to 2.4 times slower.

  Args:
    function: takes and returns pytrees of one seed.
    mesh: from `make_mesh`.
    in_axes: for each argument 0 (has a seed axis) or None (is shared), as for `jax.vmap`.
    vectorize: True for `vmap`, False for one after another; None chooses by the mesh's devices.
  """
  if vectorize is None:
    vectorize = not on_cpu(mesh)
  mapped = [index for index, axis in enumerate(in_axes) if axis == 0]

  def local(*args):
    if vectorize:
      return jax.vmap(function, tuple(in_axes))(*args)

    def one(parts):
      filled = list(args)
      for index, part in zip(mapped, parts, strict=True):
        filled[index] = part
      return function(*filled)

    return jax.lax.map(one, tuple(args[index] for index in mapped))

  local.__name__ = getattr(function, "__name__", "local")  # its name in a log of compilations
  specs = tuple(PartitionSpec(SEED) if axis == 0 else PartitionSpec() for axis in in_axes)
  return jax.shard_map(
    local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED), axis_names={SEED}, check_vma=False
  )
