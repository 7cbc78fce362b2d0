"""The figures of a study, the PDF of all its tables and figures, and its report."""

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from pqag.job import records

from ..audit.browser import Browser
from ..conftest import run_study

FIGURES = {
    *(f"figure{number}_synthetic_{model}" for number in (1, 3, 4) for model in ("alexnet", "vgg16")),
    *(f"figure5_synthetic_{model}_{kind}" for model in ("alexnet", "vgg16") for kind in ("SDC", "ADC")),
    *(f"{what}_synthetic_{model}" for what in ("sweep", "table3") for model in ("alexnet", "vgg16")),
    "table4_synthetic",
}


@pytest.mark.parametrize(("suffix", "head"), [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_every_figure_is_there(study, suffix, head):
    found = {path.stem: path for path in (study[0] / "results/tiny/figures").glob(f"*{suffix}")}
    assert set(found) == FIGURES
    assert all(path.read_bytes().startswith(head) for path in found.values())


def test_one_pdf_has_every_table_and_figure(study, tmp_path):
    if shutil.which("pdflatex") is None:
        assert "REQUIRE_LATEX" not in os.environ, "pdflatex is wanted here, but not installed"
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    paper = study[0] / "results/tiny/paper.pdf"
    assert paper.read_bytes().startswith(b"%PDF")
    used = {Path(name).name for name in records.dependencies(records.read(paper.with_name("paper.prov.json")), "input")}
    assert used == {f"{name}.pdf" for name in FIGURES} | {f"table{number}.tex" for number in (1, 3, 4)}
    log = (study[0] / "results/tiny/logs/paper.log").read_text().replace("\n", "")  # it breaks lines within names
    for name in used:
        assert name in log, "pdflatex names each file that it reads"
    assert "Overfull" not in log


def test_the_report_opens_in_a_browser_with_every_table_and_figure(study, tmp_path):
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        assert "REQUIRE_CHROMIUM" not in os.environ, "Chromium is wanted here, but not installed"
        pytest.skip("Chromium is not installed")
    with zipfile.ZipFile(study[0] / "results/tiny/report.zip") as report:
        report.extractall(tmp_path)
    [page] = tmp_path.rglob("report.html")
    pictures = {path.stem for path in page.parent.rglob("*.png")}
    assert pictures >= FIGURES
    browser = Browser(program, tmp_path / "profile")
    try:
        shown = browser.open(page.as_uri())
        text = shown.evaluate("document.body.innerText")
        assert "Tables" in text and "Figures" in text
        # Snakemake's page bears a style sheet that warns against its own use; what counts are errors.
        assert [one for one in shown.complaints if one.get("type") != "warning"] == []
    finally:
        browser.close()


@pytest.mark.slow
def test_with_several_seeds_every_table_has_mean_and_deviation(tmp_path, tiny):
    small = tiny | {"attacks": {"aod": {"loss": "aod", "iterations": 1}}, "training": {"epochs": 1, "batch_size": 100}}
    folder, _ = run_study(tmp_path, small | {"seeds": [0, 1, 2], "figures": {"models": []}})
    for number, cells in ((1, 8), (3, 8), (4, 12)):
        text = (folder / f"results/tiny/tables/table{number}.txt").read_text()
        assert len(re.findall(r"\d\.\d ± \d+\.\d", text)) == cells, text
        assert "Mean ± standard deviation over seeds 0, 1, 2." in " ".join(text.split())
    tex = shutil.which("pdflatex") and (folder / "results/tiny/tables/table3.tex").read_text()
    if tex:
        (tmp_path / "a.tex").write_text("\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + tex + "\\end{document}")
        done = subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
