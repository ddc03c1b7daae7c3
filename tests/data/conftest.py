"""Fixtures for files of `torch.save`: read one from its bytes, or check that it is refused."""

import functools

import pytest

from tests.support import torch_archives


@pytest.fixture
def read(tmp_path):
  return functools.partial(torch_archives.read_bytes, tmp_path / "file.pt")


@pytest.fixture
def refused(tmp_path):
  return functools.partial(torch_archives.check_refused, tmp_path / "file.pt")
