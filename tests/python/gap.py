"""How long a running stream waits for its next token while a prompt of 4,096 random tokens arrives.

    python3 gap.py --url http://127.0.0.1:8000 --rounds 3
"""

import argparse
import http.client
import json
import random
import statistics
import threading
import time
import urllib.parse
import urllib.request

PROMPT_TOKENS = 4096
# Below the vocabulary of any model, above special tokens.
TOKENS = range(1000, 30000)
ALONE_SECONDS = 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=700, help="of the running stream [default: 700]")
    arguments = parser.parse_args()
    with urllib.request.urlopen(arguments.url + "/v1/models") as answer:
        model = json.load(answer)["data"][0]["id"]
    for _ in range(arguments.rounds):
        once(arguments.url, model, arguments.tokens)


def once(url, model, tokens):
    arrivals, first = [], []
    running = threading.Thread(target=stream, args=(url, model, "Once upon a time", tokens, arrivals))
    running.start()
    time.sleep(ALONE_SECONDS)
    arrived = time.monotonic()
    stream(url, model, random.choices(TOKENS, k=PROMPT_TOKENS), 4, first)
    running.join()
    gaps = [(start, end) for start, end in zip(arrivals, arrivals[1:])]
    alone = [end - start for start, end in gaps if end <= arrived]
    beside = [end - start for start, end in gaps if end > arrived and start < first[0]]
    print(
        f"median gap alone {statistics.median(alone) * 1e3:.1f} ms; while the prompt is computed {len(beside)} gaps, "
        f"median {statistics.median(beside) * 1e3:.1f} ms, longest {max(beside) * 1e3:.1f} ms; "
        f"the prompt's first token after {first[0] - arrived:.1f} s",
        flush=True,
    )


def stream(url, model, prompt, tokens, arrivals):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=300)
    body = {
        "model": model,
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


main()
