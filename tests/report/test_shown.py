"""The report as a page and as Markdown."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from torch_ref.report.page import run_html
from torch_ref.report.tables import case_table, class_table, in_markdown, run_markdown


class Reader(HTMLParser):
    """Collects what a page links to, its text, and whether its elements close."""

    VOID = ("meta", "path", "use", "rect", "circle")

    def __init__(self):
        super().__init__()
        self.open, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="session")
def page(run):
    reader = Reader()
    reader.feed(run_html(run))
    return reader


def test_the_page_is_whole_and_needs_nothing_else(page):
    assert page.open == []
    assert all(link.startswith("#") for link in page.links)


def test_the_page_shows_cases_versions_and_hardware(page, run):
    text = " ".join(page.text)
    for shown in (*[case.name for case in run.cases], run.hardware, *run.versions.values(), *run.options.dtypes):
        assert shown in text
    assert "every case within its tolerance" in text


def test_the_page_says_what_failed(run):
    case = run.cases[1]
    rows = [replace(row, error=float("nan")) if row.path == "conv.bias" else row for row in case.rows]
    html = run_html(replace(run, cases=[run.cases[0], replace(case, rows=rows, finding="first differs: <conv>")]))
    assert "first differs: &lt;conv&gt;" in html
    assert "problems" in html
    assert 'class="failed"' in html


def test_every_table_row_has_as_many_cells_as_the_head(run):
    for table in (class_table(run), case_table(run, "float64"), case_table(run, "bfloat16")):
        assert len({line.count("|") for line in in_markdown(table).splitlines()}) == 1


def test_markdown_holds_the_figures(run):
    text = run_markdown(run)
    worst = run.cases[1].worst("float64", ["output"])
    assert f"{worst.error:.0e}" in text
    assert re.search(r"\| ChannelPool \| .* \| - \|", text)
