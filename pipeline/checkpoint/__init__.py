"""Sharded checkpoints, bit-exact and elastic: docs/checkpoints.md explains the format.

layout      names and the sealed manifest      snapshot   what a rank saves, copied to host memory
saver       written beside the training        stored     opened, verified, read in parts
choose      the newest that is whole           retention  which are kept
manage      list, verify, convert, prune
"""
