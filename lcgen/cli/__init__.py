"""The command line: flags, preflight, stages, the phases in order, and the uses of a finished run.

Start with `flags.Flags`, `stages.run`, `preflight.check_workdir`, `pipeline.Pipeline` and `use_run.run`.
"""
