"""Processes that run at the same time, within a limit, and of which none is left behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_together(commands, seconds, **environment):
    """Run Python with each list of arguments; an AssertionError with all outputs if one fails or the time is up."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    settings = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": paths, **environment}
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile(mode="w+", errors="replace")) for _ in commands]
        children = []
        try:
            for command, output in zip(commands, outputs, strict=True):
                # A session of its own, so that what the child starts can be ended with it.
                options = {"env": settings, "stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
                children.append(subprocess.Popen([sys.executable, *map(str, command)], **options))
            problem = wait_for_all(children, time.monotonic() + seconds)
        finally:
            for child in children:
                end(child)
        assert not problem, "\n".join([problem, *(f"--- child {i}\n{tail(x)}" for i, x in enumerate(outputs))])


def wait_for_all(children, deadline):
    """What went wrong, as soon as it does: the others would wait in vain for a child that failed."""
    while time.monotonic() < deadline:
        codes = [child.poll() for child in children]
        failed = [f"child {i} ended with {code}" for i, code in enumerate(codes) if code]
        if failed or None not in codes:
            return "; ".join(failed)
        time.sleep(0.05)
    return "the time is up"


def end(child):
    """Kill what is left of a child's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def tail(output):
    output.seek(0)
    return output.read()[-4000:]


def free_ports(number):
    """Ports of the loopback interface that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
