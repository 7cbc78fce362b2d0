"""The verbs of ``scripts/audit.py``, one module each. verify, why and diff need the standard library alone."""
