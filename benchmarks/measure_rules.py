"""How often samples keep rules, labels and both at once: python -m benchmarks.measure_rules runs/mnist5k

Learns the digits' rules in a finished workdir of the default config, and prints a row for each constraint: the shares
of 500 samples for which it holds, by the rule and the judge themselves, the least and the most of the seeds.
"""

import sys

import numpy as np

import lcgen
from lcgen.constraints import learning, rule_spec, samplers

COUNT = 500
RULES = {"ink": "top=0.25", "stroke_width": "top=0.25", "slant": "bottom=0.25", "symmetry": "top=0.25"}
RULES |= {"holes": "above=0.5"}
PAIRS = (("ink", "stroke_width"), ("stroke_width", "slant"), ("slant", "symmetry"), ("symmetry", "holes"))


def cases(run):
  """`{name: (constraint, samples -> does it hold)}`."""
  learnt = {
    name: run._learner.rule(rule_spec.parse(f"rule:lcgen.rules.{name}:{bound}")) for name, bound in RULES.items()
  }
  wish = {name: run._constraint(known.pair, learning.HOLDS, "rule") for name, known in learnt.items()}
  keeps = {name: lambda drawn, known=known: known.holds(drawn.images) for name, known in learnt.items()}
  result = {f"`{name}:{RULES[name]}`": (wish[name], keeps[name]) for name in RULES}
  for a, b in PAIRS:
    result[f"`{a}` & `{b}`"] = wish[a] & wish[b], lambda drawn, a=a, b=b: keeps[a](drawn) & keeps[b](drawn)
  for label, name in ((3, "ink"), (8, "holes"), (3, "holes")):
    both = lambda drawn, label=label, name=name: keeps[name](drawn) & (drawn.verdict == label)
    result[f"a {label} & `{name}`"] = run.label(label) & wish[name], both
  result["not a 3"] = ~run.label(3), lambda drawn: drawn.verdict != 3
  result["a 3 or an 8"] = run.label(3) | run.label(8), lambda drawn: np.isin(drawn.verdict, (3, 8))
  return result


def main(workdir):
  run = lcgen.load(workdir)
  print("| |", " | ".join(f"`{name}`" for name in samplers.names()), "|")
  for name, (wish, holds) in cases(run).items():
    cells = []
    for method in samplers.names():
      drawn = [run.draw(wish, method, count=COUNT, seed=5, replica=replica) for replica in range(run.replicas)]
      shares = [100 * np.mean(holds(samples)) for samples in drawn]
      cells.append(f"{min(shares):.1f} – {max(shares):.1f}")
    print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
  main(sys.argv[1])
