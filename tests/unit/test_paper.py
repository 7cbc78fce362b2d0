"""The document of all tables and figures."""

import os
import re
import shutil
from pathlib import Path

import pytest

from pqag.errors import UserError
from pqag.show import paper

ROOT = Path(__file__).parents[2]


def needs_pdflatex():
    if shutil.which("pdflatex") is None:
        assert "REQUIRE_LATEX" not in os.environ, "pdflatex is wanted here, but not installed"
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")


def test_tables_keep_the_papers_numbers_and_figures_are_named_as_its():
    text = paper.document("a_study", ["vgg16"], ["table1.tex", "table4.tex"], ["figure5_a_vgg16_SDC.pdf", "sweep_a_vgg16.pdf"])
    assert r"\setcounter{table}{0}\input{table1.tex}" in text and r"\setcounter{table}{3}\input{table4.tex}" in text
    assert r"study a\_study" in text and "Networks: VGG16." in text
    first, second = (line for line in text.splitlines() if "includegraphics" in line)
    assert "{figure5_a_vgg16_SDC.pdf}" in first and "The paper's Figure 5" in first
    assert "{sweep_a_vgg16.pdf}" in second and "strength" in second


def test_every_figure_of_the_workflow_has_a_caption():
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    stems = set(re.findall(r"<results>/figures/(\w+?)_\{", rules)) | {f"table{number}" for number in (3, 4, 5, 6)}
    assert {"figure1", "sweep", "distortion"} < stems
    for stem in stems:
        assert r"\caption{}" not in paper.document("s", ["vgg16"], [], [f"{stem}_a_vgg16.pdf"])


def test_the_same_text_is_the_same_pdf_in_any_folder(tmp_path):
    needs_pdflatex()
    made = []
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table1.tex").write_text(r"\begin{table}\caption{x}\end{table}")
        made.append(paper.set_in(tmp_path / name, paper.document("s", ["vgg16"], ["table1.tex"], []))[0])
    assert made[0] == made[1] and made[0].startswith(b"%PDF")


def test_what_pdflatex_does_not_take_is_a_sentence_and_where_there_is_none_what_to_install(tmp_path, monkeypatch):
    needs_pdflatex()
    with pytest.raises(UserError, match="pdflatex does not take the tables and figures: ! .*table9.tex"):
        paper.set_in(tmp_path, paper.document("s", ["vgg16"], ["table9.tex"], []))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="texlive-latex-recommended"):
        paper.set_in(tmp_path, "")
