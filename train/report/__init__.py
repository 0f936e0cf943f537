"""``python -m train report``: every network trained under both protocols with several seeds, and what came of it.

`plan` says which runs there are, `known` which of them other reports hold, `work` does those that are not done yet,
`collect` gathers what they came to (`outcomes`), `page` and `picture` show it. A run is a run folder as any other;
those of the PyTorch twins (`twin`) hold the same files.
"""
