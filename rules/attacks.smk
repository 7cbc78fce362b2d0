# Adversarial queries, made once per (victim, bits, attack, seed) and scored on any victim.
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
        mem_mb=2500,
        runtime=60,
        gpu=GPUS,
    params:
        settings=settings_of("attack"),
    message:
        "Attacking {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} with {wildcards.attack} (seed {wildcards.seed})"
    script:
        "../scripts/attack.py"


use rule extract as extract_adversarial with:
    input:
        images="<results>/{dataset}/{source_model}-{source_training}/seed{seed}/{source_bits}bits/adversarial/{attack}.h5",
        weights="<victim>/weights.pt",
    output:
        "<victim>/features/{attack}.{source_model}-{source_training}-{source_bits}bits.h5",
        record="<victim>/features/{attack}.{source_model}-{source_training}-{source_bits}bits.prov.json",
    log:
        "<logs>/extract/{dataset}/{model}-{training}/seed{seed}/{attack}.{source_model}-{source_training}-{source_bits}bits.log",
    benchmark:
        "<benchmarks>/extract/{dataset}/{model}-{training}/seed{seed}/{attack}.{source_model}-{source_training}-{source_bits}bits.jsonl"
    message:
        "Extracting features of {wildcards.attack} queries (made for {wildcards.source_model}, {wildcards.source_bits} bits) with {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"
