"""Trains the judge: a classifier of real images that scores samples."""

import functools

import jax

from lcgen.classifiers import policies
from lcgen.classifiers.classifier_step import Update
from lcgen.evaluation.settings import JudgeSettings
from lcgen.models import classifier
from lcgen.training import loop, optimizers
from lcgen.training.context import Context
from lcgen.training.train_state import Batch, Metrics, TrainState

NAME = "judge"  # name of the phase


def judge_step(
  state: TrainState, frozen: None, batch: Batch, key: jax.Array, *, update: Update
) -> tuple[TrainState, Metrics]:
  """Updates the judge on a batch of unchanged images."""
  labels = jax.nn.one_hot(batch["label"], update.model.classes)
  return update(state, *policies.none(key, batch["image"], labels, frozen))


def network(context: Context, settings: JudgeSettings) -> classifier.Judge:
  """Builds the network of the judge."""
  return classifier.Judge(context.classes, settings.channels, settings.feature_dim, context.compute.form)


def phase(context: Context, settings: JudgeSettings) -> loop.Phase:
  """Builds the phase that trains the judge."""
  model, size = network(context, settings), context.facts.train
  optimizer = optimizers.adam(settings, size // settings.batch_size * settings.epochs)
  return loop.Phase(
    name=NAME,
    kind=NAME,
    run_steps=loop.OneByOne(functools.partial(judge_step, update=Update(model, optimizer)), context.prepare),
    init=lambda key: TrainState.create(model.init(key, context.image), optimizer),
    frozen=None,
    keys=context.keys(NAME),
    batch_size=settings.batch_size,
    epoch_size=size,
    epochs=settings.epochs,
    stage="evaluate",
  )
