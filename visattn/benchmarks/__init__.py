"""Speed comparisons with the usual alternatives, one file per subject; run by `visattn benchmark`.

A subject has the sizes that it is measured at (`FULL`, and `QUICK` to try it), the packages whose versions matter
beside ours (`PACKAGES`), and `measure`, which hands over tables. All runs of a table take turns in one process.
"""
