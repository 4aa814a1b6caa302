"""Nothing that edgewright runs reports about its users, in whatever order a program imports things."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Converting and quantizing is what OpenVINO and NNCF would report; they would do so from processes that they fork.
PROGRAM = """
import os, sys
forks = []
os.register_at_fork(before=lambda: forks.append(1))
for name in sys.argv[1].split():
    __import__(name)
import time
time.sleep(1)
# What OpenVINO tells where somebody else imports it is theirs.
forks.clear()
import numpy as np
import torch
import edgewright.export.openvino_ir
from edgewright.runtime.silent_openvino import ov
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
model = ov.convert_model(network, example_input=torch.zeros(1, 3, 8, 8), input=[1, 3, 8, 8])
import nncf
nncf.quantize(model, nncf.Dataset([np.zeros((1, 3, 8, 8), np.float32)] * 3), subset_size=3)
time.sleep(1)
from openvino.tools.ovc import convert_impl
print(len(forks), convert_impl.tm.__name__)
"""


@pytest.mark.parametrize(
    "before",
    ["sys", "openvino", "openvino nncf", "edgewright.runtime.backends.openvino", "edgewright.train.features"],
)
def test_converting_and_quantizing_reports_nothing(before: str) -> None:
    # In what these variables call CI, and where there is pytest, nothing would be reported anyhow.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "NNCF", "GITHUB", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, before], capture_output=True, text=True, env=own, timeout=300
    )
    assert done.returncode == 0, done.stderr
    forks, converter = done.stdout.split("\n")[-2].split()
    assert (forks, converter) == ("0", "openvino.tools.ovc.telemetry_stub")
