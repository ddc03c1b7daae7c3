"""The version of lcgen, recorded in checkpoints and exports."""

VERSION = "0.1.0"
