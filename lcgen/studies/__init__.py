"""Studies of a run or its config: audit, learning curve, benchmark, inspection. They return numbers, no wording.

Start with `audit.Audit`, `learning_curve.run`, `benchmark.run`, `inspection.find` and `study.Study`.
"""
