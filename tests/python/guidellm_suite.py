"""guidellm, unchanged, loads a running server.

    python guidellm_suite.py BASE_URL KEY MODEL TOKENIZER

TOKENIZER is a folder with the model's tokenizer. `tests/clients.rs` installs the client, starts the server and runs this.
"""

import json
import subprocess
import sys

import transformers

from suite import BASE_URL, KEY, MODEL, run_tests

(TOKENIZER,) = sys.argv[4:]
REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 4, 40, 8


def run(request_format):
    """The requests of a run with synthetic prompts, as guidellm reports them."""
    report = f"report{request_format.replace('/', '-')}.json"
    backend = f"kind=openai_http,target={BASE_URL.removesuffix('/v1')},api_key={KEY},request_format={request_format}"
    settings = {
        "backend": backend,
        "profile": "kind=concurrent,streams=2",
        "constraint": f"kind=max_requests,count={REQUESTS}",
        "data": f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={OUTPUT_TOKENS}",
        "tokenizer": f"kind=huggingface_auto,model={TOKENIZER}",
        "output": f"kind=json,path={report}",
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    subprocess.run(["guidellm", "run", *options, "--disable-console"], check=True)
    with open(report, encoding="utf-8") as file:
        (benchmark,) = json.load(file)["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"], totals["incomplete"]) == (REQUESTS, 0, 0), totals
    return benchmark["requests"]["successful"]


def body_of(request):
    return json.loads(request["request_args"])["body"]


def check(requests, prompt_tokens):
    for request in requests:
        assert body_of(request)["model"] == MODEL  # taken from /v1/models
        assert request["prompt_tokens"] == prompt_tokens(request), request
        assert request["output_tokens"] == OUTPUT_TOKENS, request
        assert request["output"], request


def test_completions_have_the_tokens_that_were_asked_for():
    check(run("/v1/completions"), lambda request: PROMPT_TOKENS)


def test_chats_have_them_within_their_template():
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)

    def templated(request):
        (message,) = body_of(request)["messages"]
        (part,) = message["content"]
        assert len(tokenizer(part["text"])["input_ids"]) == PROMPT_TOKENS, request
        messages = [{"role": "user", "content": part["text"]}]
        return len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])

    check(run("/v1/chat/completions"), templated)


if __name__ == "__main__":
    run_tests(globals())
