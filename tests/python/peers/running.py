"""A contender's server: from its start to its end."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

GIVE_UP_SECONDS = 300
END_SECONDS = 30


class Running:
    """`with Running(contender, …) as server`: `server.url` answers, `start_seconds` after its process began."""

    def __init__(self, contender, slots, context):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.name = contender.name
        self.command = contender.command(self.port, slots, context)
        self.environment = os.environ | contender.environment

    def __enter__(self):
        began = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self.wait_for_token(began + GIVE_UP_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(self, *_):
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def signal(self, number):
        """To the process and all that it has started."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def wait_for_token(self, deadline):
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.model = self.ask("/v1/models", None)["data"][0]["id"]
                self.ask("/v1/completions", {"model": self.model, "prompt": "The capital of", "max_tokens": 1})
                return
            except (OSError, urllib.error.HTTPError, LookupError):
                time.sleep(0.01)
        raise SystemExit(f"{self.name} gave no token: {' '.join(self.command)}")

    def ask(self, path, body):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=GIVE_UP_SECONDS) as answer:
            return json.load(answer)

    def memory_mib(self):
        """Proportional set size of the process and all below it."""
        return sum(held_kib(pid) for pid in with_descendants(self.process.pid)) / 1024


def with_descendants(root):
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.splitlines())}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def held_kib(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            return int(re.search(r"^Pss: +(\d+)", rollup.read(), re.MULTILINE).group(1))
    except OSError:
        return 0
