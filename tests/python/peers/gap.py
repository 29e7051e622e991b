"""How long a running stream waits for its next token while a prompt of 4,096 random tokens arrives."""

import http.client
import json
import random
import statistics
import threading
import time
import urllib.parse
from dataclasses import dataclass

PROMPT_TOKENS = 4096
# Below the vocabulary of any model, above special tokens.
TOKENS = range(1000, 30000)
# Enough for the prompt to end before the stream does.
STREAM_TOKENS = 700
ALONE_SECONDS = 1.0
GIVE_UP_SECONDS = 600


@dataclass
class Gaps:
    alone_ms: float
    median_ms: float
    longest_ms: float
    first_token_seconds: float


def gaps(server):
    arrivals, first = [], []
    running = threading.Thread(target=stream, args=(server, "Once upon a time", STREAM_TOKENS, arrivals))
    running.start()
    time.sleep(ALONE_SECONDS)
    arrived = time.monotonic()
    stream(server, random.choices(TOKENS, k=PROMPT_TOKENS), 4, first)
    running.join()
    between = list(zip(arrivals, arrivals[1:]))
    alone = [end - start for start, end in between if end <= arrived]
    beside = [end - start for start, end in between if end > arrived and start < first[0]]
    return Gaps(
        alone_ms=statistics.median(alone) * 1e3,
        median_ms=statistics.median(beside) * 1e3,
        longest_ms=max(beside) * 1e3,
        first_token_seconds=first[0] - arrived,
    )


def stream(server, prompt, tokens, arrivals):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server.url).netloc, timeout=GIVE_UP_SECONDS)
    body = {
        "model": server.model,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    }
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            arrivals.append(time.monotonic())
