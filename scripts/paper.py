"""All tables and figures in one PDF, by pdflatex."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from pqag import files
from pqag.errors import UserError
from pqag.figures import MODEL_NAMES
from pqag.step import log, step
from pqag.tables import escape_latex

#: By the first word of its file's name: what a figure shows. Its title says of which data set and victim.
CAPTIONS = {
    "figure1": "The paper's Figure 1: one query, its perturbation, the adversarial query, and what both retrieve by ADC.",
    "figure3": "The paper's Figure 3: centroid distribution (Eq. 7) of the first sub-vector before and after each attack.",
    "figure4": "The paper's Figure 4: the first ten images retrieved by ADC, clean and after each attack.",
    "figure5": "The paper's Figure 5: precision-recall curves, means over the queries, relevant items of a tie spread evenly over it.",
    "sweep": "mAP against the strength of each attack.",
    "table3": "Table 3 as a heat map.",
    "table4": "Table 4 as a heat map.",
}
WORDS = (
    "Tables have the numbers that they have in the paper. Single queries stand at quantiles of what average precision (ADC) loses by the"
    " attack that the config names; tied images are in the order of the database; a border and a cross mark what shares no label with the"
    " query."
)
HEAD = r"""\pdftrailerid{}\pdfsuppressptexinfo=-1
\documentclass[a4paper]{article}
\usepackage[margin=1.4cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
\suppressfloats[t]
\section*{%s}
%s
"""


def body(tables, figures, folder):
    """The LaTeX of all tables, then of all figures, whose files are copied into ``folder``."""
    for path in tables:
        shutil.copy(path, folder)
        number = int(Path(path).stem.removeprefix("table"))
        yield f"\\setcounter{{table}}{{{number - 1}}}\\input{{{Path(path).name}}}\n"
    yield "\\clearpage\n"
    for path in figures:
        shutil.copy(path, folder)
        words = CAPTIONS[re.match(r"[a-z]+\d*", Path(path).name)[0]]
        yield f"\\begin{{figure}}[htbp]\\centering\\includegraphics{{{Path(path).name}}}\\caption{{{escape_latex(words)}}}\\end{{figure}}\n"
        yield "\\clearpage\n" if "figure4" in path else ""


with step(snakemake) as settings, tempfile.TemporaryDirectory() as folder:
    if shutil.which("pdflatex") is None:
        raise UserError(
            "paper.pdf needs pdflatex with booktabs (Debian: texlive-latex-recommended); tables/ and figures/ have all that is in it"
        )
    networks = ", ".join(MODEL_NAMES[model] for model in settings["models"])
    title = f"PQ-AG recomputed: the study {settings['study']}"
    head = HEAD % tuple(map(escape_latex, (title, f"Networks: {networks}. {WORDS}")))
    text = head + "".join(body(snakemake.input.tables, snakemake.input.figures, folder)) + "\\end{document}\n"
    Path(folder, "paper.tex").write_text(text, encoding="utf-8")
    timeless = os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=timeless)
    log.info("%s", done.stdout)
    if done.returncode:
        raise UserError("pdflatex does not take the tables and figures: its words stand above in this log")
    files.write_bytes(snakemake.output[0], Path(folder, "paper.pdf").read_bytes())
