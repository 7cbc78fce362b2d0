"""One table of the paper: as tidy CSV, as LaTeX, as text, beside the paper's numbers, and its cells with their sources."""

import itertools
import textwrap

from pqag import files, storage
from pqag.errors import UserError
from pqag.job.step import step
from pqag.names import MODEL_NAMES, attack_name, model_name
from pqag.show import cells, tables

#: By the number of the table: what it shows, and its label in LaTeX.
TABLES = {
    1: ("White-box attacks: mAP (%)", "tab:white-box"),
    2: ("White-box attacks on jointly trained networks: mAP (%)", "tab:joint"),
    3: ("{attack} queries made for one code length (down) on another (across): mAP (%), SDC / ADC", "tab:bits-transfer"),
    4: ("{attack} queries made for one network (down) on another (across), {bits} bits: mAP (%)", "tab:model-transfer"),
}

with step(snakemake) as settings:
    number = int(snakemake.rule.removeprefix("table"))
    if not snakemake.input.metrics:
        raise UserError(f"the study has no Table {number}: give tables.table{number}.models at least one model")
    metrics = {path: files.read_json(path) for path in snakemake.input.metrics}
    names = tables.network_names({model: settings["networks"][model] for model in settings["counterparts"]}) if number == 2 else {}
    metrics = tables.renamed(metrics, names)
    held_against = {other: f"pretrained {model_name(other)}" for other in settings.get("counterparts", {}).values() if other}
    titles = storage.titles(snakemake.input.images)
    histories = {}
    for (dataset, victim, _), path in zip(itertools.product(titles, settings["victims"], settings["seeds"]), snakemake.input.histories):
        histories.setdefault((dataset, *victim), []).append(path)

    table = cells.Cells(snakemake.rule)
    rows = tables.tidy(metrics.values(), number)
    files.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    compared = tables.against_paper(tables.as_in_the_paper(rows, settings["quantizers"]), settings["attacks"])
    files.write_text(snakemake.output.paper, compared.to_csv(index=False, lineterminator="\n"))

    marked = tables.with_cells(rows, metrics, table, settings["bits"], snakemake.output.record)
    what, label = TABLES[number]
    attack = ", ".join(attack_name(name) for name in settings["attacks"])
    what = what.format(attack=attack, bits=marked["bits"].iloc[0].removesuffix(" bits"))
    caption = tables.caption(what, table, metrics, titles, histories, settings, snakemake.output.record, names | held_against)
    if number == 2:
        beside = tables.tidy(map(files.read_json, snakemake.input.pretrained), 1)
        pairs = {names[model]: other for model, other in settings["counterparts"].items() if other}
        held = tables.robustness(rows, beside, pairs, settings["attacks"])
        files.write_text(snakemake.output.robustness, held.to_csv(index=False, lineterminator="\n"))
        alone = [names[model] for model, other in settings["counterparts"].items() if not other]
        caption += " " + tables.robustness_in_words(held, snakemake.output.robustness, table, titles, alone)
    if number == 4:
        drops = tables.drops_beside_paper(rows, settings["attacks"])
        files.write_text(snakemake.output.drops, drops.to_csv(index=False, lineterminator="\n"))
        caption += " " + tables.drops_in_words(drops, snakemake.output.drops, table, titles)
    layout = tables.in_paper_layout(marked, titles)
    files.write_text(snakemake.output.tex, tables.as_latex(layout, caption, label, table))
    own = [*settings["networks"], *settings["networks"].values(), *settings["quantizers"].values(), *settings["attacks"]]
    own += [attack["method"] for attack in settings["attacks"].values()]
    files.write_json(snakemake.output.cells, tables.listing(table, [*titles.values(), *MODEL_NAMES.values(), *own]))
    text = f"{textwrap.fill(f'Table {number}. {table.plain(caption)}', 100)}\n\n{tables.as_text(layout, table)}\n"
    files.write_text(snakemake.output.text, text)
