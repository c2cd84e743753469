"""`realdamage serve` as a process on a free port, for tests, trials and benchmarks."""

import json
import subprocess
import sys
import threading
import time

import httpx


class Process:
    """A service that can be killed and started again; its log lines are read as they come. `client`
    calls it.

    options: of the command. cwd: where it runs. program: what Python runs. inside: a command that
    runs it, such as `ip netns exec NAME`.
    """

    def __init__(self, *options, cwd=None, program=("-m", "realdamage"), inside=()):
        self._command = [*inside, sys.executable, *program, "serve", "--port", "0", *options]
        self._cwd = cwd
        self.start()

    def start(self):
        """Returns once it is ready."""
        self.lines = []
        self.process = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, cwd=self._cwd
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self.wait_for("ready")
        self.url = next(line["url"] for line in self.lines if line["event"] == "listening")
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def wait_for(self, event):
        """Until it has logged this event."""
        end = time.monotonic() + 600  # a busy machine may take minutes
        while not any(line["event"] == event for line in self.lines):
            assert time.monotonic() < end, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.02)

    def kill(self):
        """As `kill -9`."""
        self.process.kill()
        self.process.wait()

    def _read(self, process):
        for line in process.stderr or ():
            self.lines.append(json.loads(line))
