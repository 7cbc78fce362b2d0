# Adversarial queries, made once per (victim, bits, attack, seed) and scored on any victim: on their own, whose network is at hand, their
# features are taken at once; on another network those of all sources together, for the start of a job takes longer than the features.
rule attack:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        codebook="<victim>/{bits}bits/codebook.h5",
    output:
        images="<victim>/{bits}bits/adversarial/{attack}.h5",
        health="<victim>/{bits}bits/adversarial/{attack}.health.json",
        record="<victim>/{bits}bits/adversarial/{attack}.prov.json",
    log:
        "<logs>/attack/{dataset}/{model}-{training}/seed{seed}/{bits}bits/{attack}.log",
    benchmark:
        "<benchmarks>/attack/{dataset}/{model}-{training}/seed{seed}/{bits}bits/{attack}.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        mem_mb=memory_of("attack"),
        runtime=minutes_of("attack"),
        gpu=GPUS,
    params:
        settings=settings_of("attack"),
    message:
        "Attacking {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} with {wildcards.attack} (seed {wildcards.seed})"
    script:
        "../scripts/attack.py"


rule extract_transfer:
    input:
        images=transferred_queries,
        weights="<victim>/weights.pt",
    output:
        "<victim>/features/{attack}.transfer-{source_bits}bits.h5",
        record="<victim>/features/{attack}.transfer-{source_bits}bits.prov.json",
    log:
        "<logs>/extract_transfer/{dataset}/{model}-{training}/seed{seed}/{attack}.{source_bits}bits.log",
    benchmark:
        "<benchmarks>/extract_transfer/{dataset}/{model}-{training}/seed{seed}/{attack}.{source_bits}bits.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        mem_mb=memory_of("extract_transfer"),
        runtime=minutes_of("extract_transfer"),
        gpu=GPUS,
    params:
        settings=settings_of("extract_transfer"),
    message:
        "Extracting features of {wildcards.attack} queries (made for other networks, {wildcards.source_bits} bits) with {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/extract_transfer.py"
