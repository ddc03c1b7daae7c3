"""Finds the files and folders that settings name, on this machine or in a store in the cloud."""

from etils import epath

from lcgen.runtime import errors

_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}  # that read the paths of a scheme


def find(path: str, given: str) -> epath.Path:
  """Returns the place of a path; `~` is the home folder.

  Args:
    path: the path, which need not exist.
    given: what names it, for the error, as in "data.path=~/pets".

  Raises:
    InputError: if paths of this kind cannot be read here.
  """
  scheme, remote, _ = path.partition("://")
  try:
    place = epath.Path(path).expanduser()
    place.exists()
  except ImportError as error:
    package = _PACKAGES.get(scheme, "that reads it")
    raise errors.InputError(
      f"{given}: takes the package {package}, which is not installed; run pip install {package}, or copy the data to a "
      "disk of this machine"
    ) from error
  except (OSError, KeyError) as error:  # a store that does not answer, an unknown scheme
    reason = f"paths of the kind {scheme}:// cannot be read" if remote else str(error)
    raise errors.InputError(f"{given}: {reason}; name a folder or file on a disk of this machine") from error
  return place
