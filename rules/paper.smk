# The paper's tables: 1, white-box attacks; 2, the same on jointly trained networks; 3, transfer between code lengths; 4, transfer between networks.
rule table1:
    input:
        metrics=paths.metrics(RESOLVED, TABLES["table1"](RESOLVED)),
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
        histories=paths.histories(RESOLVED, "table1"),
    output:
        csv=report("<results>/tables/table1.csv", caption="../report/table.rst", category="Tables", labels={"table": "1"}),
        tex="<results>/tables/table1.tex",
        text="<results>/tables/table1.txt",
        cells="<results>/tables/table1.cells.json",
        paper="<results>/tables/table1_vs_paper.csv",
        record="<results>/tables/table1.prov.json",
    log:
        "<logs>/table1.log",
    benchmark:
        "<benchmarks>/table1.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("table1"),
    params:
        settings=settings_of("table1"),
    message:
        "Writing Table 1"
    script:
        "../scripts/table.py"


# Beside the jointly trained networks, what they are held against.
use rule table1 as table2 with:
    input:
        metrics=paths.metrics(RESOLVED, white_box(RESOLVED, "table2")),
        pretrained=paths.metrics(RESOLVED, counterparts(RESOLVED)),
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
        histories=paths.histories(RESOLVED, "table2"),
    output:
        csv=report("<results>/tables/table2.csv", caption="../report/table.rst", category="Tables", labels={"table": "2"}),
        tex="<results>/tables/table2.tex",
        text="<results>/tables/table2.txt",
        cells="<results>/tables/table2.cells.json",
        paper="<results>/tables/table2_vs_paper.csv",
        robustness="<results>/tables/table2_robustness.csv",
        record="<results>/tables/table2.prov.json",
    log:
        "<logs>/table2.log",
    benchmark:
        "<benchmarks>/table2.jsonl"
    params:
        settings=settings_of("table2"),
    message:
        "Writing Table 2"


use rule table1 as table3 with:
    input:
        metrics=paths.metrics(RESOLVED, TABLES["table3"](RESOLVED)),
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
        histories=paths.histories(RESOLVED, "table3"),
    output:
        csv=report("<results>/tables/table3.csv", caption="../report/table.rst", category="Tables", labels={"table": "3"}),
        tex="<results>/tables/table3.tex",
        text="<results>/tables/table3.txt",
        cells="<results>/tables/table3.cells.json",
        paper="<results>/tables/table3_vs_paper.csv",
        record="<results>/tables/table3.prov.json",
    log:
        "<logs>/table3.log",
    benchmark:
        "<benchmarks>/table3.jsonl"
    params:
        settings=settings_of("table3"),
    message:
        "Writing Table 3"


use rule table1 as table4 with:
    input:
        metrics=paths.metrics(RESOLVED, TABLES["table4"](RESOLVED)),
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
        histories=paths.histories(RESOLVED, "table4"),
    output:
        csv=report("<results>/tables/table4.csv", caption="../report/table.rst", category="Tables", labels={"table": "4"}),
        tex="<results>/tables/table4.tex",
        text="<results>/tables/table4.txt",
        cells="<results>/tables/table4.cells.json",
        paper="<results>/tables/table4_vs_paper.csv",
        drops="<results>/tables/table4_drops.csv",
        record="<results>/tables/table4.prov.json",
    log:
        "<logs>/table4.log",
    benchmark:
        "<benchmarks>/table4.jsonl"
    params:
        settings=settings_of("table4"),
    message:
        "Writing Table 4"
