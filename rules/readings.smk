# Other readings of what the paper leaves open. Each is a study of its own: this one, with other values of some keys.
rule reading:
    input:
        weights=lent_weights,
    output:
        "<results>/readings/{reading}.json",
        record="<results>/readings/{reading}.prov.json",
    log:
        "<logs>/reading/{reading}.log",
    benchmark:
        "<benchmarks>/reading/{reading}.jsonl"
    conda:
        "../envs/steps.yaml"
    container:
        None
    threads: 2
    resources:
        **needs("reading"),
    params:
        settings=settings_of("reading"),
    message:
        "Trying another reading of the paper, {wildcards.reading}"
    script:
        "../scripts/reading.py"


rule ambiguity:
    input:
        readings=expand("<results>/readings/{reading}.json", reading=STUDY.readings),
    output:
        csv="<results>/ambiguity.csv",
        page="<results>/ambiguity.md",
        pdf="<results>/ambiguity.pdf",
        png="<results>/ambiguity.png",
        record="<results>/ambiguity.prov.json",
    log:
        "<logs>/ambiguity.log",
    benchmark:
        "<benchmarks>/ambiguity.jsonl"
    conda:
        "../envs/steps.yaml"
    threads: 1
    resources:
        **needs("ambiguity"),
    params:
        settings=settings_of("ambiguity"),
    message:
        "Comparing the readings of the paper"
    script:
        "../scripts/ambiguity.py"
