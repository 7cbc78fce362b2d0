# The paper's figures, and one of our own: victims as `figures` in the config says, of the first seed.
CHOSEN = [RESOLVED["figures"]["attack"]]


rule perturbation:
    input:
        images="<results>/{dataset}/images.h5",
        codebook=figure_file("{bits}bits/codebook.h5"),
        clean=figure_file("features/query.h5"),
        attacked=figure_queries(CHOSEN),
        metrics=figure_metrics(CHOSEN),
    output:
        pdf="<results>/figures/figure1_{dataset}_{model}.pdf",
        png=report(
            "<results>/figures/figure1_{dataset}_{model}.png",
            caption="../report/figure1.rst",
            category="Figures",
            subcategory="Figure 1: one query",
            labels={"data set": "{dataset}", "victim": "{model}"},
        ),
        record="<results>/figures/figure1_{dataset}_{model}.prov.json",
    log:
        "<logs>/perturbation/{dataset}_{model}.log",
    benchmark:
        "<benchmarks>/perturbation/{dataset}_{model}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("perturbation"),
    params:
        settings=settings_of("perturbation"),
    message:
        "Drawing Figure 1, one query, on {wildcards.dataset}, {wildcards.model}"
    script:
        "../scripts/perturbation.py"


rule centroid_distributions:
    input:
        images="<results>/{dataset}/images.h5",
        codebook=figure_file("{bits}bits/codebook.h5"),
        clean=figure_file("features/query.h5"),
        attacked=figure_queries(STUDY.attacks),
        metrics=figure_metrics(CHOSEN),
    output:
        pdf="<results>/figures/figure3_{dataset}_{model}.pdf",
        png=report(
            "<results>/figures/figure3_{dataset}_{model}.png",
            caption="../report/figure3.rst",
            category="Figures",
            subcategory="Figure 3: centroid distributions",
            labels={"data set": "{dataset}", "victim": "{model}"},
        ),
        record="<results>/figures/figure3_{dataset}_{model}.prov.json",
    log:
        "<logs>/centroid_distributions/{dataset}_{model}.log",
    benchmark:
        "<benchmarks>/centroid_distributions/{dataset}_{model}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("centroid_distributions"),
    params:
        settings=settings_of("centroid_distributions"),
    message:
        "Drawing Figure 3, centroid distributions, on {wildcards.dataset}, {wildcards.model}"
    script:
        "../scripts/centroid_distributions.py"


rule retrieval_sheet:
    input:
        images="<results>/{dataset}/images.h5",
        codebook=figure_file("{bits}bits/codebook.h5"),
        clean=figure_file("features/query.h5"),
        attacked=figure_queries(STUDY.attacks),
        metrics=figure_metrics(CHOSEN),
    output:
        pdf="<results>/figures/figure4_{dataset}_{model}.pdf",
        png=report(
            "<results>/figures/figure4_{dataset}_{model}.png",
            caption="../report/figure4.rst",
            category="Figures",
            subcategory="Figure 4: retrieval sheets",
            labels={"data set": "{dataset}", "victim": "{model}"},
        ),
        record="<results>/figures/figure4_{dataset}_{model}.prov.json",
    log:
        "<logs>/retrieval_sheet/{dataset}_{model}.log",
    benchmark:
        "<benchmarks>/retrieval_sheet/{dataset}_{model}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("retrieval_sheet"),
    params:
        settings=settings_of("retrieval_sheet"),
    message:
        "Drawing Figure 4, retrieval sheets, on {wildcards.dataset}, {wildcards.model}"
    script:
        "../scripts/retrieval_sheet.py"


rule precision_recall:
    input:
        images="<results>/{dataset}/images.h5",
        metrics=figure_metrics(STUDY.attacks),
    output:
        SDC=[
            "<results>/figures/figure5_{dataset}_{model}_SDC.pdf",
            report(
                "<results>/figures/figure5_{dataset}_{model}_SDC.png",
                caption="../report/figure5.rst",
                category="Figures",
                subcategory="Figure 5: precision-recall",
                labels={"data set": "{dataset}", "victim": "{model}", "distance": "SDC"},
            ),
        ],
        ADC=[
            "<results>/figures/figure5_{dataset}_{model}_ADC.pdf",
            report(
                "<results>/figures/figure5_{dataset}_{model}_ADC.png",
                caption="../report/figure5.rst",
                category="Figures",
                subcategory="Figure 5: precision-recall",
                labels={"data set": "{dataset}", "victim": "{model}", "distance": "ADC"},
            ),
        ],
        record="<results>/figures/figure5_{dataset}_{model}.prov.json",
    log:
        "<logs>/precision_recall/{dataset}_{model}.log",
    benchmark:
        "<benchmarks>/precision_recall/{dataset}_{model}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("precision_recall"),
    params:
        settings=settings_of("precision_recall"),
    message:
        "Drawing Figure 5, precision-recall curves, on {wildcards.dataset}, {wildcards.model}"
    script:
        "../scripts/precision_recall.py"


rule sweep:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        codebook="<victim>/{bits}bits/codebook.h5",
        database="<victim>/features/database.h5",
    output:
        "<victim>/{bits}bits/sweep/{attack}.json",
        record="<victim>/{bits}bits/sweep/{attack}.prov.json",
    log:
        "<logs>/sweep/<of_victim>/{bits}bits/{attack}.log",
    benchmark:
        "<benchmarks>/sweep/<of_victim>/{bits}bits/{attack}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        **needs("sweep"),
    params:
        settings=settings_of("sweep"),
    message:
        "Attacking {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} with {wildcards.attack} of every strength (seed {wildcards.seed})"
    script:
        "../scripts/sweep.py"


rule figure_sweep:
    input:
        images="<results>/{dataset}/images.h5",
        sweeps=figure_files([f"{{bits}}bits/sweep/{attack}.json" for attack in STUDY.attacks]),
    output:
        pdf="<results>/figures/sweep_{dataset}_{model}.pdf",
        png=report(
            "<results>/figures/sweep_{dataset}_{model}.png",
            caption="../report/figure_sweep.rst",
            category="Figures",
            subcategory="Strength of the attacks",
            labels={"data set": "{dataset}", "victim": "{model}"},
        ),
        csv="<results>/figures/sweep_{dataset}_{model}.csv",
        record="<results>/figures/sweep_{dataset}_{model}.prov.json",
    log:
        "<logs>/figure_sweep/{dataset}_{model}.log",
    benchmark:
        "<benchmarks>/figure_sweep/{dataset}_{model}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("figure_sweep"),
    params:
        settings=settings_of("figure_sweep"),
    message:
        "Drawing mAP against the strength of the attacks, on {wildcards.dataset}, {wildcards.model}"
    script:
        "../scripts/figure_sweep.py"


rule heat_map:
    input:
        table="<results>/tables/{table}.csv",
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
    output:
        pdf="<results>/figures/{table}_{panel}.pdf",
        png=report(
            "<results>/figures/{table}_{panel}.png",
            caption="../report/heat_map.rst",
            category="Figures",
            subcategory="Heat maps",
            labels={"table": "{table}", "panel": "{panel}"},
        ),
        record="<results>/figures/{table}_{panel}.prov.json",
    log:
        "<logs>/heat_map/{table}_{panel}.log",
    benchmark:
        "<benchmarks>/heat_map/{table}_{panel}.jsonl"
    wildcard_constraints:
        table="|".join(dict.fromkeys(table for table, _ in heat_maps(RESOLVED))) or "none",
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("heat_map"),
    params:
        settings=settings_of("heat_map"),
    message:
        "Drawing the heat map of {wildcards.table}, {wildcards.panel}"
    script:
        "../scripts/heat_map.py"


# Attacks that keep no ball: mAP against the size of their changes.
rule distortion:
    input:
        images="<results>/{dataset}/images.h5",
        attacked=lambda wildcards: paths.distortion(RESOLVED, wildcards)["attacked"],
        metrics=lambda wildcards: paths.distortion(RESOLVED, wildcards)["metrics"],
        clean=lambda wildcards: paths.distortion(RESOLVED, wildcards)["clean"],
    output:
        csv="<results>/figures/distortion_{dataset}.csv",
        pdf="<results>/figures/distortion_{dataset}.pdf",
        png=report(
            "<results>/figures/distortion_{dataset}.png",
            caption="../report/distortion.rst",
            category="Figures",
            subcategory="Smallest changes",
            labels={"data set": "{dataset}"},
        ),
        record="<results>/figures/distortion_{dataset}.prov.json",
    log:
        "<logs>/distortion/{dataset}.log",
    benchmark:
        "<benchmarks>/distortion/{dataset}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("distortion"),
    params:
        settings=settings_of("distortion"),
    message:
        "Drawing mAP against the size of changes on {wildcards.dataset}"
    script:
        "../scripts/distortion.py"


# Every query of it, to look at in a browser.
rule gallery:
    input:
        images=expand("<results>/{dataset}/images.h5", dataset=STUDY.datasets),
        codebooks=of_victims(["{bits}bits/codebook.h5"]),
        clean=of_victims(["features/query.h5"]),
        attacked=of_victims(query_files(STUDY.attacks)),
        metrics=of_victims(metrics_files(STUDY.attacks)),
    output:
        "<results>/gallery.html",
        record="<results>/gallery.prov.json",
    log:
        "<logs>/gallery.log",
    benchmark:
        "<benchmarks>/gallery.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("gallery"),
    params:
        settings=settings_of("gallery"),
    message:
        "Writing the gallery, a page that shows single queries"
    script:
        "../scripts/gallery.py"


# All of it, to look at: for a co-author, and with the workflow around it.
rule paper:
    input:
        tables=expand("<results>/tables/{table}.tex", table=tables(RESOLVED)),
        figures=pictures(".pdf"),
    output:
        "<results>/paper.pdf",
        record="<results>/paper.prov.json",
    log:
        "<logs>/paper.log",
    benchmark:
        "<benchmarks>/paper.jsonl"
    conda:
        "../envs/steps.yaml"
    container:
        None
    threads: 1
    resources:
        **needs("paper"),
    params:
        settings=settings_of("paper"),
    message:
        "Setting all tables and figures as one PDF"
    script:
        "../scripts/paper.py"


rule report:
    input:
        study="<results>/study.json",
        tables=expand("<results>/tables/{table}.csv", table=tables(RESOLVED)),
        figures=pictures(".png"),
    output:
        "<results>/report.zip",
    log:
        "<logs>/report.log",
    conda:
        "../envs/steps.yaml"
    container:
        None
    threads: 1
    resources:
        **needs("report"),
    params:
        python=sys.executable,  # quoted in rules/patches.smk
        script=Path(workflow.basedir, "scripts/report.py"),
    message:
        "Writing the report"
    shell:
        "{params.python} {params.script:q} {input.study} {output} {input.tables} {input.figures} > {log} 2>&1"


# Targets to call by name.
rule figure1:
    input:
        files_of("perturbation"),


rule figure3:
    input:
        files_of("centroid_distributions"),


rule figure4:
    input:
        files_of("retrieval_sheet"),


rule figure5:
    input:
        files_of("precision_recall"),


rule figures:
    input:
        figure_outputs,
