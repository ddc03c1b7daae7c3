"""`rule:lcgen.rules.NAME`: forwards to `lcgen.constraints.rules`."""

from lcgen.constraints.rules import *  # noqa: F403
