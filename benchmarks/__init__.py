"""rpmem compared with its rivals: every rival is a backend of the same workloads.

    python -m benchmarks              measure, write JSON, write the report
    python -m benchmarks --help

* ``raw/``        small C programs: bare libfabric and TCP, timing of librpmem
* ``backends/``   one module per rival: how it is started, its operations, why it is absent
* ``workloads/``  the measurements: which contestants, which sizes, how many rounds
* ``ratios.py``   the ratios to reach and the contestants they compare
* ``report.py``   Markdown and plots, from the JSON alone
"""
