"""A trained run in Python, the layout of its workdir, and its export.

Start with `load.load`, `run.Run`, `workdir.Workdir`, `export.write` and `build.context` (from a config to a context).
"""
