"""`python -m lcgen.data.ambiguous`: forwards to `lcgen.cli.make_dirty_mnist`."""

if __name__ == "__main__":
  from lcgen.cli.make_dirty_mnist import main

  main()
