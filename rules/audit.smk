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
