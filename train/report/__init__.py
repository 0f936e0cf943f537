"""``python -m train report``: trains every network under both protocols with several seeds, and tabulates it all."""
