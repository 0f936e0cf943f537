"""The speed report: flax_attn and the PyTorch reference timed in turn, with memory, and how both grow with size."""
