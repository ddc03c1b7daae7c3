"""Runs `lcgen.cli.make_dirty_mnist` under its old name, `python -m lcgen.data.ambiguous`."""

if __name__ == "__main__":
  from lcgen.cli.make_dirty_mnist import main
  from lcgen.runtime.ending import Ending

  Ending().run(main)
