"""mipriv: what an image classifier gives away, and what each defence costs.

The science alone: no orchestrator, tracker or cluster is imported below this package.
"""
