# Recomputes the tables of "Adversarial Attack on Deep Product Quantization Network for Image Retrieval" (AAAI 2020).
#
#     snakemake --cores 8 all                                       the default study, config.yaml
#     snakemake --cores 8 table1                                    one table and what it needs
#     snakemake --configfile config/cifar10.yaml --cores 8 all      another study
from snakemake.utils import min_version

min_version("9.27")


# A study file stands for itself: what it does not say is the schema's default, never the default study's value.
if not workflow.configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/victims.smk"
include: "rules/attacks.smk"
include: "rules/evaluation.smk"
include: "rules/paper.smk"


rule all:
    default_target: True
    input:
        rules.table1.output,
    message:
        "Everything of the study {STUDY.study}"


onsuccess:
    show_results()
