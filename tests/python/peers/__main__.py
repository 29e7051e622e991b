"""This program beside others, on this machine, with the same model file: what docs/benchmarks.md calls the table.

    cargo build --release && cargo build --release -p kernels --example limits
    python3 tests/python/peers --model MODEL.gguf --llama LLAMA_CPP/build/bin
    python3 tests/python/peers --model MODEL.gguf --llama … --cells engine,streams --rounds 5 --json rounds.json
    python3 tests/python/peers --model MODEL.gguf --server 'vllm=vllm serve MODEL --port {port} --dtype bfloat16'

In each round everybody is measured in turn, one at a time, and before it what the machine allows (`limits`). Peers are
what `--llama` names, a folder with `llama-bench` and `llama-server`, and any server with an OpenAI-compatible API. Prints
a table in Markdown: minimum / median / maximum of the rounds, and our median by the best peer's. Needs `gguf` (pip) to
know what a model reads for a token. Nothing else should run meanwhile.
"""

import argparse
import json
import sys
import tempfile

from cells import GROUPS
from contenders import LlamaCpp, Ours, Server
from limits import Limits
from table import table

BINARIES = "target/release"


def main():
    arguments = parsed()
    with tempfile.TemporaryDirectory() as folder:
        contenders = [Ours(arguments.cluster, arguments.model, arguments.threads, folder)]
        if arguments.llama:
            contenders.append(LlamaCpp(arguments.llama, arguments.model, arguments.threads))
        contenders += [Server(*server.split("=", 1)) for server in arguments.server]
        limits = Limits(arguments.limits, arguments.threads, arguments.model)
        rounds = []
        for number in range(arguments.rounds):
            rounds.append(measured(contenders, limits, number, arguments))
            if arguments.json:
                with open(arguments.json, "w") as file:
                    json.dump(rounds, file, indent=1)
    print(table([contender.name for contender in contenders], rounds, limits))


def parsed():
    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--cluster", default=f"{BINARIES}/cluster", help="our program [default: %(default)s]")
    parser.add_argument(
        "--limits", default=f"{BINARIES}/examples/limits", help="what measures the machine [default: %(default)s]"
    )
    parser.add_argument("--llama", metavar="DIR", help="llama.cpp's programs, built for this machine")
    parser.add_argument(
        "--server",
        metavar="NAME=COMMAND",
        action="append",
        default=[],
        help="another server, with {port} where its port goes; may be repeated",
    )
    parser.add_argument("--cells", type=groups, default=",".join(GROUPS), help="[default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="[default: %(default)s]")
    parser.add_argument("--threads", type=int, default=2, help="of each program [default: %(default)s]")
    parser.add_argument("--output-tokens", type=int, default=128, help="of each stream [default: %(default)s]")
    parser.add_argument("--rate", type=float, default=0.5, help="staggered requests a second [default: %(default)s]")
    parser.add_argument("--json", metavar="FILE", help="keep all values here, after each round")
    return parser.parse_args()


def groups(names):
    unknown = set(names.split(",")) - set(GROUPS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such cells: {', '.join(unknown)} (there are {', '.join(GROUPS)})")
    return names.split(",")


def measured(contenders, limits, number, arguments):
    """One round: limits by group, and values by cell and contender."""
    values = {"limits": {}, "cells": {}}
    for group in arguments.cells:
        values["limits"][group] = limits.measured()
        for contender in contenders:
            for cell, value in GROUPS[group](contender, number, arguments):
                values["cells"].setdefault(cell, {})[contender.name] = value
                print(f"round {number + 1}  {contender.name:12} {cell}: {value:.4g}", file=sys.stderr, flush=True)
    return values


if __name__ == "__main__":
    main()
