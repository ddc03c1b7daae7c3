"""Rules: their text in a config, their checked results, and the choice of exemplars to learn from.

A rule is a function of images in [0, 1], float32 `[N, H, W, C]`, to `[N]` verdicts (bool or 0/1) or scores. It runs on
the host and needs no gradient. In a config it is one line, `rule:module.function`. Scores take a bound,
`rule:lcgen.rules.ink:above=0.2` or `:below=0.1`; `:top=0.25` and `:bottom=0.25` are shares of the prior's samples.
"""

import dataclasses
import hashlib
import importlib
import inspect
from collections.abc import Callable

import numpy as np

from lcgen.runtime import errors

KNOWN = (
  "labels, realism, or rule:module.function, for a function with scores followed by :above=SCORE, :below=SCORE, "
  ":top=SHARE or :bottom=SHARE"
)
BOUNDS = ("above", "below", "top", "bottom")
_PREFIX = "rule:"
_DEFAULT_BOUND = ("top", 0.25)  # for scores without one
_FEWEST = 16  # exemplars of each verdict, to learn from

Function = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
  """A function of images and, for scores, the bound from which on it holds.

  Attributes:
    function: `[N, H, W, C]` in [0, 1] -> `[N]`.
    bound: one of `BOUNDS`, or "" for verdicts and for scores with the default bound.
    value: of the bound: a score, or a share of the prior's samples.
    path: `module.name` by which it was imported; "" for the function's own.
  """

  function: Function
  bound: str = ""
  value: float = 0.0
  path: str = ""

  @property
  def name(self) -> str:
    """The rule's name, `module.function:bound=value`."""
    own = getattr(self.function, "__qualname__", type(self.function).__name__)
    name = self.path or f"{self.function.__module__}.{own}"
    return f"{name}:{self.bound}={self.value:g}" if self.bound else name

  def digest(self, *settings) -> str:
    """Computes eight characters that change with the source of the function's module, the bound and the settings."""
    module = inspect.getmodule(self.function)
    try:
      source = inspect.getsource(module)
    except (OSError, TypeError):  # built in, or typed at a prompt
      source = ""
    return hashlib.sha256(repr((source, self.name, self.value, settings)).encode()).hexdigest()[:8]


def known(text: str) -> bool:
  """Tells whether a text names a constraint; does not import a rule's module."""
  if not text.startswith(_PREFIX):
    return text in ("labels", "realism")
  path, _, bound = text.removeprefix(_PREFIX).partition(":")
  return (
    "." in path and all(part.isidentifier() for part in path.split(".")) and (not bound or _bound(bound) is not None)
  )


def _bound(text: str) -> tuple[str, float] | None:
  name, _, value = text.partition("=")
  if any(sign in value for sign in " _"):  # float() would accept them
    return None
  try:
    number = float(value)
  except ValueError:
    return None
  return (name, number) if name in BOUNDS and np.isfinite(number) else None


def parse(text: str) -> Rule:
  """Builds the rule of `rule:module.function[:bound=value]`; imports the module.

  Raises:
    InputError: if there is no such module or function, or the bound is wrong.
  """
  if not (text.startswith(_PREFIX) and known(text)):
    raise errors.InputError(f"{text!r} is no rule; write rule:module.function, with a bound as in {KNOWN}")
  path, _, bound = text.removeprefix(_PREFIX).partition(":")
  module, _, name = path.rpartition(".")
  try:
    function = getattr(importlib.import_module(module), name)
  except Exception as error:  # whatever a user's module raises
    advice = "the module must be importable: beside run.py, or on PYTHONPATH"
    raise errors.InputError(f"{text}: {errors.reason(error)}; {advice}") from error
  return checked(Rule(function, *(_bound(bound) if bound else ("", 0.0)), path))


def checked(rule: Rule) -> Rule:
  """Returns the rule if it is valid.

  Raises:
    InputError: if it is not a function, or its share is not between 0 and 1.
  """
  if not callable(rule.function):
    raise errors.InputError(f"rule {rule.path or 'given'} = {rule.function!r}: must be a function of images")
  if rule.bound in ("top", "bottom") and not 0 < rule.value < 1:
    raise errors.InputError(f"rule {rule.name}: a share of the prior's samples must be between 0 and 1")
  return rule


def scores(rule: Rule, images: np.ndarray) -> np.ndarray:
  """Applies a rule to images and checks its results, `[N]`.

  Raises:
    InputError: if it raises, or returns anything but N finite numbers.
  """
  images = images.view()
  images.flags.writeable = False  # or a rule that works in place would change the caller's images
  given = f"it is given float32 images in [0, 1] of shape {list(images.shape)} and must return [{len(images)}]"
  try:
    result = np.asarray(rule.function(images))
  except Exception as error:  # whatever a user's function raises
    raise errors.InputError(f"rule {rule.name} fails ({errors.reason(error)}); {given}") from error
  if result.shape != (len(images),):
    raise errors.InputError(f"rule {rule.name} returned shape {list(result.shape)}; {given}, one number for each image")
  if not (np.issubdtype(result.dtype, np.number) or result.dtype == bool) or np.iscomplexobj(result):
    raise errors.InputError(f"rule {rule.name} returned {result.dtype}; {given} verdicts (bool) or scores (numbers)")
  if not np.isfinite(result).all():
    count = int((~np.isfinite(result)).sum())
    raise errors.InputError(
      f"rule {rule.name} returned NaN or infinity for {count} of {len(images)} decoded samples; give those a finite "
      "score, or False"
    )
  return result


def settled(rule: Rule, prior_scores: np.ndarray) -> Rule:
  """Replaces a share such as top=0.25 by the score at that quantile of samples from the prior.

  Args:
    rule: with any bound. Scores without one get `top=0.25`, verdicts get `above=0.5`.
    prior_scores: `scores` of decoded samples from the prior, of all seeds together; any shape.

  Raises:
    InputError: if verdicts have a share.
  """
  bound, value = rule.bound, rule.value
  if not bound:
    verdicts = np.isin(prior_scores, (0, 1)).all()
    bound, value = ("above", 0.5) if verdicts else _DEFAULT_BOUND
  if bound in ("top", "bottom"):
    if prior_scores.dtype == bool:
      raise errors.InputError(f"rule {rule.name}: it returns verdicts, which have no {bound}; leave the bound out")
    sign = 1 if bound == "top" else -1
    inwards = np.unique(sign * prior_scores)  # sorted
    least = np.quantile(sign * prior_scores, 1 - value, method="lower")
    if least == inwards[-1] and len(inwards) > 1:  # too many have the highest score, and none lies above it
      least = inwards[-2]
    bound, value = ("above" if bound == "top" else "below"), float(sign * least)
  return dataclasses.replace(rule, bound=bound, value=value)


def verdicts(rule: Rule, scored: np.ndarray) -> np.ndarray:
  """Tells whether a settled rule holds for scores, bool; any shape."""
  return scored > rule.value if rule.bound == "above" else scored < rule.value


def balanced(rule: Rule, holds: np.ndarray, size: int, seed: int) -> np.ndarray:
  """Draws the indices of `size` exemplars with replacement, half of each verdict.

  Raises:
    InputError: if one of the verdicts has too few exemplars to learn from.
  """
  kinds = [np.flatnonzero(holds == verdict) for verdict in (False, True)]
  if min(map(len, kinds)) < _FEWEST:
    raise errors.InputError(
      f"rule {rule.name} holds for {int(holds.sum())} of {len(holds)} decoded samples, and both sides need {_FEWEST} "
      "to learn from; move its bound, or raise --config.rule.exemplars"
    )
  generator = np.random.Generator(np.random.Philox(key=seed))
  halves = [generator.choice(kind, size // 2 + (size % 2) * verdict) for verdict, kind in enumerate(kinds)]
  return np.concatenate(halves)
