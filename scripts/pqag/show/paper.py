"""All tables and figures as one LaTeX document, set by pdflatex to the same bytes whenever they are the same."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pqag.errors import UserError
from pqag.names import model_name
from pqag.show.cells import escape_latex

#: By the first word of its file's name: what a figure shows. Its title says of which data set and victim.
CAPTIONS = {
    "figure1": "The paper's Figure 1: one query, its perturbation, the adversarial query, and what both retrieve by ADC.",
    "figure3": "The paper's Figure 3: centroid distribution (Eq. 7) of the first sub-vector before and after each attack.",
    "figure4": "The paper's Figure 4: the first ten images retrieved by ADC, clean and after each attack.",
    "figure5": "The paper's Figure 5: precision-recall curves, means over the queries, relevant items of a tie spread evenly over it.",
    "sweep": "mAP against the strength of each attack.",
    "distortion": "mAP against the mean l2 norm of the change, as more queries are attacked, those with the smallest change first.",
    "table": "Table {number} as a heat map.",
    "table6": "mAP against the cost of attacks: passes of an image through the network, of which a look with its gradient counts three.",
    "table5": "Clean mAP against the mAP under the strongest attack; a line goes down to the mAP of the farthest codes.",
}
WORDS = (
    "Tables have the numbers that they have in the paper. Single queries stand at quantiles of what average precision (ADC) loses by the"
    " attack that the config names; tied images are in the order of the database; a border and a cross mark what shares no label with the"
    " query."
)
HEAD = r"""\documentclass[a4paper]{article}
\usepackage[margin=1.4cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
\suppressfloats[t]
\section*{%s}
%s
"""


def document(study: str, models: Sequence[str], tables: Sequence[str], figures: Sequence[str]) -> str:
    """The LaTeX of a document: tables ("table3.tex", numbered as in the paper), then figures, both by the names of their files."""
    networks = ", ".join(model_name(model) for model in models)
    text = HEAD % (escape_latex(f"PQ-AG recomputed: the study {study}"), escape_latex(f"Networks: {networks}. {WORDS}"))
    for name in tables:
        text += f"\\setcounter{{table}}{{{int(re.search(r'[0-9]+', name)[0]) - 1}}}\\input{{{name}}}\n"
    text += "\\clearpage\n"
    for name in figures:
        word, number = re.match(r"([a-z]+)([0-9]*)", name).groups()
        words = escape_latex((CAPTIONS.get(word + number) or CAPTIONS[word]).format(number=number))
        text += f"\\begin{{figure}}[htbp]\\centering\\includegraphics{{{name}}}\\caption{{{words}}}\\end{{figure}}\n"
        if name.startswith("figure4"):  # a whole page each
            text += "\\clearpage\n"
    return text + "\\end{document}\n"


def set_in(folder: str | Path, text: str) -> tuple[bytes, str]:
    """The PDF of ``text``, whose files lie in ``folder``, and what pdflatex said.

    Raises UserError where there is no pdflatex, or it fails.
    """
    if shutil.which("pdflatex") is None:
        raise UserError(
            "paper.pdf needs pdflatex with booktabs (Debian: texlive-latex-recommended); all that is in it is in tables/ and figures/"
        )
    Path(folder, "paper.tex").write_text(text, encoding="utf-8")
    timeless = os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", env=timeless)
    if done.returncode:
        reason = next((line for line in done.stdout.splitlines() if line.startswith("!")), "it gives no reason")
        raise UserError(f"pdflatex does not take the tables and figures: {reason}")
    return Path(folder, "paper.pdf").read_bytes(), done.stdout
