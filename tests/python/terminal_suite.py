"""The commands that live in a terminal, driven through a pseudo-terminal: terminal_suite.py BINARY DATA_DIR

Nothing here waits for a time: every step waits for what has to appear.
"""

import os
import pty
import select
import sys
import time

BINARY, DATA_DIR = sys.argv[1:3]
PATIENCE_SECS = 120
CTRL_C = b"\x03"


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments):
        self.screen = b""
        self.child, self.master = pty.fork()
        if self.child == 0:
            os.environ["TERM"] = "xterm"
            os.execv(BINARY, [BINARY, *arguments, "--data-dir", DATA_DIR])

    def read(self):
        """More of the screen; False when the command has closed it."""
        if not select.select([self.master], [], [], 1)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.screen += data
        return bool(data)

    def expect(self, *words):
        """Waits for one of them to appear and forgets everything up to it."""
        deadline = time.monotonic() + PATIENCE_SECS
        while True:
            places = [(self.screen.find(word), word) for word in words]
            found = min((place for place in places if place[0] >= 0), default=None)
            if found:
                self.screen = self.screen[found[0] + len(found[1]) :]
                return found[1]
            if time.monotonic() > deadline or not self.read():
                sys.exit(f"none of {words} in {self.screen!r}")

    def type(self, data):
        os.write(self.master, data)

    def end(self):
        """Waits for the command to leave by itself; gives all that it still wrote."""
        deadline = time.monotonic() + PATIENCE_SECS
        while self.read():
            if time.monotonic() > deadline:
                sys.exit(f"it stays: {self.screen!r}")
        status = os.waitpid(self.child, 0)[1]
        assert status == 0, status
        return self.screen


def a_conversation():
    chat = Terminal("chat", "--temperature", "0", "--max-tokens", "6")
    chat.expect(b"/help")
    chat.expect(b"> ")
    chat.type(b"Hello\r")
    chat.expect(b"6 tokens, first after")
    chat.expect(b"> ")
    chat.type(b"/set max_tokens 5\r")
    chat.expect(b"> ")
    chat.type(b"/retry\r")
    chat.expect(b"5 tokens")
    chat.expect(b"> ")
    chat.type(b"/sett\r")
    chat.expect(b"/help lists them")
    chat.expect(b"> ")
    chat.type(b"/model nowhere\r")
    chat.expect(b"there is no model nowhere")
    chat.expect(b"> ")
    chat.type(b"/set temperature 9\r")
    chat.expect(b"a number from 0 to 2")
    chat.expect(b"> ")
    # What cannot get another answer keeps the one it had.
    chat.type(b"/set max_tokens 1000000\r")
    chat.expect(b"> ")
    chat.type(b"/retry\r")
    chat.expect(b"maximum context length")
    chat.expect(b"> ")
    chat.type(b"/set max_tokens 5\r")
    chat.expect(b"> ")
    chat.type(b"/retry\r")
    chat.expect(b"5 tokens")
    chat.expect(b"> ")
    chat.type(b"/set max_tokens 4000\r")
    chat.expect(b"> ")
    chat.type(b"Tell me \\\r")
    chat.type(b"a very long story\r")
    chat.expect(b"a very long story")
    chat.expect(b" a ", b" the ", b" and ")
    chat.type(CTRL_C)
    chat.expect(b", first after")
    chat.expect(b"> ")
    chat.type(b"/undo\r")
    chat.expect(b"taken back: Tell me")
    chat.expect(b"> ")
    chat.type(CTRL_C)
    chat.expect(b"/exit leaves")
    chat.expect(b"> ")
    chat.type(b"/exit\r")
    chat.end()


def a_live_view(leave, *arguments):
    top = Terminal(*arguments)
    top.expect(b"\x1b[?1049h")
    top.expect(b"tok/s out")
    top.expect(b"first token p50")
    top.type(leave)
    rest = top.end()
    assert rest.endswith(b"\x1b[?25h\x1b[?1049l"), rest[-80:]


a_conversation()
a_live_view(b"q", "top")
a_live_view(CTRL_C, "status", "--watch")
print("all is well")
