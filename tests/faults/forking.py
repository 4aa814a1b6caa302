"""Starts commands by forking: a process imports everything once, where each would take longer for that than to work.

Requests come as lines of JSON on stdin. The answers are lines of JSON on stdout: the process that was started, and, when
it has ended, its status as `subprocess` counts it.
"""

from __future__ import annotations

import datetime
import faulthandler
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

# What the commands import on their way.
import matplotlib.backends.backend_agg
import matplotlib.font_manager  # noqa: F401
import openvino  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from steps import kill_at_step  # type: ignore[import-not-found]  # beside this file

import edgewright.benchmarks.report.writer
import edgewright.export.source
import edgewright.train.trainer  # noqa: F401
from edgewright.cli import main

# It starts threads, and a process that is forked after that waits for them for ever when it ends.
assert "onnxruntime" not in sys.modules

_DAY_S, _TEN_YEARS_S = 86_400, 3_653 * 86_400


def answer(found: dict[str, int]) -> None:
    print(json.dumps(found), flush=True)


def let_the_clock_jump() -> None:
    """Each time somebody looks, it is another day: yesterday, in ten years, 1970, today."""
    real_s = time.time
    days = itertools.cycle(["yesterday", "in ten years", "1970", "today"])

    def jumping_s() -> float:
        now = real_s()
        seen = {"yesterday": now - _DAY_S, "in ten years": now + _TEN_YEARS_S, "1970": 60.0, "today": now}
        return seen[next(days)]

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(jumping_s(), tz)

    exchanged = {
        time.time: jumping_s,
        time.time_ns: lambda: int(jumping_s() * 1e9),
        datetime.datetime: Jumping,
    }
    function = type(time.time)
    for module in list(sys.modules.values()):
        named = getattr(module, "__name__", "")
        # Others may ask of something whether it is a `datetime`.
        kinds = (function, type) if named == "datetime" or named.startswith("edgewright") else (function,)
        for name, value in list(vars(module).items()) if named else ():
            if type(value) in kinds and value in exchanged:
                setattr(module, name, exchanged[value])


def become_command(request: dict[str, Any]) -> None:
    """In the new process: what it says goes to its log, and limits hold for it alone."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # Where it is when it should long have ended.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.environ |= request["environment"]
    if request["file_limit"]:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], resource.RLIM_INFINITY))
    if request["jumping_clock"]:
        let_the_clock_jump()
    if request["steps_in"]:
        kill_at_step(request["steps_in"], request["kill_at"], f"{request['log']}.steps")
    sys.argv = ["edgewright", *request["arguments"]]
    main()


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        for command in request["before"]:
            subprocess.run(command, check=True)
        process = os.fork()
        if process == 0:
            become_command(request)
            sys.exit()
        answer({"process": process})
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        for command in request["after"]:
            subprocess.run(command, check=True)
        answer({"status": status})


if __name__ == "__main__":
    serve()
