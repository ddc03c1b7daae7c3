"""The smoke run that processes of the suite share: its flag, its arms and the samplers that it scores."""

SMOKE = "--config=configs/mnist5k.py:smoke"
ARMS = ("none", "latent_constraints")
METHODS = ("actor", "optimize", "langevin", "refine", "mixture", "flow")
REFERENCES = ("real", "reconstructed")  # rows of real images beside them
# Begins a program that runs `run.py` up to the stage, prints the request as JSON, and trains nothing.
REQUEST = """
import json, pathlib, sys
from absl import app
from lcgen import config
from lcgen.cli.flags import Flags
flags = Flags("usage", pathlib.Path("configs/mnist5k.py"))
def main(rest):
  asked = flags.request(rest)
  values = config.to_dict(asked.config)
  told = {"config": values, "workdir": str(asked.workdir), "stage": asked.stage, "cluster": asked.cluster}
  print(json.dumps(told | {"jax": "jax" in sys.modules}))
app.run(main, flags_parser=flags.parse)
"""
