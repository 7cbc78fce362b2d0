# Victims: weights and codebooks, and the features that both are used with.
rule pretrain:
    input:
        "<results>/{dataset}/images.h5",
    output:
        weights="<results>/{dataset}/{model}-pretrained/seed{seed}/weights.pt",
        history="<results>/{dataset}/{model}-pretrained/seed{seed}/training.csv",
        record="<results>/{dataset}/{model}-pretrained/seed{seed}/weights.prov.json",
    log:
        "<logs>/pretrain/{dataset}/{model}/seed{seed}.log",
    benchmark:
        "<benchmarks>/pretrain/{dataset}/{model}/seed{seed}.jsonl"
    wildcard_constraints:
        model=models_made_by("pretrain"),
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.pretrain
    resources:
        **needs("pretrain"),
    params:
        settings=settings_of("pretrain"),
    message:
        "Training {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/pretrain.py"


# The same for a network of the user's.
rule pretrain_own:
    input:
        "<results>/{dataset}/images.h5",
    output:
        weights="<results>/{dataset}/{model}-pretrained/seed{seed}/weights.pt",
        history="<results>/{dataset}/{model}-pretrained/seed{seed}/training.csv",
        record="<results>/{dataset}/{model}-pretrained/seed{seed}/weights.prov.json",
    log:
        "<logs>/pretrain_own/{dataset}/{model}/seed{seed}.log",
    benchmark:
        "<benchmarks>/pretrain_own/{dataset}/{model}/seed{seed}.jsonl"
    wildcard_constraints:
        model=models_made_by("pretrain_own"),
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.pretrain
    resources:
        **needs("pretrain_own"),
    params:
        settings=settings_of("pretrain_own"),
    message:
        "Training {wildcards.model}, a network of the user's, on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/pretrain_own.py"


# A network that is trained together with its codebook, for one code length: a new one, or the model's trained one.
rule train_joint:
    input:
        images="<results>/{dataset}/images.h5",
        start=start_of_joint,
    output:
        weights="<results>/{dataset}/{model}-joint{bits}/seed{seed}/weights.pt",
        codewords="<results>/{dataset}/{model}-joint{bits}/seed{seed}/codewords.h5",
        history="<results>/{dataset}/{model}-joint{bits}/seed{seed}/training.csv",
        record="<results>/{dataset}/{model}-joint{bits}/seed{seed}/weights.prov.json",
    log:
        "<logs>/train_joint/{dataset}/{model}/seed{seed}/{bits}bits.log",
    benchmark:
        "<benchmarks>/train_joint/{dataset}/{model}/seed{seed}/{bits}bits.jsonl"
    wildcard_constraints:
        model=models_made_by("train_joint"),
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.pretrain
    resources:
        **needs("train_joint"),
    params:
        settings=settings_of("train_joint"),
    message:
        "Training {wildcards.model} with its {wildcards.bits}-bit codebook on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/train_joint.py"


# A network with the weights that the user has.
rule adopt:
    input:
        "<results>/{dataset}/images.h5",
    output:
        weights="<results>/{dataset}/{model}-pretrained/seed{seed}/weights.pt",
        history="<results>/{dataset}/{model}-pretrained/seed{seed}/training.csv",
        record="<results>/{dataset}/{model}-pretrained/seed{seed}/weights.prov.json",
    log:
        "<logs>/adopt/{dataset}/{model}/seed{seed}.log",
    benchmark:
        "<benchmarks>/adopt/{dataset}/{model}/seed{seed}.jsonl"
    wildcard_constraints:
        model=models_made_by("adopt"),
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        **needs("adopt"),
    params:
        settings=settings_of("adopt"),
    message:
        "Taking over {wildcards.model} for {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/adopt.py"


# The same for a network of the zoo that was trained together with its codebook, for one code length.
use rule adopt as adopt_joint with:
    output:
        weights="<results>/{dataset}/{model}-joint{bits}/seed{seed}/weights.pt",
        codewords="<results>/{dataset}/{model}-joint{bits}/seed{seed}/codewords.h5",
        history="<results>/{dataset}/{model}-joint{bits}/seed{seed}/training.csv",
        record="<results>/{dataset}/{model}-joint{bits}/seed{seed}/weights.prov.json",
    log:
        "<logs>/adopt_joint/{dataset}/{model}/seed{seed}/{bits}bits.log",
    benchmark:
        "<benchmarks>/adopt_joint/{dataset}/{model}/seed{seed}/{bits}bits.jsonl"
    wildcard_constraints:
        model=models_made_by("adopt_joint"),
    resources:
        **needs("adopt_joint"),
    params:
        settings=settings_of("adopt_joint"),
    message:
        "Taking over {wildcards.model} with its {wildcards.bits}-bit codebook for {wildcards.dataset} (seed {wildcards.seed})"


# The weights of another model of the study, for a victim that differs from it in its quantizer.
rule borrow:
    input:
        weights=like("weights.pt"),
        history=like("training.csv"),
    output:
        weights="<results>/{dataset}/{model}-pretrained/seed{seed}/weights.pt",
        history="<results>/{dataset}/{model}-pretrained/seed{seed}/training.csv",
        record="<results>/{dataset}/{model}-pretrained/seed{seed}/weights.prov.json",
    log:
        "<logs>/borrow/{dataset}/{model}/seed{seed}.log",
    benchmark:
        "<benchmarks>/borrow/{dataset}/{model}/seed{seed}.jsonl"
    wildcard_constraints:
        model=models_made_by("borrow"),
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("borrow"),
    params:
        settings=settings_of("borrow"),
    message:
        "Taking the weights of another model for {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/borrow.py"


rule extract:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
        shards=shards_of("extract"),
    output:
        database="<victim>/features/database.h5",
        query="<victim>/features/query.h5",
        record="<victim>/features/clean.prov.json",
    log:
        "<logs>/extract/<of_victim>.log",
    benchmark:
        "<benchmarks>/extract/<of_victim>.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: STUDY.threads.attack
    resources:
        **needs("extract"),
    params:
        settings=settings_of("extract"),
    message:
        "Extracting features of the database and the queries with {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/extract.py"


# Some of the images, where the study splits the extraction; `extract` joins their features.
use rule extract as extract_shard with:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
    output:
        temp("<victim>/features/clean.shard{shard}of{shards}.h5"),
        record=temp("<victim>/features/clean.shard{shard}of{shards}.prov.json"),
    log:
        "<logs>/extract/<of_victim>.shard{shard}of{shards}.log",
    benchmark:
        "<benchmarks>/extract/<of_victim>.shard{shard}of{shards}.jsonl"
    resources:
        **needs("extract_shard"),
    message:
        "Extracting features of the database and the queries with {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed}), shard {wildcards.shard} of {wildcards.shards}"


# The training images, for a codebook that is fitted to them.
use rule extract as extract_train with:
    input:
        images="<results>/{dataset}/images.h5",
        weights="<victim>/weights.pt",
    output:
        train="<victim>/features/train.h5",
        record="<victim>/features/train.prov.json",
    log:
        "<logs>/extract_train/<of_victim>.log",
    benchmark:
        "<benchmarks>/extract_train/<of_victim>.jsonl"
    resources:
        **needs("extract_train"),
    message:
        "Extracting features of the training images with {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"


# Its output, and that of `encode`, is spelled out: constraints of a rule do not reach wildcards in <victim>.
rule quantize:
    input:
        database="<victim>/features/database.h5",
        train=training_features,
    output:
        "<results>/{dataset}/{model}-{training}/seed{seed}/{bits}bits/codebook.h5",
        record="<results>/{dataset}/{model}-{training}/seed{seed}/{bits}bits/codebook.prov.json",
    log:
        "<logs>/quantize/<of_victim>/{bits}bits.log",
    benchmark:
        "<benchmarks>/quantize/<of_victim>/{bits}bits.jsonl"
    wildcard_constraints:
        training=PRETRAINED,
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("quantize"),
    params:
        settings=settings_of("quantize"),
    message:
        "Fitting the {wildcards.bits}-bit codebook of {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/quantize.py"


# The codes of the database by a codebook that was trained with the network.
rule encode:
    input:
        database="<victim>/features/database.h5",
        codewords="<victim>/codewords.h5",
    output:
        "<results>/{dataset}/{model}-{training}/seed{seed}/{bits}bits/codebook.h5",
        record="<results>/{dataset}/{model}-{training}/seed{seed}/{bits}bits/codebook.prov.json",
    log:
        "<logs>/encode/<of_victim>/{bits}bits.log",
    benchmark:
        "<benchmarks>/encode/<of_victim>/{bits}bits.jsonl"
    wildcard_constraints:
        training=rf"{JOINT}\d+",
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("encode"),
    params:
        settings=settings_of("encode"),
    message:
        "Encoding the database with the {wildcards.bits}-bit codebook of {wildcards.model} on {wildcards.dataset} (seed {wildcards.seed})"
    script:
        "../scripts/encode.py"
