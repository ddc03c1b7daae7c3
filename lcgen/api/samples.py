"""Samples of a trained run, with their certificates."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Samples:
  """Images with their latents and certificates.

  Attributes:
    images: floats in [0, 1], `[N, H, W, C]`.
    latents: `[N, L]`.
    start: the draw from the prior or the encoding that each latent came from, `[N, L]`.
    labels: labels that were asked for, int32 `[N]`; -1 if the wish was no label.
    energy: energy of the constraint, nats, `[N]`: -log D of one critic. Those of unions can be below 0.
    critics: logit of each critic in the constraint, `[N, critics]`.
    accepted: whether the critics accept that the constraint holds, bool `[N]`: D > 1/2, and the class has a probability
      of at least 0.95 among all classes of its critic; `&` and `|` join these. Neither a constraint nor its negation
      accepts latents of which the critic is uncertain.
    moved: root mean square over latents between start and latents, `[N]`; two draws from the prior are 1.41 apart.
    verdict: the judge's label, int32 `[N]`.
    confidence: the judge's probability of that label, `[N]`.
  """

  images: np.ndarray
  latents: np.ndarray
  start: np.ndarray
  labels: np.ndarray
  energy: np.ndarray
  critics: np.ndarray
  accepted: np.ndarray
  moved: np.ndarray
  verdict: np.ndarray
  confidence: np.ndarray
