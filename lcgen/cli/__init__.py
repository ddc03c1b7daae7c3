"""The stages of `run.py`, their order, the checks before them, and the commands that use a finished run."""
