# Raw data to train | database | query.
rule fetch:
    message:
        "Fetching the images of {wildcards.dataset}"
    output:
        "data/{dataset}.h5",
    log:
        "<logs>/fetch/{dataset}.log",
    benchmark:
        "<benchmarks>/fetch/{dataset}.jsonl"
    resources:
        mem_mb=1500,
        runtime=60,
    params:
        settings=fetch_settings,
    script:
        "../scripts/fetch.py"


rule prepare:
    message:
        "Splitting {wildcards.dataset} into training, database and query images"
    input:
        "data/{dataset}.h5",
    output:
        "<results>/{dataset}/images.h5",
    log:
        "<logs>/prepare/{dataset}.log",
    benchmark:
        "<benchmarks>/prepare/{dataset}.jsonl"
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        settings=prepare_settings,
    script:
        "../scripts/prepare.py"
