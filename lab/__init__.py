"""The bench the lab stands on: seed streams, checkpoints, run directories, metrics, plots. Imports nothing of ours."""
