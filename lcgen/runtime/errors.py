"""Errors that end a run with one sentence instead of a traceback."""


class InputError(ValueError):
  """The user's input cannot be used. The message names the value and a remedy."""


class NonFiniteError(FloatingPointError):
  """A loss or a parameter is no longer finite. The message names phase, step, seed and, for a loss, the term.

  Attributes:
    places: indices of the affected seeds on the axis `[S]`.
  """

  def __init__(self, message: str, places: tuple[int, ...]):
    super().__init__(message)
    self.places = places


class Interrupted(BaseException):
  """A signal has ended the run at a point where nothing is lost.

  Code that catches every `Exception`, such as that around plug-ins, must let it pass.
  """


class MissingDataError(InputError):
  """A data set is missing. The message names the folder that was searched and the remedies."""


class MissedError(AssertionError):
  """A run's results do not meet the expectations in its config."""
