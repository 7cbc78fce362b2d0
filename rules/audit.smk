# What the audit needs beside the records: the study as it was understood, and the list of all files.
rule study:
    output:
        "<results>/study.json",
        record="<results>/study.prov.json",
    log:
        "<logs>/study.log",
    benchmark:
        "<benchmarks>/study.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("study"),
    params:
        settings=settings_of("study"),
    message:
        "Writing the study with every default filled in"
    script:
        "../scripts/study.py"


rule manifest:
    input:
        everything,
    output:
        "<results>/MANIFEST.sha256",
        record="<results>/MANIFEST.prov.json",
    log:
        "<logs>/manifest.log",
    benchmark:
        "<benchmarks>/manifest.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("manifest"),
    params:
        settings=settings_of("manifest"),
    message:
        "Listing the sha256 of every file"
    script:
        "../scripts/manifest.py"


# The results as they are kept with the project: snakemake docs/results/cifar10 --configfile config/cifar10_zoo.yaml
rule publish:
    input:
        rules.manifest.output,
        shown=published,
    output:
        directory("docs/results/{name}"),
    log:
        "<logs>/publish_{name}.log",
    conda:
        "../envs/steps.yaml"
    container:
        None
    threads: 1
    resources:
        **needs("publish"),
    params:
        python=sys.executable,  # quoted in rules/patches.smk
        script=Path(workflow.basedir, "scripts/publish.py"),
        study=STUDY.study,
    message:
        "Publishing the study {STUDY.study} in docs/results/{wildcards.name}"
    shell:
        "{params.python} {params.script:q} {params.study} {output} {input.shown} > {log} 2>&1"
