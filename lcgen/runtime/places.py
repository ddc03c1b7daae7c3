"""Turns the paths that users write into paths that can be used."""

import os
import re

from etils import epath

from lcgen.runtime import errors

_PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # of storages that are no folders


def expanded(given: epath.PathLike, name: str) -> epath.Path:
  """Gives the path that a user means by a text: shells leave a `~` behind a `=` to the program.

  Args:
    given: the text.
    name: of the flag or argument, for messages.

  Raises:
    InputError: if there is no such user, or the storage of an address such as `gs://bucket/run` cannot be reached.
  """
  if not isinstance(given, str | os.PathLike):
    raise errors.InputError(f"{name}={given!r}: must be a path")
  scheme, slashes, _ = os.fspath(given).partition("://")
  if slashes:
    return _reached(given, scheme, name)
  path = epath.Path(given).expanduser()
  if re.match(r"~[^/]*(/|$)", str(path)):
    raise errors.InputError(f"{name}={given}: there is no user {str(path).partition('/')[0][1:]!r}; write ./{path}")
  return path


def _reached(given: epath.PathLike, scheme: str, name: str) -> epath.Path:
  """Gives a path in a storage that can be reached."""
  try:
    path = epath.Path(given)
    path.exists()
  except ImportError as error:
    package = _PACKAGES.get(scheme, "a package for it")
    raise errors.InputError(
      f"{name}={given}: {scheme}:// takes {package}, which is not installed; install it, or use a folder"
    ) from error
  except KeyError as error:
    known = ", ".join(f"{one}://" for one in _PACKAGES)
    raise errors.InputError(f"{name}={given}: there is no storage {scheme}://; use a folder, {known}") from error
  except Exception as error:  # each storage has errors of its own
    raise errors.InputError(f"{name}={given}: cannot be reached ({errors.reason(error)})") from error
  return path
