"""The report: one HTML file with tables and SVG plots, which loads nothing from anywhere."""

from collections.abc import Mapping, Sequence
from html import escape

import pygal

from bench.results import BenchResult, Plot, Row

_WIDE = 20.0  # from this ratio of the greatest to the least on, an axis is logarithmic

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .2rem .6rem }
tr + tr { border-top: 1px solid #ddd } svg { max-width: 40rem; display: block }
"""


def page(results: Sequence[BenchResult], about: Mapping[str, str]) -> str:
    """Return the whole file."""
    facts = " · ".join(escape(one) for one in about.values())
    body = "".join(_section(result) for result in results)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Nabij: benchmarks</title>"
        f"<style>{_STYLE}</style><h1>Nabij: benchmarks</h1><p>{facts}</p>{body}</html>\n"
    )


def _section(result: BenchResult) -> str:
    heads = "".join(f"<th>{name}" for name in ("", *Row._fields[1:]))
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in result.rows)
    plots = "".join(_svg(plot) for plot in result.plots)
    return f"<h2>{escape(result.name)}</h2><table><tr>{heads}{rows}</table>{plots}"


def _svg(plot: Plot) -> str:
    heights = [y for curve in plot.curves.values() for _, y in curve]
    chart = pygal.XY(
        js=[],
        title=plot.title,
        x_title=plot.x,
        y_title=plot.y,
        explicit_size=False,
        logarithmic=min(heights) > 0 and max(heights) / min(heights) > _WIDE,
    )
    for name, curve in plot.curves.items():
        chart.add(name, curve)
    return str(chart.render(is_unicode=True, disable_xml_declaration=True))
