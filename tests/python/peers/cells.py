"""What is measured. Each function yields pairs of a cell's name and its value for one contender in one round."""

import time

from contenders import output_of
from gap import gaps
from running import Running

# Of servers that have to be told.
SLOTS, CONTEXT = 32, 1024
FEW_SLOTS, LONG_CONTEXT = 8, 6144
# What a server may still do behind its first token.
SETTLE_SECONDS = 2
BURST = ["--concurrency", "8", "--prompt-tokens", "256", "--output-tokens", "32"]


def engine(contender, number, arguments):
    for prompt_tokens in [512, 4096]:
        if contender.engine:
            prompt, stream = contender.engine(prompt_tokens, 32)
        else:
            prompt, stream = over_http(contender, prompt_tokens, number, arguments)
        yield f"prompt of {prompt_tokens:,}, tok/s", prompt
        if prompt_tokens == 512:
            yield "one stream, tok/s", stream


def over_http(contender, prompt_tokens, number, arguments):
    with Running(contender, FEW_SLOTS, LONG_CONTEXT) as server:
        sizes = ["--prompt-tokens", str(prompt_tokens), "--output-tokens", "32"]
        load = loaded(server, arguments, prompt_tokens + number, ["--concurrency", "1", "--requests", "3", *sizes])
    return prompt_tokens / load["ttft_ms"]["p50"] * 1e3, 1e3 / load["tpot_ms"]["p50"]


def streams(contender, number, arguments):
    with Running(contender, SLOTS, CONTEXT) as server:
        time.sleep(SETTLE_SECONDS)
        rates = {}
        for count in [1, 8, 32, 128]:
            sizes = ["--prompt-tokens", "32", "--output-tokens", str(arguments.output_tokens)]
            at_once = ["--concurrency", str(count), "--requests", str(count)]
            load = loaded(server, arguments, 1000 * number + count, [*at_once, *sizes])
            rates[count] = load["output_tokens_per_sec"]
            yield f"over HTTP, streams: {count}, tok/s", rates[count]
    yield "128 streams by 32, ratio", rates[128] / rates[32]


def burst(contender, number, arguments):
    with Running(contender, SLOTS, CONTEXT) as server:
        time.sleep(SETTLE_SECONDS)
        load = loaded(server, arguments, 1000 * number + 500, [*BURST, "--requests", "24"])
        yield "burst of prompts of 256, p95 to first token, s", load["ttft_ms"]["p95"] / 1e3


def staggered(contender, number, arguments):
    with Running(contender, SLOTS, CONTEXT) as server:
        time.sleep(SETTLE_SECONDS)
        rate = ["--rate", str(arguments.rate), "--requests", "20"]
        load = loaded(server, arguments, 1000 * number + 600, [*BURST, *rate])
        yield "the same, staggered, p95 to first token, s", load["ttft_ms"]["p95"] / 1e3


def gap(contender, number, arguments):
    with Running(contender, FEW_SLOTS, LONG_CONTEXT) as server:
        time.sleep(SETTLE_SECONDS)
        found = gaps(server)
    yield "stream alone, median gap, ms", found.alone_ms
    yield "beside a prompt of 4,096, median gap, ms", found.median_ms
    yield "beside a prompt of 4,096, longest gap, ms", found.longest_ms
    yield "longest by median beside the prompt, ratio", found.longest_ms / found.median_ms
    yield "longest by median alone, ratio", found.longest_ms / found.alone_ms
    yield "that prompt's first token, s", found.first_token_seconds


def start(contender, number, arguments):
    # The first start of all packs weights or reads them from disk.
    if number == 0:
        with Running(contender, SLOTS, CONTEXT):
            pass
    with Running(contender, SLOTS, CONTEXT) as server:
        yield "start of the process to first token, s", server.start_seconds
        yield "memory then, MiB", server.memory_mib()


GROUPS = {
    "engine": engine,
    "streams": streams,
    "burst": burst,
    "staggered": staggered,
    "gap": gap,
    "start": start,
}


def loaded(server, arguments, seed, load):
    """What `cluster bench serve` says of a server, with prompts that it has not seen."""
    command = [arguments.cluster, "bench", "serve", "--url", server.url, "--seed", str(seed), "--json", *load]
    found = output_of(command, {})
    if found["failed"]:
        raise SystemExit(f"{server.name}: {found['failed']} requests failed: {found['first_error']}")
    return found
