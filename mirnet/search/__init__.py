"""Search over networks, sizes and recipes: trials of equal time, judged on validation scenes.

Only :mod:`mirnet.search.tuning` knows Ray Tune. MLflow is written by the stage that calls it.
"""
