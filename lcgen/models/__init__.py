"""The Flax modules and the losses of the paper."""
