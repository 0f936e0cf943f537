"""Training, end to end: ``python -m train``."""
