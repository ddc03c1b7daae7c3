"""The audit, the learning curve, the benchmark and the inspection: they return numbers."""
