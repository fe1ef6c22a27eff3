"""Ours beside the peers, each comparison in one run on one machine; `qx bench` drives them."""
