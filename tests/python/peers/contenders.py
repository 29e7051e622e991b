"""Who is measured: how each is started, and how its engine is measured alone where it has a command for that."""

import json
import os
import subprocess


class Ours:
    name = "ours"

    def __init__(self, cluster, model, threads, folder):
        self.cluster, self.model, self.threads, self.folder = cluster, model, threads, folder
        # Weights are packed by the first start and stay for the others.
        self.environment = {"CLUSTER_STORE": f"{folder}/store"}

    def command(self, port, slots, context):
        """Slots and contexts are what a node plans for itself."""
        listen = ["--http", f"127.0.0.1:{port}", "--data-dir", f"{self.folder}/node"]
        return [self.cluster, "up", "--no-auth", *listen, "--model", self.model, "--threads", str(self.threads)]

    def engine(self, prompt_tokens, output_tokens):
        """Tokens a second of a prompt, and of one stream behind it."""
        sizes = ["--prompt-tokens", str(prompt_tokens), "--output-tokens", str(output_tokens), "--batch", "1"]
        command = [self.cluster, "bench", "engine", "--model", self.model, "--threads", str(self.threads), *sizes]
        row = output_of([*command, "--rounds", "1", "--json"], self.environment)["rows"][0]
        return row["prefill_tokens_per_sec"]["median"], row["decode_tokens_per_sec"]["median"]


class LlamaCpp:
    name = "llama.cpp"
    environment = {}

    def __init__(self, folder, model, threads):
        self.folder, self.model, self.threads = folder, model, str(threads)

    def command(self, port, slots, context):
        server = [f"{self.folder}/llama-server", "-m", self.model, "--host", "127.0.0.1", "--port", str(port)]
        threads = ["-t", self.threads, "-tb", self.threads]
        batches = ["-np", str(slots), "-c", str(slots * context), "-b", "2048", "-ub", "512"]
        # Prompts that it has seen would be kept, which ours are not either (each is another).
        return [*server, *threads, *batches, "--cache-ram", "0"]

    def engine(self, prompt_tokens, output_tokens):
        """Its stream has nothing before it."""
        sizes = ["-p", str(prompt_tokens), "-n", str(output_tokens), "-r", "1"]
        command = [f"{self.folder}/llama-bench", "-m", self.model, "-t", self.threads, *sizes, "-o", "json"]
        prompt, stream = output_of(command, self.environment)
        return prompt["avg_ts"], stream["avg_ts"]


class Server:
    """Any other one. What its engine does alone is measured over HTTP."""

    environment = {}
    engine = None

    def __init__(self, name, command):
        self.name, self.template = name, command

    def command(self, port, slots, context):
        return ["bash", "-c", "exec " + self.template.replace("{port}", str(port))]


def output_of(command, environment):
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{ran.stderr[-2000:]}")
    return json.loads(ran.stdout)
