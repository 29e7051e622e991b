"""Seconds from the start of a server's process to its first token, and what all its processes hold in memory then.

    python3 start_up.py --url http://127.0.0.1:8000 --rounds 3 -- cluster up --no-auth --model MODEL.gguf
    python3 start_up.py --url http://127.0.0.1:8080 --rounds 3 -- llama-server -m MODEL.gguf -t 2

The server is asked every 10 ms until it answers, and ended by a signal. Of several rounds the first may pack or read what
later ones find ready.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

GIVE_UP_SECONDS = 120


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        started = time.monotonic()
        server = subprocess.Popen(
            arguments.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_for_token(arguments.url, started + GIVE_UP_SECONDS)
            seconds = time.monotonic() - started
            print(f"{seconds:.2f} s, {memory_mib(server.pid):.0f} MiB", flush=True)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def wait_for_token(url, deadline):
    while time.monotonic() < deadline:
        try:
            model = ask(url + "/v1/models", None)["data"][0]["id"]
            ask(url + "/v1/completions", {"model": model, "prompt": "The capital of France is", "max_tokens": 1})
            return
        except (OSError, urllib.error.HTTPError, LookupError):
            time.sleep(0.01)
    raise SystemExit(f"{url} gave no token within {GIVE_UP_SECONDS} s")


def ask(url, body):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=GIVE_UP_SECONDS) as answer:
        return json.load(answer)


def memory_mib(root):
    """Proportional set size of a process and all below it."""
    return sum(held_kib(pid) for pid in with_descendants(root)) / 1024


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


main()
