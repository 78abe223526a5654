"""What the benchmarks share: families of members, runs in work folders, results, tables and
pictures.
"""
