"""aiperf, unchanged, loads a running server.

    python aiperf_suite.py BASE_URL KEY MODEL TOKENIZER

TOKENIZER is the name by which the model's tokenizer is found in Hugging Face's cache. `tests/clients.rs` installs the
client, starts the server and runs this.
"""

import json
import subprocess
import sys

from suite import BASE_URL, KEY, MODEL, run_tests

(TOKENIZER,) = sys.argv[4:]
REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 4, 40, 8


def run(endpoint, *more):
    """The summary of a run with synthetic prompts, and a record for each request."""
    settings = {
        "model": MODEL,
        "url": BASE_URL.removesuffix("/v1"),
        "api-key": KEY,
        "endpoint-type": endpoint,
        "tokenizer": TOKENIZER,
        "prompt-input-tokens-mean": PROMPT_TOKENS,
        "prompt-input-tokens-stddev": 0,
        "prompt-output-tokens-mean": OUTPUT_TOKENS,
        "prompt-output-tokens-stddev": 0,
        "request-count": REQUESTS,
        "concurrency": 2,
        "random-seed": 7,
        "output-artifact-dir": endpoint,
        "ui": "none",
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    # Greedy, so that every run counts the same tokens.
    inputs = ["ignore_eos:true", f"min_tokens:{OUTPUT_TOKENS}", "temperature:0"]
    extra = [part for value in inputs for part in ("--extra-inputs", value)]
    subprocess.run(["aiperf", "profile", *options, *extra, "--streaming", "--no-gpu-telemetry", *more], check=True)
    with open(f"{endpoint}/profile_export_aiperf.json", encoding="utf-8") as file:
        summary = json.load(file)
    with open(f"{endpoint}/profile_export.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return summary, records


def check(summary, records):
    assert summary["is_complete"] and not summary["error_summary"], summary["error_summary"]
    assert summary["request_count"]["avg"] == len(records) == REQUESTS
    for record in records:
        assert not record.get("error"), record
        value = {name: metric["value"] for name, metric in record["metrics"].items()}
        assert value["usage_prompt_tokens"] == PROMPT_TOKENS, value
        assert value["usage_completion_tokens"] == OUTPUT_TOKENS, value
        # Counted by aiperf with the tokenizer: text may have fewer tokens than it was sampled in.
        assert 1 <= value["output_sequence_length"] <= OUTPUT_TOKENS, value


def test_completions_have_the_tokens_that_were_asked_for():
    summary, records = run("completions")
    check(summary, records)
    assert summary["usage_discrepancy_count"]["avg"] == 0, summary["usage_discrepancy_count"]


def test_chats_have_them_together_with_their_template():
    check(*run("chat", "--apply-chat-template"))


if __name__ == "__main__":
    run_tests(globals())
