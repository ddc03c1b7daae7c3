"""`python -m lcgen.compare`: forwards to `lcgen.reporting.compare_runs`."""

from lcgen.reporting.compare_runs import main

if __name__ == "__main__":
  main()
