"""What one request's schema costs another request's tokens.

A canary, an unconstrained stream with a fixed seed, runs beside a neighbour: in turn a plain stream, and one of the same
length that has to follow a schema. Told is, for each schema, how much longer the canary's tokens took beside the second
than beside the first, as the median over the rounds of paired ratios. The canary's text must be the very same throughout.

    canary.py CASES.jsonl --url http://… --key … --rounds 5
    canary.py CASES.jsonl … --new       as often as it goes, a request whose schema was never seen before

Cases are those of schemas.py, or hostile ones: canary.py --hostile > CASES.jsonl
"""

import argparse
import http.client
import json
import statistics
import sys
import threading
import time


def hostile():
    chain = {str(index): {"$ref": f"#/$defs/{index + 1}"} for index in range(1000)}
    return {
        "enum of 8,000": {"enum": [f"value {index * 7919 % 8000}" for index in range(8000)]},
        "optional properties, 94 long texts": {
            "type": "object",
            "properties": {f"option_{index}": {"type": ["string", "null"], "maxLength": 2000} for index in range(94)},
        },
        "properties, 1,000": {"type": "object", "properties": {f"p{index}": {} for index in range(1000)}},
        "maxLength 100,000": {"type": "string", "minLength": 5000, "maxLength": 100000},
        "pattern with counts": {"type": "string", "pattern": "^([a-z]{1,90}[0-9]{1,90} ){200,900}$"},
        "pattern that looks back": {"type": "string", "pattern": "^[ -~]*a[ -~]{300}$"},
        "multiples of 0.01": {"type": "number", "multipleOf": 0.01, "minimum": 0},
        "references, 1,000 deep": {"$ref": "#/$defs/0", "$defs": {**chain, "1000": {"type": "string"}}},
        "recursion": {
            "$ref": "#/$defs/node",
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {"value": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
                    "required": ["value", "children"],
                    "additionalProperties": False,
                }
            },
        },
        "anyOf of 200 objects": {
            "anyOf": [
                {"type": "object", "properties": {f"k{index}": {"type": "string"}, "same": {"type": "integer"}}}
                for index in range(200)
            ]
        },
    }


PROMPT = "Once upon a time"


class Api:
    def __init__(self, arguments):
        self.host = arguments.url.removeprefix("http://")
        self.headers = {"content-type": "application/json", "authorization": f"Bearer {arguments.key}"}
        self.model = arguments.model

    def open(self, body):
        connection = http.client.HTTPConnection(self.host, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps({"model": self.model, **body}), self.headers)
        return connection, connection.getresponse()

    def stream(self, body):
        """When each chunk came, and its text."""
        connection, answer = self.open({**body, "stream": True})
        try:
            if answer.status != 200:
                raise ValueError(answer.read().decode()[:300])
            for line in answer:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise ValueError(event["error"]["message"])
                    if event["choices"]:
                        yield time.monotonic(), event["choices"][0]["text"]
        finally:
            connection.close()


class Neighbour(threading.Thread):
    """Writes until it is told to stop; begins again when it comes to an end."""

    def __init__(self, api, body):
        super().__init__(daemon=True)
        self.api, self.body = api, body
        self.begun, self.stopped = threading.Event(), threading.Event()
        self.requests, self.problem = 0, ""

    def run(self):
        while not self.stopped.is_set():
            try:
                for _ in self.api.stream(self.body(self.requests)):
                    self.begun.set()
                    if self.stopped.is_set():
                        return
            except (OSError, ValueError) as problem:
                # Being refused, or ended for the work it takes, is a load as well.
                self.problem = f" ({str(problem)[:120]})"
                time.sleep(0.1)
            self.requests += 1
            self.begun.set()


def wrapped(schema):
    """A list of many, so that it does not end before the canary."""
    schema = dict(schema)
    shared = {key: schema.pop(key) for key in ("$schema", "$id", "$defs", "definitions") if key in schema}
    if json.dumps(schema).count('"#"'):
        return None
    return {**shared, "type": "array", "items": schema, "minItems": 400}


def canary(api, arguments, body):
    """Its gaps in milliseconds, its text, and what its neighbour met with."""
    neighbour = Neighbour(api, body) if body else None
    if neighbour:
        neighbour.start()
        neighbour.begun.wait(120)
    asked = {"prompt": PROMPT, "max_tokens": arguments.tokens, "temperature": 0.7, "seed": 5, "ignore_eos": True}
    chunks = list(api.stream(asked))
    if neighbour:
        neighbour.stopped.set()
        neighbour.join()
    times = [moment for moment, _ in chunks]
    gaps = [(after - before) * 1e3 for before, after in zip(times, times[1:])]
    return gaps, "".join(text for _, text in chunks), neighbour.problem if neighbour else ""


def p95(values):
    return sorted(values)[int(len(values) * 0.95)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="?")
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--url")
    parser.add_argument("--key", default="")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--new", action="store_true")
    arguments = parser.parse_args()
    if arguments.hostile:
        for name, schema in hostile().items():
            print(json.dumps({"name": name, "schema": schema}))
        return
    api = Api(arguments)
    free = {"prompt": PROMPT, "temperature": 0.8, "seed": 9, "max_tokens": 1 if arguments.new else 4 * arguments.tokens}

    def plain(index):
        return {**free, "ignore_eos": True}

    alone, text, _ = canary(api, arguments, None)
    print(f"alone: median {statistics.median(alone):.1f} ms, p95 {p95(alone):.1f} ms")
    print("median ×   p95 ×   beside a plain one: median, p95 ms; beside the schema   (ratios: medians over pairs)")
    changed, medians, tails = [], [], []
    for case in map(json.loads, open(arguments.cases, encoding="utf-8")):
        schema = case["schema"] if arguments.new else wrapped(case["schema"])
        if schema is None:
            continue

        def constrained(index):
            asked = {**schema, "$comment": f"{time.monotonic()} {index}"} if arguments.new else schema
            return {**free, "structured_outputs": {"json": asked}}

        # Compiled once before anything counts, but for what is to be new each time.
        problem = canary(api, arguments, constrained)[2]
        pairs = []
        for turn in range(arguments.rounds):
            order = [plain, constrained] if turn % 2 == 0 else [constrained, plain]
            measured = {body: canary(api, arguments, body) for body in order}
            changed += [case["name"] for _, said, _ in measured.values() if said != text]
            pairs.append((measured[plain][0], measured[constrained][0]))
        ratio = lambda figure: statistics.median(figure(beside) / figure(base) for base, beside in pairs)
        base = [gap for gaps, _ in pairs for gap in gaps]
        beside = [gap for _, gaps in pairs for gap in gaps]
        median, tail = ratio(statistics.median), ratio(p95)
        medians.append(median)
        tails.append(tail)
        print(
            f"{median:7.2f} {tail:7.2f}   {statistics.median(base):6.1f} {p95(base):6.1f} {statistics.median(beside):8.1f}"
            f" {p95(beside):6.1f}   {case['name']}{problem}",
            flush=True,
        )
    if medians:
        print(
            f"over {len(medians)} schemas: median × {statistics.median(medians):.3f} (worst {max(medians):.3f}),"
            f" p95 × {statistics.median(tails):.3f} (worst {max(tails):.3f})"
        )
    print("the canary wrote the same text throughout" if not changed else f"TEXT CHANGED beside {changed}")
    sys.exit(1 if changed else 0)


if __name__ == "__main__":
    main()
