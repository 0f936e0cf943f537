"""The report as one self-contained HTML page."""

import io
from html import escape

from flax_attn.testing.tolerances import RATIOS, UNITS

from .run import ParityRun
from .tables import case_table, in_html, quantities

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1c2733; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid #dde3ea; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { position: sticky; top: 0; background: #fff; }
.failed { color: #b3261e; font-weight: 600; }
.scroll { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
""".strip()

COLOURS = {
    "output": "#0b6e99",
    "map": "#8a5cc2",
    "parameter gradient": "#d1701c",
    "input gradient": "#3b8f4a",
    "buffer": "#b0417a",
    "loss": "#555555",
    "trained parameter": "#b58900",
    "trained buffer": "#7a4b2b",
}


def run_html(run: ParityRun) -> str:
    """The page. Needs matplotlib."""
    problems = run.problems()
    verdict = f"{len(problems)} problems" if problems else "every case within its tolerance"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>flax_attn parity on {escape(run.platform)}</title><style>{STYLE}</style></head><body>",
        f"<h1>flax_attn against PyTorch: {escape(verdict)}</h1>",
        _facts(run),
        *(f'<p class="failed">{escape(line)}</p>' for line in problems),
        *(f'<p class="failed">{escape(case.name)}: {escape(case.finding)}</p>' for case in run.cases if case.finding),
    ]
    for dtype in run.options.dtypes:
        parts += [f"<h2>{dtype}</h2>", plot(run, dtype), in_html(case_table(run, dtype))]
    return "\n".join([*parts, "</body></html>"]) + "\n"


def plot(run: ParityRun, dtype: str) -> str:
    """An SVG: per case the largest error of each quantity, on a log scale; hollow is PyTorch's own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.2 + 0.22 * len(run.cases)), layout="constrained")
    axes = figure.add_subplot()
    floor = UNITS[dtype] / 16
    for quantity in quantities(run, dtype):
        rows = [(place, case.worst(dtype, [quantity])) for place, case in enumerate(run.cases)]
        shown = [(place, row) for place, row in rows if row is not None]
        places = [place for place, _ in shown]
        colour = COLOURS[quantity]
        axes.scatter([max(row.error, floor) for _, row in shown], places, s=22, color=colour, label=quantity, zorder=3)
        if dtype != "float64":
            own = [max(run.cases[place].torch_worst(dtype, [quantity]), floor) for place in places]
            axes.scatter(own, places, s=34, facecolors="none", edgecolors=colour, linewidths=0.9, zorder=2)
        for limit in {row.tolerance for _, row in shown}:
            axes.axvline(limit, color=colour, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_yticks(range(len(run.cases)), [case.name for case in run.cases], fontsize=8)
    axes.set_ylim(len(run.cases) - 0.5, -0.5)
    axes.grid(axis="both", color="#eef1f4")
    hollow = "" if dtype == "float64" else "; hollow: PyTorch's own"
    axes.set_xlabel(f"largest relative error against PyTorch's float64{hollow}; dotted: tolerance")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.4, -0.06 - 0.6 / len(run.cases)), ncols=4, fontsize=8, frameon=False
    )
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _facts(run: ParityRun) -> str:
    facts = {
        "hardware": f"{run.hardware} ({run.platform})",
        "precision of matrix products": run.options.precision,
        "versions": ", ".join(f"{name} {number}" for name, number in run.versions.items()),
        "compared": f"{len(run.cases)} cases, {sum(len(case.rows) for case in run.cases)} rows, {run.seconds:.0f} s",
    }
    for dtype in RATIOS:
        if dtype in run.options.dtypes:
            facts[f"{dtype}: our error over PyTorch's own"] = f"{run.mean_ratio(dtype):.2f} (geometric mean over cases)"
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in facts.items())
    return f'<div class="scroll"><table>{rows}</table></div>'
