"""The comparison: contestants, what they are measured by, and how it is told.

Bottom up: machine, processes, certificate < site < contestants, load < scenarios < edge < report < main.
"""
