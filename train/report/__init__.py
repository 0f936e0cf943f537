"""``python -m train report``: trains every network under both protocols with several seeds, and tabulates the results.

`runs` lists the runs and collects their results, `command` trains those that are missing, `page` shows them.
"""
