"""A plug-in that tests write to a file: a sampler and a generator, as far as a config knows them."""

PLUGIN = """
import dataclasses
from lcgen.constraints.settings import SAMPLERS
from lcgen.generator.settings import GENERATORS
from lcgen.runtime.fields import at_least, field, positive

@SAMPLERS.register("hmc")
@dataclasses.dataclass(frozen=True)
class HMC:
  "Hamiltonian Monte Carlo."
  steps: int = field(20, at_least(1))
  step_size: float = field(0.1, positive, "Size of a step.")

@GENERATORS.register("flow")
@dataclasses.dataclass(frozen=True)
class FlowSettings:
  "A flow."
  depth: int = field(8, at_least(1), "Number of layers.")
"""
