# The paper's tables.
rule table1:
    input:
        metrics=[path for dataset in STUDY.datasets for path in white_box(dataset)],
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
        histories=expand(
            "<results>/{dataset}/{model}-pretrained/seed{seed}/training.csv", dataset=STUDY.datasets, model=STUDY.models, seed=STUDY.seeds
        ),
    output:
        csv="<results>/tables/table1.csv",
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
    resources:
        mem_mb=500,
        runtime=10,
    params:
        settings=settings_of("table1"),
    message:
        "Writing Table 1"
    script:
        "../scripts/table1.py"
