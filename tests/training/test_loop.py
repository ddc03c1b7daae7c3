import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from lcgen.runtime import errors, files, parallel
from lcgen.training import loop
from lcgen.training import train_state as states
from tests.support.helpers import tree_bytes

SIZE, ROWS, EPOCHS = 22, 4, 3  # five steps an epoch, two images left over
OPTIMIZER = optax.sgd(0.1)


def init(key):
  return states.TrainState.create({"params": jax.random.normal(key, (3,))}, OPTIMIZER)


def step(state, frozen, batch, key):
  """Fits a line to noisy targets."""
  noise = 0.01 * jax.random.normal(key, batch["x"].shape[:1])
  loss = lambda params: jnp.square(batch["x"] @ params - batch["y"] - noise).mean()
  value, gradients = jax.value_and_grad(loss)(state.params)
  return state.update(gradients, OPTIMIZER), {"loss": value, "rows": batch["row"].sum()}


@pytest.fixture
def setup(tmp_path):
  """`train(changes..., until=None)` on a toy problem, in one folder; returns state, timing and metrics."""
  seeds = (3, 4)
  mesh = parallel.make_mesh(2)
  x = np.random.default_rng(0).normal(size=(SIZE, 3)).astype(np.float32)
  arrays = {"x": x, "y": x @ np.array([1.0, 2.0, 3.0], np.float32), "row": np.arange(SIZE)}
  data = jax.device_put(arrays, parallel.replicated(mesh))
  phase = loop.Phase(
    name="toy",
    kind="line",
    run_steps=loop.OneByOne(step, lambda batch: batch),
    init=init,
    frozen=None,
    keys=jnp.stack([jax.random.key(s) for s in seeds]),
    batch_size=ROWS,
    epoch_size=SIZE,
    epochs=EPOCHS,
  )

  def train(folder="a", checkpoint_steps=4, chunk_steps=3, validate=None, restores=0, **changes):
    metrics = files.MetricsFile(epath.Path(tmp_path) / folder / "metrics.jsonl")
    if step_of := changes.pop("step", None):
      changes["run_steps"] = loop.OneByOne(step_of, lambda batch: batch)
    pace = loop.Pace(chunk_steps, checkpoint_steps, restores)
    session = loop.Session(epath.Path(tmp_path) / folder / "toy", metrics, pace)
    own = dataclasses.replace(phase, **changes)
    state, timing = loop.train(own, data, validate, seeds=seeds, mesh=mesh, session=session)
    return state, timing, metrics.read()

  return train


@pytest.mark.parametrize(
  ("steps", "longest", "expected"),
  [
    (56, 200, [56]),
    (6, 3, [3, 3]),
    (5, 3, [3, 2]),
    (1875, 200, [125] * 15),
    (7, 2, [1] * 7),
    (11, 3, [3, 3, 3, 2]),
    (4, 1, [1] * 4),
  ],
)
def test_chunks_fill_an_epoch(steps, longest, expected):
  assert loop.chunk_lengths(steps, longest) == expected


def test_order_is_a_permutation_by_seed_and_epoch():
  orders = {(seed, epoch): tuple(loop.epoch_order(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1)}
  assert len(set(orders.values())) == 4
  assert all(sorted(order) == list(range(50)) for order in orders.values())
  assert orders[0, 1] == tuple(loop.epoch_order(0, 1, 50))


def test_training_fits_and_says_so(setup):
  state, timing, records = setup(validate=lambda state: {"validation_norm": jnp.linalg.norm(state.params, axis=1)})
  np.testing.assert_allclose(state.params, [[1, 2, 3]] * 2, atol=1.5)
  assert [record["step"] for record in records] == [3, 5, 8, 10, 13, 15]
  assert [record["epoch"] for record in records] == [step / 5 for step in (3, 5, 8, 10, 13, 15)]
  assert {(record["phase"], record["kind"]) for record in records} == {("toy", "line")}
  assert all(len(record["terms"]["loss"]) == 2 for record in records)
  assert ["validation_norm" in record["terms"] for record in records] == [False, True] * 3
  np.testing.assert_allclose(records[-1]["terms"]["validation_norm"], np.linalg.norm(state.params, axis=1), rtol=1e-6)
  summary = timing.summary()
  assert summary["steps"] == 15
  assert summary["ms_per_step"] == pytest.approx(1e3 * summary["train_s"] / 15)


def test_every_image_is_seen_at_most_once_an_epoch(setup):
  _, _, records = setup(chunk_steps=5)
  for epoch, record in enumerate(records):
    for place, seed in enumerate((3, 4)):
      expected = loop.epoch_order(seed, epoch, SIZE)[: 5 * ROWS].sum()
      assert record["terms"]["rows"][place] * 5 == expected


def test_chunks_and_interruptions_change_nothing(setup):
  straight, _, records = setup("straight", chunk_steps=1)
  chunked, _, _ = setup("chunked", chunk_steps=5)
  chex.assert_trees_all_close(straight, chunked, rtol=1e-6)

  class Killed(Exception):
    pass

  def killer(state):
    killer.calls += 1
    if killer.calls == 2:
      raise Killed
    return {"validation_norm": jnp.zeros(2)}

  killer.calls = 0
  with pytest.raises(Killed):
    setup("killed", chunk_steps=1, validate=killer)  # at step 10; the newest checkpoint is of step 8
  resumed, timing, again = setup("killed", chunk_steps=1)
  assert tree_bytes(resumed) == tree_bytes(straight)
  assert timing.steps == 15
  terms = lambda row: {name: value for name, value in row["terms"].items() if name != "validation_norm"}
  without = lambda rows: [row | {"terms": terms(row)} for row in rows]
  assert without(again) == without(records)


def test_a_finished_phase_is_only_loaded(setup):
  first, _, _ = setup()

  def never(*_):
    raise AssertionError("trained again")

  second, timing, records = setup(step=never)
  assert tree_bytes(first) == tree_bytes(second)
  assert timing.steps == records[-1]["step"] == 15


def test_each_step_is_traced_once(setup):
  chex.clear_trace_counter()
  setup(step=chex.assert_max_traces(step, n=1), chunk_steps=5)


def test_a_loss_that_is_not_finite_is_named_and_the_checkpoint_kept(setup, tmp_path):
  def breaks(state, frozen, batch, key):
    state, metrics = step(state, frozen, batch, key)
    bad = (state.params.sum() > -1e9) & (batch["row"].sum() == loop.epoch_order(4, 2, SIZE)[:ROWS].sum())
    return state, metrics | {"loss": metrics["loss"], "part": jnp.where(bad, jnp.nan, 0.0)}

  with pytest.raises(errors.NonFiniteError, match=r"toy: part is nan at step 11 of seed 4$") as raised:
    setup(step=breaks)
  assert raised.value.places == (1,)
  saved = sorted(int(path.name) for path in (tmp_path / "a" / "toy").iterdir() if path.name.isdigit())
  assert saved[-1] == 8


def test_a_parameter_that_is_not_finite_is_not_saved(setup, tmp_path):
  def breaks(state, frozen, batch, key):
    state, metrics = step(state, frozen, batch, key)
    return state.replace(params=state.params * jnp.nan), {"rows": metrics["rows"]}

  with pytest.raises(errors.NonFiniteError, match=r"toy: a parameter is no longer finite at step 3 of seed 3$"):
    setup(step=breaks)
  assert not (tmp_path / "a" / "toy").exists()


def breaks_once(state, frozen, batch, key):
  """A part that is not a number in the last epoch of the second seed, with its first key."""
  state, metrics = step(state, frozen, batch, key)
  first = jax.random.key_data(jax.random.fold_in(jax.random.key(4), 11))
  bad = (jax.random.key_data(key) == first).all()
  return state, metrics | {"part": jnp.where(bad, jnp.nan, 0.0)}


def test_a_seed_that_breaks_begins_again_with_another_key(setup):
  part = lambda state, frozen, batch, key: (lambda after, metrics: (after, metrics | {"part": 0.0}))(
    *step(state, frozen, batch, key)
  )
  straight, _, expected = setup("straight", step=part)
  state, timing, records = setup("broken", step=breaks_once, restores=1)
  assert timing.restarts == [0, 1]
  assert [record["step"] for record in records] == [record["step"] for record in expected]
  np.testing.assert_array_equal(state.params[0], straight.params[0])  # the other one is as it was
  assert np.isfinite(state.params[1]).all()
  assert (state.params[1] != straight.params[1]).any()
  again, timing, _ = setup("broken", step=breaks_once, restores=1)
  assert tree_bytes(again) == tree_bytes(state)
  assert timing.restarts == [0, 1]


def test_a_seed_begins_again_no_more_often_than_allowed(setup, caplog):
  always = lambda state, frozen, batch, key: (state, {"part": jnp.where(batch["row"].sum() >= 0, jnp.nan, 0.0)})
  with pytest.raises(errors.NonFiniteError, match="part is nan at step 1"):
    setup(step=always, restores=2)
  assert caplog.text.count("begun again from step 0 with another key") == 2


def test_metrics_of_a_killed_run_are_forgotten(tmp_path):
  metrics = files.MetricsFile(epath.Path(tmp_path) / "metrics.jsonl")
  records = [
    {"phase": phase, "kind": phase, "step": step, "terms": {"loss": [0.5]}}
    for phase in ("one", "two")
    for step in (2, 4, 6)
  ]
  (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + '\n{"phase": "two", "st')
  metrics.truncate("two", 4)
  assert metrics.read() == records[:-1]
