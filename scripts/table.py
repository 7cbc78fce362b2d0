"""One table of the paper: as tidy CSV, as LaTeX, as text, beside the paper's numbers, and its cells with their sources."""

import itertools
import textwrap
from functools import partial

from pqag import files, storage
from pqag.errors import UserError
from pqag.job.step import step
from pqag.names import MODEL_NAMES, attack_name, model_name
from pqag.show import cells, tables, verdicts

with step(snakemake) as settings:
    name, given, record = snakemake.wildcards.table, snakemake.input, snakemake.output.record
    number = int(name.removeprefix("table"))
    if not given.metrics:
        raise UserError(f"the study has no Table {number}: give tables.{name}.models at least one model")
    counterparts = settings.get("counterparts", {})
    of_paper = tables.in_the_paper(settings)
    names = tables.network_names(of_paper)
    metrics = tables.renamed({path: files.read_json(path) for path in given.metrics}, names)
    titles = storage.titles(given.images)
    histories = {}
    for (dataset, victim, _), path in zip(itertools.product(titles, settings["victims"], settings["seeds"]), given.histories):
        histories.setdefault((dataset, *victim), []).append(path)

    healths = {path: files.read_json(path) for path in given.healths}
    read = {path: cells.read(path) for path in (*given.histories, *given.robustness, *given.drops)}
    table = cells.Cells(name, metrics | healths | read | {record: tables.record_with(settings)})
    rows = tables.tidy(metrics.values(), number)
    marked = tables.with_cells(rows, metrics, table, settings["bits"], record)
    if number == 5:
        rows, marked = tables.with_systems(rows, marked, metrics, healths, settings["attacks"], table)
    if number == 6:
        rows, layout = tables.with_attacks(rows, marked, metrics, healths, settings["attacks"], titles, table)
    else:
        layout = tables.in_paper_layout(marked, titles)
    files.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    networks = {names[model]: network for model, network in of_paper.items()}
    quantizers = settings["quantizers"] | {names[model]: settings["quantizers"][model] for model in counterparts}
    compared = tables.against_paper(tables.as_in_the_paper(rows, quantizers), settings["attacks"], networks)
    files.write_text(snakemake.output.paper, compared.to_csv(index=False, lineterminator="\n"))

    attack = ", ".join(attack_name(name) for name in settings["attacks"])
    title = tables.LAYOUTS[number].title.format(attack=attack, bits=marked["bits"].iloc[0].removesuffix(" bits"))
    shown = names | {other: f"pretrained {model_name(other)}" for other in counterparts.values() if other}
    caption = tables.caption(title, table, metrics, titles, histories, settings, record, shown)
    for path in given.robustness:
        alone = [names[model] for model, other in counterparts.items() if not other]
        caption += " " + tables.robustness_in_words(path, table, titles, alone)
    for path in given.drops:
        caption += " " + tables.drops_in_words(path, table, titles)

    if number == 5:
        caption += " " + tables.systems_in_words(rows, marked, settings, partial(tables.setting_of, table, record))

    if number == 6:
        caption += f" {tables.ATTACKS_IN_WORDS} {verdicts.in_words()}"

    files.write_text(snakemake.output.tex, tables.as_latex(layout, caption, tables.LAYOUTS[number].label, table))
    own = [*settings["networks"], *settings["networks"].values(), *settings["quantizers"].values(), *settings["attacks"]]
    own += map(attack_name, settings["attacks"])
    own += [*(attack["method"] for attack in settings["attacks"].values()), *tables.named_targets(settings["attacks"]).values()]
    files.write_json(snakemake.output.cells, tables.listing(table, [*titles.values(), *MODEL_NAMES.values(), *own], layout, caption))
    text = f"{textwrap.fill(f'Table {number}. {table.plain(caption)}', 100)}\n\n{tables.as_text(layout, table)}\n"
    files.write_text(snakemake.output.text, text)
