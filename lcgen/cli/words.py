"""Writes the texts that the stages print about data, generator and networks."""

from collections.abc import Mapping, Sequence
from typing import Any

from lcgen.classifiers.settings import ClassifierSettings
from lcgen.data import sources, test_sets, tfds_sets
from lcgen.studies import inspection
from lcgen.training.context import Context


def generator(context: Context, floor: float | None) -> str:
  """Says how the generator is trained, and which error its range makes unavoidable."""
  own, limit = context.generator.words() or context.generator.name, context.generator.output_limit
  if not floor:
    return own
  return (
    f"{own}; the decoder's range [-{limit}, {limit}] does not reach all data values: no reconstruction error below "
    f"{floor:.3f}"
  )


def data(facts: sources.Facts, wanted: Sequence[test_sets.TestSet], directory: str) -> str:
  """Lists the data set, and a line for each family of test sets, with the folders of published ones."""
  lines = [
    f"{facts.name}: {facts.train} training, {facts.validation} validation, {facts.test} test images of "
    f"{'x'.join(map(str, facts.shape))}, classes {', '.join(facts.class_names)}"
  ]
  for family in dict.fromkeys(test_set.family for test_set in wanted):
    members = [test_set for test_set in wanted if test_set.family == family]
    place = f", in {tfds_sets.home(directory) / family}" if members[0].tfds_name else ""
    lines.append(f"{family}: {len(members)} test sets, {members[0].origin}{place}")
  return "\n".join(lines)


def parameters(shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> str:
  """Lists every parameter of each network: path, shape, number of values."""
  lines = []
  for name, own in shapes.items():
    lines.append(f"{name}: {inspection.parameter_total(own):,} trainable parameters")
    for path, shape in own.items():
      total = inspection.parameter_total({path: shape})
      lines.append(f"  {path:<58} {'x'.join(map(str, shape)):>18} {total:>12,}")
    lines.append("")
  return "\n".join(lines)


def findings(context: Context, classifier: ClassifierSettings, found: Mapping[str, Any]) -> str:
  """Lists the findings of the inspection, one a line."""
  facts = context.facts
  sizes = (
    f"{facts.train} training, {facts.validation} validation, {facts.test} test images" if facts.train else "images"
  )
  memory = ", ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in found["memory_bytes"].items())
  return "\n".join(
    [
      "parameters: " + ", ".join(f"{name} {count:,}" for name, count in found["parameters"].items()),
      f"data: {facts.name}, {sizes} of {'x'.join(map(str, facts.shape))}",
      f"generator: {generator(context, found['reconstruction_floor'])}",
      f"augmentation: {found['replaced_per_batch']} of the {classifier.batch_size} images of each batch are replaced",
      f"memory on each device, data included: {memory}",
    ]
  )
