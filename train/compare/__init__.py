"""``python -m train compare``: the PyTorch twin and our network, trained alike and held against each other.

Both start from the same weights and get the same images, patches, order, dropout masks and learning rates. Ours is
trained by `train.step.train_step`, the very function that trains, with its optimizer. What has to agree, and how far,
stands in `train.compare.verdict`.
"""
