"""A link between two network namespaces whose packets come late and are lost at times, for kernels without netem.

    delayed_link.py --milliseconds 1 --loss 0.01 [--mtu 1500]

makes the namespaces `near` (10.9.0.1) and `far` (10.9.0.2), each with a TUN device, and carries packets between them until
it is stopped, when both go again. Each packet waits so long on each way. Needs root and /dev/net/tun.
"""

import argparse
import collections
import fcntl
import os
import random
import signal
import struct
import subprocess
import threading
import time

TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x1001
END_SIGNALS = [signal.SIGINT, signal.SIGTERM]
SLEEP_WORTH_SECONDS = 1e-4
ADDRESSES = {"near": ("10.9.0.1", "10.9.0.2"), "far": ("10.9.0.2", "10.9.0.1")}


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def device(namespace, mtu):
    """An open TUN device that stands in that namespace."""
    ip("netns", "add", namespace)
    handle = os.open("/dev/net/tun", os.O_RDWR)
    name = f"late-{namespace}"
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_WITHOUT_HEADER))
    own, peer = ADDRESSES[namespace]
    ip("link", "set", name, "netns", namespace)
    ip("-n", namespace, "link", "set", "lo", "up")
    ip("-n", namespace, "addr", "add", own, "peer", peer, "dev", name)
    ip("-n", namespace, "link", "set", name, "up", "mtu", str(mtu), "txqueuelen", "10000")
    return handle


class Way:
    """From one device to the other."""

    def __init__(self, source, target, arguments, over):
        self.source, self.target, self.arguments, self.over = source, target, arguments, over
        self.under_way, self.something = collections.deque(), threading.Semaphore(0)
        self.random = random.Random(source)
        for work in (self.take_in, self.hand_on):
            threading.Thread(target=self.until_over, args=[work], daemon=True).start()

    def until_over(self, work):
        try:
            work()
        except OSError:
            # The devices go with their namespaces, under whoever waits at them.
            if not self.over.is_set():
                raise

    def take_in(self):
        while True:
            packet = os.read(self.source, 65536)
            if self.random.random() >= self.arguments.loss:
                self.under_way.append((time.monotonic() + self.arguments.milliseconds / 1e3, packet))
                self.something.release()

    def hand_on(self):
        while True:
            self.something.acquire()
            due, packet = self.under_way.popleft()
            early = due - time.monotonic()
            # Sleeping takes so much longer than asked for that packets would queue up behind it.
            if early > SLEEP_WORTH_SECONDS:
                time.sleep(early)
            os.write(self.target, packet)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=float, default=1)
    parser.add_argument("--loss", type=float, default=0)
    parser.add_argument("--mtu", type=int, default=1500)
    arguments = parser.parse_args()
    # Blocked in all threads, so that whoever asks for the end is waited for and the namespaces go.
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    near, far = (device(namespace, arguments.mtu) for namespace in ADDRESSES)
    over = threading.Event()
    try:
        Way(near, far, arguments, over)
        Way(far, near, arguments, over)
        print("up", flush=True)
        signal.sigwait(END_SIGNALS)
    finally:
        over.set()
        for namespace in ADDRESSES:
            ip("netns", "del", namespace)


if __name__ == "__main__":
    main()
