"""Runs the stages `sample`, `edit` and `traverse` on a trained run; each writes a PNG grid and an `.npz`."""

import dataclasses
from collections.abc import Callable

import numpy as np
from etils import epath

from lcgen import config as configs
from lcgen.api import run as runs
from lcgen.api import workdir as workdirs
from lcgen.constraints import learning, samplers
from lcgen.constraints.algebra import Constraint
from lcgen.data import own_images, picking, pictures, ranges, sources
from lcgen.reporting import figures
from lcgen.runtime import errors, fields, files, registry
from lcgen.training import identity

Wishes = dict[str, "str | Constraint"]  # by their names in the figures


def run(config: configs.Config, workdir: epath.Path, stage: str) -> None:
  """Runs one of `STAGES` on a trained workdir, with the first seed.

  Raises:
    InputError: if labels, images or the rule of the config do not fit, or a network is not trained.
  """
  STAGES[stage](runs.Run(workdirs.Workdir(workdir, config)), config, workdir)


def _sample(trained: runs.Run, config: configs.Config, workdir: epath.Path) -> None:
  """Draws `count` samples for each wish, in a row of the grid."""
  section = config.sample
  wishes, kind = _wishes(trained, config, section.labels)
  drawn = [
    trained.draw(wish, section.method, count=section.count, seed=(config.seed + row) % (fields.MOST_SEED + 1))
    for row, wish in enumerate(wishes.values())
  ]
  path = workdir / "sample" / f"{kind}-{section.method}"
  _write(path, drawn, {}, [sample.images for sample in drawn], f"samples by {section.method}", tuple(wishes))


def _edit(trained: runs.Run, config: configs.Config, workdir: epath.Path) -> None:
  """Edits images to each wish; a row of the grid has the image, its reconstruction and its edits."""
  images = _images(trained, config, workdir, config.edit.count)
  wishes, kind = _wishes(trained, config, config.edit.labels)
  shown = _fitted(trained, images)
  reconstructed = np.asarray(trained.decode(trained.encode(images)))
  edited = [trained.edit(images, wish) for wish in wishes.values()]
  columns = np.stack([shown, reconstructed, *(edit.images for edit in edited)], axis=1)  # [N, 2 + wishes, H, W, C]
  names = ("image", "reconstr.", *wishes)
  extra = {"originals": shown, "reconstructions": reconstructed}
  _write(workdir / "edit" / kind, edited, extra, columns, "images, reconstructions, edits", (), names)


def _traverse(trained: runs.Run, config: configs.Config, workdir: epath.Path) -> None:
  """Interpolates from each image to the next, and from a sample of each wish to its edit to the next wish."""
  section = config.traverse
  images = _images(trained, config, workdir, section.count + 1)
  if len(images) < 2:
    raise errors.InputError(f"edit.images={config.edit.images}: one image; a way takes two, or test images")
  between_images = trained.interpolate(images[:-1], images[1:], section.points)
  wishes, kind = _wishes(trained, config, config.sample.labels)
  steps = list(wishes.values())
  start = [trained.draw(wish, config.sample.method, seed=config.seed) for wish in steps]
  if len(steps) > 1:
    goals = steps[1:] + steps[:1]
  else:
    goals = [~(steps[0] if isinstance(steps[0], Constraint) else trained.label(steps[0]))]
  ways = []
  for sample, goal in zip(start, goals, strict=True):
    edit = trained.edit(sample.images, goal)
    between = np.asarray(samplers.interpolate(sample.latents, edit.latents, section.points))[0]
    ways.append(np.asarray(trained.decode(between)))
  path = workdir / "traverse" / kind
  files.write_arrays(
    path.with_name(f"{path.name}.npz"), {"images": _as_uint8(between_images), "wishes": _as_uint8(np.stack(ways))}
  )
  rows = np.concatenate([between_images, np.stack(ways)])
  names = [f"image {row} to {row + 1}" for row in range(len(between_images))]
  others = [*list(wishes)[1:], next(iter(wishes)) if len(wishes) > 1 else "not"]
  names += [f"{a} to {b}" for a, b in zip(wishes, others, strict=True)]
  _draw(path, rows, "from image to image, and from class to class", names)


STAGES: dict[str, Callable[[runs.Run, configs.Config, epath.Path], None]] = {
  "sample": _sample,
  "edit": _edit,
  "traverse": _traverse,
}


def _wishes(trained: runs.Run, config: configs.Config, labels: str) -> tuple[Wishes, str]:
  """Returns the wishes of the config by name, and a name for all of them that can be a file's."""
  text = config.constraint
  if text != "labels":
    constraint = trained.realism if text == "realism" else trained.learn(text)
    return {text: constraint}, learning.plain(text.removeprefix("rule:"))
  names = trained.class_names
  wanted = [name.strip() for name in labels.split(",")] if labels else names
  if unknown := [name for name in wanted if name not in names]:
    near = registry.nearest(unknown[0], names)
    raise errors.InputError(f"labels: there is no class {unknown[0]!r}{near}; there are {', '.join(names)}")
  return {name: name for name in wanted}, "labels"


def _images(trained: runs.Run, config: configs.Config, workdir: epath.Path, count: int) -> np.ndarray:
  """Reads stored images: some of the config's file, evenly spread over it, or test images of each class in turn."""
  path = config.edit.images
  if path:
    look, (height, width, _) = sources.look(config.data), trained.image_shape
    images = own_images.read_images(path, look)
    images = pictures.to_shape(images[picking.pick(np.zeros(len(images)), count)], height, width, look)
    if images.shape[3] != trained.image_shape[2]:
      shape = f"images are {list(images.shape)} and the networks' have {trained.image_shape[2]} colours"
      raise errors.InputError(f"edit.images={path}: {shape}; convert them")
    return images
  test = identity.confirm(workdir, sources.load(config.data)).test
  in_turn = np.argsort(_place_in_class(test.labels), kind="stable")
  return test.images[in_turn[:count]]


def _place_in_class(labels: np.ndarray) -> np.ndarray:
  """Counts the images of the same class before each, `[N]`."""
  places = np.empty(len(labels), int)
  for label in np.unique(labels):
    of_class = np.flatnonzero(labels == label)
    places[of_class] = np.arange(len(of_class))
  return places


def _fitted(trained: runs.Run, images: np.ndarray) -> np.ndarray:
  """Resizes images to the networks' size, in [0, 1]."""
  height, width, _ = trained.image_shape
  return np.asarray(ranges.resize(ranges.to_unit(images), height, width))


def _write(path: epath.Path, parts, extra: dict[str, np.ndarray], rows, title, row_names, column_names=()) -> None:
  """Writes the grid, and the samples of all wishes with their certificates, and prints a summary."""
  names = [field.name for field in dataclasses.fields(runs.Samples)]
  arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
  files.write_arrays(path.with_name(f"{path.name}.npz"), arrays | extra | {"images": _as_uint8(arrays["images"])})
  _draw(path, np.asarray(rows), title, row_names, column_names)
  asked = arrays["labels"] >= 0
  judged = f", the judge agrees with {np.mean(arrays['verdict'] == arrays['labels']):.1%}" if asked.all() else ""
  print(
    f"{len(asked)} images: the critics accept {arrays['accepted'].mean():.1%}{judged}; "
    f"moved {arrays['moved'].mean():.2f}; {path}.png, {path}.npz"
  )


def _draw(path: epath.Path, rows: np.ndarray, title: str, row_names, column_names=()) -> None:
  """Draws a grid of `[rows, columns, H, W, C]`."""
  flat = _as_uint8(rows.reshape(-1, *rows.shape[2:]))
  figures.draw_grid(path.with_name(f"{path.name}.png"), flat, rows.shape[1], title, row_names, column_names)


def _as_uint8(unit: np.ndarray) -> np.ndarray:
  return np.asarray(ranges.to_uint8(unit))
