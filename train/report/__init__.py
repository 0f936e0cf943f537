"""``python -m train report``: trains every network under both protocols with several seeds, and tabulates the results.

`plan` lists the runs, `command` trains those that are missing, `outcomes` collects their results, `page` shows them.
"""
