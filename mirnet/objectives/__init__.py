"""Objectives: the terms that ``train.loss`` is a weighted sum of.

:mod:`~mirnet.objectives.registry` has one entry per term and loads without torch; each package
below has the terms of one kind, and :mod:`~mirnet.objectives.total` computes the sum.
"""
