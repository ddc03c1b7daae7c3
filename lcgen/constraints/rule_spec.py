"""Rules: what they say of decoded images, checked, and the exemplars that a constraint is learnt from.

A rule is a function of images in [0, 1], float32 `[N, H, W, C]`, to `[N]` verdicts (bool or 0/1) or scores; it runs on
the host and outside of any gradient. In a config it is one line, `rule:module.function`; for scores with a bound,
`rule:lcgen.rules.ink:above=0.2`, `:below=0.1`, or `:top=0.25` and `:bottom=0.25` for a share of the prior's samples.
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
_FEWEST = 16  # exemplars of a kind that can be learnt from

Function = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
  """A function of images with, for scores, the bound from which on it holds.

  Attributes:
    function: `[N, H, W, C]` in [0, 1] -> `[N]`.
    bound: one of `BOUNDS`, or "" for verdicts.
    value: of the bound, a score or a share of the prior's samples.
    path: `module.name` that it was imported by, else the function's own.
  """

  function: Function
  bound: str = ""
  value: float = 0.0
  path: str = ""

  @property
  def name(self) -> str:
    """`module.function:bound=value`."""
    own = getattr(self.function, "__qualname__", type(self.function).__name__)
    name = self.path or f"{self.function.__module__}.{own}"
    return f"{name}:{self.bound}={self.value:g}" if self.bound else name

  def digest(self, *settings) -> str:
    """Eight characters that change with the source of the function's module, the bound and the settings."""
    module = inspect.getmodule(self.function)
    try:
      source = inspect.getsource(module)
    except (OSError, TypeError):  # built in, or typed at a prompt
      source = ""
    return hashlib.sha256(repr((source, self.name, self.value, settings)).encode()).hexdigest()[:8]


def known(text: str) -> bool:
  """Whether the text names a constraint; a rule's module is not looked for."""
  if not text.startswith(_PREFIX):
    return text in ("labels", "realism")
  path, _, bound = text.removeprefix(_PREFIX).partition(":")
  return (
    "." in path and all(part.isidentifier() for part in path.split(".")) and (not bound or _bound(bound) is not None)
  )


def _bound(text: str) -> tuple[str, float] | None:
  name, _, value = text.partition("=")
  if any(sign in value for sign in " _"):  # which float() would take
    return None
  try:
    number = float(value)
  except ValueError:
    return None
  return (name, number) if name in BOUNDS and np.isfinite(number) else None


def parse(text: str) -> Rule:
  """The rule of `rule:module.function[:bound=value]`; imports the module.

  Raises:
    InputError: where there is no such module or function, or the bound is not one.
  """
  if not (text.startswith(_PREFIX) and known(text)):
    raise errors.InputError(f"{text!r} is no rule; write rule:module.function, with a bound as in {KNOWN}")
  path, _, bound = text.removeprefix(_PREFIX).partition(":")
  module, _, name = path.rpartition(".")
  try:
    function = getattr(importlib.import_module(module), name)
  except Exception as error:  # whatever a user's module raises
    reason = f"{type(error).__name__}: {error}; the module must be importable: beside run.py, or on PYTHONPATH"
    raise errors.InputError(f"{text}: {reason}") from error
  return checked(Rule(function, *(_bound(bound) if bound else ("", 0.0)), path))


def checked(rule: Rule) -> Rule:
  """The rule, if it can be one.

  Raises:
    InputError: where it is not a function, or its share is none.
  """
  if not callable(rule.function):
    raise errors.InputError(f"rule {rule.path or 'given'} = {rule.function!r}: must be a function of images")
  if rule.bound in ("top", "bottom") and not 0 < rule.value < 1:
    raise errors.InputError(f"rule {rule.name}: a share of the prior's samples must be between 0 and 1")
  return rule


def scores(rule: Rule, images: np.ndarray) -> np.ndarray:
  """What the rule says of the images, `[N]`, checked.

  Raises:
    InputError: where it raises, or returns anything but N finite numbers.
  """
  images = images.view()
  images.flags.writeable = False  # or a rule that works in place would change what is learnt from
  given = f"it is given float32 images in [0, 1] of shape {list(images.shape)} and must return [{len(images)}]"
  try:
    result = np.asarray(rule.function(images))
  except Exception as error:  # whatever a user's function raises
    raise errors.InputError(f"rule {rule.name} raised {type(error).__name__}: {error}; {given}") from error
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
  """The rule with a bound in scores: shares are turned into the scores of the prior's samples that they stand for.

  Args:
    rule: with any bound; scores without one get `top=0.25`, verdicts `above=0.5`.
    prior_scores: `scores` of decoded samples from the prior, `[N]`.
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
    if least == inwards[-1] and len(inwards) > 1:  # many share the highest score
      least = inwards[-2]
    bound, value = ("above" if bound == "top" else "below"), float(sign * least)
  return dataclasses.replace(rule, bound=bound, value=value)


def verdicts(rule: Rule, scored: np.ndarray) -> np.ndarray:
  """Whether a settled rule holds, bool; any shape."""
  return scored > rule.value if rule.bound == "above" else scored < rule.value


def balanced(rule: Rule, holds: np.ndarray, size: int, seed: int) -> np.ndarray:
  """Places of `size` exemplars, half of each verdict, drawn with replacement.

  Raises:
    InputError: where the rule holds for too few, or does not hold for too few, to learn from.
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
