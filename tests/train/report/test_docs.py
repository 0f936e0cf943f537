"""The results in the documentation are those that are kept beside them."""

import pytest

from train.__main__ import main
from train.report.outcomes import from_json, to_json
from train.report.page import page
from train.report.write import ROOT, readme, write_docs

from .made import outcome, report

RENEW = "run `python -m train report --renew`"
KEPT = ROOT / "docs" / "results.json"


def test_the_page_is_made_of_the_kept_numbers():
    made = page(from_json(KEPT.read_text()), picture="results.png")
    assert (ROOT / "docs" / "results.md").read_text() == made, RENEW


def test_so_is_the_table_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert readme(from_json(KEPT.read_text()), text) == text, RENEW


def test_the_pages_are_written_anew_from_the_kept_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.report.write.ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.json").write_text(to_json(report(outcome("cnn", 0.2))))
    (tmp_path / "README.md").write_text("<!-- results: begin -->\n<!-- results: end -->\n")
    assert main(["report", "--renew"]) == 0
    assert "| CNN alone |" in (tmp_path / "docs" / "results.md").read_text()
    assert f"written: {tmp_path / 'README.md'}" in capsys.readouterr().out


def test_a_checkout_gets_all_of_it_or_nothing(tmp_path):
    made = report(outcome("cnn", 0.2), outcome("cnn", 0.3, side="pytorch"))
    (tmp_path / "README.md").write_text("before\nafter\n")
    with pytest.raises(ValueError, match=r"README.md must hold <!-- results: begin --> and"):
        write_docs(made, tmp_path)
    assert not (tmp_path / "docs").exists()
    (tmp_path / "README.md").write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    names = [path.relative_to(tmp_path).as_posix() for path in write_docs(made, tmp_path)]
    assert names == ["docs/results.md", "docs/results.png", "docs/results.json", "README.md"]
    text = (tmp_path / "README.md").read_text()
    assert "| CNN alone | 1 | 0.200 | 0.300 | 0.970 | 0.900 | 0.900, class activation |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
