"""bench.json as text: the claims, each with its number and its bound."""

from typing import Any

from experiments.framework.tables import text_table

FASTER = {(64, 29): 3, (512, 29): 5, (64, 180): 5, (1, 3_000): 10}
"""By what factor the pair energy should beat the plain formula, forward and backward; machines differ by two."""


def claims(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What should hold, what was measured, and whether it does. Claims whose size was not measured are left out."""
    parts = result["parts"]
    rows: list[tuple[str, float, str, float]] = []
    for row in parts["losses"]:
        size = row["batch"], row["atoms"]
        name = f"{size[0]} x {size[1]:,}"
        if size in FASTER:
            rows.append((f"{name}: faster than the plain formula", row["plain_over_pair"], ">=", FASTER[size]))
        if size == (64, 29) and "height_over_pair" in row:  # files of before it was measured
            rows.append((f"{name}: heights over the pair energy", row["height_over_pair"], "<=", 3))
        if size == (64, 180):
            rows.append((f"{name}: ns a pair", row["pair_nanoseconds_a_pair"], "<=", 8))
        if size == (1, 30_000):
            rows.append((f"{name}: seconds", row["milliseconds"]["pair"] / 1e3, "<=", 10))
        rows.append((f"{name}: relative error of a value, float32", row["error"]["value"], "<=", 1e-5))
        rows.append((f"{name}: relative error of a force, float32", row["error"]["gradient"], "<=", 1e-5))
    for row in parts["memory"]["rows"]:
        if (row["loss"], row["atoms"]) == ("pair", 30_000):
            rows.append(("1 x 30,000: MB above an idle process", row["megabytes_above"], "<=", 1000))
    for row in parts["edges"]["rows"]:
        if row["points"] == 300_000:
            rows.append(("sparse, 300,000 points: seconds", row["milliseconds"]["sparse"] / 1e3, "<=", 0.2))
    rows.append(("sparse: fitted exponent", parts["edges"]["fitted_exponent"], "<=", 1.1))
    for row, bound in zip(parts["training"], (5, 1), strict=True):
        rows.append((f"{row['model']} model: loss in % of a step", 100 * row["loss_share"]["pair"], "<=", bound))
    return [
        {
            "claim": claim,
            "measured": f"{value:.3g}",
            "bound": f"{sign} {bound:g}",
            "holds": "yes" if (value >= bound if sign == ">=" else value <= bound) else "NO",
        }
        for claim, value, sign, bound in rows
    ]


def summary(result: dict[str, Any]) -> str:
    """All of it, for the terminal."""
    parts = result["parts"]
    losses = [{"batch x atoms": f"{row['batch']} x {row['atoms']:,}", **_times(row)} for row in parts["losses"]]
    edges = [{"points": f"{row['points']:,}", **_times(row)} for row in parts["edges"]["rows"]]
    memory = [
        {"loss": row["loss"], "size": f"{row['batch']} x {row['atoms']:,}", "MB": row["megabytes_above"]}
        for row in parts["memory"]["rows"]
    ]
    training = [
        {
            "model": row["model"],
            "batch": row["batch"],
            "steps a second": row["steps_a_second"]["pair"],
            "loss, ms": row["loss_milliseconds"]["pair"],
            "share": f"{100 * row['loss_share']['pair']:.2g} %",
        }
        for row in parts["training"]
    ]
    # JSON sorts keys; the page is the same from what was measured and from what was read back.
    batches = [
        {
            "order": row["order"],
            "batch": row["batch"],
            "padding": f"{100 * row['padding_share']:.3g} %",
            "ms to make one": row["milliseconds_a_batch"],
        }
        for row in parts["batches"]
    ]
    roofline = parts["roofline"]
    lines = [
        "What should hold, and what was found:", text_table(claims(result)),
        "Milliseconds, forward and backward:", text_table(losses),
        "Milliseconds with sparse edges:", text_table(edges),
        "Peak memory above an idle process:", text_table(memory),
        "Training with the pair energy:", text_table(training),
        "Batches of QM9:", text_table(batches),
        f"Sampling: {parts['sampling']['molecules_a_second']:g} molecules a second; "
        f"ground states: {parts['ground_states']['ground_states_a_second']} a second.",
        f"The machine: {roofline['bytes_a_second_from_memory'] / 1e9:.3g} GB/s from memory; exp and two rsqrt "
        f"{roofline['pair_nanoseconds_for_exp_and_rsqrt']:g} ns a pair, all passes in cache "
        f"{roofline['pair_nanoseconds_in_passes']:g} ns; the plain formula needs "
        f"{roofline['plain_nanoseconds_for_memory']:g} ns for its traffic alone.",
    ]  # fmt: skip
    return "\n\n".join([*lines, *_scale(parts), *_peers(parts)])


def _scale(parts: dict[str, Any]) -> list[str]:
    """Against size: the largest sizes, the exponents, and what they say about where to switch."""
    if "scale" not in parts:  # files of before it was measured
        return []
    scale, rows = parts["scale"], []
    for name, curve in sorted(scale["curves"].items()):
        first, last = curve["rows"][0], curve["rows"][-1]
        rows.append(
            {
                "what": name,
                "sizes": f"{first['size']:,} to {last['size']:,}",
                "seconds at the largest": f"{last['seconds']:.3g}",
                "MB of tensors": f"{last['megabytes']:.3g}",
                "exponent": "" if curve["exponent"] is None else curve["exponent"],
            }
        )
    found = scale["sparse_from_points"]
    switch = (
        "took no less time than all pairs at any size" if found is None else f"take less time from {found:,} points on"
    )
    processes = scale["processes"]
    return [
        "Time against size (points, molecules, spins, atoms), exponents of the upper half:",
        text_table(rows),
        f"Where to switch: sparse springs of degree 6 {switch}. Two processes (Fabric's DDP over gloo, a thread and a "
        f"batch of 32 each) make {processes['efficiency']:.0%} of twice the molecules a second of one: more machines "
        "are for batches that one cannot hold or is too slow with, not for the small networks here.",
    ]


def _peers(parts: dict[str, Any]) -> list[str]:
    rows = [
        {
            "peer": row["peer"],
            "what": row["what"],
            "ours, ms": f"{row['milliseconds']['ours']:.3g}" if row["installed"] else "",
            "theirs, ms": f"{row['milliseconds']['theirs']:.3g}" if row["installed"] else "not installed",
            "theirs / ours": row.get("theirs_over_ours", ""),
            "answers differ by": row.get("difference", ""),
        }
        for row in parts.get("peers", [])
    ]
    return ["Peers, one thread:", text_table(rows)] if rows else []


BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def with_results(page: str, result: dict[str, Any]) -> str:
    """The page with these results between its marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    made = (
        f"{result['device']}, {result['threads']} thread; torch {result['versions']['torch']}, Python "
        f"{result['versions']['python']}; made by `make bench` in {result['seconds'] / 60:.1f} minutes."
    )
    return f"{before}{BEGIN}\n{made}\n\n{summary(result)}\n{END}{after}"


def _times(row: dict[str, Any]) -> dict[str, str]:
    return {name: f"{value:.3g}" for name, value in sorted(row["milliseconds"].items())}
