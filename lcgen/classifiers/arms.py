"""Parses the arms of phase 3, and registers the policies that they are made of.

An arm is a text, as configs write it. A policy may have settings, as in `latent_constraints:share=0.5`. A `+` applies a
second policy to the images of the first, as in `flip_crop+latent_constraints`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcgen.runtime import errors, registry
from lcgen.runtime.fields import LARGEST, Check, each
from lcgen.runtime.results import AUGMENTATION, BASELINE, CONTROL, METHOD

NONE = "none"
ALONE = "latent_constraints:share=1.0"  # the arm of the classification accuracy score
MIXTURE = "mixture"
SOURCES = ("actor", "refine", MIXTURE, "edit")


Range = tuple[float, float]
_RANGES: dict[str, Range] = {  # ranges of settings by name, unless the policy has its own
  **dict.fromkeys(("share", "flip", "side", "probability"), (0, 1)),
  **{"magnitude": (0, 30), "severity": (0, 10)},
  **dict.fromkeys(("operations", "depth"), (0, 100)),
  "padding": (0, 4096),
  "width": (1, 10),
  "alpha": (0, 1000),
}


@dataclasses.dataclass(frozen=True)
class PolicySpec:
  """Settings and role of a policy, without the function that changes images.

  Attributes:
    settings: name and default of each setting; a share of -1 stands for the config's share.
    role: `BASELINE` for `none`; `METHOD` if it draws samples of the right label from the generator; `CONTROL` if a
      comparison with it shows what samples add; else `AUGMENTATION`.
    views: images that it returns for each image; the cross-entropy counts only the first.
    ranges: least and greatest value of settings by name; `_RANGES` has the others.
  """

  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  role: str = AUGMENTATION
  views: int = 1
  ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)


POLICIES: registry.Registry[PolicySpec] = registry.Registry("policy")
_SHARE = {"share": -1.0}
for _name, _spec in {
  NONE: PolicySpec(role=BASELINE),
  "latent_constraints": PolicySpec(
    {**_SHARE, "source": "actor", "filter": False, "calibrate": True, "limit": 2.0}, METHOD
  ),
  "reconstruction": PolicySpec(_SHARE, CONTROL),
  "duplicate": PolicySpec(_SHARE, CONTROL),
  "clip": PolicySpec({**_SHARE, "limit": 1.0}, CONTROL),
  "contrast": PolicySpec({**_SHARE, "factor": 0.5}, CONTROL),
  "blur": PolicySpec(_SHARE, CONTROL),
  "noise": PolicySpec(_SHARE, CONTROL),
  "shuffled": PolicySpec(_SHARE, CONTROL),
  "shift_rotate": PolicySpec({"pixels": 2.0, "degrees": 15.0}),
  "flip_crop": PolicySpec({"padding": 4, "flip": 0.5}),
  "cutout": PolicySpec({"side": 0.5}),
  "mixup": PolicySpec({"alpha": 1.0}),
  "cutmix": PolicySpec({"alpha": 1.0, "probability": 0.5}),
  "randaugment": PolicySpec({"operations": 2, "magnitude": 9.0}),
  "augmix": PolicySpec(
    {"severity": 3.0, "width": 3, "depth": 0, "alpha": 1.0, "consistency": 12.0},
    views=3,
    ranges={"alpha": (0.01, 1000)},
  ),
}.items():
  POLICIES.add(_name, _spec)


def parse(arm: str) -> list[tuple[str, dict[str, Any]]]:
  """Parses an arm into its policies, in order, each with all its settings.

  Raises:
    InputError: if the text is no arm; says what is wrong, and what there is.
  """
  parts = [_parse_policy(part) for part in arm.split("+")]
  for name, _ in parts[:-1]:
    if POLICIES[name].views > 1:
      raise errors.InputError(f"{arm!r}: {name}, whose views only the loss can join, must come last")
  return parts


def _parse_policy(text: str) -> tuple[str, dict[str, Any]]:
  name, *given = text.split(":")
  if " " in text:
    raise errors.InputError(f"{text!r}: has spaces; leave them out")
  spec = POLICIES[name]
  settings = dict(spec.settings)
  for item in given:
    key, _, value = item.partition("=")
    if key not in settings:
      near = registry.nearest(key, settings)
      raise errors.InputError(f"{name} has no setting {key!r}{near}; it has {', '.join(settings) or 'none'}")
    bounds = spec.ranges.get(key, _RANGES.get(key, (0, LARGEST)))
    settings[key] = _value(f"{name}:{item}", value, settings[key], bounds)
  if settings.get("source", "actor") not in SOURCES:
    raise errors.InputError(f"{text!r}: a source is one of {', '.join(SOURCES)}")
  return name, settings


def _value(given: str, text: str, default: Any, bounds: Range) -> Any:
  kind = type(default)
  if kind is bool:
    if text not in ("True", "False"):
      raise errors.InputError(f"{given}: must be True or False")
    return text == "True"
  try:
    value = kind(text)
  except ValueError as error:
    raise errors.InputError(f"{given}: must be a {'whole number' if kind is int else 'number'}") from error
  least, most = bounds
  if kind is not str and not least <= value <= most:
    highest = f", at most {most}" if most < 1e9 else ""
    raise errors.InputError(f"{given}: must be a finite number of at least {least}{highest}")
  return value


def known(arm: str) -> bool:
  """Tells whether a text is an arm."""
  try:
    parse(arm)
  except errors.InputError:
    return False
  return True


def _wrong(arm: str) -> str:
  """Says what is wrong with a text that is no arm."""
  name = arm.partition("+")[0].partition(":")[0]
  try:
    parse(arm)
  except errors.InputError as error:
    return f"; {error}" if name in POLICIES else registry.nearest(name, POLICIES)
  return ""


def role(arm: str) -> str:
  """Returns the role of an arm: its policy's role, or `METHOD` or `AUGMENTATION` if it joins several."""
  roles = [POLICIES[name].role for name, _ in parse(arm)]
  if METHOD in roles:
    return METHOD
  return roles[0] if len(roles) == 1 else AUGMENTATION


def draws_from_mixture(arm: str) -> bool:
  """Tells whether a part of an arm draws from the mixture of each class."""
  return any(settings.get("source") == MIXTURE for _, settings in parse(arm))


def controls() -> list[str]:
  """Returns the names of all policies that are controls."""
  return [name for name, spec in POLICIES.items() if spec.role == CONTROL]


some_arms: Check = each(
  known,
  lambda: (
    f"one or more, each once, of {', '.join(POLICIES)}; with settings as in latent_constraints:share=0.5, joined as "
    "in flip_crop+mixup; or all"
  ),
  lambda value: POLICIES.names() if value == ("all",) else value,
  joined=True,
  hint=_wrong,
)
"""Allows arms, as one text with commas or as a tuple; `all` stands for every policy."""
