"""rpmem beside its rivals: every rival is a backend of the same workloads.

    python -m benchmarks              measure, write JSON, write the report
    python -m benchmarks --help

* ``raw/``        small C programs: libfabric and TCP without anything around, librpmem timed
* ``backends/``   one module per rival: how it is started, what it can do, why it is absent
* ``workloads/``  what is measured: which contestants, which sizes, in which rounds
* ``ratios.py``   the ratios to reach and which contestants they compare
* ``report.py``   Markdown and plots, from the JSON alone
"""
