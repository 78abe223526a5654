"""Turn a checked config into sizes, budgets and compute, without weights or data.

From how members learn alone it designs a chain: ``rates`` and ``law`` fit curves, ``lengths`` reads
them, ``design`` finds the cheapest chain, ``forecast`` says what comes of it, ``auto`` does all.

May import: config, growth, registry, interfaces and below.
"""
