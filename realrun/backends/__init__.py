"""Backends: how bytes travel between ranks, and the clocks that stamp them."""
