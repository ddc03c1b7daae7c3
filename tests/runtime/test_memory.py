"""Memory that containers and jobs leave to a process."""

import pytest

from lcgen.runtime import memory

MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n"}
JOB = "sys/fs/cgroup/slurm/job"
OLD = "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({}, None),
    (MACHINE, 8000 * 1024),
    (  # a job of SLURM
      {
        **MACHINE,
        "proc/self/cgroup": "0::/slurm/job/step\n",
        f"{JOB}/step/memory.max": "max\n",
        f"{JOB}/memory.max": "5000000\n",
        f"{JOB}/memory.current": "3000000\n",
        f"{JOB}/memory.stat": "anon 7\nactive_file 400000\ninactive_file 100000\n",
      },
      2500000,
    ),
    (  # a container, which sees its own group as the top
      {
        **MACHINE,
        "proc/self/cgroup": "3:cpu:/docker/a\n2:memory:/docker/a\n0::/docker/a\n",
        f"{OLD}/memory.limit_in_bytes": "6000000\n",
        f"{OLD}/memory.usage_in_bytes": "7000000\n",
        f"{OLD}/memory.stat": "inactive_file 1\ntotal_inactive_file 1500000\n",
      },
      500000,
    ),
    (  # no limit, in version 1
      {
        **MACHINE,
        "proc/self/cgroup": "2:memory:/\n",
        f"{OLD}/memory.limit_in_bytes": "9223372036854771712\n",
        f"{OLD}/memory.usage_in_bytes": "1\n",
        f"{OLD}/memory.stat": "",
      },
      8000 * 1024,
    ),
  ],
)
def test_the_least_of_machine_and_control_groups_is_free(tmp_path, files, expected):
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
  assert memory.available_memory(tmp_path) == expected
