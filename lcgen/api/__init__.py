"""A trained run in Python, the layout of its workdir, and its export."""
