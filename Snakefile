# Recomputes the tables of "Adversarial Attack on Deep Product Quantization Network for Image Retrieval" (AAAI 2020).
#
#     snakemake --cores 8 all                                       the default study, config.yaml
#     snakemake --cores 8 table1                                    one table and what it needs
#     snakemake --configfile config/cifar10.yaml --cores 8 all      another study
include: "rules/patches.smk"


# A study file stands for itself: what it does not say is the schema's default, never the default study's value.
if not workflow.configfiles:

    configfile: "config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/targets.smk"
include: "rules/data.smk"
include: "rules/victims.smk"
include: "rules/attacks.smk"
include: "rules/evaluation.smk"
include: "rules/paper.smk"
include: "rules/figures.smk"
include: "rules/readings.smk"
include: "rules/audit.smk"


# It has no output, so it always runs: a result that was changed by hand makes nothing stale, and is found here. It asks for every file by
# name, since Snakemake would not miss one that was deleted while what was made from it is there.
rule all:
    default_target: True
    input:
        everything,
        rules.manifest.output,
        rules.report.output if RESOLVED["figures"]["models"] else [],
    log:
        "<logs>/verify.log",
    conda:
        "envs/steps.yaml"
    container:
        None
    threads: 1
    resources:
        **needs("all"),
    params:
        python=sys.executable,  # quoted in rules/patches.smk
        script=Path(workflow.basedir, "scripts/audit.py"),
        study=STUDY.study,
        settings=sha256_of_study(),
    message:
        "Verifying every file of the study {STUDY.study}"
    shell:
        "{params.python} {params.script:q} verify {params.study} --settings {params.settings} > {log} 2>&1"


onsuccess:
    show_results()
