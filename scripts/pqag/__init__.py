"""The library behind the workflow: attacks on deep product quantization retrieval (PQ-AG, AAAI 2020), and their evaluation.

Plain Python that knows nothing of Snakemake; the steps in ``scripts/`` call it. Paper: Feng, Chen, Dai, Xia, "Adversarial Attack on Deep
Product Quantization Network for Image Retrieval", AAAI 2020. Where the paper leaves a choice open, docs/protocol.md says what is done.
"""
