"""The trained run that a study starts from."""

import dataclasses

from lcgen.classifiers import policies
from lcgen.data.dataset import Dataset
from lcgen.evaluation.classifier_scores import Scorer
from lcgen.generator.frozen import Frozen
from lcgen.studies.settings import Sections
from lcgen.training import identity
from lcgen.training.context import Context
from lcgen.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Study:
  """A trained run that a study starts from.

  Attributes:
    context: the run's context.
    trainer: trains phases in the run's workdir.
    data: the data set.
    frozen: the trained generator and the other constants of the classifiers' training.
    sections: settings of phases 2 and 3 and of the evaluation.
    directory: folder of TFDS sets, with the published test sets.
  """

  context: Context
  trainer: Trainer
  data: Dataset
  frozen: Frozen
  sections: Sections
  directory: str = ""

  def tools(self, share: float) -> policies.Tools:
    """Makes the tools of arms; an arm without a share of its own replaces `share` of each batch."""
    sections = self.sections
    return policies.tools(self.context, sections.constraint, sections.sample, sections.edit, share)

  def scorer(self) -> Scorer:
    """Makes the scorer of classifiers."""
    confirm = lambda name, split: identity.confirm_set(self.trainer.workdir, name, split)
    return Scorer(self.context, self.data, self.directory, confirm)
