# One metrics.json per (query set, victim), by SDC and ADC. Needs no GPU and no torch.
rule evaluate:
    input:
        queries=lambda wildcards: paths.features_of_queries(RESOLVED, wildcards),
        database="<victim>/features/database.h5",
        codebook="<victim>/{bits}bits/codebook.h5",
    output:
        "<victim>/{bits}bits/metrics/{attack}.{source_model}-{source_training}-{source_bits}bits.json",
        record="<victim>/{bits}bits/metrics/{attack}.{source_model}-{source_training}-{source_bits}bits.prov.json",
    log:
        "<logs>/evaluate/<of_victim>/{bits}bits/{attack}.{source_model}-{source_training}-{source_bits}bits.log",
    benchmark:
        "<benchmarks>/evaluate/<of_victim>/{bits}bits/{attack}.{source_model}-{source_training}-{source_bits}bits.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("evaluate"),
    params:
        settings=settings_of("evaluate"),
    message:
        "Scoring {wildcards.attack} queries (made for {wildcards.source_model}, {wildcards.source_bits} bits) on {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/evaluate.py"


use rule evaluate as evaluate_clean with:
    input:
        queries="<victim>/features/query.h5",
        database="<victim>/features/database.h5",
        codebook="<victim>/{bits}bits/codebook.h5",
    output:
        "<victim>/{bits}bits/metrics/clean.json",
        record="<victim>/{bits}bits/metrics/clean.prov.json",
    log:
        "<logs>/evaluate/<of_victim>/{bits}bits/clean.log",
    benchmark:
        "<benchmarks>/evaluate/<of_victim>/{bits}bits/clean.jsonl"
    message:
        "Scoring the clean queries on {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} (seed {wildcards.seed})"


# The clean queries as the codes that are farthest from their own.
use rule evaluate as evaluate_farthest with:
    input:
        queries="<victim>/features/query.h5",
        database="<victim>/features/database.h5",
        codebook="<victim>/{bits}bits/codebook.h5",
    output:
        "<victim>/{bits}bits/metrics/farthest.json",
        record="<victim>/{bits}bits/metrics/farthest.prov.json",
    log:
        "<logs>/evaluate/<of_victim>/{bits}bits/farthest.log",
    benchmark:
        "<benchmarks>/evaluate/<of_victim>/{bits}bits/farthest.jsonl"
    message:
        "Scoring the farthest codes on {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} (seed {wildcards.seed})"
