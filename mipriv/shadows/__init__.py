"""Shadow heads: many linear classifiers over the same features, each trained on records of its own.

Who trains on what is `design`, how is `recipes`, in which arithmetic `planner`; `heads` trains them all.
Nothing here knows of attacks or of where features come from.
"""
