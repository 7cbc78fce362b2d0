# Raw data to train | database | query.
rule fetch:
    output:
        "data/{dataset}.h5",
        record="data/{dataset}.prov.json",
    log:
        "<logs>/fetch/{dataset}.log",
    benchmark:
        "<benchmarks>/fetch/{dataset}.jsonl"
    conda:
        "../envs/steps.yaml"
    container:
        None
    threads: decoders
    resources:
        **needs("fetch"),
    params:
        settings=settings_of("fetch"),
    message:
        "Fetching the images of {wildcards.dataset}"
    script:
        "../scripts/fetch.py"


rule prepare:
    input:
        "data/{dataset}.h5",
    output:
        "<results>/{dataset}/images.h5",
        record="<results>/{dataset}/images.prov.json",
    log:
        "<logs>/prepare/{dataset}.log",
    benchmark:
        "<benchmarks>/prepare/{dataset}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("prepare"),
    params:
        settings=settings_of("prepare"),
    message:
        "Splitting {wildcards.dataset} into training, database and query images"
    script:
        "../scripts/prepare.py"
