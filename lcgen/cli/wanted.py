"""Lists the test sets that each stage reads."""

from lcgen.config import Config
from lcgen.data import test_set_names as names


def test_sets(config: Config, stage: str) -> list[names.TestSet]:
  """Lists the test sets that a stage reads."""
  own = config.evaluate.sets
  sets = {
    **dict.fromkeys(("all", "data", "evaluate"), own),
    "audit": names.with_mistakes(own),
    "learning_curve": config.learning_curve.sets,
  }
  return names.expand(sets.get(stage, ()))
