"""The ways a run ends with a sentence instead of a traceback."""


class InputError(ValueError):
  """What the user asked for cannot be done; the message names the value and the way out."""


class NonFiniteError(FloatingPointError):
  """A loss or a parameter is no longer finite; the message names phase, step, term and repetition.

  Attributes:
    replicas: the repetitions that it happened to.
  """

  def __init__(self, message: str, replicas: tuple[int, ...]):
    super().__init__(message)
    self.replicas = replicas


class Interrupted(Exception):
  """A signal has ended the run at a moment at which nothing is lost."""


class MissingDataError(InputError):
  """A data set is not there; the message names the folder looked in and the ways out."""


class MissedError(AssertionError):
  """A run's results are not what its config expects."""
