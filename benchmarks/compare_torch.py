"""Times training steps here and with the same networks in PyTorch, in turns on one machine.

    python -m benchmarks.compare_torch PYTHON PEER [ROUNDS]

PYTHON is an interpreter with torch. PEER is a script that takes the name of a stage (`vae_mnist`, `vae_cifar10`,
`actor_critic`, `classifier_mnist` or `classifier_cifar10`), and prints JSON with `ms_per_step` at the paper's sizes.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from tests.conftest import ROOT

_GAME = (  # one update each of actor and critic, with the peer's terms
  "critic_steps=1",
  "critic_weights.prior=0.0",
  "critic_weights.interpolated=1.0",
  "actor_weights.encoded=1.0",
)
STAGES = {  # stage of the peer: (config, phase, steps of a chunk)
  "vae_mnist": ("mnist.py:paper", "vae", 50),
  "actor_critic": ("mnist.py:paper", "actor_critic", 8),
  "classifier_mnist": ("mnist.py:paper", "classifier", 200),
  "vae_cifar10": ("cifar10.py:paper", "vae", 20),
  "classifier_cifar10": ("cifar10.py:paper", "classifier", 50),
}


def peers_ms(python: str, peer: str, stage: str) -> float:
  """Measures a step of the peer, in milliseconds."""
  done = subprocess.run([python, peer, stage], capture_output=True, text=True, check=True)
  return json.loads(done.stdout)["ms_per_step"]


def own_ms(stage: str, folder: pathlib.Path) -> float:
  """Measures a step inside our training loop, in milliseconds."""
  name, phase, steps = STAGES[stage]
  flags = {
    "config": f"configs/{name}",
    "workdir": folder / "run",
    "stage": "benchmark",
    "config.seeds": 1,
    "config.train.chunk_steps": steps,
    "config.benchmark.phases": phase,
    "config.benchmark.curve": "()",
  }
  flags |= {f"config.actor_critic.{key}": value for key, value in (text.split("=") for text in _GAME)}
  command = [sys.executable, "run.py", *(f"--{key}={value}" for key, value in flags.items())]
  subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  return json.loads((folder / "run" / "benchmark.json").read_text())["phases"][phase]["ms_per_step"]


def main() -> None:
  python, peer = sys.argv[1:3]
  rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
  print("| step | here, ms | PyTorch, ms | ratio |\n| --- | --- | --- | --- |")
  with tempfile.TemporaryDirectory() as folder:
    for stage in STAGES:
      pairs = [(own_ms(stage, pathlib.Path(folder)), peers_ms(python, peer, stage)) for _ in range(rounds)]
      own, other = (statistics.median(one) for one in zip(*pairs, strict=True))
      ratios = sorted(a / b for a, b in pairs)
      shown = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} – {ratios[-1]:.2f})"
      print(f"| `{stage}` | {own:.3g} | {other:.3g} | {shown} |", flush=True)


if __name__ == "__main__":
  main()
