"""Runs an experiment: python run.py --config=configs/mnist5k.py --workdir=runs/mnist5k [--config.key=value ...]"""

import logging
import pathlib
from collections.abc import Sequence

from absl import app
from absl import logging as absl_logging

from lcgen.cli.flags import Flags

_FLAGS = Flags(__doc__, pathlib.Path(__file__).parent / "configs" / "mnist5k.py")


def main(argv: Sequence[str]) -> None:
  logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
  logging.getLogger("lcgen").setLevel(logging.INFO)
  # Orbax logs every file at INFO, and at ERROR errors that it raises again later.
  absl_logging.set_verbosity(absl_logging.FATAL)
  request = _FLAGS.request(argv)
  from lcgen.cli import stages
  from lcgen.runtime import cluster, exit_codes, interruption  # they import JAX, which is slow; wrong flags fail before

  try:
    cluster.initialize(*request.cluster)
    stop = interruption.Interruption()
    with stop.handled(request.config.train.grace_s):
      stages.run(request.config, request.workdir, request.stage, stop)
  except Exception as error:
    ended = exit_codes.of(error)
    if ended is None:
      raise
    exit_codes.leave(error, *ended)


if __name__ == "__main__":
  app.run(main, flags_parser=_FLAGS.parse)
