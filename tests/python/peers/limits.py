"""What the machine allows, and what share of it a model's tokens take."""

from contenders import output_of

# Of the best instructions that a CPU has, the first. Quantised weights are products by blocks of 32 with a scale each.
PEAKS = {
    "bf16": ["bf16_tiles", "bf16", "fma_zmm", "fma_ymm"],
    "quantised": ["int8_tiles", "int8_scaled", "maddubs_ymm"],
}


class Limits:
    def __init__(self, binary, threads, model):
        self.command = [binary, str(threads)]
        self.stream_bytes, self.prompt_operations, self.format = sizes(model)

    def measured(self):
        return output_of(self.command, {})

    def peak(self, measured):
        """Its name, and GOP/s."""
        return next((name, measured[key]) for name in PEAKS[self.format] if (key := f"{name}_gop_per_sec") in measured)

    def share_of_reading(self, tokens_per_sec, measured):
        return tokens_per_sec * self.stream_bytes / 1e9 / measured["read_gb_per_sec"]

    def share_of_peak(self, tokens_per_sec, measured):
        """Attention, and inputs that are seen in two terms, are not counted."""
        return tokens_per_sec * self.prompt_operations / 1e9 / self.peak(measured)[1]


def sizes(model):
    """Bytes of weights that each token of a stream reads, operations of each token of a prompt, and how weights are multiplied."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise SystemExit("`pip install gguf`: what a model reads for a token is looked up with it") from None
    matrices = {tensor.name: tensor for tensor in GGUFReader(model).tensors if len(tensor.shape) == 2}
    embedding = matrices.pop("token_embd.weight")
    output = matrices.pop("output.weight", embedding)
    layers = list(matrices.values())
    quantised = any(tensor.tensor_type.name.startswith("Q") for tensor in layers)
    stream_bytes = sum(int(tensor.n_bytes) for tensor in [*layers, output])
    return stream_bytes, 2 * sum(int(tensor.n_elements) for tensor in layers), "quantised" if quantised else "bf16"
