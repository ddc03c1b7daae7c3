"""`python -m lcgen.compare`: forwards to `lcgen.reporting.compare_runs`."""

from lcgen.reporting.compare_runs import main
from lcgen.runtime.ending import Ending

if __name__ == "__main__":
  Ending().run(main)
