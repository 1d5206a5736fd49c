"""The comparison: contestants, what they are measured by, and how it is told.

Bottom up: machine, processes < site < contestants, load < scenarios < report < main.
"""
