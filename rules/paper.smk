# The paper's tables: 1, white-box attacks; 2, the same on jointly trained networks; 3, transfer between code lengths; 4, transfer between networks.
# Tables 5 and 6, which the paper does not have, put systems and attacks side by side.
rule table:
    input:
        metrics=metrics_of(rows_of),
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
        histories=lambda wildcards: paths.histories(RESOLVED, wildcards.table),
        robustness=conclusion("robustness"),
        drops=conclusion("drops"),
        healths=lambda wildcards: paths.healths(RESOLVED, wildcards.table),
    output:
        csv=report("<results>/tables/{table}.csv", caption="../report/table.rst", category="Tables", labels={"table": "{table}"}),
        tex="<results>/tables/{table}.tex",
        text="<results>/tables/{table}.txt",
        cells="<results>/tables/{table}.cells.json",
        paper="<results>/tables/{table}_vs_paper.csv",
        record="<results>/tables/{table}.prov.json",
    log:
        "<logs>/table/{table}.log",
    benchmark:
        "<benchmarks>/table/{table}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("table"),
    params:
        settings=settings_of("table"),
    message:
        "Writing {wildcards.table}"
    script:
        "../scripts/table.py"


# Every cell that the paper has too, beside its own; in a study of a data set of the paper.
rule beside_paper:
    input:
        tables=expand("<results>/tables/{table}_vs_paper.csv", table=tables(RESOLVED)),
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
    output:
        csv="<results>/beside_paper.csv",
        page="<results>/beside_paper.md",
        pdf="<results>/beside_paper.pdf",
        png="<results>/beside_paper.png",
        record="<results>/beside_paper.prov.json",
    log:
        "<logs>/beside_paper.log",
    benchmark:
        "<benchmarks>/beside_paper.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("beside_paper"),
    params:
        settings=settings_of("beside_paper"),
    message:
        "Comparing every cell with the paper's"
    script:
        "../scripts/beside_paper.py"


# What the text of the paper claims, beside what the study measures.
rule claims:
    input:
        metrics=[path for table in tables(RESOLVED) for path in paths.metrics(RESOLVED, rows_of(RESOLVED, table))],
    output:
        csv="<results>/claims.csv",
        page="<results>/claims.md",
        record="<results>/claims.prov.json",
    log:
        "<logs>/claims.log",
    benchmark:
        "<benchmarks>/claims.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("claims"),
    params:
        settings=settings_of("claims"),
    message:
        "Holding the paper's claims against the study"
    script:
        "../scripts/claims.py"


# What tables conclude from their scores, for their captions.
rule robustness:
    input:
        metrics=metrics_of(rows_of),
        pretrained=metrics_of(held_against),
    output:
        "<results>/tables/{table}_robustness.csv",
        record="<results>/tables/{table}_robustness.prov.json",
    log:
        "<logs>/robustness/{table}.log",
    benchmark:
        "<benchmarks>/robustness/{table}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("robustness"),
    params:
        settings=settings_of("robustness"),
    message:
        "Comparing jointly trained networks of {wildcards.table} with pretrained ones"
    script:
        "../scripts/robustness.py"


rule drops:
    input:
        metrics=metrics_of(rows_of),
    output:
        "<results>/tables/{table}_drops.csv",
        record="<results>/tables/{table}_drops.prov.json",
    log:
        "<logs>/drops/{table}.log",
    benchmark:
        "<benchmarks>/drops/{table}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("drops"),
    params:
        settings=settings_of("drops"),
    message:
        "Comparing the families of networks of {wildcards.table}"
    script:
        "../scripts/drops.py"


# Targets to call by name: table1, table2, …
for name in TABLES:

    rule:
        name:
            name
        input:
            table_outputs(name),
