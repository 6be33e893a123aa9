"""Kernels started by `make lab` reload edited library files before each cell.

Only those kernels: the Makefile points IPYTHONDIR here for the session it starts, so papermill
runs and a person's other notebooks keep the modules they imported.
"""

c.InteractiveShellApp.extensions = ["autoreload"]
c.InteractiveShellApp.exec_lines = ["%autoreload 2"]
c.HistoryManager.enabled = False
