"""Errors that end a run with one sentence instead of a traceback."""


class InputError(ValueError):
  """The user's input cannot be used. The message names the value and a remedy.

  Quotes that Python has escaped in a value are written plainly.
  """

  def __init__(self, message: str):
    super().__init__(message.replace("\\'", "'"))


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


def reason(error: BaseException, longest: int = 300) -> str:
  """Gives the first line of an error's message as part of a sentence, without the name of its class."""
  match error:
    case KeyError():  # its text is the key in quotes
      words = f"there is no {error.args[0]!r}" if error.args else ""
    case OSError() if error.strerror:
      words = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    case AttributeError() if error.name and not str(error):
      words = f"there is no {error.name}"
    case _:
      words = str(error)
  return words.strip().partition("\n")[0][:longest] or "it says nothing"
