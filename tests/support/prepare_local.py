"""A process that prepares sets from other addresses than the official ones, TensorFlow and torch hidden from it.

python -m tests.support.prepare_local ADDRESSES.json DATA_DIR NAME [NAME ...]

Prints `{name: {split: digest of all images, labels and further features}}`. Exit code 2 with the sentence of an error.
"""

import hashlib
import importlib.machinery
import json
import sys

_find_spec = importlib.machinery.PathFinder.find_spec


def _hiding(cls, name, path=None, target=None):
  return None if name.partition(".")[0] in ("tensorflow", "torch") else _find_spec(name, path, target)


importlib.machinery.PathFinder.find_spec = classmethod(_hiding)


def main():
  from lcgen.data import tfds_sets
  from lcgen.runtime import errors
  from tests.support import archives

  addresses, data_dir, *names = sys.argv[1:]
  with open(addresses) as file:
    archives.point_builders(json.load(file), setattr)
  try:
    tfds_sets.ensure(names, data_dir, "go without")
    found = {name: _digests(name, tfds_sets.Prepared(name, data_dir)) for name in names}
  except errors.InputError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
  loaded = {"tensorflow", "torch"} & {module for module, value in sys.modules.items() if value is not None}
  assert not loaded, loaded
  print(json.dumps(found))


def _digests(name, found):
  extras = ("half", "label_counts") if name == "dirty_mnist" else ()
  result = {}
  for split in sorted(found.sizes):
    arrays = found.read(split, extras)
    content = b"".join(arrays[name].tobytes() for name in sorted(arrays))
    result[split] = hashlib.sha256(content).hexdigest()
  return result


if __name__ == "__main__":
  main()
