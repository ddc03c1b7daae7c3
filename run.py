"""Runs an experiment: python run.py --config=configs/mnist5k.py --workdir=runs/mnist5k [--config.key=value ...]"""

import logging
import pathlib
from collections.abc import Sequence

from absl import app
from absl import logging as absl_logging

from lcgen.cli.flags import Flags
from lcgen.runtime.ending import Ending

_FLAGS = Flags(__doc__, pathlib.Path(__file__).parent / "configs" / "mnist5k.py")
_ENDING = Ending()


def main(argv: Sequence[str]) -> None:
  logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
  logging.getLogger("lcgen").setLevel(logging.INFO)
  # Orbax logs every file at INFO, and at ERROR errors that it raises again later.
  absl_logging.set_verbosity(absl_logging.FATAL)
  request = _FLAGS.request(argv)
  from lcgen.cli import stages
  from lcgen.runtime import cluster, errors, exit_codes, interruption  # they import JAX, which is slow

  stop, grace = interruption.Interruption(), request.config.train.grace_s
  try:
    with stop.handled(interruption.AT_ONCE):  # there is nothing to save yet
      cluster.initialize(*request.cluster)
    with stop.handled(grace):
      stages.run(request.config, request.workdir, request.stage, stop)
    _ENDING.code = 0
  except (Exception, errors.Interrupted) as error:
    ended = exit_codes.of(error, stop.requested)
    if ended is None:
      raise
    _ENDING.code = ended[0]
    exit_codes.leave(error, *ended, grace)
  cluster.leave()


if __name__ == "__main__":
  _ENDING.run(lambda: app.run(main, flags_parser=_FLAGS.parse), resumable=True)
