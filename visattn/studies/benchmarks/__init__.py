"""Speed comparisons with the usual alternatives, one file per subject; run by `visattn benchmark`.

A subject has problem sizes (`FULL`, and `QUICK` for a trial run), the packages whose versions matter
besides ours (`PACKAGES`), and `measure`, which returns tables. All runs of a table are interleaved in one process.
"""
