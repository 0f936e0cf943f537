"""The patch task, end to end: ``python -m train``."""
