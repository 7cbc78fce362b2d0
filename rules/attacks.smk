# Adversarial queries, made once per (victim, bits, attack, seed) and scored on any victim: on their own, whose network is at hand, their
# features are taken at once; on another network those of all sources together, for the start of a job takes longer than the features.
rule attack:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        codebook="<victim>/{bits}bits/codebook.h5",
        shards=shards_of("attack"),
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
        gpu=gpus_of("attack"),
    params:
        settings=settings_of("attack"),
    message:
        "Attacking {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} with {wildcards.attack} (seed {wildcards.seed})"
    script:
        "../scripts/attack.py"


# Some of the queries, where the study splits the attack; `attack` joins them.
use rule attack as attack_shard with:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        codebook="<victim>/{bits}bits/codebook.h5",
    output:
        images=temp("<victim>/{bits}bits/adversarial/{attack}.shard{shard}of{shards}.h5"),
        health=temp("<victim>/{bits}bits/adversarial/{attack}.shard{shard}of{shards}.health.json"),
        record=temp("<victim>/{bits}bits/adversarial/{attack}.shard{shard}of{shards}.prov.json"),
    log:
        "<logs>/attack/{dataset}/{model}-{training}/seed{seed}/{bits}bits/{attack}.shard{shard}of{shards}.log",
    benchmark:
        "<benchmarks>/attack/{dataset}/{model}-{training}/seed{seed}/{bits}bits/{attack}.shard{shard}of{shards}.jsonl"
    resources:
        mem_mb=memory_of("attack_shard"),
        runtime=minutes_of("attack_shard"),
        gpu=GPUS,
    message:
        "Attacking {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} with {wildcards.attack} (seed {wildcards.seed}), shard {wildcards.shard} of {wildcards.shards}"


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
