"""How fast, how large and how exact pnpx is, beside what anyone could do at best and beside others.

``python -m benchmarks`` makes all tables in under ten minutes; each has a command of its own, see README.md.
"""
