# Adversarial queries, made once per (victim, bits, attack, seed) and scored on any victim. `attack` has the network of their own victim loaded and
# extracts their features at once; on another network one job extracts those of all sources, since a job takes longer to start than to extract.
rule attack:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        codebook="<victim>/{bits}bits/codebook.h5",
        database=known_to_attack,
        trained=trained_for_attack,
        shards=shards_of("attack"),
    output:
        images="<victim>/{bits}bits/adversarial/{attack}.h5",
        health="<victim>/{bits}bits/adversarial/{attack}.health.json",
        record="<victim>/{bits}bits/adversarial/{attack}.prov.json",
    log:
        "<logs>/attack/<of_victim>/{bits}bits/{attack}.log",
    benchmark:
        "<benchmarks>/attack/<of_victim>/{bits}bits/{attack}.jsonl"
    wildcard_constraints:
        attack=attacks_by_generator(False),
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        **needs("attack"),
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
        database=known_to_attack,
        trained=trained_for_attack,
    output:
        images=temp("<victim>/{bits}bits/adversarial/{attack}.shard{shard}of{shards}.h5"),
        health=temp("<victim>/{bits}bits/adversarial/{attack}.shard{shard}of{shards}.health.json"),
        record=temp("<victim>/{bits}bits/adversarial/{attack}.shard{shard}of{shards}.prov.json"),
    log:
        "<logs>/attack/<of_victim>/{bits}bits/{attack}.shard{shard}of{shards}.log",
    benchmark:
        "<benchmarks>/attack/<of_victim>/{bits}bits/{attack}.shard{shard}of{shards}.jsonl"
    resources:
        **needs("attack_shard"),
    message:
        "Attacking {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} with {wildcards.attack} (seed {wildcards.seed}), shard {wildcards.shard} of {wildcards.shards}"


# What a method that is trained knows of the training images; it never sees a query.
rule train_attack:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        codebook="<victim>/{bits}bits/codebook.h5",
    output:
        "<victim>/{bits}bits/adversarial/{attack}.trained.h5",
        record="<victim>/{bits}bits/adversarial/{attack}.trained.prov.json",
    log:
        "<logs>/train_attack/<of_victim>/{bits}bits/{attack}.log",
    benchmark:
        "<benchmarks>/train_attack/<of_victim>/{bits}bits/{attack}.jsonl"
    wildcard_constraints:
        attack=attacks_by_generator(False),
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        **needs("train_attack"),
    params:
        settings=settings_of("train_attack"),
    message:
        "Training {wildcards.attack} on {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/train_attack.py"


# The same for a generator, which changes each query in a way of its own. It has rules of its own, so that a change of it makes no other
# attack stale.
rule train_generator:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        codebook="<victim>/{bits}bits/codebook.h5",
    output:
        "<victim>/{bits}bits/adversarial/{attack}.trained.h5",
        record="<victim>/{bits}bits/adversarial/{attack}.trained.prov.json",
    log:
        "<logs>/train_generator/<of_victim>/{bits}bits/{attack}.log",
    benchmark:
        "<benchmarks>/train_generator/<of_victim>/{bits}bits/{attack}.jsonl"
    wildcard_constraints:
        attack=attacks_by_generator(True),
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        **needs("train_generator"),
    params:
        settings=settings_of("train_generator"),
    message:
        "Training the generator of {wildcards.attack} on {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/train_generator.py"


rule generate:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        codebook="<victim>/{bits}bits/codebook.h5",
        trained="<victim>/{bits}bits/adversarial/{attack}.trained.h5",
    output:
        images="<victim>/{bits}bits/adversarial/{attack}.h5",
        health="<victim>/{bits}bits/adversarial/{attack}.health.json",
        record="<victim>/{bits}bits/adversarial/{attack}.prov.json",
    log:
        "<logs>/generate/<of_victim>/{bits}bits/{attack}.log",
    benchmark:
        "<benchmarks>/generate/<of_victim>/{bits}bits/{attack}.jsonl"
    wildcard_constraints:
        attack=attacks_by_generator(True),
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        **needs("generate"),
    params:
        settings=settings_of("generate"),
    message:
        "Generating queries against {wildcards.model} at {wildcards.bits} bits on {wildcards.dataset} with {wildcards.attack} (seed {wildcards.seed})"
    script:
        "../scripts/generate.py"


rule extract_transfer:
    input:
        images=lambda wildcards: paths.transferred_queries(RESOLVED, wildcards),
        weights="<victim>/weights.pt",
    output:
        "<victim>/features/{attack}.transfer-{source_bits}bits.h5",
        record="<victim>/features/{attack}.transfer-{source_bits}bits.prov.json",
    log:
        "<logs>/extract_transfer/<of_victim>/{attack}.{source_bits}bits.log",
    benchmark:
        "<benchmarks>/extract_transfer/<of_victim>/{attack}.{source_bits}bits.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        **needs("extract_transfer"),
    params:
        settings=settings_of("extract_transfer"),
    message:
        "Extracting features of {wildcards.attack} queries (made for other networks, {wildcards.source_bits} bits) with {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/extract_transfer.py"
