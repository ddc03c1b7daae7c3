"""The generated sets: pinned values, and what they do to a classifier that was trained on clean images."""

import jax
import numpy as np
import pytest
from etils import epath

from lcgen import config
from lcgen.classifiers import judge_phase
from lcgen.data import corruptions, ranges, sources, test_sets, tfds_sets
from lcgen.data.settings import DataSettings
from lcgen.evaluation import classifier_scores, metrics
from lcgen.runtime import files, parallel
from lcgen.training import loop
from tests.support.helpers import context_of, load_config

# Corruptions whose published parameters do not grow: saturation falls, then rises; spatter turns from water to mud;
# glass blur smooths less where it displaces more; of an elastic transform the affine part shrinks.
_CHANGING = ("saturate", "spatter", "glass_blur", "elastic_transform")


# Smallest, largest and mean value in model space of the 1,000 test digits, which have -2, 2 and -1.4708.
VALUES = {
  "generated_cifar10_c/gaussian_noise_3": (-2.000, 2.000, -1.3762),
  "generated_cifar10_c/shot_noise_3": (-2.000, 2.000, -1.4827),
  "generated_cifar10_c/impulse_noise_3": (-2.000, 2.000, -1.4261),
  "generated_cifar10_c/defocus_blur_3": (-2.000, 2.000, -1.4706),
  "generated_cifar10_c/glass_blur_3": (-2.000, 2.000, -1.4709),
  "generated_cifar10_c/motion_blur_3": (-2.000, 2.000, -1.4709),
  "generated_cifar10_c/zoom_blur_3": (-2.000, 2.000, -1.3880),
  "generated_cifar10_c/snow_3": (-1.796, 2.000, -1.1377),
  "generated_cifar10_c/frost_3": (-2.000, 2.000, -0.5761),
  "generated_cifar10_c/fog_3": (-2.000, 2.000, -0.8357),
  "generated_cifar10_c/brightness_3": (-1.404, 2.000, -0.9226),
  "generated_cifar10_c/contrast_3": (-1.922, 0.322, -1.4706),
  "generated_cifar10_c/elastic_transform_3": (-2.000, 2.000, -1.4705),
  "generated_cifar10_c/pixelate_3": (-2.000, 2.000, -1.4705),
  "generated_cifar10_c/jpeg_compression_3": (-2.000, 2.000, -1.4507),
  "generated_cifar10_c/speckle_noise_3": (-2.000, 2.000, -1.4855),
  "generated_cifar10_c/gaussian_blur_3": (-2.000, 2.000, -1.4709),
  "generated_cifar10_c/spatter_3": (-2.000, 2.000, -1.3574),
  "generated_cifar10_c/saturate_3": (-2.000, 2.000, -1.4708),
  "generated_mnist_c/shot_noise": (-2.000, 2.000, -1.5653),
  "generated_mnist_c/impulse_noise": (-2.000, 2.000, -1.2215),
  "generated_mnist_c/glass_blur": (-2.000, 2.000, -1.4709),
  "generated_mnist_c/motion_blur": (-2.000, 2.000, -1.4720),
  "generated_mnist_c/shear": (-2.000, 2.000, -1.4269),
  "generated_mnist_c/scale": (-2.000, 2.000, -1.7407),
  "generated_mnist_c/rotate": (-2.000, 2.000, -1.4709),
  "generated_mnist_c/brightness": (0.008, 2.000, 0.3265),
  "generated_mnist_c/translate": (-2.000, 2.000, -1.4733),
  "generated_mnist_c/stripe": (-2.000, 2.000, 0.4388),
  "generated_mnist_c/fog": (-2.000, 1.984, -0.3677),
  "generated_mnist_c/spatter": (-2.000, 2.000, -1.4088),
  "generated_mnist_c/dotted_line": (-2.000, 2.000, -1.3768),
  "generated_mnist_c/zigzag": (-2.000, 2.000, -1.2835),
  "generated_mnist_c/canny_edges": (-2.000, 2.000, -1.5589),
}


@pytest.fixture(scope="module")
def digits():
  return sources.load(DataSettings())


@pytest.mark.parametrize("name", VALUES)
def test_values_after_the_one_conversion(name, digits):
  one = {one.name: one for one in test_sets.expand(list(test_sets.GENERATED))}[name]
  batches = classifier_scores.changed_batches(one, digits.test, cut())
  values = np.concatenate([np.asarray(ranges.prepare(batch["image"], 28, 28)) for batch in batches])
  assert values.shape == (1000, 28, 28, 1)
  assert values.dtype == np.float32
  found = values.min(), values.max(), values.mean(dtype=np.float64)
  np.testing.assert_allclose(found, VALUES[name], atol=0.02)


def cut():
  return classifier_scores.Batching(classes=10, size=500, sharding=jax.devices()[0])


def judge(data, settings, folder):
  """The accuracy of a judge trained on the data, on every generated CIFAR-10-C set of its test images, `[19, 5]`."""
  context, own = context_of(settings, data.facts), settings.evaluate.judge
  session = loop.Session(
    epath.Path(folder) / "judge",
    files.MetricsFile(epath.Path(folder) / "metrics.jsonl"),
    loop.Pace(chunk_steps=100, checkpoint_steps=10**6),
  )
  stored = jax.device_put({"image": data.train.images, "label": data.train.labels})
  phase = judge_phase.phase(context, own)
  state, _ = loop.train(phase, stored, None, seeds=context.seeds, mesh=context.mesh, session=session)
  model = judge_phase.network(context, own)

  def score(variables, batch):
    logits = model.apply(variables, context.prepare(batch)["image"])
    return metrics.soft_scores(logits, batch["label"], batch["target"], batch["mask"])

  scored = jax.jit(parallel.over_seeds(score, context.mesh, (0, None)))
  results, _ = classifier_scores.score_all(
    lambda batch: {"judge": scored(state.variables, batch)},
    test_sets.expand(["test", "generated_cifar10_c"]),
    lambda _: data.test,
    cut(),
  )
  accuracy = lambda name: results["judge"][name]["accuracy"][0]
  table = [
    [accuracy(f"generated_cifar10_c/{name}_{severity}") for severity in corruptions.SEVERITIES]
    for name in corruptions.CIFAR10_C
  ]
  return accuracy("test"), dict(zip(corruptions.CIFAR10_C, np.array(table), strict=True))


def check(clean, harmed, slack):
  """No severity of a corruption whose parameters grow is milder than the one before, within `slack`."""
  for name, accuracies in harmed.items():
    assert accuracies.max() <= clean + slack, name
    if name not in _CHANGING:
      assert np.diff(accuracies).max() <= slack, (name, accuracies)


@pytest.mark.slow
def test_digits_get_harder_with_severity(digits, tmp_path):
  settings = config.parse(load_config("mnist5k", seeds=1, evaluate__judge__epochs=6))
  clean, harmed = judge(digits, settings, tmp_path)
  assert clean > 0.93
  check(clean, harmed, slack=0.02)
  for name in ("impulse_noise", "motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast"):
    assert harmed[name][4] < harmed[name][0] - 0.02, (name, harmed[name])


@pytest.mark.slow
def test_pictures_get_harder_with_severity(tmp_path):
  if tfds_sets.find("cifar10", "") is None:
    pytest.skip("no prepared cifar10; set TFDS_DATA_DIR to a folder that has it")
  data = sources.load(DataSettings(source="tfds", name="cifar10", test_limit=2000))
  settings = config.parse(load_config("cifar10", seeds=1, data__image_size=0, evaluate__judge__epochs=3))
  clean, harmed = judge(data, settings, tmp_path)
  assert clean > 0.6
  check(clean, harmed, slack=0.025)
  for name, accuracies in harmed.items():
    assert accuracies[4] < accuracies[0] - 0.01, (name, accuracies)
    assert accuracies[4] < clean - 0.01, (name, accuracies)
