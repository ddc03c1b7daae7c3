"""The one training loop, checkpoints, train state, and the context that every phase is built from."""
