"""Weights from and to the implementations the field trusts: one module a peer.

`load` takes the peer's own configuration and state dict and gives our module with those weights, in their type;
`save` gives both back, so that the peer loads them. What a configuration says that our modules cannot do is refused
by name, never passed over. Dropout is the exception: it is no part of what a trained network computes, and is dropped.
"""
