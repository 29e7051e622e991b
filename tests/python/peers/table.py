"""Rounds as a table in Markdown."""

from statistics import median


def table(names, rounds, limits):
    lines = [row(["", *names, "ours ÷ best peer", "of the limit"]), row(["---"] * (len(names) + 3))]
    for cell in dict.fromkeys(cell for values in rounds for cell in values["cells"]):
        values = {name: [found["cells"][cell][name] for found in rounds if cell in found["cells"]] for name in names}
        spans = [span(values[name]) for name in names]
        lines.append(row([cell, *spans, ratio(cell, values), share(cell, rounds, limits)]))
    return "\n".join([*lines, "", allowed(rounds, limits)])


def row(columns):
    return "| " + " | ".join(columns) + " |"


def span(values):
    return " / ".join(number(value) for value in (min(values), median(values), max(values)))


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(cell, values):
    """Of medians. The best peer has the most tokens a second, or the least of anything else."""
    ours, *peers = (median(found) for found in values.values())
    if not peers or cell.endswith("ratio"):
        return ""
    best = max(peers) if cell.endswith("tok/s") else min(peers)
    return f"{ours / best:.2f}"


def share(cell, rounds, limits):
    """In the middle of the rounds, of what was measured just before each."""
    of_limit = {"one stream, tok/s": limits.share_of_reading, "prompt of 512, tok/s": limits.share_of_peak}.get(cell)
    if of_limit is None:
        return ""
    return f"{median(of_limit(found['cells'][cell]['ours'], found['limits']['engine']) for found in rounds):.2f}"


def allowed(rounds, limits):
    measured = [found for values in rounds for found in values["limits"].values()]
    reads = [found["read_gb_per_sec"] for found in measured]
    peaks = [limits.peak(found)[1] for found in measured]
    return (
        f"The machine reads {span(reads)} GB/s and makes {span(peaks)} GOP/s ({limits.peak(measured[0])[0]}). "
        f"A token of a stream reads {limits.stream_bytes / 1e9:.3f} GB of weights, one of a prompt takes "
        f"{limits.prompt_operations / 1e9:.3f} GOP of products."
    )
