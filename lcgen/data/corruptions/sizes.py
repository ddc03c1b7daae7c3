"""Declares how small the images of a corruption may be."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def least_side(pixels: int) -> Callable[[Function], Function]:
  """Returns a decorator that declares the least height and width that a corruption takes, in pixels."""

  def decorate(function: Function) -> Function:
    function.least_side = pixels
    return function

  return decorate


def least_side_of(function: Callable[..., Any]) -> int:
  """Returns the least height and width that a corruption takes; 1 if it declares none."""
  return getattr(function, "least_side", 1)
