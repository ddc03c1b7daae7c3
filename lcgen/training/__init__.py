"""The only training loop, which knows no model, with its checkpoints and metrics and the context of a run.

Start with `context.Context` (every phase is built from it), `loop.Phase` (the loop trains it), `loop.train` and
`trainer.Trainer` (the phases of one workdir).
"""
