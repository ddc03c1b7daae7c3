"""The networks: pure Flax modules that take and return arrays."""
